"""Independent labels: a label's logit is the same alone, among others, in any order and in any division."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import CORPUS, INDEPENDENT, Spec, build_checkpoint, build_independent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gliclass_rerank import (
    CheckpointError,
    InputError,
    LabelTooLongError,
    Route,
    Router,
    ScoreRequest,
    UnreadableTextError,
    UnsupportedModelError,
    load_scorer,
)
from gliclass_rerank.export.onnx import export_checkpoint
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.scorers.base import LocalScorer
from gliclass_rerank.scorers.independent.arrays import label_block, label_passes
from gliclass_rerank.scorers.load import LoadedScorer
from gliclass_rerank.scorers.padded.forward import head
from gliclass_rerank.scorers.torch import TorchScorer
from gliclass_rerank.types import FloatArray

TOLERANCE = 1e-5
WORDS = sorted({word for line in CORPUS for word in line.split()})
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=90).map(" ".join)
READ = [word for word in WORDS if word.isascii() and word.isalpha()]  # by every tokenizer of the tests
read_texts = st.lists(st.sampled_from(READ), min_size=1, max_size=90).map(" ".join)
label_sets = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=12)
CALIBRATION = [ScoreRequest(text, ("science", "a question", "politics and law")) for text in CORPUS]
laws = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_independent(folder: Path) -> Path:
    """State in a checkpoint's folder that its labels are independent."""
    (folder / "gliclass_rerank.json").write_text(json.dumps({"labels": "independent"}), "utf-8")
    return folder


@pytest.fixture(scope="module", params=["bert", "electra", "roberta", "bert fp32", "roberta fp32", "bert int8"])
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalScorer:
    """A checkpoint on torch, or with a dtype as an ONNX export of it."""
    backbone, _, dtype = request.param.partition(" ")
    root = tmp_path_factory.mktemp("independent")
    folder = build_independent(root, name=f"independent-{backbone}", backbone=backbone)
    if dtype:
        export_checkpoint(folder, root / "exported", dtype=dtype, calibration=CALIBRATION)
        folder = root / "exported"
    loaded = load_scorer(folder)
    assert isinstance(loaded, LocalScorer)
    assert loaded.info.backend == ("onnx" if dtype else "torch")
    return loaded


def logits_of(scorer: LoadedScorer, text: str, labels: list[str]) -> FloatArray:
    return np.asarray(scorer.score([ScoreRequest(text, tuple(labels))])[0])


@laws
@given(text=texts, labels=label_sets, order=st.randoms())
def test_a_label_scores_the_same_alone_and_among_others(
    scorer: LocalScorer, text: str, labels: list[str], order: Random
) -> None:
    together = logits_of(scorer, text, labels)
    alone = np.concatenate([logits_of(scorer, text, [label]) for label in labels])
    assert together == pytest.approx(alone, abs=TOLERANCE)
    places = list(range(len(labels)))
    order.shuffle(places)
    assert logits_of(scorer, text, [labels[i] for i in places]) == pytest.approx(together[places], abs=TOLERANCE)


@pytest.mark.parametrize("backbone", ["bert", "roberta"])
def test_int8_is_near_and_a_missing_graph_of_labels_is_named(backbone: str, tmp_path: Path) -> None:
    folder = build_independent(tmp_path, name=f"near-{backbone}", backbone=backbone)
    export_checkpoint(folder, tmp_path / "int8", calibration=CALIBRATION)
    labels = ["law", "music and travel", "a question of health"]
    exact, rounded = (logits_of(load_scorer(path), CORPUS[0], labels) for path in (folder, tmp_path / "int8"))
    assert rounded == pytest.approx(exact, abs=0.2)
    for file in (tmp_path / "int8").glob("model.labels*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"no model\.labels.*export the checkpoint again"):
        load_scorer(tmp_path / "int8", backend="onnx")


def test_int8_graphs_depend_on_the_weights_alone(tmp_path: Path) -> None:
    folder = build_independent(tmp_path, name="weights-alone", backbone="electra")
    export_checkpoint(folder, tmp_path / "once", calibration=CALIBRATION)
    export_checkpoint(tmp_path / "once", tmp_path / "again")
    files = [file.name for file in (tmp_path / "once").iterdir()]
    assert {"model.onnx", "model.labels.onnx", "model.u8u8.onnx", "model.labels.u8u8.onnx"} <= set(files)
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "once" / name).read_bytes(), name


@pytest.mark.parametrize("backbone", ["bert", "electra", "roberta"])
def test_int8_keys_and_values_are_near(backbone: str, tmp_path: Path) -> None:
    folder = build_independent(tmp_path, name=f"steps-{backbone}", backbone=backbone)
    scorer: Any = load_scorer(folder)
    forward = scorer._runner.module.module
    items = [one.sequences[0] for one in scorer.encode([ScoreRequest(text, ("law",)) for text in CORPUS])]
    lengths = torch.tensor([len(item.ids) for item in items])
    ids = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(item.ids.astype(np.int64)) for item in items], True)
    with torch.inference_mode():
        state, steps = forward.read(ids, lengths), forward.steps()
        rounded = state.rounded(steps)
        inside = (torch.arange(ids.shape[1]) < lengths[:, None])[:, None, :, None]
        for kind, exact, found in (0, state.keys, rounded.keys), (1, state.values, rounded.values):
            for one, other, step in zip(exact, found, steps, strict=True):
                assert other.dtype == torch.int8
                away = (one - other * step[kind]).abs() * inside
                assert (away <= step[kind] * 0.51).float().mean() > 0.999  # hardly any is beyond the reach


@laws
@given(text=texts, labels=label_sets)
def test_logits_are_those_of_one_sequence_with_a_mask(scorer: LocalScorer, text: str, labels: list[str]) -> None:
    if not isinstance(scorer, TorchScorer):
        return
    (sequence,) = scorer.encode([ScoreRequest(text, tuple(labels), long_text="truncate")])[0].sequences
    found = scorer.score([ScoreRequest(text, tuple(labels), long_text="truncate")])[0]
    assert np.asarray(found) == pytest.approx(masked_logits(scorer, sequence), abs=TOLERANCE)


def masked_logits(scorer: TorchScorer, sequence: EncodedSequence) -> FloatArray:
    """The same model by transformers' own layers: all blocks in one sequence, and a mask that keeps them apart."""
    runner: Any = scorer._runner
    model: Any = runner.module.module.model
    encoder: Any = model.model.encoder_model
    encoder.set_attn_implementation("eager")
    size = len(sequence.ids)
    ids = torch.from_numpy(np.concatenate([sequence.ids, sequence.side]).astype(np.int64))[None]
    block, positions = np.zeros(ids.shape[1], int), np.arange(ids.shape[1])
    for i, (start, end) in enumerate(sequence.label_spans):
        block[size + start : size + end] = i + 1
        positions[size + start : size + end] = np.arange(1, end - start + 1)
    if encoder.config.model_type == "roberta":
        positions += encoder.config.pad_token_id + 1
    sees = torch.from_numpy((block == 0) | (block[:, None] == block))
    mask = torch.where(sees, 0.0, torch.finfo(torch.float32).min)[None, None]
    with torch.inference_mode():
        hidden = encoder.embeddings(input_ids=ids, position_ids=torch.from_numpy(positions)[None])
        for layer in encoder.encoder.layer:
            output = layer(hidden, attention_mask=mask)
            hidden = output[0] if isinstance(output, tuple) else output
        labels = [hidden[0, size + start : size + end].mean(0) for start, end in sequence.label_spans]
        text = hidden[:, :size].mean(1)
        logits = head(model, text, torch.stack(labels)[None], torch.ones(1, 1, dtype=torch.bool))
    found: FloatArray = logits[0].numpy()
    return found


def test_long_texts_are_read_in_windows_and_labels_take_no_room_from_them(scorer: LocalScorer) -> None:
    text = " ".join(WORDS * 30)
    few, many = ["law"], ["law", *(" ".join(WORDS[i : i + 12]) for i in range(200))]
    one, all_of_them = (scorer.score([ScoreRequest(text, tuple(labels))])[0] for labels in (few, many))
    assert len(one.spans) > 1
    assert one.spans == all_of_them.spans
    assert all_of_them.per_window[:, 0] == pytest.approx(one.per_window[:, 0], abs=TOLERANCE)


def test_a_label_longer_than_the_positions_is_refused(scorer: LocalScorer) -> None:
    with pytest.raises(LabelTooLongError, match="labels are never cut"):
        logits_of(scorer, "a text", ["law", "law " * scorer.info.max_length])


def test_every_label_is_in_exactly_one_pass_of_limited_size(scorer: LocalScorer) -> None:
    labels = [" ".join(WORDS[i : i + 1 + (7 * i) % 20]) for i in range(60)]
    requests = [ScoreRequest(f"text {i}", tuple(labels[i : i + size])) for i, size in enumerate((50, 3, 17))]
    batch = [item for request in scorer.encode(requests) for item in request.sequences]
    found: list[tuple[int, int]] = []
    for part in label_passes(batch, 0, max_tokens=300):
        assert part.ids.size <= 300 or part.ids.shape[1] == 1
        for t, c in zip(*np.nonzero(part.widths), strict=True):
            place = int(part.places[t, c])
            found.append((int(t), place))
            assert part.ids[t, c, : part.widths[t, c]].tolist() == label_block(batch[t], place).tolist()
    assert sorted(found) == [(t, place) for t, size in enumerate((50, 3, 17)) for place in range(size)]


@laws
@given(many=st.lists(read_texts, min_size=1, max_size=6))
def test_a_vector_has_length_one_and_is_the_same_in_any_batch(scorer: LocalScorer, many: list[str]) -> None:
    vectors = scorer.embed(many)
    assert vectors.shape == (len(many), scorer.embed(["a text"]).shape[1])
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(many)), abs=TOLERANCE)
    alone = np.concatenate([scorer.embed([text]) for text in many])
    assert vectors == pytest.approx(alone, abs=TOLERANCE)


def test_a_long_text_is_embedded_whole(scorer: LocalScorer) -> None:
    start = " ".join(READ * 10)
    first, second = scorer.embed([f"{start} {' '.join(READ[:40])}", f"{start} {' '.join(READ[-40:])}"])
    assert not np.allclose(first, second, atol=1e-4)


def test_vectors_are_refused_without_texts_and_by_joint_models(scorer: LocalScorer) -> None:
    assert scorer.info.embeds
    with pytest.raises(InputError, match="at least one"):
        scorer.embed([])


def test_a_joint_model_has_no_vectors(tmp_path: Path) -> None:
    joint = load_scorer(build_checkpoint(Spec("joint", "bert", INDEPENDENT), tmp_path).folder)
    assert isinstance(joint, LocalScorer)
    assert not joint.info.embeds
    with pytest.raises(UnsupportedModelError, match=r"info\.embeds"):
        joint.embed(["a text"])


def test_routes_are_read_together_however_many_there_are(scorer: LocalScorer) -> None:
    routes = [Route(f"route {i}", " ".join(WORDS[i % 20 : i % 20 + 4])) for i in range(300)]
    router = Router(routes, scorer)
    plan = router.plan(["a question about law", "music"])
    assert [len(request.labels) for request in next(plan)] == [300, 300]
    plan.close()
    turned = Router(routes[::-1], scorer).route("a question about law")
    found = router.route("a question about law")
    assert found.name == turned.name
    assert [found.scores[route.name] for route in routes] == pytest.approx(
        [turned.scores[route.name] for route in routes], abs=TOLERANCE
    )


@pytest.mark.parametrize(
    ("flag", "value"),
    [("class_token_pooling", "first"), ("pooling_strategy", "first"), ("use_segment_embeddings", True)],
)
def test_a_checkpoint_that_cannot_have_independent_labels_names_the_flag(
    flag: str, value: object, tmp_path: Path
) -> None:
    folder = build_checkpoint(Spec("refused", "bert", INDEPENDENT | {flag: value}), tmp_path).folder
    with pytest.raises(UnsupportedModelError, match=f"independent labels need {flag}="):
        load_scorer(as_independent(folder))


def test_another_backbone_is_refused_by_name(tmp_path: Path) -> None:
    folder = build_checkpoint(Spec("refused", "distilbert", INDEPENDENT), tmp_path).folder
    with pytest.raises(UnsupportedModelError, match="got 'distilbert'"):
        load_scorer(as_independent(folder))


def test_an_unknown_attention_of_labels_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint(Spec("refused", "bert", INDEPENDENT), tmp_path).folder
    (folder / "gliclass_rerank.json").write_text('{"labels": "apart"}', "utf-8")
    with pytest.raises(CheckpointError, match="labels: expected joint or independent, got 'apart'"):
        load_scorer(folder)


def test_the_option_alone_makes_the_difference(scorer: LocalScorer, tmp_path: Path) -> None:
    folder = build_checkpoint(Spec("joint", "bert", INDEPENDENT), tmp_path).folder
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    joint, labels = load_scorer(folder), ["law", "music and travel", "weather"]
    assert not joint.info.independent_labels
    assert scorer.info.independent_labels
    together, alone = logits_of(joint, CORPUS[0], labels), logits_of(joint, CORPUS[0], labels[:1])
    assert abs(together[0] - alone[0]) > TOLERANCE


def test_a_request_scores_the_same_among_texts_of_other_lengths(scorer: LocalScorer) -> None:
    labels = ("law", "a cat in the river", "music and bread")
    requests = [ScoreRequest(" ".join(WORDS[i : i + 1 + 9 * i]), labels) for i in range(12)]
    together = np.stack(scorer.score(requests))
    alone = np.stack([scorer.score([request])[0] for request in requests])
    assert together == pytest.approx(alone, abs=TOLERANCE)


def test_training_reads_the_same_logits_in_one_sequence(scorer: LocalScorer) -> None:
    if not isinstance(scorer, TorchScorer):
        return
    requests = [ScoreRequest(text, tuple(WORDS[i : i + 1 + 3 * i])) for i, text in enumerate(CORPUS[:4])]
    batch = [item for request in scorer.encode(requests) for item in request.sequences]
    runner = scorer._runner
    with torch.inference_mode():
        divided, vectors = runner.both(batch)
        runner.module.training = True  # and not its parts, which would drop some values
        whole = runner.both(batch)
    runner.module.training = False
    for item, one, other in zip(batch, divided, whole[0], strict=True):
        count = len(item.labels)
        assert one[:count].numpy() == pytest.approx(other[:count].numpy(), abs=TOLERANCE)
    assert vectors is not None
    assert whole[1] is not None
    assert vectors.numpy() == pytest.approx(whole[1].numpy(), abs=TOLERANCE)


def test_a_text_that_cannot_be_read_or_has_no_room_has_no_vector(scorer: LocalScorer, tmp_path: Path) -> None:
    if "roberta" not in scorer.info.name:  # a byte-level vocabulary reads everything
        with pytest.raises(UnreadableTextError, match="text 1"):
            scorer.embed(["a text", "ꙮꙮꙮ"])
    with pytest.raises(LabelTooLongError, match="tokens of the text"):
        scorer.score([ScoreRequest("a text", ("law",), prompt="word " * scorer.info.max_length)])

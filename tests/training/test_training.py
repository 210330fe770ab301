"""Training: records, examples, losses, the loop, resuming, adapters, and a start from a plain encoder."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Tiny
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from transformers import BertModel

from gliclass_rerank import InputError, NonFiniteError, OptionError, ScoreRequest, UnsupportedModelError, load_scorer
from gliclass_rerank.calibration.calibrators import PlattCalibrator
from gliclass_rerank.calibration.file import write_calibration
from gliclass_rerank.models.adapter import with_adapter
from gliclass_rerank.models.checkpoint import read_checkpoint
from gliclass_rerank.scorers.torch import TorchScorer, load_model
from gliclass_rerank.training.config import Lora, Source, TrainConfig, read_config
from gliclass_rerank.training.data.examples import ExampleBuilder, TrainingExample, softmax
from gliclass_rerank.training.data.records import (
    FactRecord,
    LabelRecord,
    PoolRecord,
    RankingRecord,
    Record,
    parse_record,
    read_records,
)
from gliclass_rerank.training.init_from_encoder import new_checkpoint
from gliclass_rerank.training.losses import example_loss
from gliclass_rerank.training.model import TARGETS, merge_adapter
from gliclass_rerank.training.sampler import MixtureSampler
from gliclass_rerank.training.trainer import Trainer, keep_metrics_until, train
from gliclass_rerank.types import Direction

QUIET = Console(quiet=True)
TOPICS = ("science", "music", "law", "cooking")
SENTENCES = {
    "science": "Photosynthesis stores the energy of sunlight in sugar.",
    "music": "She plays the violin in an orchestra.",
    "law": "The court found that the contract was void.",
    "cooking": "Bread rises because yeast turns sugar into gas.",
}
REQUESTS = [ScoreRequest(text, TOPICS) for text in SENTENCES.values()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file with records of all three kinds, which even a tiny model can learn by heart."""
    rows: list[dict[str, Any]] = []
    for topic, text in SENTENCES.items():
        others = [other for other in SENTENCES.values() if other != text]
        rows.append({"text": text, "all_labels": list(TOPICS), "true_labels": [topic]})
        rows.append({"query": topic, "positive": text, "negatives": others, "scores": [3, 1, 0, -1]})
        rows.append({"premise": text, "hypothesis": f"about {topic}", "label": "supported"})
        rows.append({"premise": text, "hypothesis": "about sports", "label": "refuted"})
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def config_for(model: Path, data: Path, out: Path, **options: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(model), "out": out, "train": (Source(file=data),), "steps": 6, "step_tokens": 200,
        "batch_tokens": 100, "learning_rate": 1e-3, "eval_every": 2, "threads": 1, "precision": "fp32",
    }  # fmt: skip
    return TrainConfig(**(values | options))


def logits_of(scorer: Any, requests: list[ScoreRequest] = REQUESTS) -> np.ndarray[Any, Any]:
    return np.concatenate(scorer.score(requests))


# Records

MALFORMED = [
    ("{", "not readable as JSON"),
    ("[1]", "expected a JSON object"),
    ('{"title": "x"}', 'expected "text", "query", "queries" or "premise"'),
    ('{"query": "q"}', '"positive"'),
    ('{"query": "", "positive": "p"}', '"query"'),
    ('{"query": "q", "positive": "p", "negatives": "n"}', '"negatives"'),
    ('{"query": "q", "positive": "p", "negatives": ["n"], "scores": [1]}', "2 finite numbers"),
    ('{"query": "q", "positive": "p", "negatives": ["n"], "scores": [1, NaN]}', "finite"),
    ('{"queries": ["q"], "passages": [], "relevance": [[]]}', '"passages"'),
    ('{"queries": ["q"], "passages": ["p"], "relevance": [1]}', "1 finite numbers"),
    ('{"queries": ["q", "r"], "passages": ["p"], "relevance": [[1]]}', "2 rows, one for each query"),
    ('{"queries": ["q"], "passages": ["p"], "relevance": [[2]]}', "weights in [0, 1]"),
    ('{"queries": ["q"], "passages": ["p"], "relevance": [null]}', '"scores"'),
    ('{"queries": ["q"], "passages": ["p"], "relevance": [null], "scores": [null]}', '"scores"'),
    ('{"premise": "p", "hypothesis": "h", "label": "maybe"}', '"label"'),
    ('{"premise": "p", "label": "nei"}', '"hypothesis" is missing'),
    ('{"text": "t", "all_labels": [], "true_labels": []}', '"all_labels"'),
    ('{"text": "t", "all_labels": ["a"], "true_labels": ["b"]}', "'b' is not among"),
    ('{"text": "t", "all_labels": ["a"], "true_labels": {"a": 2}}', "weights in [0, 1]"),
    ('{"text": "t", "all_labels": ["a"], "true_labels": "a"}', "expected a list"),
    ('{"text": "t\\u0000", "all_labels": ["a"], "true_labels": ["a"]}', "NUL"),
    ('{"text": "t", "all_labels": ["a"], "true_labels": ["a"], "examples": [{"text": "e"}]}', '"examples"'),
]


@pytest.mark.parametrize(("line", "message"), MALFORMED)
def test_malformed_record_is_named_by_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"query": "q", "positive": "p"}\n\n' + line + "\n", "utf-8")
    with pytest.raises(InputError) as caught:
        read_records(file)
    assert f"{file}, line 3" in str(caught.value)
    assert message in str(caught.value)


def test_malformed_record_stops_training_before_it_starts(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    data.write_text(data.read_text("utf-8") + '{"query": 1, "positive": "p"}\n', "utf-8")
    with pytest.raises(InputError, match=r"line 17: \"query\""):
        train(config_for(tiny("bert-simple").folder, data, tmp_path / "run"), console=QUIET)
    assert not (tmp_path / "run").exists()


def test_upstream_json_array_weights_prompts_and_examples_are_read(tmp_path: Path) -> None:
    value = {
        "text": "t", "all_labels": ["a", "b"], "true_labels": {"b": 0.5}, "prompt": "p",
        "examples": [{"text": "e", "labels": ["a"]}],
    }  # fmt: skip
    file = tmp_path / "train.json"
    file.write_text(json.dumps([value]), "utf-8")
    (record,) = read_records(file)
    assert isinstance(record, LabelRecord)
    assert record.weights == (0.0, 0.5)
    assert (record.prompt, record.examples[0].labels) == ("p", ("a",))


# Examples and losses


@given(
    positives=st.integers(1, 3),
    negatives=st.integers(0, 9),
    size=st.integers(2, 6),
    distillation_weight=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_ranking_examples_have_one_positive_and_shares_that_sum_to_one(
    positives: int, negatives: int, size: int, distillation_weight: float, seed: int
) -> None:
    names = tuple(f"passage {i}" for i in range(positives + negatives))
    record = RankingRecord("q", names[:positives], names[positives:], tuple(float(i) for i in range(len(names))))
    example = ExampleBuilder(list_size=size, distillation_weight=distillation_weight)(record, random.Random(seed))
    assert len(example.requests) == len(example.targets) == min(size, negatives + 1)
    assert example.targets.tolist() == [1.0] + [0.0] * (len(example.targets) - 1)
    assert example.requests[0].text in record.positives
    assert all(request.text in record.negatives for request in example.requests[1:])
    if example.list_targets is None:
        assert not negatives
    else:
        assert example.list_targets.sum() == pytest.approx(1, abs=1e-6)


@given(
    queries=st.integers(1, 4),
    passages=st.integers(1, 5),
    unjudged=st.integers(0, 4),
    direction=st.sampled_from(["passage-as-text", "passage-as-label"]),
    seed=st.integers(0, 99),
)
def test_a_pool_is_a_list_for_each_query_whatever_the_direction(
    queries: int, passages: int, unjudged: int, direction: Direction, seed: int
) -> None:
    """Each logit's request says which query and passage it is of; targets and shares must be that pair's."""
    rng = random.Random(seed)
    q_names, p_names = tuple(f"query {i}" for i in range(queries)), tuple(f"passage {i}" for i in range(passages))
    relevance = tuple(None if q < unjudged else tuple(rng.random() for _ in p_names) for q in range(queries))
    scores = tuple(tuple(rng.gauss(0, 3) for _ in p_names) for _ in q_names)
    make = ExampleBuilder(direction=direction, distillation_weight=1.0)
    example = make(PoolRecord(q_names, p_names, relevance, scores), rng)
    pairs = [(request.text, label) for request in example.requests for label in request.labels]
    if direction == "passage-as-text":
        pairs = [(query, passage) for passage, query in pairs]
    assert sorted(pairs) == sorted((q, p) for q in q_names for p in p_names)
    for (query, passage), target in zip(pairs, example.targets, strict=True):
        row = relevance[q_names.index(query)]
        expected = np.nan if row is None else row[p_names.index(passage)]
        np.testing.assert_allclose(target, np.float32(expected))
    if passages == 1:
        assert example.list_indices is None
        return
    assert example.list_indices is not None
    assert example.list_targets is not None
    assert example.weight == queries
    for places, shares in zip(example.list_indices, example.list_targets, strict=True):
        ((query, *_),) = ({pairs[place][0] for place in places},)
        by_passage = {pairs[place][1]: share for place, share in zip(places, shares, strict=True)}
        teacher = softmax(np.array(scores[q_names.index(query)], np.float32))
        np.testing.assert_allclose([by_passage[p] for p in p_names], teacher, atol=1e-6)


def test_an_answerless_query_without_a_teacher_is_in_no_list() -> None:
    record = PoolRecord(("asked", "stranger"), ("p", "r"), ((1.0, 0.0), (0.0, 0.0)))
    example = ExampleBuilder()(record, random.Random(0))
    assert example.list_indices is not None
    assert example.list_targets is not None
    assert example.list_indices.shape == example.list_targets.shape == (1, 2)
    assert sorted(example.targets.tolist()) == [0, 0, 0, 1]
    assert example.list_targets.tolist() == [[1, 0]]


def test_fact_examples_ask_for_the_claim_and_its_denial() -> None:
    for label, targets in (("supported", [1, 0]), ("refuted", [0, 1]), ("not_enough_info", [0, 0])):
        record = parse_record({"premise": "p", "hypothesis": "h", "label": label}, "here")
        assert isinstance(record, FactRecord)
        example = ExampleBuilder()(record, random.Random(0))
        assert example.requests[0].labels == ("h", "It is false that h")
        assert example.targets.tolist() == targets


def test_labels_are_drawn_with_all_true_ones_and_stay_with_their_targets() -> None:
    labels = tuple(f"label {i}" for i in range(50))
    record = LabelRecord("t", labels, tuple(float(i in (7, 40)) for i in range(50)))
    example = ExampleBuilder(max_labels=10)(record, random.Random(1))
    shown = example.requests[0].labels
    assert len(shown) == len(set(shown)) == 10
    assert {label for label, target in zip(shown, example.targets, strict=True) if target} == {"label 7", "label 40"}
    assert example.list_targets is None  # of two true labels none is the better one


def test_loss_is_the_formula() -> None:
    logits = torch.tensor([1.0, -0.5, 0.25])
    targets = np.array([1, 0, 0], np.float32)
    shares = np.array([0.7, 0.2, 0.1], np.float32)
    example = TrainingExample((ScoreRequest("t", ("a", "b", "c")),), targets, np.arange(3)[None], shares[None])
    p = 1 / (1 + np.exp(-logits.numpy()))
    bce = -(np.log(p[0]) + np.log(1 - p[1]) + np.log(1 - p[2])) / 3
    listwise = -(shares * np.log(softmax(logits.numpy()))).sum()
    both = float(example_loss(logits, example, bce_weight=0.5, listwise_weight=2.0))
    assert both == pytest.approx(0.5 * bce + 2 * listwise, abs=1e-6)
    alone = TrainingExample(example.requests, targets)
    assert float(example_loss(logits, alone, bce_weight=1.0, listwise_weight=2.0)) == pytest.approx(bce, abs=1e-6)


def test_loss_of_unknown_targets_and_of_several_lists() -> None:
    logits = torch.tensor([1.0, -0.5, 0.25, 2.0], requires_grad=True)
    unknown = np.array([1, np.nan, 0, np.nan], np.float32)
    lists, shares = np.array([[0, 2], [3, 1]]), np.array([[0.5, 0.5], [1, 0]], np.float32)
    example = TrainingExample((ScoreRequest("t", ("a", "b", "c", "d")),), unknown, lists, shares)
    values = logits.detach().numpy()
    bce = (np.log1p(np.exp(-values[0])) + np.log1p(np.exp(values[2]))) / 2
    rows = np.log(softmax(values[[0, 2]])), np.log(softmax(values[[3, 1]]))
    listwise = -((rows[0] * shares[0]).sum() + (rows[1] * shares[1]).sum()) / 2
    loss = example_loss(logits, example, bce_weight=0.5, listwise_weight=2.0)
    assert float(loss) == pytest.approx(0.5 * bce + 2 * listwise, abs=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    nobody = TrainingExample(example.requests, np.full(4, np.nan, np.float32))
    assert float(example_loss(logits, nobody, bce_weight=1.0, listwise_weight=1.0)) == 0


# The loop


@pytest.mark.parametrize(
    "name", ["bert-average-text", "modernbert-mlp", "deberta-cross-attn", "bi-encoder", "t5-encoder", "fused"]
)
def test_training_learns_and_the_model_loads(name: str, tiny: Tiny, data: Path, tmp_path: Path) -> None:
    budget = {"steps": 30, "eval_every": 30, "step_tokens": 1000, "batch_tokens": 500, "learning_rate": 2e-3}
    config = config_for(tiny(name).folder, data, tmp_path / "run", dropout=0.0, **budget)
    model = train(config, console=QUIET)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 30
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    before, after = logits_of(load_scorer(tiny(name).folder, backend="torch")), logits_of(load_scorer(model))
    assert np.abs(before - after).max() > 1e-3
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000


def test_a_killed_run_goes_on_to_the_same_weights(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, then the same command again; against a run that nobody disturbed."""
    template = (
        'model = "{model}"\nout = "{out}"\nsteps = 40\nstep_tokens = 300\neval_every = 4\nthreads = 1\nema = 0.9\n'
        'learning_rate = 1e-3\ndev = ["{data}"]\n[[train]]\nfile = "{data}"\n'
    )
    model = tiny("bert-average-text").folder
    configs = {}
    for out in ("whole", "killed"):
        configs[out] = tmp_path / f"{out}.toml"
        configs[out].write_text(template.format(model=model, out=tmp_path / out, data=data), "utf-8")
    command = [sys.executable, "-m", "gliclass_rerank.cli", "train", str(configs["killed"])]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(tmp_path / "killed" / "state.pt", process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    step_when_killed = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)["state"]["step"]
    assert 0 < step_when_killed < 40
    train(read_config(configs["killed"]), console=QUIET)
    train(read_config(configs["whole"]), console=QUIET)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    metrics = [(tmp_path / name / "metrics.jsonl").read_text("utf-8").splitlines() for name in ("whole", "killed")]
    steps = [[json.loads(line)["step"] for line in lines] for lines in metrics]
    assert steps[0] == steps[1]


@given(st.data())
def test_of_a_torn_log_every_whole_line_is_kept(drawn: Any) -> None:
    """Whatever a kill has left of the last line, and whatever of it is later than the checkpoint."""
    steps = drawn.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    lines = [json.dumps({"step": step, "sources": {"0 é.jsonl": 0.5}}) for step in steps]
    whole = "".join(f"{line}\n" for line in lines).encode()
    left = whole[: drawn.draw(st.integers(0, len(whole)))]
    left += drawn.draw(st.sampled_from([b"", b"\0\0\0", b"\xc3"])) if left.endswith(b"\n") else b""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "metrics.jsonl"
        file.write_bytes(left)
        keep_metrics_until(file, 5)
        kept = file.read_text("utf-8").splitlines()
        assert list(Path(folder).iterdir()) == [file]
    intact = [line for line in left.decode("utf-8", "replace").split("\n") if line in lines]
    assert kept == [line for line in intact if json.loads(line)["step"] <= 5]


def test_a_run_with_a_torn_log_is_resumed(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder, out = tiny("bert-simple").folder, tmp_path / "run"
    train(config_for(folder, data, out, steps=2), console=QUIET)
    with (out / "metrics.jsonl").open("rb+") as log:
        log.truncate((out / "metrics.jsonl").stat().st_size - 7)
    train(config_for(folder, data, out, steps=4), console=QUIET)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [1, 3, 4]  # what the torn line told is lost, and nothing else


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not file.is_file():
        assert process.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_run_refuses_the_checkpoint_of_another(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder = tiny("bert-simple").folder
    train(config_for(folder, data, tmp_path / "run", steps=2), console=QUIET)
    with pytest.raises(InputError, match="learning_rate"):
        train(config_for(folder, data, tmp_path / "run", steps=2, learning_rate=1e-2), console=QUIET)
    train(config_for(folder, data, tmp_path / "run", steps=4), console=QUIET)  # a larger budget is no other run


def test_frozen_weights_do_not_move_and_patience_stops(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder = tiny("bert-average-text").folder
    config = config_for(
        folder, data, tmp_path / "run", steps=50, eval_every=1, patience=2, dev=(data,), freeze=("encoder_model",),
        learning_rate=1e-9,
    )  # fmt: skip
    model = train(config, console=QUIET)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["state"]["step"] == 3  # the first is the best, the next two are no better
    before, after = load_file(folder / "model.safetensors"), load_file(model / "model.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before if "encoder_model" in key)


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    config = config_for(tiny("bert-simple").folder, data, tmp_path / "run")
    trainer = Trainer(config, [read_records(data)], [])
    with torch.no_grad():
        for parameter in trainer.trained.values():
            parameter.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="step 0"):
        trainer.run(QUIET)


def test_a_stream_is_the_same_again_and_repeats_nothing_before_its_time(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    config = config_for(tiny("bert-simple").folder, data, tmp_path / "run")

    def stream() -> MixtureSampler:
        return Trainer(config, [read_records(data)], []).stream

    one, other = stream(), stream()
    drawn = []
    for step in range(6):
        examples = one.step(step)
        assert [e.example.requests for e in examples] == [e.example.requests for e in other.step(step)]
        drawn += examples
    records = len(read_records(data))
    source = stream().sources[0]
    assert len({id(source.draw()) for _ in range(records)}) == records
    assert len(drawn) == one.sources[0].drawn


def test_each_turn_has_every_record_once_in_an_order_of_its_own(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    trainer = Trainer(config_for(tiny("bert-simple").folder, data, tmp_path / "run"), [read_records(data)], [])
    records = [FactRecord(f"premise {i}", "hypothesis", "not_enough_info") for i in range(30)]
    fields: dict[str, Any] = {"name": "0 a.jsonl", "records": records, "seed": 1, "drawn": 0}

    def turns(**others: Any) -> list[list[Record]]:
        source = replace(trainer.stream.sources[0], _order=(-1, []), **(fields | others))
        return [[source.draw() for _ in records] for _ in range(3)]

    drawn = [*turns(), *turns(seed=2), *turns(name="1 b.jsonl")]
    assert all(set(turn) == set(records) for turn in drawn)
    assert len({tuple(order) for order in [*drawn, list[Record](records)]}) == len(drawn) + 1
    assert turns() == drawn[:3]
    assert turns(drawn=30)[:2] == drawn[1:3]  # where a resumed run begins


@pytest.mark.parametrize("max_grad_norm", [0.01, 1e6])
def test_a_step_is_the_formula(max_grad_norm: float, tiny: Tiny, tmp_path: Path) -> None:
    """Examples by their weight, the gradient clipped as a whole, AdamW with decay where it belongs, and the mean."""
    data = tmp_path / "records.jsonl"
    rows: list[dict[str, Any]] = [
        {"queries": ["law", "music", "cooking"], "passages": ["the court", "a violin"],
         "relevance": [[1, 0], [0, 1], [1, 0]]},
        {"premise": "She plays the violin.", "hypothesis": "about music", "label": "supported"},
    ]  # fmt: skip
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    config = config_for(
        tiny("bert-average-text").folder, data, tmp_path / "run", ema=0.9, dropout=0.0, weight_decay=0.5,
        max_grad_norm=max_grad_norm, warmup=0.0, step_tokens=400,
    )  # fmt: skip
    trainer = Trainer(config, [read_records(data)], [])
    examples = trainer.stream.step(0)
    weights = [3 if len(item.example.requests) == 2 else 1 for item in examples]  # every query and claim alike
    assert {1, 3} == set(weights)
    before = {name: parameter.detach().clone() for name, parameter in trainer.trained.items()}
    losses = trainer._losses(examples)
    whole = torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)
    found = torch.autograd.grad(whole, list(trainer.trained.values()), allow_unused=True)
    gradients = dict(zip(before, found, strict=True))
    norm = torch.stack([(g * g).sum() for g in gradients.values() if g is not None]).sum().sqrt()
    assert 0.05 < norm < 1e5
    trainer._step(examples)

    for name, gradient in gradients.items():
        now, old = trainer.trained[name].detach(), before[name]
        if gradient is None:
            assert torch.equal(now, old)
            continue
        clipped = gradient * min(1.0, max_grad_norm / float(norm))
        seen = trainer.optimizer.state[trainer.trained[name]]["exp_avg"] / 0.1  # after one step
        torch.testing.assert_close(seen, clipped, rtol=1e-3, atol=1e-4 * max_grad_norm if max_grad_norm < 1 else 1e-5)
        decay = 0.0 if "bias" in name or "norm" in name.lower() or "logit_scale" in name else 0.5
        moved = old * (1 - 1e-3 * decay) - 1e-3 * seen / (seen.abs() + 1e-8)
        torch.testing.assert_close(now, moved, rtol=1e-4, atol=2e-5)
        # The mean forgets nine tenths of its beginning in the first step, whatever the decay.
        torch.testing.assert_close(trainer.mean[name], 0.1 * old + 0.9 * now)


def test_what_was_fitted_to_the_old_weights_is_dropped(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny("bert-simple").folder, folder)
    (folder / "gliclass_rerank.json").write_text(json.dumps({"first_stage_weight": 0.5, "max_labels": 9}), "utf-8")
    write_calibration(folder, {"relevance": PlattCalibrator(2.0, 1.0)})
    base = load_scorer(folder, backend="torch").info
    assert (base.first_stage_weight, base.calibrated) == (0.5, True)
    kinds: list[dict[str, Any]] = [{}, {"lora": Lora(r=2)}]
    for kind in kinds:
        model = train(config_for(folder, data, tmp_path / f"run{len(kind)}", steps=1, **kind), console=QUIET)
        info = load_scorer(model, backend="torch").info
        assert (info.first_stage_weight, info.calibrated) == (None, False)
        assert kind or read_checkpoint(model).options.max_labels == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, "one of 'model' and 'backbone'"),
        ({"bce_weight": 0, "listwise_weight": 0}, "nothing would be learned"),
        ({"lora": {"r": 4}, "freeze": ["x"]}, "'lora' freezes"),
        ({"lora": {"r": 4}, "pooling": "first"}, "keep a 'pooling' in"),
        ({"pooling": "max"}, "pooling"),
        ({"learning_rte": 1}, "learning_rte"),
        ({"steps": 0}, "steps"),
    ],
)
def test_configurations_are_refused_by_name(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = {"model": "mini", "out": "run", "steps": 1, "train": [{"file": "x"}]} | options
    plain = {key: value for key, value in values.items() if value is not None and key not in ("train", "lora")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    lines += ["[[train]]", 'file = "x"']
    lines += ["[lora]", "r = 4"] if "lora" in values else []
    file = tmp_path / "run.toml"
    file.write_text("\n".join(lines), "utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_config(file)
    assert str(file) in str(caught.value)


def test_another_pooling_is_trained_and_kept(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder = tiny("bert-average-text").folder
    trained = train(config_for(folder, data, tmp_path / "run", pooling="first", steps=2), console=QUIET)
    before, after = (json.loads((place / "config.json").read_text("utf-8")) for place in (folder, trained))
    assert (before["pooling_strategy"], after["pooling_strategy"]) == ("avg", "first")
    assert before | {"pooling_strategy": "first"} == after
    trainer = Trainer(config_for(folder, data, tmp_path / "other", pooling="first", steps=2), [read_records(data)], [])
    trainer.run(QUIET)
    assert np.allclose(logits_of(trainer.scorer()), logits_of(load_scorer(trained)), atol=1e-5)


def test_a_head_that_reads_all_tokens_has_no_other_pooling(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder = tiny("deberta-cross-attn").folder
    with pytest.raises(UnsupportedModelError, match="need each other"):
        train(config_for(folder, data, tmp_path / "run", pooling="first"), console=QUIET)


def test_packages_that_cannot_run_the_model_are_named_before_the_first_step(
    tiny: Tiny, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny("bert-average-text").folder
    monkeypatch.setattr(BertModel, "forward", lambda self, tokens: tokens)
    with pytest.raises(UnsupportedModelError, match=r"transformers .* got TypeError: .*unexpected keyword argument"):
        Trainer(config_for(folder, data, tmp_path / "run"), [read_records(data)], [])


# Adapters

ADAPTED = [
    "bert-average-text", "modernbert-mlp", "deberta-simple", "deberta-v1", "t5-encoder", "distilbert", "mpnet",
    "albert", "bi-encoder", "t5-encoder-decoder", "qwen3-decoder-kv",
]  # fmt: skip


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_merged_and_unmerged_give_the_same_logits(name: str, tiny: Tiny, data: Path, tmp_path: Path) -> None:
    built = tiny(name)
    config = config_for(built.folder, data, tmp_path / "run", lora=Lora(r=4), steps=3, learning_rate=1e-2)
    adapter = train(config, console=QUIET)
    checkpoint = read_checkpoint(built.folder)
    unmerged_model = with_adapter(load_model(checkpoint), adapter, merge=False)
    info = load_scorer(built.folder, backend="torch").info
    unmerged = logits_of(TorchScorer(checkpoint, info, max_batch_tokens=1024, model=unmerged_model))
    loaded = load_scorer(adapter)
    assert loaded.info.revision != info.revision
    np.testing.assert_allclose(logits_of(loaded), unmerged, atol=1e-4)
    merge_adapter(adapter, tmp_path / "merged")
    np.testing.assert_allclose(logits_of(load_scorer(tmp_path / "merged")), unmerged, atol=1e-4)
    base = logits_of(load_scorer(built.folder, backend="torch"))
    assert np.abs(unmerged - base).max() > 1e-3
    assert sum(f.stat().st_size for f in adapter.iterdir()) < sum(f.stat().st_size for f in built.folder.iterdir())


def test_every_supported_backbone_has_target_modules(tiny: Tiny) -> None:
    from gliclass_rerank.models.backbones import BACKBONES

    assert {backbone for kinds in BACKBONES.values() for backbone in kinds} == set(TARGETS)


def test_adapters_are_refused_where_they_cannot_work(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    folder = tiny("bert-simple").folder
    with pytest.raises(OptionError, match=r"lora\.r"):
        train(config_for(folder, data, tmp_path / "large", lora=Lora(r=4096)), console=QUIET)
    adapter = train(config_for(folder, data, tmp_path / "run", lora=Lora(r=2), steps=1), console=QUIET)
    with pytest.raises(UnsupportedModelError, match="merge and export"):
        load_scorer(adapter, backend="onnx")
    with pytest.raises(InputError, match="nothing to merge"):
        merge_adapter(folder, tmp_path / "merged")
    with pytest.raises(InputError, match="files in it"):
        merge_adapter(adapter, folder)


# A start from a plain encoder


def test_a_new_checkpoint_keeps_the_encoder_s_geometry(tiny: Tiny, tmp_path: Path) -> None:
    """Projectors are the identity plus and minus one vector; markers are the separator; the encoder is untouched."""
    from tokenizers import Tokenizer

    backbone = tmp_path / "encoder"
    tiny("bert-simple").model.model.encoder_model.save_pretrained(backbone)
    (backbone / "tokenizer.json").write_bytes((tiny("bert-simple").folder / "tokenizer.json").read_bytes())
    new_checkpoint(backbone, tmp_path / "new")
    checkpoint = read_checkpoint(tmp_path / "new")
    model = load_model(checkpoint).eval()
    x = torch.randn(5, model.config.encoder_config.hidden_size)
    text, label = model.model.text_projector(x) - x, model.model.classes_projector(x) - x
    torch.testing.assert_close(text, text[:1].expand_as(text), atol=1e-5, rtol=0)
    torch.testing.assert_close(label, -text, atol=1e-5, rtol=0)
    tokenizer = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    rows = model.get_input_embeddings().weight
    markers = [tokenizer.token_to_id(marker) for marker in ("<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>")]
    assert all(index is not None for index in markers)
    assert load_scorer(tmp_path / "new").score(REQUESTS)[0].shape == (4,)
    assert rows.shape[0] == model.config.vocab_size
    with pytest.raises(InputError, match="files in it"):
        new_checkpoint(backbone, tmp_path / "new")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_the_command_line_trains_evaluates_calibrates_and_merges(tiny: Tiny, data: Path, tmp_path: Path) -> None:
    from gliclass_rerank.cli.main import main

    file = tmp_path / "run.toml"
    file.write_text(
        f'model = "{tiny("bert-average-text").folder}"\nout = "run"\nsteps = 20\nstep_tokens = 300\nthreads = 1\n'
        f'learning_rate = 1e-2\n[[train]]\nfile = "{data}"\n[lora]\nr = 4\ndropout = 0.0\n',
        "utf-8",
    )
    # So small a model learns no entailment, and a calibration of what tells nothing is refused.
    learned = tmp_path / "learned.jsonl"
    lines = [line for line in data.read_text("utf-8").splitlines() if "premise" not in line]
    learned.write_text("\n".join(lines), "utf-8")
    for arguments in (
        ["train", str(file)],
        ["merge", str(tmp_path / "run" / "model"), str(tmp_path / "merged")],
        ["calibrate", str(tmp_path / "merged"), str(learned), "--note", "the tests"],
        ["evaluate", str(data), "--model", str(tmp_path / "merged"), "--json"],
        ["evaluate", str(data), "--model", str(tmp_path / "merged")],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert load_scorer(tmp_path / "merged").info.calibrated

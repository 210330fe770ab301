"""Packed batches give what padded ones and upstream give; nothing but the time they take tells them apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import BY_NAME, HIDDEN, POSITIONS, SPECS, Built, Spec
from conftest import Scorers, Tiny
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from transformers import DebertaV2Config, DebertaV2Model
from upstream_logits import LARGE_BATCH, TOLERANCE, largest_difference, requests_for, upstream_logits

from gliclass_rerank import ScoreRequest, UnsupportedModelError
from gliclass_rerank.models.checkpoint import Checkpoint, read_checkpoint
from gliclass_rerank.models.encoding import EncodedSequence, InputEncoder
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.packed.arrays import PackedArrays, PackedShape, PackedTokens, pack
from gliclass_rerank.scorers.packed.attention import (
    BLOCK,
    RelativeScores,
    attend,
    attend_relative,
    document_blocks,
    flex,
)
from gliclass_rerank.scorers.packed.cuda_graphs import GRAPHED_TOKENS, EncoderGraphs, aligned, bucket, buckets
from gliclass_rerank.scorers.packed.encoders import (
    PackedDeberta,
    finish_bert,
    finish_modernbert,
    start_deberta,
    start_modernbert,
)
from gliclass_rerank.scorers.packed.model import PackedHead, PackedUniEncoder
from gliclass_rerank.scorers.torch import TorchScorer
from gliclass_rerank.types import ModelInfo

BACKBONES = ("bert", "modernbert", "deberta-v2")
BY_BACKBONE = ("bert-average-text", "modernbert-segments", "deberta-weighted-dot")
LONG = "the court found that the contract was void, since neither party had signed the last page. " * 10


def can_be_packed(spec: Spec) -> bool:
    unpackable = spec.flags.get("use_lstm") or spec.flags.get("scorer_type") == "cross-attn"
    return spec.architecture == "uni-encoder" and spec.backbone in BACKBONES and not unpackable


PACKABLE = tuple(spec.name for spec in SPECS if can_be_packed(spec))


def scorer_of(built: Built, *, packed: bool | None = True, dtype: str = "fp32", device: str = "cpu",
              max_length: int | None = None) -> TorchScorer:  # fmt: skip
    checkpoint = read_checkpoint(built.folder, max_length=max_length)
    return TorchScorer(checkpoint, info_of(checkpoint, dtype, device), max_batch_tokens=LARGE_BATCH, packed=packed)


def info_of(checkpoint: Checkpoint, dtype: str = "fp32", device: str = "cpu") -> ModelInfo:
    length = checkpoint.max_length
    return ModelInfo(checkpoint.name, checkpoint.revision, checkpoint.architecture, "torch", device, dtype, length)


def passes_of(built: Built) -> list[EncodedSequence]:
    """Passes of many lengths with three labels each."""
    checkpoint = read_checkpoint(built.folder)
    encoder = InputEncoder(checkpoint, TextTokenizer(checkpoint.tokenizer_file))
    requests = [request for request in requests_for(built) if len(request.labels) == 3]
    return [item for encoded in encoder.encode(requests) for item in encoded.sequences]


def network_of(built: Built) -> PackedUniEncoder:
    return PackedUniEncoder(built.model, PackedHead(built.model), max_length=POSITIONS)


def tokens_of(lengths: Sequence[int], shape: PackedShape | None = None) -> PackedTokens:
    """Sequences of random ids."""
    ids = np.random.default_rng(0).integers(3, 50, sum(lengths)).astype(np.int32)
    pieces = np.split(ids, np.cumsum(lengths)[:-1])
    none = np.zeros(0, np.int32)
    batch = [
        EncodedSequence(piece, np.array([[0, 1]], np.int32), 0, none, ("",), False, len(piece)) for piece in pieces
    ]
    arrays = pack(batch, 0, segments=False, shape=shape)
    return arrays.tokens(arrays.buffer)


@pytest.mark.parametrize("name", PACKABLE)
def test_packed_equals_padded_and_upstream(name: str, tiny: Tiny, scorers: Scorers) -> None:
    requests = list(requests_for(tiny(name)))[::2]
    packed = scorer_of(tiny(name))
    assert packed.packed
    ours, padded = packed.score(requests), scorers(name, max_batch_tokens=LARGE_BATCH).score(requests)
    assert largest_difference(ours, padded) <= TOLERANCE
    some = range(0, len(requests), 13)
    theirs = [upstream_logits(tiny(name), requests[i]) for i in some]
    assert largest_difference([ours[i] for i in some], theirs) <= TOLERANCE


@pytest.mark.parametrize("name", BY_BACKBONE)
def test_windows_of_a_long_text_and_a_text_beyond_the_local_attention(name: str, tiny: Tiny) -> None:
    requests = [ScoreRequest(LONG, ("law", "a question about a payment")), ScoreRequest("bread", ("law", "cooking"))]
    for max_length in (64, POSITIONS):
        packed, padded = (scorer_of(tiny(name), packed=way, max_length=max_length) for way in (True, False))
        ours = packed.score(requests)
        assert largest_difference(ours, padded.score(requests)) <= TOLERANCE
        assert (len(ours[0].spans) > 1) == (max_length == 64)


@pytest.mark.parametrize("name", BY_BACKBONE)
def test_neighbours_change_nothing(name: str, tiny: Tiny) -> None:
    scorer, requests = scorer_of(tiny(name)), list(requests_for(tiny(name)))[::3]
    together = scorer.score(requests)
    assert largest_difference([scorer.score([request])[0] for request in requests], together) <= 1e-5
    assert largest_difference(scorer.score(requests[::-1])[::-1], together) <= 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("name", BY_BACKBONE)
def test_a_bucket_and_its_graph_change_nothing(name: str, tiny: Tiny) -> None:
    runner, batch = network_of(tiny(name)), passes_of(tiny(name))[:4]
    lengths = [len(item.ids) for item in batch]
    plain, shape = runner(runner.pack(batch)), bucket(lengths, POSITIONS)
    assert shape is not None
    for filled in (shape, aligned(lengths)):
        torch.testing.assert_close(runner(runner.pack(batch, filled)), plain, atol=1e-5, rtol=0)
    runner.graphs.record(runner.pack(batch[::-1][:1], shape))
    assert shape in runner.graphs
    torch.testing.assert_close(runner(runner.pack(batch, shape)), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(runner(runner.pack(batch[:2], shape)), plain[:2], atol=1e-5, rtol=0)


def sequences_of(token: int) -> PackedArrays:
    """Two sequences of one token, always of the same shape."""
    none = np.zeros(0, np.int32)
    item = EncodedSequence(np.full(5, token, np.int32), np.array([[0, 1]], np.int32), 0, none, ("",), False, 5)
    return pack([item, item], 0, segments=False)


def test_what_a_graph_gave_stays_as_it_is_when_it_is_replayed() -> None:
    graphs = EncoderGraphs(lambda tokens: tokens.ids[:, None].float(), torch.device("cpu"))
    batches = [sequences_of(token) for token in (3, 4)]
    graphs.record(batches[0])
    first, second = (graphs.replay(batch, batch.buffer) for batch in batches)
    assert set(first.flatten().tolist()) == {3}
    assert set(second.flatten().tolist()) == {4}


def test_a_graph_is_replayed_and_read_by_one_thread_at_a_time() -> None:
    """Who has come to reading what a graph gave waits there, in vain, for another thread to come as far."""
    both = threading.Barrier(2)

    class Watched(torch.Tensor):
        def clone(self, *, memory_format: torch.memory_format | None = None) -> torch.Tensor:
            with suppress(threading.BrokenBarrierError):
                both.wait(0.3)
                pytest.fail("two threads read at once")
            return super().clone(memory_format=memory_format)

    graphs = EncoderGraphs(lambda tokens: tokens.ids[:, None].float().as_subclass(Watched), torch.device("cpu"))
    batches = [sequences_of(token) for token in (3, 4)]
    graphs.record(batches[0])
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda batch: graphs.replay(batch, batch.buffer), batches)
    assert set(first.flatten().tolist()) == {3}
    assert set(second.flatten().tolist()) == {4}


@given(st.lists(st.integers(1, 300), min_size=1, max_size=600), st.sampled_from([300, 512, 1024, 8192]))
def test_buckets_are_few_and_hold_what_is_put_into_them(lengths: list[int], max_length: int) -> None:
    known, shape = set(buckets(max_length)), bucket(lengths, max_length)
    assert len(known) <= 24
    if shape is not None:
        assert shape in known
        bounds = tokens_of(lengths, shape).cu_lengths
        assert bounds.diff().max() <= shape.longest
        assert bounds[-1] == shape.tokens >= sum(lengths)
    else:
        assert sum(lengths) > GRAPHED_TOKENS // 2 or sum(lengths) / len(lengths) < 16
    assert aligned(lengths).tokens % BLOCK == 0
    tokens_of(lengths, aligned(lengths))


def test_a_batch_that_does_not_fit_its_shape_is_refused() -> None:
    for shape in (PackedShape(8, 4, 8), PackedShape(64, 1, 64), PackedShape(64, 16, 4)):
        with pytest.raises(ValueError, match="do not fit"):
            tokens_of([5, 6], shape)


@pytest.mark.parametrize("name", BY_BACKBONE)
def test_bf16_is_close_and_keeps_clear_orders(name: str, tiny: Tiny) -> None:
    requests = [request for request in requests_for(tiny(name)) if len(request.labels) == 4]
    wide, narrow = (scorer_of(tiny(name), dtype=dtype).score(requests) for dtype in ("fp32", "bf16"))
    relative = largest_difference(narrow, wide) / max(1.0, float(np.abs(np.concatenate(wide)).max()))
    assert relative <= 5e-2
    for ours, theirs in zip(narrow, wide, strict=True):
        clear = np.subtract.outer(theirs, theirs) > 0.5
        assert (np.subtract.outer(ours, ours)[clear] > 0).all()


def test_bf16_leaves_rotations_unrounded(tiny: Tiny) -> None:
    scorer = scorer_of(tiny("modernbert-mlp"), packed=False, dtype="bf16")
    assert {parameter.dtype for parameter in scorer._runner.parameters()} == {torch.bfloat16}
    rotations = [buffer for name, buffer in scorer._runner.named_buffers() if name.endswith("inv_freq")]
    assert {buffer.dtype for buffer in rotations} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert-lstm", "use_lstm"),
        ("deberta-cross-attn", "scorer_type='cross-attn'"),
        ("roberta", "RobertaModel"),
        ("t5-encoder", "T5EncoderModel"),
        ("deberta-v1", "DebertaModel"),
        ("bi-encoder", "bi-encoder"),
        ("qwen3-decoder-kv", "decoder-kv"),
    ],
)
def test_what_cannot_be_packed_is_named_or_padded(name: str, reason: str, tiny: Tiny) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        scorer_of(tiny(name), packed=True)
    assert not scorer_of(tiny(name), packed=None).packed


def test_on_a_cpu_nothing_is_packed_unasked_and_warming_up_does_nothing(tiny: Tiny) -> None:
    scorer = scorer_of(tiny("bert-simple"), packed=None)
    assert not scorer.packed
    scorer.warm_up()
    forced = scorer_of(tiny("bert-simple"))
    forced.warm_up()
    assert forced._pads is False


def test_the_model_that_was_given_stays_as_it_is(tiny: Tiny) -> None:
    built = tiny("bert-weighted-dot")
    before = {name: weight.clone() for name, weight in built.model.state_dict().items()}
    checkpoint = read_checkpoint(built.folder)
    TorchScorer(checkpoint, info_of(checkpoint), max_batch_tokens=LARGE_BATCH, model=built.model, packed=True).check()
    assert all(torch.equal(before[name], weight) for name, weight in built.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in built.model.parameters())


def debertas() -> Iterator[DebertaV2Config]:
    """What published DeBERTas differ in: buckets, shared keys, a convolution, absolute positions, sizes."""
    common: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0,
        "intermediate_size": 40, "max_position_embeddings": 96, "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"], "layer_norm_eps": 1e-7,
    }  # fmt: skip
    for count, shared in product((16, -1), (True, False)):
        extra: dict[str, Any] = {"conv_kernel_size": 3, "conv_act": "gelu"} if shared else {"embedding_size": 24}
        extra |= {"type_vocab_size": 2 * shared, "share_att_key": shared, "position_biased_input": not shared}
        extra |= {"position_buckets": count, "norm_rel_ebd": "layer_norm" if count > 0 else "none"}
        yield DebertaV2Config(**common | extra)


@torch.inference_mode()
@pytest.mark.parametrize("config", list(debertas()))
@pytest.mark.parametrize("shape", [None, PackedShape(256, 8, 70)])
def test_deberta_in_all_its_forms(config: DebertaV2Config, shape: PackedShape | None) -> None:
    torch.manual_seed(0)
    model = DebertaV2Model(config)
    model.train(False)
    for parameter in model.parameters():
        parameter.normal_(0, 0.4 if parameter.ndim > 1 else 0.2)
    tokens = tokens_of([70, 3, 41], shape)
    packed = PackedDeberta(model, layers=2, compiled=False, max_length=96)(
        model.embeddings.word_embeddings(tokens.ids), tokens
    )
    for start, end in ((0, 70), (70, 73), (73, 114)):
        ids = tokens.ids[start:end].long()[None]
        torch.testing.assert_close(packed[start:end], model(ids).last_hidden_state[0], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@torch.inference_mode()
def test_flex_attention_equals_the_dense_way_and_is_compiled_once() -> None:
    """Without generating code, as below."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.manual_seed(0)
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, dynamic=True, backend="eager")
    batches = (([100, 7, 130, 20], 24), ([250, 60, 3], 32), ([3, 120], 40), ([700], 16))
    for i, (lengths, reach) in enumerate(batches):
        tokens = tokens_of(lengths, aligned(lengths))
        size = len(tokens.ids)
        query, key, value = torch.randn(3, size, 2, 16)
        index = (torch.arange(-799, 800).clamp(-8, 7) + 8).int()
        relative = RelativeScores(torch.randn(2, size, reach), torch.randn(2, size, reach), index)
        dense = attend_relative(query, key, value, relative, tokens, None)
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            fused = flex(compiled, query, key, value, relative, document_blocks(tokens))
        torch.testing.assert_close(fused, dense, atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


def test_blocks_hold_every_pair_of_a_sequence_and_little_else() -> None:
    tokens = tokens_of([100, 7, 130, 20], PackedShape(4 * BLOCK, 8, 150))
    blocks = document_blocks(tokens)
    same = tokens.sequence[:, None] == tokens.sequence
    needed = same.view(4, BLOCK, 4, BLOCK).any(3).any(1)
    seen = torch.zeros(4, 4, dtype=torch.bool)
    for row, (count, places) in enumerate(zip(blocks.kv_num_blocks[0, 0], blocks.kv_indices[0, 0], strict=True)):
        seen[row, places[:count].long()] = True
    assert torch.equal(seen, needed)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("name", BY_BACKBONE)
def test_one_compilation_serves_all_sizes(name: str, tiny: Tiny) -> None:
    """On a CPU without generating code: what is traced, and what makes it be traced again, is the same."""
    runner, batch = network_of(tiny(name)), passes_of(tiny(name))
    plain = runner(runner.pack(batch))
    torch._dynamo.reset()
    counter = CompileCounter()
    for part, function in vars(runner.encoder).items():
        if function in (finish_bert, finish_modernbert, start_deberta, start_modernbert):
            setattr(runner.encoder, part, torch.compile(function, dynamic=True, backend=counter))
    for sample in (batch[:2], batch[::-1][:3]):
        runner(runner.pack(sample))
    assert counter.frame_count > 0
    with torch._dynamo.config.patch(error_on_recompile=True):
        for end in range(1, len(batch)):
            runner(runner.pack(batch[:end]))
        torch.testing.assert_close(runner(runner.pack(batch)), plain, atol=1e-5, rtol=0)
    torch._dynamo.reset()


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.mark.gpu
@pytest.mark.parametrize("name", PACKABLE)
def test_on_cuda_packed_equals_padded_and_upstream(name: str, tiny: Tiny, cuda: str) -> None:
    """With kernels, compiled, and small batches replayed; relative where logits exceed one, as bf16 is."""
    requests = list(requests_for(tiny(name)))
    scorer = scorer_of(tiny(name), packed=None, dtype="bf16", device=cuda)
    if BY_NAME[name].backbone != "deberta-v2":  # whose tiny heads are too small for FlexAttention
        assert scorer.packed
    scorer.warm_up()
    padded = scorer_of(tiny(name), packed=False, dtype="bf16", device=cuda).score(requests)
    theirs = [upstream_logits(tiny(name), request) for request in requests]
    scale = max(1.0, float(np.abs(np.concatenate(theirs)).max()))
    for most in (LARGE_BATCH, 400, 1):
        scorer.max_batch_tokens = most
        ours = scorer.score(requests)
        assert largest_difference(ours, theirs) / scale <= 5e-2
        assert largest_difference(ours, padded) / scale <= 3e-2  # both are rounded, each in its own order
    exact = scorer_of(tiny(name), dtype="fp32", device=cuda).score(requests)
    assert largest_difference(exact, theirs) <= 1e-2  # TF32 may be on


@pytest.mark.gpu
@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 5])
def test_on_cuda_variable_length_attention_equals_the_dense_way(window: int | None, cuda: str) -> None:
    tokens = tokens_of([100, 7, 130, 20], PackedShape(3 * BLOCK, 8, 130))
    query, key, value = torch.randn(3, 3 * BLOCK, 2, 32).bfloat16()
    there = on_device(tokens, cuda)
    fused = attend(query.to(cuda), key.to(cuda), value.to(cuda), there, window=window).float().cpu()
    dense = attend(query.float(), key.float(), value.float(), tokens, window=window)
    torch.testing.assert_close(fused, dense, atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@torch.inference_mode()
def test_on_cuda_flex_attention_equals_the_dense_way(cuda: str) -> None:
    tokens = tokens_of([100, 7, 130, 20], PackedShape(3 * BLOCK, 8, 130))
    there = on_device(tokens, cuda)
    query, key, value = torch.randn(3, 3 * BLOCK, 2, 32).bfloat16()
    content, position = torch.randn(2, 2, 3 * BLOCK, 16).bfloat16()
    index = (torch.arange(-149, 150).clamp(-8, 7) + 8).int()
    wide = RelativeScores(content.float(), position.float(), index)
    narrow = RelativeScores(content.to(cuda), position.to(cuda), index.to(cuda))
    dense = attend_relative(query.float(), key.float(), value.float(), wide, tokens, None)
    blocks = document_blocks(there)
    fused = attend_relative(query.to(cuda), key.to(cuda), value.to(cuda), narrow, there, blocks)
    torch.testing.assert_close(fused.float().cpu(), dense, atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bert-simple", "modernbert-mlp"])
def test_on_cuda_nothing_waits_for_the_device_and_nothing_is_compiled_in_service(
    name: str, tiny: Tiny, cuda: str
) -> None:
    scorer, batch = scorer_of(tiny(name), packed=None, dtype="bf16", device=cuda), passes_of(tiny(name))
    scorer.warm_up()
    scorer.check()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch._dynamo.config.patch(error_on_recompile=True):
            waiting = [scorer._launch(batch[:count]) for count in (1, 3, len(batch))] + [scorer._launch(batch * 40)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.isfinite(wait()).all() for wait in waiting)


def on_device(tokens: PackedTokens, device: str) -> PackedTokens:
    ids, positions, sequence = (part.to(device) for part in (tokens.ids, tokens.positions, tokens.sequence))
    return PackedTokens(ids, positions, sequence, None, tokens.cu_lengths.to(device), tokens.longest)

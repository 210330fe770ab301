"""Attention over packed sequences: fused kernels in half precision on CUDA, an exact dense equivalent elsewhere.

Both read the same packed tensors, (T, heads, head size), without device synchronisation. The dense version pads and
masks. It is for a CPU, for fp32, and as the reference of the kernels.
"""

from __future__ import annotations

import importlib.util
import inspect
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gliclass_rerank.scorers.packed.arrays import PackedTokens

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

HALF = (torch.float16, torch.bfloat16)
BLOCK = 128  # tokens of FlexAttention's blocks; packed batches on CUDA are filled up to a multiple of it


@dataclass(frozen=True, slots=True)
class RelativeScores:
    """Terms that DeBERTa adds to the scaled attention scores of a query i and a key j.

        content[h, i, index[i - j + L - 1]] + position[h, j, index[i - j + L - 1]]

    Attributes:
        content: query times position, shape (heads, T, R).
        position: key times position, shape (heads, T, R).
        index: int32, shape (2L - 1,), values 0 to R - 1: bucket of each distance. L exceeds every distance.
    """

    content: Tensor
    position: Tensor
    index: Tensor


def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention runs on fused kernels for this device and dtype, instead of its dense equivalent."""
    return device.type == "cuda" and dtype in HALF


def kernels_missing(device: torch.device, dtype: torch.dtype, *, relative: bool, head_size: int) -> str | None:
    """The reason why packed attention has no kernel for this device, dtype and head, or None."""
    if not has_kernels(device, dtype):
        return f"packed attention has kernels for bf16 and fp16 on CUDA, not for {dtype} on {device}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "packed attention needs a GPU of compute capability 8.0 or later"
    if relative:
        if not can_compile():
            return "FlexAttention is compiled: it needs Triton and a C compiler"
        return "FlexAttention needs a head size of 16 or more" if head_size < 16 else None
    if head_size % 8 or head_size > 256:
        return f"variable-length attention needs a head size that is a multiple of 8 up to 256, not {head_size}"
    return None if _has_varlen() else f"torch {torch.__version__} has no variable-length attention with windows"


def can_compile() -> bool:
    """Whether torch.compile works on CUDA, which needs Triton and a C compiler."""
    return importlib.util.find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))


@cache
def _has_varlen() -> bool:
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return False
    from torch.nn.attention.varlen import varlen_attn

    return "window_size" in inspect.signature(varlen_attn).parameters


def attend(query: Tensor, key: Tensor, value: Tensor, tokens: PackedTokens, *, window: int | None = None) -> Tensor:
    """Attend within each sequence, scaled by the root of the head size.

    Args:
        query, key, value: shape (T, heads, head size), last axis contiguous.
        window: largest distance of two tokens that attend to each other. None: all tokens of a sequence.

    Returns:
        Shape (T, heads, head size).
    """
    if has_kernels(query.device, query.dtype):
        from torch.nn.attention.varlen import varlen_attn

        sides = (-1, -1) if window is None else (window, window)
        bounds, longest = tokens.cu_lengths, tokens.longest
        out = varlen_attn(query, key, value, bounds, bounds, longest, longest, window_size=sides)
        assert isinstance(out, Tensor)
        return out
    mask = _dense_mask(tokens, window)
    return _dense(query, key, value, mask, tokens)


def attend_relative(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    relative: RelativeScores,
    tokens: PackedTokens,
    blocks: BlockMask | None,
) -> Tensor:
    """`attend`, with DeBERTa's relative scores added to the scaled ones.

    Args:
        blocks: `document_blocks` of the same tokens, to use FlexAttention. None: the dense version.
    """
    if blocks is not None:
        return flex(_compiled_flex(), query, key, value, relative, blocks)
    keys = torch.arange(tokens.longest, device=query.device)
    index = relative.index[keys[:, None] - keys + relative.index.shape[0] // 2].long()
    shape = (tokens.cu_lengths.shape[0] - 1, query.shape[1], -1, -1)
    content = _padded(relative.content.transpose(0, 1), tokens).gather(-1, index.expand(shape))
    position = _padded(relative.position.transpose(0, 1), tokens).gather(-1, index.T.expand(shape))
    bias = content + position.transpose(-1, -2)
    bias = bias.masked_fill(~_dense_mask(tokens, None), torch.finfo(bias.dtype).min)
    return _dense(query, key, value, bias, tokens)


def flex(
    attention: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    relative: RelativeScores,
    blocks: BlockMask,
) -> Tensor:
    """`attend_relative` with FlexAttention, compiled or eager.

    The scale is its default, since a number passed in would become a variable of the compiled kernel.
    """
    content, position, index = relative.content, relative.position, relative.index
    middle = index.shape[0] // 2

    def score(score: Tensor, _: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        # Tokens of other sequences are masked later, but their distance must stay in the table.
        bucket = index[torch.clamp(i - j + middle, 0, 2 * middle)]
        return score + content[head, i, bucket] + position[head, j, bucket]

    parts = (part.transpose(0, 1)[None] for part in (query, key, value))
    return attention(*parts, score_mod=score, block_mask=blocks)[0].transpose(0, 1)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


def document_blocks(tokens: PackedTokens) -> BlockMask:
    """Mask of the blocks of keys that each block of queries attends to: from its first sequence to its last.

    Sequences are contiguous, so the keys of a block of queries are one run of blocks, and the mask is built directly on
    the device. T must be a multiple of `BLOCK`.
    """
    from torch.nn.attention.flex_attention import BlockMask

    sequence, count = tokens.sequence, tokens.sequence.shape[0] // BLOCK
    first = tokens.cu_lengths[sequence[::BLOCK]] // BLOCK
    last = (tokens.cu_lengths[sequence[BLOCK - 1 :: BLOCK] + 1] - 1) // BLOCK
    blocks = torch.arange(count, device=sequence.device, dtype=torch.int32)
    indices = (first[:, None] + blocks).clamp(max=count - 1).to(torch.int32)

    def same_sequence(_: Tensor, __: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return sequence[i] == sequence[j]

    return BlockMask.from_kv_blocks(
        (last - first + 1).to(torch.int32)[None, None],
        indices[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=same_sequence,
        seq_lengths=(count * BLOCK, count * BLOCK),
    )


def _dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, tokens: PackedTokens) -> Tensor:
    query, key, value = (_padded(part, tokens) for part in (query, key, value))
    return _unpadded(scaled_dot_product_attention(query, key, value, attn_mask=mask), tokens)


def _padded(part: Tensor, tokens: PackedTokens) -> Tensor:
    """Packed (T, heads, size) to padded (S, heads, longest, size), filled up with zeros."""
    shape = (tokens.cu_lengths.shape[0] - 1, tokens.longest, *part.shape[1:])
    out = torch.zeros(shape, dtype=part.dtype, device=part.device)
    out[tokens.sequence.long(), tokens.positions.long()] = part
    return out.transpose(1, 2)


def _unpadded(part: Tensor, tokens: PackedTokens) -> Tensor:
    """Undo `_padded`."""
    return part.transpose(1, 2)[tokens.sequence.long(), tokens.positions.long()]


def _dense_mask(tokens: PackedTokens, window: int | None) -> Tensor:
    """Keys that a query attends to, shape (S, 1, longest or 1, longest)."""
    keys = torch.arange(tokens.longest, device=tokens.cu_lengths.device)
    mask = (keys < tokens.cu_lengths.diff()[:, None])[:, None, None]
    return mask if window is None else mask & ((keys[:, None] - keys).abs() <= window)

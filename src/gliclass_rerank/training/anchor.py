"""Anchoring: what the model makes of labels and texts together stays near what a plain encoder makes of each alone.

A sentence encoder that has seen a billion pairs knows what answers what; a model made from it forgets that where its
own training shows nothing, all the more since labels and text now share a sequence. So the hidden state of every token
is drawn to the encoder's, and the mean over each label and text, which is what scores are made of, as well (hints,
Romero et al. 2015). It needs no judgements: any texts and labels do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from gliclass import GLiClassModel
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import AutoModel, PreTrainedModel

from gliclass_rerank.errors import CheckpointError, UnsupportedModelError
from gliclass_rerank.models.checkpoint import Checkpoint
from gliclass_rerank.models.encoding import EncodedSequence
from gliclass_rerank.models.tokenizer import TextTokenizer
from gliclass_rerank.scorers.batch_plan import plan_batches
from gliclass_rerank.scorers.padded.arrays import pad, pad_mask

TEACHER_TOKENS = 2048  # of one forward pass of the encoder


class _Segment(NamedTuple):
    """The tokens of one label or text in pass ``row``, without markers; ``share`` is its part of the pass's loss."""

    row: int
    start: int
    end: int
    share: float


class Anchor:
    """A frozen encoder, and the distance of a model's hidden states to it.

    Args:
        folder: of the plain encoder, with the same vocabulary and hidden size as the model's own.
        checkpoint, model: what is trained, a uni-encoder that reads its labels first.

    Raises:
        CheckpointError: no such encoder, or one with another vocabulary or size.
        UnsupportedModelError: a model of another layout.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, model: GLiClassModel) -> None:
        if checkpoint.architecture != "uni-encoder" or not model.config.prompt_first:
            raise UnsupportedModelError("an anchor: expected a uni-encoder that reads its labels before the text")
        for file in ("config.json", "tokenizer.json"):
            if not (folder / file).is_file():
                raise CheckpointError(f"anchor {folder}: expected an encoder's folder with {file}")
        self._tokenizer = TextTokenizer(folder / "tokenizer.json")
        own = TextTokenizer(checkpoint.tokenizer_file).vocabulary
        if any(own.get(token) != place for token, place in self._tokenizer.vocabulary.items()):
            raise CheckpointError(
                f"anchor {folder}: expected the model's own vocabulary; take the backbone it came from"
            )
        encoder = cast(nn.Module, model.model.encoder_model)
        self._device = next(encoder.parameters()).device
        self._teacher: PreTrainedModel = AutoModel.from_pretrained(folder, dtype=torch.float32)
        if self._teacher.config.hidden_size != model.config.encoder_config.hidden_size:
            raise CheckpointError(f"anchor {folder}: expected hidden states of the model's own size")
        cast(nn.Module, self._teacher).to(self._device).eval().requires_grad_(False)
        self._marker = int(model.config.class_token_index)
        self._hidden: Tensor | None = None
        encoder.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: tuple[Tensor, ...]) -> None:
        self._hidden = output[0]

    @torch.no_grad()
    def teach(self, passes: Sequence[EncodedSequence], weights: Sequence[float]) -> dict[bytes, Tensor]:
        """The encoder's hidden states of each distinct label and text of passes with a weight: (tokens, D), by ids."""
        keys = list(dict.fromkeys(item.ids[s.start : s.end].tobytes() for item, s in self._weighted(passes, weights)))
        prefix, suffix = (np.array(ids, np.int32) for ids in (self._tokenizer.prefix, self._tokenizer.suffix))
        sequences = [np.concatenate([prefix, np.frombuffer(key, np.int32), suffix]) for key in keys]
        states: dict[bytes, Tensor] = {}
        for plan in plan_batches([len(ids) for ids in sequences], [0] * len(keys), max_tokens=TEACHER_TOKENS):
            batch = [sequences[i] for i in plan]
            ids, mask = torch.from_numpy(pad(batch, 0)), torch.from_numpy(pad_mask(batch))
            hidden: Tensor = cast(nn.Module, self._teacher)(ids.to(self._device), attention_mask=mask.to(self._device))[
                0
            ]
            for row, i in zip(hidden, plan, strict=True):
                states[keys[i]] = row[len(prefix) : len(sequences[i]) - len(suffix)]
        return states

    def distances(
        self, passes: Sequence[EncodedSequence], weights: Sequence[float], states: Mapping[bytes, Tensor]
    ) -> Tensor:
        """How far the model's last forward pass, which read ``passes``, is from ``states``; shape (passes,).

        Of a label or text: the squared error of its tokens' states, relative to the encoder's, and one minus the
        cosine of their means. Of a pass: half the mean over its labels, and half the text's, times its weight;
        what has no weight needs no states.
        """
        assert self._hidden is not None
        hidden, self._hidden = self._hidden, None
        losses = hidden.new_zeros(len(passes), dtype=torch.float32)
        segments = [segment for _, segment in self._weighted(passes, weights)]
        if not segments:
            return losses
        of = self._index([i for i, s in enumerate(segments) for _ in range(s.start, s.end)])
        rows = self._index([s.row for s in segments for _ in range(s.start, s.end)])
        columns = self._index([place for s in segments for place in range(s.start, s.end)])
        mine = hidden[rows, columns].float()
        theirs = torch.cat([states[passes[s.row].ids[s.start : s.end].tobytes()] for s in segments]).float()
        errors = (mine - theirs).square().sum(1) / theirs.square().sum(1)
        sums = mine.new_zeros(len(segments), mine.shape[1])
        apart = 1 - cosine_similarity(sums.index_add(0, of, mine), sums.index_add(0, of, theirs))
        tokens = torch.bincount(of, minlength=len(segments))
        far = mine.new_zeros(len(segments)).index_add(0, of, errors) / tokens + apart
        shares = torch.tensor([s.share for s in segments], device=self._device)
        return losses.index_add(0, self._index([s.row for s in segments]), far * shares)

    def _weighted(
        self, passes: Sequence[EncodedSequence], weights: Sequence[float]
    ) -> Iterator[tuple[EncodedSequence, _Segment]]:
        """Labels stand between markers, the text between the separator and what ends a sequence."""
        for row, (item, weight) in enumerate(zip(passes, weights, strict=True)):
            if not weight:
                continue
            marks = [*np.flatnonzero(item.ids[: item.separator] == self._marker).tolist(), item.separator]
            for start, end in pairwise(marks):
                yield item, _Segment(row, start + 1, end, weight / 2 / len(item.labels))
            end = len(item.ids) - len(self._tokenizer.suffix)
            yield item, _Segment(row, item.separator + 1, end, weight / 2)

    def _index(self, places: Sequence[int]) -> Tensor:
        return torch.tensor(places, dtype=torch.long, device=self._device)

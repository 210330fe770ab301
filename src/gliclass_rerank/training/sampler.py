"""Sample training examples from a mixture of sources, weighted by tokens, without replacement within an epoch.

The samples of a step depend only on the seed, the step and the number of records drawn so far from each source. A
resumed run therefore draws the same samples as an uninterrupted one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from gliclass_rerank.models.encoding import EncodedRequest, InputEncoder
from gliclass_rerank.training.data.examples import ExampleBuilder, TrainingExample
from gliclass_rerank.training.data.records import Record
from gliclass_rerank.training.data.vectors import TextVectors
from gliclass_rerank.types import FloatArray


@dataclass(slots=True)
class RecordSource:
    """Records of one file, shuffled anew in each epoch.

    Attributes:
        drawn: number of records drawn so far, part of the checkpoint.
    """

    name: str
    records: Sequence[Record]
    weight: float
    encoder: InputEncoder
    seed: int
    drawn: int = 0
    _order: tuple[int, list[int]] = field(default=(-1, []))

    def draw(self) -> Record:
        """Return the next record."""
        turn, place = divmod(self.drawn, len(self.records))
        if self._order[0] != turn:
            order = list(range(len(self.records)))
            random.Random(f"{self.seed} {self.name} {turn}").shuffle(order)
            self._order = (turn, order)
        self.drawn += 1
        return self.records[self._order[1][place]]


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example with its tokenized requests and the name of its source.

    ``vectors``: target vectors of the requests' texts, float32, shape (requests, D), NaN if unknown, or None.
    """

    example: TrainingExample
    encoded: tuple[EncodedRequest, ...]
    source: str
    vectors: FloatArray | None = None

    @property
    def tokens(self) -> int:
        return sum(item.cost for request in self.encoded for item in request.sequences)


class MixtureSampler:
    """Sampler of the examples of each step."""

    def __init__(
        self,
        sources: Sequence[RecordSource],
        make: ExampleBuilder,
        *,
        step_tokens: int,
        seed: int,
        vectors: TextVectors | None = None,
    ) -> None:
        self.sources = list(sources)
        self._vectors = vectors
        self._make = make
        self._step_tokens = step_tokens
        self._seed = seed
        self._list_targets = [source.weight / self._mean_tokens(source) for source in sources]

    def step(self, number: int) -> list[EncodedExample]:
        """Draw about ``step_tokens`` tokens of examples, and at least one example."""
        rng = random.Random(f"{self._seed} {number}")
        examples: list[EncodedExample] = []
        tokens = 0
        while tokens < self._step_tokens:
            source = rng.choices(self.sources, self._list_targets)[0]
            examples.append(self._encode(source, source.draw(), rng))
            tokens += examples[-1].tokens
        return examples

    def _encode(self, source: RecordSource, record: Record, rng: random.Random) -> EncodedExample:
        example = self._make(record, rng)
        vectors = self._vectors.of([request.text for request in example.requests]) if self._vectors else None
        return EncodedExample(example, tuple(source.encoder.encode(example.requests)), source.name, vectors)

    def _mean_tokens(self, source: RecordSource) -> float:
        """Mean tokens per example of a source, over a fixed sample, which turns weights into shares of tokens."""
        rng = random.Random(f"{self._seed} {source.name}")
        sample = [source.records[rng.randrange(len(source.records))] for _ in range(64)]
        return sum(self._encode(source, record, rng).tokens for record in sample) / len(sample)

"""Train a sentence-transformers CrossEncoder for comparison with `mini`: same backbone, ranking data and time.

    python -m benchmarks.mini.cross_encoder --backbone build/mini/backbone --data build/mini/data/ranking.train.jsonl \
        --minutes 68 --steps 816 --out build/mini/cross-encoder

The training follows its documentation: binary cross-entropy over (query, passage, label) with hard negatives, and
positives weighted by the number of negatives for each. A batch has pairs of similar length, which limits padding.
After an interruption the same command resumes from the last checkpoint.
`bench retrieval --cross-encoder` evaluates it.
Needs `pip install datasets` and the extra [train].
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.sampler import DefaultBatchSampler
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from gliclass_rerank.training.data.records import PoolRecord, read_records

NEGATIVES = 4  # for each positive, on average
BATCH = 32
MAX_LENGTH = 256
ALIKE = 64  # batches whose pairs are sorted by length before the batches are shuffled

Pair = tuple[str, str, float]
"""Query, passage and label."""


class StopAfter(TrainerCallback):
    """Ends the training after a time limit. Time before an interruption is not counted."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        control.should_training_stop |= time.monotonic() > self._end  # the trainer itself stops at its last step
        return control


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True, help="steps that fit in the minutes; rate falls with them")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    (options.out / "trainer").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = CrossEncoder(str(options.backbone), num_labels=1, max_length=MAX_LENGTH, device="cpu")
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(options.out / "trainer"),
        max_steps=options.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-4,
        warmup_ratio=0.05,
        seed=0,
        save_steps=100,
        save_total_limit=1,
        batch_sampler=in_order,
        report_to="none",
        logging_steps=50,
        use_cpu=True,
    )
    loss = BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(float(NEGATIVES)))
    stop = StopAfter(options.minutes)
    trainer = CrossEncoderTrainer(
        model=model, args=arguments, train_dataset=pairs(options.data), loss=loss, callbacks=[stop]
    )
    last = get_last_checkpoint(str(options.out / "trainer"))  # type: ignore[no-untyped-call]
    trainer.train(resume_from_checkpoint=last)
    model.save_pretrained(str(options.out))
    print(f"{trainer.state.global_step} steps of {BATCH} pairs: {options.out}")


def pairs(file: Path) -> Dataset:
    """Judged queries with their passages, in shuffled batches. Queries with only a teacher's scores are left out."""
    rows: list[Pair] = []
    for record in read_records(file):
        assert isinstance(record, PoolRecord)
        for query, relevance in zip(record.queries, record.relevance, strict=True):
            rows += [(query, *pair) for pair in zip(record.passages, relevance or (), strict=False)]
    queries, passages, labels = zip(*shuffled(rows), strict=True)
    return Dataset.from_dict({"query": queries, "passage": passages, "label": labels})


def shuffled(rows: list[Pair]) -> list[Pair]:
    """Reorder the rows so that those of a batch have similar lengths."""
    rng, batches = random.Random(0), []
    rng.shuffle(rows)
    for start in range(0, len(rows), ALIKE * BATCH):
        alike = sorted(rows[start : start + ALIKE * BATCH], key=lambda row: len(row[0]) + len(row[1]))
        batches += [alike[first : first + BATCH] for first in range(0, len(alike), BATCH)]
    rng.shuffle(batches)
    return [row for batch in batches for row in batch]


def in_order(dataset: Dataset, batch_size: int, drop_last: bool, **_: object) -> DefaultBatchSampler:
    """Create a batch sampler that keeps the data's order."""
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


if __name__ == "__main__":
    main()

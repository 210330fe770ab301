"""Commands for training and evaluation: ``train | mine | evaluate | calibrate | merge``. Need the extra [train]."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from gliclass_rerank.cli.output import (
    AsJson,
    Backend,
    Device,
    Model,
    figures,
    names,
    new_table,
    print_json,
    print_table,
    printable,
    progressing_scorer,
    say,
)
from gliclass_rerank.errors import InputError, MissingExtraError
from gliclass_rerank.passage_files import SourcedPassage, read_json_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gliclass_rerank.training.data.mining import Embed
    from gliclass_rerank.training.data.records import Record
    from gliclass_rerank.training.evaluate import Evaluation
    from gliclass_rerank.types import Scorer

TRAIN_PARTS = (
    "torch", "transformers", "gliclass", "safetensors", "peft", "pydantic", "sklearn", "sentence_transformers",
    "matplotlib",
)  # fmt: skip
SHOWN_CLASSES = 30

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records, JSON lines; kinds may be mixed.")]


def train(
    config: Annotated[Path, typer.Argument(help="TOML file of the run; see gliclass_rerank.training.config.")],
) -> None:
    """Train a model or an adapter, or resume a stopped run. Needs the extra 'train'."""
    _need_extra("training a model")
    from gliclass_rerank.training.config import read_config
    from gliclass_rerank.training.trainer import train as run

    say(f"wrote {run(read_config(config))}")


def evaluate(
    files: Files,
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on records: ranking, classification, fact-check, and calibration."""
    from gliclass_rerank.training.evaluate import evaluate as measure

    records = _read(files)
    scorer = progressing_scorer(model, backend, device, "evaluating")
    report = measure(scorer, records)
    if as_json:
        print_json({"model": scorer.info.name, "revision": scorer.info.revision} | report.as_dict())
    else:
        _show(report)


def calibrate(
    folder: Annotated[Path, typer.Argument(help="A model's folder; its calibration.json is overwritten.")],
    files: Files,
    kind: Annotated[str, typer.Option(help="platt, temperature or isotonic.")] = "platt",
    note: Annotated[str | None, typer.Option(help="Note on the data it was fitted on, stored in the file.")] = None,
    decisions: Annotated[
        Path | None,
        typer.Option(help='Decisions, JSON lines {"state": ..., "questions": {...}, "answers": {...}}.'),
    ] = None,
) -> None:
    """Fit a calibrator for each task in the records, so that predicted probabilities match observed frequencies.

    For a model that gives vectors, the weight of their cosine in rankings and labels is fitted first and stored in its
    gliclass_rerank.json.
    """
    _need_extra("fitting a calibration")
    from gliclass_rerank.calibration.file import write_calibration
    from gliclass_rerank.calibration.fitting import fit_calibrator
    from gliclass_rerank.calibration.reliability import expected_calibration_error
    from gliclass_rerank.models.checkpoint import write_option
    from gliclass_rerank.training.decisions import fit_decisions, read_decisions
    from gliclass_rerank.training.evaluate import task_logits
    from gliclass_rerank.training.similarity import SimilarScorer, fit_similarity

    records = _read(files)
    scorer: Scorer = progressing_scorer(str(folder), "auto", "auto", "scoring")
    if scorer.info.embeds:
        similarity = fit_similarity(scorer, records)
        say(f"similarity: {similarity}")
        scorer = SimilarScorer(scorer, similarity)
    known = read_decisions(decisions) if decisions else []
    fitted = fit_decisions(scorer, known, cast(Any, kind), fitted_on=note)
    for task, calibrator in fitted.items():
        say(f"{task}: {calibrator.as_dict()}")
    for task, (logits, outcomes) in task_logits(scorer, records).items():
        fitted[task] = fit_calibrator(logits, outcomes, cast(Any, kind), fitted_on=note)
        ece = expected_calibration_error(fitted[task].probabilities(logits), outcomes)
        say(f"{task}: {len(logits)} decisions, ECE {ece:.4f}")
    write_calibration(folder, fitted)
    if scorer.info.embeds:
        write_option(folder, "similarity", scorer.info.similarity)


def merge(
    adapter: Annotated[Path, typer.Argument(help="The adapter's folder.")],
    out: Annotated[Path, typer.Argument(help="The new checkpoint's folder.")],
) -> None:
    """Merge an adapter into its base model. Needs the extra 'train'."""
    _need_extra("merging an adapter")
    from gliclass_rerank.training.model import merge_adapter

    merge_adapter(adapter, out)
    say(f"wrote {out}")


def mine(
    files: Files,
    out: Annotated[Path, typer.Option(help="The new file of ranking records.")],
    passages: Annotated[
        list[Path] | None, typer.Option(help='Further passages, JSON lines {"text": ...} or strings; may be repeated.')
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="A sentence-transformers model, folder or hub id; BM25 without one.")
    ] = None,
    negatives: Annotated[int, typer.Option(min=1, help="Negatives per query, existing ones included.")] = 8,
    nearest: Annotated[int, typer.Option(min=1, help="Rank down to which negatives are drawn.")] = 50,
    margin: Annotated[float, typer.Option(help="Minimum gap to the answer in similarity, a share in [0, 1).")] = 0.0,
    seed: int = 0,
) -> None:
    """Find hard negatives for ranking records, by BM25 or by a sentence encoder."""
    from gliclass_rerank.training.data.mining import mine as find
    from gliclass_rerank.training.data.records import RankingRecord, as_dict

    found = _read(files)
    records = [record for record in found if isinstance(record, RankingRecord)]
    if others := len(found) - len(records):
        say(f"{others} records are no ranking records ({{query, positive}}) and are left out")
    further = [passage.text for file in passages or () for passage in _passages(file)]
    embed = _encoder(encoder) if encoder else None
    mined = find(records, further, embed=embed, negatives=negatives, nearest=nearest, margin=margin, seed=seed)
    lines = (json.dumps(as_dict(record), ensure_ascii=False) + "\n" for record in mined)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(lines), "utf-8")
    say(f"{len(mined)} records in {out}")


def _passages(file: Path) -> list[SourcedPassage]:
    try:
        return read_json_lines(f"--passages: {file}", file.read_bytes())
    except OSError as error:
        raise InputError(f"--passages: {file}: cannot be read: {error}") from error


def _encoder(name: str) -> Embed:
    _need_extra("mining with a sentence encoder")
    import numpy as np
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(name)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=len(texts) > 1000)
        return np.asarray(vectors, np.float32)

    return embed


def _need_extra(purpose: str) -> None:
    if any(importlib.util.find_spec(part) is None for part in TRAIN_PARTS):
        raise MissingExtraError("train", purpose)


def _read(files: list[Path]) -> list[Record]:
    from gliclass_rerank.training.data.records import read_records

    return [record for file in files for record in read_records(file)]


def _show(report: Evaluation) -> None:
    table = new_table(names(""), figures("records"), names("measure"), figures("value"))
    if part := report.ranking:
        _add(table, "ranking", part.queries, {"nDCG@10": part.ndcg, "MRR@10": part.mrr, "ECE": part.ece})
    if labels := report.labels:
        f1 = {"macro F1": labels.classes.macro_f1, "micro F1": labels.classes.micro_f1}
        f1 |= {"weighted F1": labels.classes.weighted_f1, "top-1 accuracy": labels.top1, "ECE": labels.ece}
        _add(table, "labels", labels.texts, f1)
    if fact := report.fact:
        measures = {"balanced accuracy": fact.balanced_accuracy, "three-way": fact.three_way}
        measures |= {"ECE of support": fact.ece, "ECE of refutation": fact.refutation_ece}
        _add(table, "fact-check", fact.claims, measures | ({"AUROC": fact.auroc} if fact.auroc is not None else {}))
    print_table(table)
    if labels:
        _show_classes(report)
    if fact:
        _show_confusion(report)


def _add(table: Table, kind: str, count: int, measures: dict[str, float]) -> None:
    for i, (name, value) in enumerate(measures.items()):
        table.add_row("" if i else kind, "" if i else f"{count:,}", name, f"{value:.4f}")


def _show_classes(report: Evaluation) -> None:
    assert report.labels is not None
    classes = sorted(report.labels.classes.classes, key=lambda scores: -scores.support)
    table = new_table(names("label"), *map(figures, ("precision", "recall", "F1", "support")))
    for scores in classes[:SHOWN_CLASSES]:
        values = (f"{value:.3f}" for value in (scores.precision, scores.recall, scores.f1))
        table.add_row(Text(printable(str(scores.label))), *values, str(scores.support))
    print_table(table)
    if len(classes) > SHOWN_CLASSES:
        say(f"{len(classes) - SHOWN_CLASSES} rarer labels are only in --json")


def _show_confusion(report: Evaluation) -> None:
    from gliclass_rerank.training.evaluate import CLASSES

    assert report.fact is not None
    table = new_table(names("true \\ given"), *map(figures, CLASSES))
    for name, row in zip(CLASSES, report.fact.confusion, strict=True):
        table.add_row(name, *map(str, row))
    print_table(table)

"""Evaluate zero-shot classification: F1 on the sets of the GLiClass-v3 model cards that are in the data.

    gliclass-rerank bench zero-shot --data DATA [--texts 500] [--model mini --model FOLDER]

Each text gets the most probable label of its set. Labels are read as in `bench routing`: together if they fit in one
pass. Reports F1 as defined by scikit-learn, over the gold and predicted labels: macro (the metric of the cards),
weighted, and micro, which equals accuracy here. The baseline is the label nearest by cosine of all-MiniLM-L6-v2.
Samples differ from the cards', and so do the texts or label names of the sets in DIFFERS. Results can therefore be
shown next to the cards', but a comparison of models needs one run with both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console

from benchmarks.lib.baselines import DENSE, SentenceEncoder
from benchmarks.lib.eval_data import SEED, data_folder, layout, read_labels
from benchmarks.lib.machine import cpu
from benchmarks.lib.measures import report_on
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from benchmarks.quality.routing import Contestant, Task, by_cosine, by_model, described, intents
from gliclass_rerank.cli.output import print_table

# Names of the sets in the cards, and their folders here, with the same or similar data.
CARD = {
    "CR": "customer_reviews",
    "sst2": "sst2",
    "sst5": "sst5",
    "20_news_groups": "newsgroups20",
    "spam": "sms_spam",
    "financial_phrasebank": "financial_phrasebank",
    "imdb": "imdb_cad",
    "ag_news": "ag_news",
    "emotion": "emotion",
    "cap_sotu": "cap_sotu",
    "rotten_tomatoes": "rotten_tomatoes_mr",
    "massive": "massive",
    "banking": "banking77",
    "snips": "snips",
}
DIFFERS = {
    "20_news_groups": "spelled-out label names",
    "spam": "SMS instead of e-mail",
    "imdb": "a sample of the reviews, and rewrites of them with the opposite opinion",
    "financial_phrasebank": "sentences with at least half of the annotators agreeing",
    "rotten_tomatoes": "a split of our own",
    "CR": "a split of our own",
}
GROUPS = ("eval/labels", "eval/routing")
MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one contestant on one set. F1 in [0, 1]. A baseline's speed is None (vectors may be cached)."""

    macro_f1: float
    weighted_f1: float
    micro_f1: float
    texts_per_second: float | None


def main() -> None:
    parser = evaluation_parser(__doc__)
    parser.add_argument("--texts", type=int, default=500, help="maximum per set; 500 by default")
    options = parser.parse_args()
    found = folders(data_folder(options.data), options.sets)
    tasks = {name: intents(read_labels(folder, options.texts)) for name, folder in found.items()}
    missing = [name for name in CARD if name not in tasks]
    torch.set_num_threads(options.threads)
    models = load_models(options.model or ["mini"], options.threads)
    contestants = {} if options.no_dense else {DENSE: by_cosine(SentenceEncoder(options.cache))}
    contestants |= {name: by_model(name, scorer) for name, scorer in models.items()}
    results = {
        name: {of: judge(contestant, task, timed=name in models) for of, task in tasks.items()}
        for name, contestant in contestants.items()
    }
    summary = {name: with_mean(outcomes) for name, outcomes in results.items()}
    show(summary, missing)
    if options.no_write:
        return
    report = header(models) | {"threads": options.threads, "seed": SEED, "not in the data": missing}
    report["sets"] = {
        name: described(task) | {"folder": found[name].name, "differs": DIFFERS.get(name)}
        for name, task in tasks.items()
    }
    file = write(report | {"results": summary}, "zero-shot", options.out)
    values = {name: {of: row["macro_f1"] for of, row in rows.items()} for name, rows in summary.items()}
    draw_bars(values, "macro F1", f"up to {options.texts} texts a set, {cpu()}", file.with_suffix(".png"))


def folders(data: Path, names: Sequence[str] | None) -> dict[str, Path]:
    """Folders of the cards' sets that are in the data, by the cards' names. Exits if there are none."""
    roots = [data / group for group in GROUPS if (data / group).is_dir()] or [data]
    there = {
        name: root / folder
        for name, folder in CARD.items()
        for root in roots
        if layout(root / folder) == "labels" and (names is None or name in names)
    }
    unknown = sorted(set(names or ()) - set(there))
    if unknown or not there:
        raise SystemExit(f"no set {', '.join(unknown) or 'of the cards'} in {data}; sets are {', '.join(CARD)}")
    return there


def judge(contestant: Contestant, task: Task, *, timed: bool) -> Outcome:
    start = time.perf_counter()
    scores = contestant(task)
    seconds = time.perf_counter() - start
    pairs = [(right, int(row.argmax())) for right, row in zip(task.gold, scores, strict=True) if right is not None]
    told = report_on(*zip(*pairs, strict=True))
    speed = len(task.texts) / seconds if timed else None
    return Outcome(told.macro_f1, told.weighted_f1, told.micro_f1, speed)


def with_mean(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, float | None]]:
    """Rows by set, and "mean": F1 averaged over the sets."""
    rows: dict[str, dict[str, float | None]] = {name: asdict(outcome) for name, outcome in outcomes.items()}
    means = {
        key: fmean(getattr(outcome, key) for outcome in outcomes.values())
        for key in ("macro_f1", "weighted_f1", "micro_f1")
    }
    return rows | {MEAN: {**means, "texts_per_second": None}}


def show(summary: Mapping[str, Mapping[str, Mapping[str, float | None]]], missing: Sequence[str]) -> None:
    titles = {"macro_f1": "Macro F1", "weighted_f1": "Weighted F1", "micro_f1": "Micro F1 (accuracy)"}
    for key, title in (titles | {"texts_per_second": "Texts a second"}).items():
        rows = {of: [row[of][key] for row in summary.values()] for of in next(iter(summary.values()))}
        told = {of: row for of, row in rows.items() if any(value is not None for value in row)}
        print_table(table(title, list(summary), told))
    if missing:
        Console().print(f"Sets of the cards that are not in the data: {', '.join(missing)}.")


if __name__ == "__main__":
    main()

"""Measure the cost of questions: processor time of one decision by number of questions, through `Decider`.

    gliclass-rerank bench decision-cost [--model mini --model FOLDER] [--rounds 20]

A state of 256 tokens has 1, 4 or 16 questions of four options: names of four tokens, without and with descriptions of
three. The time is that of the processor on one thread, so that other work on the machine does not count. The numbers of
questions alternate, and each round starts with another one. A ratio is the median of the ratios within rounds. A model
with independent labels reads the state once for all questions, another one once per question.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer

from benchmarks.lib.report import header, load_models, table
from benchmarks.lib.results import RESULTS, write
from benchmarks.speed.throughput import passages_of
from gliclass_rerank import Choice, Decider, Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.load import locate
from gliclass_rerank.tasks.decide.questions import Question

STATE_TOKENS, QUESTION_TOKENS, WORD_TOKENS = 256, 8, 3
COUNTS, OPTIONS = (1, 4, 16), 4
Questions = dict[str, Question]


def main() -> None:
    options = parse_options()
    tokenizer = Tokenizer.from_file(str(locate(options.model[0])[0] / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    (state,), kinds = passages_of([STATE_TOKENS], tokenizer), questions(max(COUNTS), tokenizer)
    scorers = load_models(options.model, 1)
    rounds = {
        f"{name}{kind}": measured(scorer, state, asked, options.rounds)
        for name, scorer in scorers.items()
        for kind, asked in kinds.items()
    }
    results = {name: summary(seconds) for name, seconds in rounds.items()}
    columns = list(next(iter(results.values())))
    print_table(table("Cost of questions", columns, {name: list(row.values()) for name, row in results.items()}, 1))
    if options.no_write:
        return
    report = header(scorers) | {"threads": 1, "tokens of the state": STATE_TOKENS, "options": OPTIONS}
    write(report | {"results": results, "rounds": rounds}, "decision-cost", options.out)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be repeated; mini by default")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-write", action="store_true", help="write no files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    options.model = options.model or ["mini"]
    return options


def questions(count: int, tokenizer: Tokenizer) -> dict[str, Questions]:
    """Choices of four options each, in words of the documentation: by name, and with descriptions."""
    words = iter(passages_of([WORD_TOKENS] * 2 * OPTIONS * count, tokenizer))
    asked = [f"{text}?" for text in passages_of([QUESTION_TOKENS] * count, tokenizer)]
    named = [[f"{next(words)} {k}" for k in range(OPTIONS)] for _ in asked]
    described = [{name: next(words) for name in names} for names in named]
    return {
        "": {str(i): Choice(asked[i], named[i]) for i in range(count)},
        ", described options": {str(i): Choice(asked[i], described[i]) for i in range(count)},
    }


def measured(scorer: Scorer, state: str, asked: Questions, rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor in each round, by number of questions, after a round to warm up."""
    decider = Decider(scorer)
    chosen = {str(count): dict(list(asked.items())[:count]) for count in COUNTS}
    seconds: dict[str, list[float]] = {count: [] for count in chosen}
    for turn in range(rounds + 1):
        names = list(chosen)
        for count in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.process_time()
            decider.decide(state, chosen[count])
            if turn:
                seconds[count].append(time.process_time() - start)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians in milliseconds, and how many times one question the others cost: median, least and most."""
    first, last = str(COUNTS[0]), str(COUNTS[-1])
    ratios = [many / one for many, one in zip(seconds[last], seconds[first], strict=True)]
    medians = {f"{count} questions, ms": 1000 * median(taken) for count, taken in seconds.items()}
    return medians | {f"{last} of 1": median(ratios), "least": min(ratios), "most": max(ratios)}


if __name__ == "__main__":
    main()

"""Draw typical requests from training data, for `gliclass-rerank export --calibration`.

    python benchmarks/sample_requests.py --data DATA --out requests.jsonl

DATA holds sets in the layout of pairs/NAME/pairs.jsonl.gz (query, positive, negatives) and fact/NAME/nli.jsonl.gz
(premise, hypothesis). Every set gives as many requests, so that no domain decides how activations are rounded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

PER_SET = 16


def requests(file: Path, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Texts and their labels from one set: half of the ranking pairs with a negative, where there is one."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        records = rng.sample([json.loads(line) for line in lines], PER_SET)
    for i, record in enumerate(records):
        if "premise" in record:
            claim = record["hypothesis"]
            yield record["premise"], [claim, f"It is false that {claim}"]
        else:
            negatives = record.get("negatives") or [record["positive"]]
            yield (negatives[0] if i % 2 else record["positive"]), [record["query"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rng = random.Random(0)
    files = sorted(arguments.data.glob("pairs/*/pairs.jsonl.gz")) + sorted(arguments.data.glob("fact/*/nli.jsonl.gz"))
    with arguments.out.open("w", encoding="utf-8") as out:
        for file in files:
            for text, labels in requests(file, rng):
                out.write(json.dumps({"text": text[:4000], "labels": labels}, ensure_ascii=False) + "\n")
    print(f"{PER_SET} requests from each of {len(files)} sets: {arguments.out}")


if __name__ == "__main__":
    main()

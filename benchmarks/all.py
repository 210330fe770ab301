"""Run all benchmarks in sequence, then update the tables made from their results.

    gliclass-rerank bench all [--data DATA] [--cache CACHE] [--skip load,service]
    gliclass-rerank bench --quick    # toy data, minutes, nothing kept

Each benchmark is a separate process with the arguments of BENCHMARKS. Some samples are smaller than a script's
defaults. Without evaluation data (GLICLASS_RERANK_DATA), the benchmarks that need it are skipped and listed at the
end. With --quick they read the data of `toy_data.py`. Exits with an error that lists the failed benchmarks, if any.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.lib.eval_data import VARIABLE
from benchmarks.lib.toy_data import write_toy_data

# Collections are encoded as a whole, so only small ones.
FRAMEWORK_SETS = "chunking_eval,cisi,cookbook_docs,cranfield,medline1033,time_news,xquad_en_ir"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script and its arguments, in full and with --quick.

    Attributes:
        reads_data: whether it takes ``--data``.
        encodes: whether it takes ``--cache``, for vectors of all-MiniLM-L6-v2.
        writes_to: whether it takes ``--out`` in a quick run. If not, it writes nothing then.
    """

    module: str
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    reads_data: bool = False
    encodes: bool = False
    writes_to: bool = True

    @property
    def name(self) -> str:
        """Name of the script for `gliclass-rerank bench`."""
        return self.module.rpartition(".")[2]


BENCHMARKS = (
    Benchmark("speed.throughput", (), ("--quick", "--passages", "4")),
    Benchmark(
        "speed.throughput", ("--threads", "1", "--rounds", "3"), ("--quick", "--passages", "4", "--threads", "1")
    ),
    Benchmark("speed.peers", (), ("--quick",)),
    Benchmark("speed.stages", (), ("--quick",)),
    Benchmark("speed.labels", (), ("--quick", "--rounds", "1")),
    Benchmark("speed.scale", ("--rounds", "2"), ("--quick",)),
    Benchmark("gpu.gpu", (), ("--quick",)),  # without a GPU always a toy run that writes nothing
    Benchmark("quality.int8", (), ("--passages", "1")),
    Benchmark("quality.contradictions"),
    Benchmark("quality.first_stage_weight", (), ("--candidates", "1")),
    Benchmark("quality.retrieval", (), ("--queries", "2", "--no-dense"), reads_data=True, encodes=True),
    Benchmark("quality.fact_check", ("--records", "600"), ("--no-dense",), reads_data=True, encodes=True),
    Benchmark("quality.routing", ("--queries", "300"), ("--no-dense",), reads_data=True, encodes=True),
    Benchmark("quality.zero_shot", ("--texts", "200"), ("--no-dense",), reads_data=True, encodes=True),
    # Without vectors each example costs a pass per text.
    Benchmark(
        "quality.route_examples",
        ("--queries", "40", "--each", "0,3"),
        ("--no-dense", "--each", "0,1"),
        reads_data=True,
        encodes=True,
    ),
    Benchmark("quality.frameworks", ("--queries", "20", "--sets", FRAMEWORK_SETS), (), reads_data=True, encodes=True),
    Benchmark("quality.label_order", ("--queries", "60", "--routed", "5"), ("--routes", "6"), reads_data=True),
    Benchmark("decisions.decisions", (), ("--no-dense",), reads_data=True, encodes=True),
    Benchmark("decisions.decision_cost", (), ("--rounds", "1")),
    Benchmark("decisions.coherence", (), ("--suite", "examples")),
    Benchmark("service.load", ("--seconds", "25"), ("--rates", "2", "--seconds", "8", "--no-write"), writes_to=False),
    Benchmark("service.overhead", (), ("--quick",)),
)


def main() -> None:
    options = parse_options()
    console = Console(stderr=True)
    failed, left_out = [], []
    with tempfile.TemporaryDirectory() as work:
        if options.quick:
            write_toy_data(Path(work) / "data")
            options.data, options.cache = Path(work) / "data", None
        options.cache = options.cache or Path(work) / "vectors"  # several benchmarks encode the same texts
        for benchmark in BENCHMARKS:
            if benchmark.name in options.skip or (benchmark.reads_data and options.data is None):
                left_out.append(benchmark.name)
                continue
            start = time.perf_counter()
            status = subprocess.run(command(benchmark, options, Path(work)), check=False).returncode
            failed += [benchmark.name] if status else []
            console.rule(f"{benchmark.name}: {'failed' if status else 'done'}, {time.perf_counter() - start:.0f} s")
    if not options.quick:
        subprocess.run([sys.executable, "-m", "benchmarks.pages.readme", "--write"], check=True)
    if left_out:
        console.print(f"left out: {', '.join(left_out)} (--skip, or no data: --data, {VARIABLE})")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told = os.environ.get(VARIABLE)
    parser.add_argument("--data", type=Path, default=Path(told) if told else None, help=f"evaluation data; {VARIABLE}")
    parser.add_argument("--cache", type=Path, help="folder that caches all-MiniLM-L6-v2's vectors between runs")
    parser.add_argument("--skip", type=lambda names: names.split(","), default=[], help="comma-separated names")
    parser.add_argument("--quick", action="store_true", help="toy data, and nothing is kept")
    options = parser.parse_args()
    options.skip = [name.replace("-", "_") for name in options.skip]
    if unknown := sorted(set(options.skip) - {benchmark.name for benchmark in BENCHMARKS}):
        parser.error(f"no benchmark {', '.join(unknown)}")
    return options


def command(benchmark: Benchmark, options: argparse.Namespace, work: Path) -> list[str]:
    """Command line of a benchmark. Quick results go to a temporary folder."""
    line = [sys.executable, "-m", f"benchmarks.{benchmark.module}"]
    line += benchmark.quick if options.quick else benchmark.full
    if benchmark.reads_data:
        line += ["--data", str(options.data)]
    if benchmark.encodes:
        line += ["--cache", str(options.cache)]
    if options.quick and benchmark.writes_to:
        line += ["--out", str(work / "out")]
    return line


if __name__ == "__main__":
    main()

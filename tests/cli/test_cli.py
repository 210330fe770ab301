"""The command line, called as a person calls it: by arguments, with what it prints and the code it ends with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Exported, Tiny, needs_mini
from fakes import OverlapScorer
from rich.console import Console

from gliclass_rerank import ScoreRequest, __version__
from gliclass_rerank.cli.main import main
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.types import FloatArray


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def command(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capfd.readouterr())

    return command


@pytest.fixture
def model(exported: Exported) -> Path:
    """A tiny model with random weights: these tests are of what stands around it."""
    return exported("bert-average-text")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {
        "a.txt": "The court ruled on the law.",
        "b.md": "Dough rises [bold]slowly[/bold] in the cold.",
        "c.bin": "?",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def piped(*arguments: object, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "gliclass_rerank.cli", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, **options)


# rerank


def test_rerank_prints_a_table(run: Run, model: Path, folder: Path) -> None:
    ended = run("rerank", "law", folder, "--model", model)
    assert ended.code == 0
    assert "The court ruled" in ended.out
    assert "[bold]slowly[/bold]" in ended.out
    assert "\x1b" not in ended.out
    assert "1 files skipped" in ended.err
    assert "c.bin" in ended.err


def test_rerank_json_is_one_object_and_nothing_else_on_stdout(run: Run, model: Path, folder: Path) -> None:
    ended = run("rerank", "law", folder / "a.txt", folder, "--model", model, "--json", "--top-n", 2, "--text")
    report = json.loads(ended.out)
    assert report["query"] == "law"
    assert len(report["results"]) == 2
    for result in report["results"]:
        assert set(result) == {"index", "source", "score", "logit", "window", "truncated", "readable", "text"}
        assert Path(result["source"]).read_text() == result["text"]
    scores = [result["score"] for result in report["results"]]
    assert scores == sorted(scores, reverse=True)


def test_rerank_reads_json_lines(model: Path) -> None:
    lines = '"Dough rises."\n\n{"text": "Das Gericht prüft.", "id": "§1"}\n'.encode()
    done = piped("rerank", "law", "-", "--model", model, "--json", stdin=lines)
    results = {result["index"]: result for result in json.loads(done.stdout)["results"]}
    assert "id" not in results[0]
    assert (results[0]["source"], results[1]["source"], results[1]["id"]) == ("line 1", "line 3", "§1")


def test_rerank_of_nothing_is_an_empty_ranking(run: Run, model: Path, tmp_path: Path) -> None:
    ended = run("rerank", "law", tmp_path, "--model", model, "--json")
    assert (ended.code, json.loads(ended.out)["results"]) == (0, [])
    assert "no passages" in ended.err


def test_rerank_passes_its_options_on(run: Run, model: Path, folder: Path) -> None:
    criteria = ["--criteria", "a=b=0.5", "--criteria", "science=-1"]
    ended = run("rerank", "law", folder, "--model", model, "--json", *criteria, "--long-text", "truncate")
    assert all(set(result["criteria"]) == {"a=b", "science"} for result in json.loads(ended.out)["results"])
    none = run("rerank", "law", folder, "--model", model, "--json", "--threshold", 1)
    assert json.loads(none.out)["results"] == []
    as_labels = run("rerank", "law", folder, "--model", model, "--json", "--direction", "passage-as-label")
    assert len(json.loads(as_labels.out)["results"]) == 2


def test_the_best_window_of_a_long_passage_is_shown(run: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("The court ruled on the law. " * 400)
    ended = run("rerank", "law", file, "--model", model, "--json")
    start, end = json.loads(ended.out)["results"][0]["window"]
    assert 0 <= start < end <= len(file.read_text())
    assert "court" in run("rerank", "law", file, "--model", model).out


def test_escape_sequences_of_a_file_do_not_reach_the_terminal(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("red \x1b[31m alarm \x07")
    assert not {"\x1b", "\x07"} & set(run("rerank", "law", tmp_path, "--model", model).out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rerank", " ", "{folder}/a.txt"], "query: expected some text"),
        (["rerank", "law", "{folder}/none.txt"], "none.txt: cannot be read"),
        (["rerank", "law", "{folder}", "--criteria", "x"], "criteria: expected NAME=WEIGHT"),
        (["rerank", "law", "{folder}", "--criteria", "x=y"], "criteria: expected NAME=WEIGHT"),
        (["rerank", "law", "{folder}", "--threshold", "2"], "threshold: expected a finite number in [0, 1]"),
        (["rerank", "law", "{folder}", "--direction", "up"], "direction: expected one of"),
        (["rerank", "law", "{folder}", "--long-text", "cut"], "long_text: expected one of"),
        (["rerank", "law", "{folder}", "--backend", "x"], "backend: expected one of"),
        (["rerank", "law", "{folder}", "--model", "{folder}/none"], "expected 'mini', an existing folder"),
        (["info", "--model", "{folder}"], "config.json"),
        (["bench", "../setup"], "no benchmark '../setup'"),
        (["bench", "unheard-of"], "no benchmark 'unheard-of'; there are "),
    ],
)
def test_what_we_raise_is_one_line_and_code_two(
    run: Run, model: Path, folder: Path, arguments: list[str], message: str
) -> None:
    given = [argument.format(folder=folder) for argument in arguments]
    if given[0] == "rerank" and "--model" not in given:
        given += ["--model", str(model)]
    ended = run(*given)
    assert (ended.code, ended.out) == (2, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in ended.err


def test_a_malformed_line_is_named(model: Path) -> None:
    done = piped("rerank", "law", "-", "--model", model, stdin=b'"fine"\n{oops\n')
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: line 2: expected JSON")


def test_a_pipe_that_is_closed_early_is_no_error(model: Path) -> None:
    lines = b'"some text of a passage"\n' * 3000
    arguments = [sys.executable, "-m", "gliclass_rerank.cli", "rerank", "law", "-", "--model", str(model), "--json"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(lines)
        process.stdin.close()
        process.stdout.read(1)
        process.stdout.close()
        error = process.stderr.read()
    assert b"Traceback" not in error
    assert b"BrokenPipe" not in error


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_ctrl_c_ends_with_130() -> None:
    import signal

    arguments = [sys.executable, "-m", "gliclass_rerank.cli", "rerank", "law", "-"]
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background inherits deafness
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heeding
    ) as process:
        time.sleep(2)  # it waits for lines
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in error


def test_output_survives_a_terminal_without_unicode(model: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = piped("rerank", "law", "-", "--model", model, stdin='"日本 → law"'.encode(), env=environment)
    assert done.returncode == 0
    assert b"law" in done.stdout


# demo, info, bench, export


def test_version_and_help(run: Run) -> None:
    assert run("--version").out == f"gliclass-rerank {__version__}\n"
    for command in ("demo", "rerank", "export", "bench", "info"):
        assert command in run("--help").out
        assert run(command, "--help").code == 0


def test_help_loads_no_backend() -> None:
    code = (
        "import sys; from gliclass_rerank import cli\n"
        "print([name for name in ('torch', 'transformers', 'onnxruntime', 'bm25s') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_info(run: Run, model: Path) -> None:
    values = json.loads(run("info", "--model", model, "--json").out)
    assert (values["architecture"], values["backend"], values["dtype"]) == ("uni-encoder", "onnx", "fp32")
    assert "uni-encoder" in run("info", "--model", model).out


def test_demo_on_a_tiny_model(run: Run, model: Path, tmp_path: Path) -> None:
    options = ["--model", model, "--top-k", 2, "--collection-cache", tmp_path]
    values = json.loads(run("demo", "--json", *options).out)
    assert set(values["before"]) == {"ndcg@10", "mrr@10"}
    assert values["candidates"] == 2
    assert list(tmp_path.iterdir())


def test_a_benchmark_of_the_current_folder_gets_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    script = 'import sys\nif __name__ == "__main__":\n    print(sys.argv[1:])\n    sys.exit(3)\n'
    (tmp_path / "benchmarks" / "my_own.py").write_text(script)
    done = piped("bench", "my-own", "--help", "-x", "1", cwd=tmp_path)
    assert done.stdout.split() == b"['--help', '-x', '1']".split()
    assert done.returncode == 3
    assert b"my-own" in piped("bench", "other", cwd=tmp_path).stderr


def test_export_with_its_own_calibration(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"text": "The court ruled.", "labels": ["law", "science"]}\n' * 3)
    out = tmp_path / "out"
    source = tiny("bert-average-text").folder
    ended = run("export", source, out, "--calibration", file, "--name", "small")
    assert (ended.code, ended.out) == (0, "")
    values = json.loads(run("info", "--model", out, "--json").out)
    assert (values["name"], values["dtype"]) == ("small", "int8")
    again = run("export", source, out, "--calibration", file)
    assert again.code == 2
    assert "new or empty folder" in again.err


@pytest.mark.parametrize(
    "line", ["{oops", "[]", '{"text": "x"}', '{"text": "x", "labels": "y"}', '{"text": "", "labels": []}']
)
def test_a_calibration_that_is_none_is_named(run: Run, tiny: Tiny, tmp_path: Path, line: str) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"text": "The court ruled.", "labels": ["law"]}\n' + line)
    ended = run("export", tiny("bert-average-text").folder, tmp_path / "out", "--calibration", file)
    assert ended.code == 2
    assert "requests.jsonl, line 2: " in ended.err


@needs_mini
def test_the_bundled_model_is_what_one_gets(run: Run, folder: Path) -> None:
    ended = run("rerank", "how does bread dough rise?", folder, "--json")
    assert json.loads(ended.out)["model"] == "mini"
    assert json.loads(ended.out)["results"][0]["source"].endswith("b.md")


# Progress


class SlowScorer(OverlapScorer):
    """Takes its time over every call."""

    def score(self, requests: Any) -> list[FloatArray]:
        time.sleep(0.75)
        return super().score(requests)


REQUESTS = [ScoreRequest(f"text {i}", ("text",)) for i in range(1100)]


def test_progress_changes_no_score_and_says_nothing_while_it_is_quick() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    scores = ProgressScorer(OverlapScorer(), console).score(REQUESTS)
    assert [row.tolist() for row in scores] == [row.tolist() for row in OverlapScorer().score(REQUESTS)]
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


@pytest.mark.parametrize(("terminal", "message"), [(True, "/1100"), (False, "reranking 1,100 passages ...")])
def test_long_work_is_shown(terminal: bool, message: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal)
    ProgressScorer(SlowScorer(), console, "reranking").score(REQUESTS)
    assert isinstance(console.file, io.StringIO)
    assert message in console.file.getvalue()

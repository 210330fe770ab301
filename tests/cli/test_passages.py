"""Reading passages from files, folders and JSON lines."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import InputError, InvalidTextError
from gliclass_rerank.passage_files import SourcedPassage, read_content, read_lines, read_sources
from gliclass_rerank.playground.reading import read_passages
from gliclass_rerank.validation import is_blank

NOTHING = io.BytesIO()


def test_a_file_is_a_passage_whatever_it_is_called(tmp_path: Path) -> None:
    file = tmp_path / "notes.xyz"
    file.write_bytes(b"\xef\xbb\xbfgr\xc3\xbc\xc3\x9fe\n")
    assert read_sources([str(file)], NOTHING).passages == (SourcedPassage("grüße\n", str(file)),)


def test_folders_are_read_in_sorted_order_and_tell_what_they_skip(tmp_path: Path) -> None:
    for name, content in {
        "b.txt": b"b",
        "a/z.md": b"z",
        "a/m.PY": b"m",
        "c.bin": b"c",
        "d.rst": b"\xff",
        "e.txt": b" ",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for hidden in (".git/x.txt", ".x.txt"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"hidden")
    read = read_sources([str(tmp_path)], NOTHING)
    assert [passage.text for passage in read.passages] == ["m", "z", "b"]
    assert [reason.split(":")[0] for reason in read.skipped] == [
        str(tmp_path / name) for name in ("c.bin", "d.rst", "e.txt")
    ]


def test_an_empty_folder_has_no_passages(tmp_path: Path) -> None:
    assert read_sources([str(tmp_path)], NOTHING).passages == ()


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(read_sources([str(tmp_path)], NOTHING).passages) == 1


def test_sources_come_in_the_order_given(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("from a file")
    stdin = io.BytesIO(b'"from stdin"')
    read = read_sources([str(file), "-", str(file)], stdin)
    assert [passage.text for passage in read.passages] == ["from a file", "from stdin", "from a file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"ab\xff", "expected UTF-8, got byte 0xff at 2"),
        (b" \n", "expected some text"),
        (b"a\0", "NUL character at position 1"),
    ],
)
def test_a_named_file_must_be_readable(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "a.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_sources([str(file)], NOTHING)
    assert str(file) in str(error.value)


JSON_LINES = b'"one"\n\n{"text": "two", "id": 7}\r\n'


@pytest.mark.parametrize("name", ["more.jsonl", "more.NDJSON"])
def test_a_named_file_of_json_lines_is_a_passage_a_line_for_command_line_and_playground(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(JSON_LINES)
    expected = (SourcedPassage("one", f"{file}, line 1"), SourcedPassage("two", f"{file}, line 3", 7))
    assert read_sources([str(file)], NOTHING).passages == expected
    assert tuple(read_passages("", [(str(file), JSON_LINES)])) == expected


def test_json_lines_in_a_folder_are_skipped_and_said(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(JSON_LINES)
    read = read_sources([str(tmp_path)], NOTHING)
    assert read.passages == ()
    assert "data.jsonl: no text file by its name; name it on its own" in read.skipped[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.jsonl: expected at least one line, got none"),
        (b" \n\n", "data.jsonl: expected at least one line, got none"),
        (b'"one"\n{"tex', "data.jsonl, line 2: expected JSON"),
        (b'"one"\n"\xff"', "data.jsonl, line 2: expected UTF-8, got byte 0xff"),
        (b'"one"\n""', "data.jsonl, line 2, text: expected some text"),
    ],
)
def test_a_file_of_json_lines_that_is_none_is_named(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_content("data.jsonl", content)


def test_json_lines_are_strings_or_objects() -> None:
    lines = b'"one"\n\n{"text": "two", "id": "x"}\r\n{"id": 3, "text": "three", "more": []}\n'
    assert list(read_lines(io.BytesIO(lines))) == [
        SourcedPassage("one", "line 1"),
        SourcedPassage("two", "line 3", "x"),
        SourcedPassage("three", "line 4", 3),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", "expected JSON, got '{oops'"),
        (b"[1]", 'a string or an object with "text"'),
        (b'{"body": "x"}', 'an object with "text"'),
        (b'{"text": "x", "id": [1]}', 'whole number as "id"'),
        (b'{"text": "x", "id": true}', 'whole number as "id"'),
        (b'"\xff"', "expected UTF-8"),
        (b"[" * 100_000, "expected JSON"),
        (b'{"text": "x", "id": ' + b"9" * 5000 + b"}", "expected JSON"),
    ],
)
def test_a_line_that_is_no_passage_is_named(line: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"line 2: .*{message}"):
        list(read_lines(io.BytesIO(b'"fine"\n' + line)))


@pytest.mark.parametrize("text", ["", " ", None, 3, "a\0", "\ud800"])
def test_a_text_that_no_tokenizer_reads_is_named(text: object) -> None:
    with pytest.raises(InvalidTextError, match="line 1, text: "):
        list(read_lines(io.BytesIO(json.dumps({"text": text}).encode())))


@given(st.lists(st.text(min_size=1).filter(lambda text: not is_blank(text) and "\0" not in text)))
def test_what_is_written_as_json_lines_is_read_back(texts: list[str]) -> None:
    lines = "\n".join(json.dumps(text, ensure_ascii=False) for text in texts).encode()
    assert [passage.text for passage in read_lines(io.BytesIO(lines))] == texts


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_entered_is_told(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert "closed" in read_sources([str(tmp_path)], NOTHING).skipped[0]


@pytest.mark.parametrize("blank", ["", " \n", "\u200b\n", "\ufeff\ufeff", "\u00ad"])
def test_a_blank_file_of_a_folder_is_skipped_and_one_that_is_named_is_refused(blank: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Berlin is big.", "utf-8")
    (tmp_path / "b.txt").write_text(blank, "utf-8")
    read = read_sources([str(tmp_path)], NOTHING)
    assert [passage.text for passage in read.passages] == ["Berlin is big."]
    assert len(read.skipped) == 1
    with pytest.raises(InputError, match=r"b\.txt: expected some text"):
        read_sources([str(tmp_path / "b.txt")], NOTHING)


def test_first_stage_scores_are_read_from_the_field_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    file.write_text('{"text": "a", "bm25": 3}\n{"text": "b", "bm25": -0.5, "other": 1}\n')
    (first, second) = read_sources([str(file)], io.BytesIO(), scores_field="bm25").passages
    assert (first.first_stage_score, second.first_stage_score) == (3.0, -0.5)
    lines = io.BytesIO(file.read_bytes())
    assert [one.first_stage_score for one in read_sources(["-"], lines, scores_field="bm25").passages] == [3.0, -0.5]
    assert {one.first_stage_score for one in read_sources([str(file)], io.BytesIO()).passages} == {None}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', "line 1: expected the first stage's score as 'bm25', got none"),
        ('"a"', "line 1: expected the first stage's score as 'bm25', got none"),
        ('{"text": "a", "bm25": "high"}', "line 1, bm25: expected a finite number, got 'high'"),
        ('{"text": "a", "bm25": NaN}', "line 1, bm25: expected a finite number, got nan"),
        ('{"text": "a", "bm25": null}', "line 1, bm25: expected a finite number, got None"),
    ],
)
def test_a_passage_without_a_first_stage_score_is_named(line: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_sources(["-"], io.BytesIO(line.encode()), scores_field="bm25")


def test_a_file_of_text_has_no_first_stage_score(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("bread")
    with pytest.raises(InputError, match=r"a\.txt: expected JSON lines \(\.jsonl\) with the field 'bm25'"):
        read_sources([str(tmp_path / "a.txt")], io.BytesIO(), scores_field="bm25")

"""Where sentences end, what a reader sees of them, and what is left of a text without some of them."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hard_sentences import ENGLISH, LISTS, OTHERS, parts
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank.tasks.fact_check.markup import find_marks, plain_text
from gliclass_rerank.tasks.fact_check.removal import remove_sentences
from gliclass_rerank.tasks.fact_check.sentences import LONG, split, split_sentences

INITIALS = "Vitamin C. ¦Vitamin D. ¦Both help."


def with_markers(text: str) -> list[str]:
    """The sentences, each with its list marker before it."""
    found = split_sentences(text)
    return [(f"{text[slice(*one.marker)]} " if one.marker else "") + text[one.start : one.end] for one in found]


def plain(text: str) -> list[str]:
    """What a reader sees of each sentence."""
    found = split(text)
    return [found.plain(one) for one in found.sentences]


# Where sentences end


@pytest.mark.parametrize("line", [line for line in ENGLISH + LISTS + OTHERS if line != INITIALS])
def test_hard_texts_are_split_as_they_should_be(line: str) -> None:
    text, sentences = parts(line)
    assert with_markers(text) == sentences


@pytest.mark.xfail(strict=True, reason="a single capital letter is read as an initial")
def test_a_sentence_that_ends_in_a_letter() -> None:
    text, sentences = parts(INITIALS)
    assert with_markers(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It is so. [1] It was.[2] It is【4:0†a】.", ["It is so. [1]", "It was.[2]", "It is【4:0†a】."]),
        ("It is.<sup>1</sup> It was. 【1†a】 So.", ["It is.<sup>1</sup>", "It was. 【1†a】", "So."]),
        ("**It is.** It was. **So.**", ["**It is.**", "It was.", "**So.**"]),
        ("**It is. It was.**", ["**It is.", "It was.**"]),
        ("**1. Paris** is old.\n**2. Bonn** is.", ["**1. Paris** is old.", "**2. Bonn** is."]),
        ("**1.** Paris is.\n**2.** Bonn is.", ["**1.** Paris is.", "**2.** Bonn is."]),
        ("<p>It is.</p><p>It was.</p>", ["<p>It is.</p>", "<p>It was.</p>"]),
        ("<ul>\n<li>Bonn</li>\n<li>Kiel</li>\n</ul>", ["<ul>\n<li>Bonn</li>", "<li>Kiel</li>", "</ul>"]),
        ("Run:\n```sh\nls. Then\n\ncd\n```\nIt is.", ["Run:", "```sh\nls. Then\n\ncd\n```", "It is."]),
        ("~~~\nls", ["~~~\nls"]),
        ('It is:\n[{"a": "It is. So."},\n{"b": 1}]\nSo.', ["It is:", '[{"a": "It is. So."},\n{"b": 1}]', "So."]),
        ("[1] Smith. Title.\n[2] Wu. Title.", ["[1] Smith.", "[1] Title.", "[2] Wu.", "[2] Title."]),
        ("| a | b |\n|---|---|\n| 1. x | y. |\n| z | w |", 2),
        ("\n".join(f"City {i} has {i} people" for i in range(80)), 80),
    ],
)  # fmt: skip
def test_marks_and_blocks_are_not_divided(text: str, sentences: list[str] | int) -> None:
    found = with_markers(text)
    assert found == sentences if isinstance(sentences, list) else len(found) == sentences


def test_line_ends_divide_only_what_is_very_long() -> None:
    assert len(split_sentences("one two\n" * (LONG // 10))) == 1
    assert len(split_sentences("one two\n" * LONG)) == LONG


# What a reader sees

CLAIM = "The Danube rises in the Black Forest"


FORMS = r"""
{} [1].
{}[1].
{} [1][2].
{} [1] [2].
{} [1, 2].
{} [1-3].
{}[^1].
{}. [1]
{}.[1]
{} [^note].
{} [[1]](http://a).
{} [1](http://a).
{} [Source 1].
{} [doc3].
{} (Source: a.pdf).
{} (p. 4).
{}【4:0†source】.
{}. 【1†a.pdf】
{}<sup>1</sup>.
{}<sup>[1, 2]</sup>.
{}¹.
{}.¹
{} ([source](https://a.org/b)).
{} ([a](http://a.org), [b](http://b.org/(c))).
{} (https://a.org/b).
{} (Smith, 2020).
{} (Smith et al., 2020; Jones 2019).
{} (see Smith & Wu, 2020, p. 5).
{} (Smith et al. 2020).
**{}**.
**{}.**
_{}_.
*{}*.
~~{}~~.
`{}`.
***{}***.
**_{}_**.
The **Danube** rises in the _Black_ Forest.
[{}](https://a.org/b_(c)).
![a picture](http://a) {}.
<p>{}.</p>
<b>{}</b>.
<a href="x">{}</a>.
{}.<br>
## {}.
- {}.
> {}.
**1. {}**.
<!-- note -->{}.
""".strip().splitlines()


@pytest.mark.parametrize("form", FORMS)
def test_marks_are_not_read(form: str) -> None:
    assert plain_text(form.format(CLAIM)) == f"{CLAIM}."


LOOKS = r"""
a * b
snake_case_name
f(x)[1] is so
C[1] = 2
arr[0]
in [0, 1]
(2020) alone
in 2020 (Smith said)
5 < 6 > 3
a<b and c>d
List<String>
x**2 + y**2
2*3*4
*args and **kwargs
5 * 3 = 15
m² and 10²
(in Paris)
(Cannes 2019)
(June 2020)
(May, 2020)
[2004] it
[sic]
AT&T; so
C:\dir
#1 of 2
~5 to ~6
3. Mai ist frei.
-5 degrees
10% [USD]
""".strip().splitlines()


@pytest.mark.parametrize("text", LOOKS)
def test_what_only_looks_like_marks_is_read(text: str) -> None:
    assert plain_text(text) == text


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("10<sup>6</sup> m<sup>2</sup> of H<sub>2</sub>O, 1<sup>st</sup>", ["10^6 m^2 of H2O, 1st"]),
        ("这是**重要**的[1]。", ["这是重要的。"]),
        ("`a_b * c_d *` is *so*.", ["a_b * c_d * is so."]),
        ("**It is. It was.** [1]", ["It is.", "It was."]),
        ("Tom &amp; Co. &lt;b&gt;", ["Tom & Co. <b>"]),
        (r"5 \* 3 \* 2", ["5 * 3 * 2"]),
        ("```sh\nls *a* *b*\n```", ["ls *a* *b*"]),
        ("| River | In |\n|:--|--:|\n| **Po** [1] | Italy |\n| Ob | |", ["River: Po, In: Italy", "River: Ob"]),
        ("[1]", [""]),
    ],
)
def test_what_is_read_of_a_sentence(text: str, read: list[str]) -> None:
    assert plain(text) == read


@given(st.text(alphabet="ab .\n*_`~[]()<>/!1|&;#p-【】†", max_size=60))
def test_marks_are_in_order_and_paired(text: str) -> None:
    marks = find_marks(text)
    assert all(one.start < one.end <= other.start for one, other in pairwise(marks))
    starts = {mark.start: mark for mark in marks}
    assert all(starts[mark.partner].partner == mark.start for mark in marks if mark.partner is not None)
    assert [text[one.start : one.end].strip() for one in split_sentences(text)].count("") == 0


# What is left without some

words = st.sampled_from("Bonn Kiel river rises flows lake old".split())
statement = st.lists(words, min_size=2, max_size=4).map(lambda chosen: f"{' '.join(chosen).capitalize()}.")
statements = st.lists(statement, min_size=1, max_size=3).map(" ".join)
around = st.sampled_from(
    [("**", "**"), ("*", "*"), ("_", "_"), ("~~", "~~"), ("<b>", "</b>"), ("[", "](http://a.org)")]
)
emphasised = st.tuples(around, statements).map(lambda made: f"{made[0][0]}{made[1]}{made[0][1]}")
paragraph = st.lists(statements | emphasised | statement.map("{} [1]".format), min_size=1, max_size=3).map(" ".join)
html_block = st.lists(
    paragraph.map("<p>{}</p>".format) | paragraph.map("<li>{}</li>".format), min_size=1, max_size=3
).map(lambda made: "<div>" + "\n".join(made) + "</div>")
code = st.lists(words, min_size=1, max_size=3).map(lambda lines: "```sh\n" + "\n".join(lines) + "\n```")
table = st.lists(st.tuples(words, words), min_size=1, max_size=3).map(
    lambda rows: "| head | top |\n|---|---|\n" + "\n".join(f"| {one} | {other} |" for one, other in rows)
)
bullets = st.lists(paragraph, min_size=1, max_size=3).map(lambda items: "\n".join(f"- {item}" for item in items))
numbers = st.lists(paragraph, min_size=1, max_size=3).map(
    lambda items: "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))
)
documents = st.lists(paragraph | html_block | code | table | bullets | numbers, min_size=1, max_size=5).map("\n\n".join)


def is_balanced(text: str) -> bool:
    tags = []
    for slash, name in re.findall(r"<(/?)(\w+)>", text):
        if not slash:
            tags.append(name)
        elif not tags or tags.pop() != name:
            return False
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    even = all(rest.count(mark) % 2 == 0 for mark in ("**", "_", "~~")) and rest.replace("**", "").count("*") % 2 == 0
    return (
        not tags
        and even
        and "```" not in rest
        and rest.count("[") == rest.count("]")
        and rest.count("](") == rest.count("http")
    )


def is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(character in rest for character in part)


def unnumbered(sentences: list[str]) -> str:
    """The sentences, without the numbers of a list whose first item is gone: these do not count any more."""
    return re.sub(r"\b\d+\.\s", "", " ".join(one for one in sentences if one))


@given(documents, st.data())
def test_what_is_left_has_whole_markup_and_the_other_sentences(text: str, data: st.DataObject) -> None:
    assert is_balanced(text)
    found = split(text)
    chosen = data.draw(st.sets(st.sampled_from(found.sentences))) if found.sentences else set()
    left = remove_sentences(found, chosen)
    assert is_balanced(left)
    kept = [one for one in found.sentences if one not in chosen and found.plain(one)]
    assert unnumbered([found.plain(one) for one in kept]) == unnumbered(plain(left))
    assert left.count("|---|") == len({one.marker for one in kept if one.block and one.marker})
    assert is_subsequence(left, text)


@given(documents)
def test_removing_nothing_returns_the_text_and_removing_all_returns_nothing(text: str) -> None:
    found = split(text)
    assert remove_sentences(found, []) == text
    assert remove_sentences(found, found.sentences) == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("**Yes. No. Yes.**", "**Yes. Yes.**"),
        ("**No. Yes. No.**", "**Yes.**"),
        ("**No. No.** Yes.", "Yes."),
        ("Yes. **No.** Yes.", "Yes. Yes."),
        ("<p>Yes. No.</p><p>No.</p>", "<p>Yes.</p>"),
        ("<ul>\n<li>No.</li>\n<li>Yes.</li>\n</ul>", "<ul>\n<li>Yes.</li>\n</ul>"),
        ("<div>\n\nNo.\n\n</div>\n\nYes.", "Yes."),
        ("See [No. Yes.](http://a.org) Yes.", "[Yes.](http://a.org) Yes."),
        ("Yes.\n\n| a | b |\n|---|---|\n| No | b |\n\nYes.", "Yes.\n\nYes."),
        ("| a | b |\n|---|---|\n| No | b |\n| Yes | b |", "| a | b |\n|---|---|\n| Yes | b |"),
        ("Yes.\n\n```\nNo\n\nNo\n```\n\nYes.", "Yes.\n\nYes."),
        ("Two: 1. No way. 2. Yes so.", "Two: 2. Yes so."),
    ],
)
def test_what_is_left_of_marked_texts(text: str, left: str) -> None:
    found = split(text)
    assert remove_sentences(found, [one for one in found.sentences if "No" in text[one.start : one.end]]) == left


@pytest.mark.parametrize("line", ["[\n", '{"a":\n', '["a",\n'])
def test_what_stays_open_is_read_as_json_once(line: str) -> None:
    """Each attempt reads to the end of the text, so one from every line would take its square."""
    attempts = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal attempts
        attempts += event == "call" and frame.f_code.co_name == "raw_decode"

    sys.setprofile(count)
    try:
        split(line * 500)
    finally:
        sys.setprofile(None)
    assert attempts == 1


def without_bad(text: str) -> str:
    """The text without its sentences that have "BAD" in them."""
    one = split(text)
    return remove_sentences(one, [each for each in one.sentences if "BAD" in text[each.start : each.end]])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("- A:\n  - It is.\n  - BAD claim.\n- B:\n  - It was.", "- A:\n  - It is.\n- B:\n  - It was."),
        ("1. A:\n   - It is.\n   - It is BAD.\n2. B:\n   - It was.\n", "1. A:\n   - It is.\n2. B:\n   - It was.\n"),
        ("First one.\n\n    BAD indented code\n\nLast one.", "First one.\n\nLast one."),
        ("- Step one:\n\n  ```\n  BAD code\n  ```\n\nThe end is here.", "- Step one:\n\nThe end is here."),
        ("  - BAD thing.\n- Kept thing.\n- Kept two.", "- Kept thing.\n- Kept two."),
        ("東京は大きい。\\*BAD注釈。", "東京は大きい。"),
    ],
)
def test_what_stays_keeps_its_own_indentation(text: str, left: str) -> None:
    assert without_bad(text) == left


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("It was cold. - 5 degrees was measured.", ["It was cold.", "- 5 degrees was measured."]),
        ("**> 5 km** is the distance.", ["> 5 km is the distance."]),
        ("| | Share |\n|---|---|\n| > 50 years | 20% |", ["> 50 years, Share: 20%"]),
        ("| A | B |\n|---|---|\n| x\\|y | 5 |", ["A: x|y, B: 5"]),
        ("`# TODO` marks it.", ["# TODO marks it."]),
        ("It is small.<br>&minus;5 degrees is the low.", ["It is small.", "−5 degrees is the low."]),
        ("He left.<br>&quot;Never&quot;, she said.", ["He left.", '"Never", she said.']),
        ("Isotopes are ²³⁵U and <sup>14</sup>C.", ["Isotopes are ²³⁵U and ^14C."]),
        ("It fell.¹ It rose.<sup>2</sup> It stayed.", ["It fell.", "It rose.", "It stayed."]),
        ("Go to https://en.wikipedia.org/wiki/_foo_ now.", ["Go to https://en.wikipedia.org/wiki/_foo_ now."]),
        ("````md\n```python\nx = 1\n```\n````", ["```python\nx = 1\n```"]),
    ],
)
def test_content_that_looks_like_marks_is_read(text: str, read: list[str]) -> None:
    one = split(text)
    assert [one.plain(each) for each in one.sentences] == read


@pytest.mark.parametrize(("opened", "closed"), [("<p>", "</b>"), ("*a ", "b** ")])
def test_what_is_never_closed_is_not_searched_each_time(opened: str, closed: str) -> None:
    """Of twice the text, twice the work."""

    def steps(count: int) -> int:
        taken = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal taken
            frame.f_trace_opcodes = True
            taken += event == "opcode"
            return trace

        sys.settrace(trace)
        try:
            find_marks(opened * count + closed * count)
        finally:
            sys.settrace(None)
        return taken

    assert steps(200) < 2.2 * steps(100)

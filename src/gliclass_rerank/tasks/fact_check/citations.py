"""Citation marks: the forms in which answers name their sources inside a sentence."""

from __future__ import annotations

import re

YEAR = r"(?:1[5-9]|20)\d\d[a-z]?"
NO_NAME = (
    "(?!Jan|Feb|Mar(?:ch)?[ ,]|Apr|May[ ,]|June?[ ,]|July?[ ,]|Aug|Sep|Oct|Nov|Dec"
    "|Spring|Summer|Autumn|Fall|Winter|Q[1-4]"
    "|Born|Died|Since|Until|Before|After|From|Founded|Released|In[ ]|About|Around|Circa|Early|Late|Mid)"
)
NAME = r"(?:(?:van|von|de|der|den|la|du)\ )*[A-ZÀ-ÖØ-Þ][^\W\d_][\w'’-]*"
AUTHORS = rf"{NO_NAME}{NAME}(?:,\ {NAME})*(?:,?\ (?:et\ al\.?|(?:and|&|und|et)\ {NAME}))?"
PAGES = r"(?:[,:]\ ?(?:pp?\.\ ?)?\d+(?:[–-]\d+)?)?"
WORK = rf"(?:(?:[Ss]ee|cf\.|e\.g\.,?)\ )?{AUTHORS},?\ {YEAR}{PAGES}"
NUMBERS = r"\^?[1-9]\d{0,2}(?:\ ?[,;–-]\ ?\^?[1-9]\d{0,2})*"
SOURCE = r"(?i:sources?|docs?|documents?|refs?|references?|citations?|cit|passages?|chunks?|web|page|p)"
LINK = r"\[[^\[\]\n]{0,200}\]\((?:[^()\s]|\([^()\s]*\))*\)"
CITATION = rf"""[ \t\u00a0]{{0,3}}(?:
    \[{NUMBERS}\]\((?:[^()\s]|\([^()\s]*\))*\)           # [1](url)
    |\[\[{NUMBERS}\]\](?:\((?:[^()\s]|\([^()\s]*\))*\))? # [[1]], [[1]](url)
    |\[{NUMBERS}\]|\[\^[\w-]{{1,20}}\]                     # [1], [1, 2], [1-3], [^1], [^note]
    |[\[(]{SOURCE}[ .:\#_-]{{0,2}}\d{{1,4}}(?:[,;–-]\ ?\d{{1,4}})*[\])]  # [Source 1], [doc2], (p. 4)
    |[\[(](?i:sources?):\ [^()\[\]\n]{{1,120}}[\])]      # (Source: report.pdf)
    |\[citation\ needed\]
    |【\d+(?::\d+)?(?:†[^【】\n]{{0,80}})?】|\[\d+(?::\d+)?†[^\[\]\n]{{0,80}}\]
    |<sup>(?:<a\s[^<>]*>)?\[?{NUMBERS}\]?(?:</a>)?</sup>
    |\({LINK}(?:[,;]?\ ?{LINK})*\)                       # ([source](url))
    |[(\[]<?https?://[^\s()<>\[\]]+>?[)\]]
    |\({WORK}(?:;\ {WORK})*\)                            # (Smith, 2020), (Smith et al., 2020; Jones 2019)
    |[¹²³⁴-⁹][⁰¹²³⁴-⁹]*(?:[,⁻][⁰¹²³⁴-⁹]+)*
)"""
"""A verbose pattern. `is_citation` checks its matches."""

ATTACHABLE = re.compile(r"(?:[^\W\d_]{3}|\d\d|[^\x00-\x7f]|[.,;:!?\])\"'”’»%>*_`])\Z")
AFTER_A_WORD = re.compile(r"(?:[^\W\d_]{3}|[.,;:!?)\"'”’»])\Z")
SUPERSCRIPT = "<¹²³⁴⁵⁶⁷⁸⁹"
BEGINS_A_WORD = re.compile(r"[^\W_]|[/⁄]")  # ¹⁴C, ²⁄₃
CALL = re.compile(r"\w\([^()]*\)\Z")
NAME_AND_YEAR = re.compile(rf"\((?!.*(?:et al| and | & |,)).*\b{YEAR}\)")


def is_citation(text: str, found: re.Match[str]) -> bool:
    """Whether a match of `CITATION` is a citation, unlike "x[1]", "5<sup>2</sup>", "¹⁴C" or "(Cannes 2019)".

    A mark without white space before it must follow a word of three letters or more, a number of two digits or more,
    punctuation, or another script. Superscript after a number is an exponent.
    """
    mark = found[0].lstrip()
    if NAME_AND_YEAR.fullmatch(mark):
        return False
    if mark[0] in SUPERSCRIPT and BEGINS_A_WORD.match(text, found.end()):
        return False
    before = text[max(0, found.start() - 100) : found.start()]
    if not before or before[-1].isspace() or len(mark) < len(found[0]) or mark[0] in "(【":
        return True
    if mark[0] in SUPERSCRIPT:
        return bool(AFTER_A_WORD.search(before))
    return bool(ATTACHABLE.search(before)) and not CALL.search(before)

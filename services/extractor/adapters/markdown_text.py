"""Runs of text of one style, written as CommonMark: what the document itself says never becomes mark-up."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from urllib.parse import quote, urlsplit

_ANYWHERE = re.compile(
    r"[\\`*~]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside of a word an underscore is one
    r"|<(?=[A-Za-z/!?])"
    r"|&(?=#?\w+;)"
    r"|\](?=[(\[:])"
    r"|\[(?=\^)"
)
_AT_START = re.compile(r"^(#{1,6}|[-+]+|=+|>|\d{1,9}[.)])(?=\s|$|(?<=>))")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_LEADERS = re.compile(r"(?:\s?[.\u2026\u00b7]){5,}\s*")
_LAST_WORD = re.compile(r"\w+$")
_FIRST_WORD = re.compile(r"^\w+")
_SCHEMES = ("http", "https", "mailto")
_CJK = re.compile(r"[\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
_HANGUL = re.compile(r"[\uac00-\ud7af]")


class Style(IntFlag):
    """How letters look."""

    PLAIN = 0
    BOLD = 1
    ITALIC = 2
    MONO = 4


@dataclass(frozen=True, slots=True)
class Run:
    """Text of one style; `uri` is where it leads, if it does."""

    text: str
    style: Style = Style.PLAIN
    uri: str = ""


def clean(text: str) -> str:
    """`text` without control characters, and with dot leaders as an ellipsis."""
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    return _LEADERS.sub(" \u2026 ", text) if "...." in text or ". . ." in text else text


def escaped(text: str, *, at_start: bool = False) -> str:
    """`text` so that it means itself in Markdown; `at_start` where a line begins with it."""
    text = _ANYWHERE.sub(r"\\\g<0>", text)
    return _AT_START.sub(_escape_mark, text) if at_start else text


def _escape_mark(found: re.Match[str]) -> str:
    mark = found.group()
    return mark[:-1] + "\\" + mark[-1] if mark[0].isdigit() else "\\" + mark


def cell(text: str) -> str:
    """A cell of a pipe table: one line, with its bars escaped."""
    return escaped(" ".join(clean(text).split())).replace("|", "\\|")


def rendered(runs: Iterable[Run], *, at_start: bool = True, keeps: Style = ~Style.PLAIN) -> str:
    """The runs as Markdown on one line; of their styles only what `keeps` has."""
    out: list[str] = []
    whole = _whole_words(_styled([run for run in runs if run.text], keeps))
    for index, run in enumerate(whole):
        text = run.text.strip()
        if not text:
            out.append(" ")
            continue
        begin = len(run.text) - len(run.text.lstrip())
        before = whole[index - 1].text[-1] if index and not begin else " "
        after = whole[index + 1].text[0] if index + 1 < len(whole) and run.text[-1] == text[-1] else " "
        first = at_start and not "".join(out).strip() if index < 4 else False
        marked = _marked(text, run.style, before, after, at_start=first)
        if run.uri:
            marked = f"[{marked}]({run.uri})"
        out.append(run.text[:begin] + marked + run.text[begin + len(text) :])
    return re.sub(r"\s+", " ", "".join(out)).strip()


def plain(runs: Iterable[Run]) -> str:
    """The runs' text."""
    return "".join(run.text for run in runs)


def joined(above: Sequence[Run], below: Sequence[Run]) -> list[Run]:
    """Two lines as one: words that are hyphenated at the line's end are put together, and CJK needs no space."""
    if not above or not below:
        return [*above, *below]
    while len(above) > 1 and not above[-1].text.strip():
        above = above[:-1]
    while len(below) > 1 and not below[0].text.strip():
        below = below[1:]
    end, begin = above[-1].text.rstrip(), below[0].text.lstrip()
    last, first = replace(above[-1], text=end), replace(below[0], text=begin)
    if end.endswith("\u00ad") or (len(end) > 1 and end[-1] in "-\u2010" and end[-2].isalpha() and begin[:1].islower()):
        last = replace(last, text=end[:-1])
    elif not _needs_no_space(end[-1:], begin[:1]):
        last = replace(last, text=end + " ")
    return [*above[:-1], last, first, *below[1:]]


def safe_uri(uri: str) -> str:
    """`uri` as a link's target, or nothing where it is not one that a reader may follow."""
    try:
        scheme = urlsplit(uri).scheme.lower()
    except ValueError:
        return ""
    return quote(uri, safe="%/:?#[]@!$&'*+,;=~-._") if scheme in _SCHEMES else ""


def _needs_no_space(end: str, begin: str) -> bool:
    if not end or not begin or end.isspace() or begin.isspace():
        return True
    # Korean is written with spaces.
    return bool(_CJK.match(end) and _CJK.match(begin)) and not _HANGUL.match(end + begin)


def _styled(runs: Sequence[Run], keeps: Style) -> list[Run]:
    """Single letters of a formula are not stressed, and a space between two runs of one style is of that style."""
    out: list[Run] = []
    for index, run in enumerate(runs):
        style = run.style & keeps
        if not run.text.strip():
            before, after = out[-1].style if out else Style.PLAIN, runs[min(index + 1, len(runs) - 1)].style & keeps
            style = before if before == after else Style.PLAIN
        elif Style.MONO not in style and not re.search(r"[^\W\d_]{2}", run.text):
            style = Style.PLAIN
        out.append(replace(run, style=style))
    return out


def _whole_words(runs: Sequence[Run]) -> list[Run]:
    """Runs that do not end within a word: its smaller part takes the style of the larger one."""
    out: list[Run] = []
    for each in runs:
        run = each
        if out and (run.style, run.uri) == (out[-1].style, out[-1].uri):
            out[-1] = replace(run, text=out[-1].text + run.text)
            continue
        if out:
            tail, head = _LAST_WORD.search(out[-1].text), _FIRST_WORD.search(run.text)
            if tail and head:
                if len(tail[0]) < len(head[0]):
                    out[-1] = replace(out[-1], text=out[-1].text[: tail.start()])
                    run = replace(run, text=tail[0] + run.text)
                else:
                    out[-1] = replace(out[-1], text=out[-1].text + head[0])
                    run = replace(run, text=run.text[head.end() :])
        if out and not out[-1].text:
            out.pop()
        if run.text:
            out.append(run)
    return out


def _marked(text: str, style: Style, before: str, after: str, *, at_start: bool) -> str:
    if Style.MONO in style:
        ticks = "`" * (max((len(found) for found in re.findall("`+", text)), default=0) + 1)
        space = " " if text[0] == "`" or text[-1] == "`" else ""
        return f"{ticks}{space}{text}{space}{ticks}"
    mark = ("**" if Style.BOLD in style else "") + ("*" if Style.ITALIC in style else "")
    # CommonMark takes asterisks between a punctuation mark and a letter for themselves.
    if (before.isalnum() and not text[0].isalnum()) or (after.isalnum() and not text[-1].isalnum()):
        mark = ""
    return mark + escaped(text, at_start=at_start and not mark) + mark[::-1]

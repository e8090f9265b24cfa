"""What may come out of a model's text: words. Nothing that a reader's program would load, follow or run.

Tags are taken out, images and links of Markdown become their labels, addresses go unless they are known to the reader
already, and so does what nobody sees. What remains of a bracket that could begin a tag is written otherwise.
"""

import re
from collections.abc import Callable

_MAX_HELD_CHARS = 600
"""Longest piece that a stream keeps back until it is known what it is."""

# Bidi controls, zero-width characters, tags, variation selectors, soft hyphens. The joiners stay between letters that
# are written with them.
_UNSEEN = dict.fromkeys(
    [
        0xAD,
        0x061C,
        0x180E,
        0x200B,
        0x200E,
        0x200F,
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFE00, 0xFE10),
        0xFEFF,
        *range(0xE0000, 0xE0200),
    ]
)
_JOINERS = re.compile(r"(?<![^\x00-\u02ff])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\u02ff])")
_TAG = re.compile(r"<[/!?]?[A-Za-z][^<>]{0,2000}>|<!--.{0,2000}?-->", re.DOTALL)
_OPENING = re.compile(r"<(?=[/!?A-Za-z])")
_LINK = re.compile(
    r"!?\[([^\[\]]{0,500})\]\s?(?:\([^()\s]{0,2000}(?:\([^()]{0,200}\)[^()]{0,500})?[^()]{0,500}\)|\[[^\[\]]{0,200}\])"
)
_DEFINITION = re.compile(r"\[[^\[\]]{1,200}\]:\s*\S+")
_TLDS = (
    "com|net|org|edu|gov|int|info|biz|name|io|ai|app|dev|xyz|top|site|online|club|shop|live|link|click|cloud|page|zip|mov|"
    "eu|de|at|ch|fr|it|es|pt|nl|be|uk|ie|pl|cz|ru|su|ua|cn|jp|kr|in|br|us|ca|au|tv|me|cc|ly|gg|to|example|test|invalid|onion"
)
_ADDRESS = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]{1,20}:)?//[^\s<>\"'\u201d\u00bb]+"
    r"|(?:https?|ftp|javascript|vbscript|view-source):[^\s<>\"'\u201d\u00bb]+"
    r"|\b(?:file|data|mailto|tel|blob|about|ipfs):[^\s<>\"'\u201d\u00bb]+"
    rf"|\bwww\.[^\s<>\"']+|\b(?:[a-z0-9-]{{1,63}}\.)+(?:{_TLDS})(?::\d+)?(?:/[^\s<>\"']*|\?[^\s<>\"']*|\b)"
    r"|\b[\w.+-]{1,64}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}\b",
    re.IGNORECASE,
)
_NEVER = re.compile(r"(?:javascript|vbscript|data|file|blob|about|view-source):", re.IGNORECASE)
_TRAILING = ".,;:!?)]}\u2026"

Known = Callable[[str], bool]


def unknown(address: str) -> bool:
    """For texts whose support nobody has looked at yet: no address is known."""
    return False


def plain(text: str, known: Known = unknown) -> str:
    """The text without what is not words; addresses stay where `known` says so. Spaces are left as they are."""
    text = _JOINERS.sub("", text.translate(_UNSEEN))
    text = _DEFINITION.sub("", _unlinked(text))
    # Twice: taking a tag out may leave another one behind.
    text = _TAG.sub("", _TAG.sub("", text))
    text = _ADDRESS.sub(lambda found: _address(found.group(), known), text)
    return _OPENING.sub("\u2039", text)


def _unlinked(text: str) -> str:
    """Labels in the place of links; a label may hold a link itself, a few deep."""
    for _ in range(3):
        changed = _LINK.sub(r"\1", text)
        if changed == text:
            break
        text = changed
    return text


def _address(found: str, known: Known) -> str:
    bare = found.rstrip(_TRAILING)
    if not _NEVER.match(bare) and known(bare):
        return found
    return found[len(bare) :]


class PlainStream:
    """The same for text that comes in pieces, cut anywhere: what could still become something else is kept back.
    No address stays."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What is known to be words by this piece."""
        self._held += piece
        cut = _settled(self._held)
        settled, self._held = self._held[:cut], self._held[cut:]
        words = plain(settled)
        # What comes could make a tag of it.
        return f"{words[:-1]}\u2039" if words.endswith("<") else words

    def finish(self) -> str:
        """What was kept back."""
        rest, self._held = self._held, ""
        return plain(rest)


def _settled(text: str) -> int:
    """How much of the text does not depend on what comes: up to a space that is in no bracket."""
    end = max(text.rfind(" "), text.rfind("\n")) + 1
    if len(text) > _MAX_HELD_CHARS:
        return end or len(text)
    tag = text.rfind("<", 0, end)
    if tag >= 0 and ">" not in text[tag:end]:
        end = tag
    link = text.find("[", 0, end)
    while 0 <= link < end:
        if not _is_closed(text, link, end):
            return link - (text[link - 1 : link] == "!")
        link = text.find("[", link + 1, end)
    return end


def _is_closed(text: str, start: int, end: int) -> bool:
    closed = text.find("]", start, end)
    if closed < 0 or closed + 1 >= end:
        return False
    return text[closed + 1] not in "([:" or any(mark in text[closed + 2 : end] for mark in ")]\n ")

"""Finds passages of a document that speak to a model instead of to a reader: orders, false roles, forged fences.

Such a passage stays part of the document, and a model may say of it what it says. But nothing rests on it: its words
are no support for a sentence of an answer. The patterns know the usual forms in some twenty languages; who writes an
order that none of them knows gets past this, and is met by what stands around it (docs/hostile-text.md).
"""

import base64
import binascii
import re
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_BEFORE_WORDS = 40
_AFTER_WORDS = 120
"""So many words around an order, in its block, belong to it: what it wants to have said stands beside it. Sentences
that ended before it began do not: they are words like any others, as if the order stood in a block of its own."""
MAX_PASSAGES = 1_000
"""Of a document; with more the rest is not looked for."""
_ENDS = re.compile("\\w\\W?[.!?\u3002\uff01\uff1f\u061f]+[\"'\u201d\u2019\u00bb)\\]]*$")
"""The last word of a sentence; the full stops of Chinese, Japanese and Arabic too."""
_MAX_BLOB_CHARS = 20_000
# Nobody sees them, and they part words for those who compare.
_UNSEEN = dict.fromkeys(
    [0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xE0000, 0xE0080)]
)
_ALIKE = str.maketrans("авеіјкмноорсѕтухүһԁαβεικνορτυχ", "abeijkmhoopcstyxyhdabeiknoptux")
"""Cyrillic and Greek letters that look like Latin ones."""

_GAP = r"\W+(?:\w+\W+){0,6}?"
_PATTERNS: tuple[tuple[tuple[str, ...], str], ...] = (
    # Each with parts of words without one of which it is not looked for.
    (
        ("ignor", "disregard", "forget", "overrid", "bypass"),
        rf"\b(?:ignor\w+|disregard|forget|override|bypass){_GAP}"
        r"(?:instructions?|prompts?|rules?|guidelines?|directions?|orders?|told|said|task)\b",
    ),
    (("prompt",), r"\b(?:system|developer|hidden|initial) prompts?\b"),
    (
        ("instruct", "task", "order"),
        r"\b(?:new|updated|real|actual|secret|revised) (?:instructions?|task|orders?)\b\s*[:.]",
    ),
    (("you are", "you're"), r"\byou(?: are|'re) (?:now|no longer) "),
    (
        ("only", "exactly", "verbatim", "instead", "following"),
        r"\b(?:respond|reply|answer|output|print|say|write|repeat)(?:\s+(?:back|it|this|that|me))? ?"
        r"(?:only|exactly|verbatim|instead|with the following|the following)\b",
    ),
    (
        ("instead of",),
        r"\binstead of (?:a|the|any|your) (?:summary|summarization|answer)\b|\binstead of summari[sz]ing\b",
    ),
    (
        ("assistant", "language model", "chatbot", "summari", " ai", "llm"),
        r"\b(?:note|message|attention|instructions?|dear|hey)\W+(?:to|for)?\W*(?:the |all |any )?"
        r"(?:ai|assistants?|language models?|llms?|chatbots?|summari[sz]ers?)\b",
    ),
    (("mode",), r"\b(?:developer|debug|admin|god|jailbreak|dan) mode\b"),
    (
        ("ignorier", "missacht", "vergiss", "vergess"),
        rf"\b(?:ignorier\w*|missacht\w*|vergiss|vergess\w*){_GAP}(?:anweisung\w*|regeln|vorgaben|befehle?|auftr\w+)\b",
    ),
    (
        ("antworte", "schreib", "gib"),
        r"\b(?:antworten?|schreiben?|gib|geben)(?: sie)? (?:nur|ausschließlich|stattdessen)\b",
    ),
    (
        ("ignore", "oubli", "compte"),
        rf"\b(?:ignore[zr]?|oublie[zr]?|ten(?:ez|ir) (?:pas )?compte){_GAP}"
        r"(?:instructions?|consignes?|règles|directives)\b",
    ),
    (
        ("répond", "écri", "affich"),
        r"\b(?:réponds|répondez|écris|écrivez|affichez?) (?:uniquement|seulement|exactement|plutôt)\b",
    ),
    (
        ("ignor", "olvid", "omiso", "esque", "desconsider"),
        rf"\b(?:ignor\w+|olvid\w+|caso omiso|esque\w+|desconsider\w+){_GAP}"
        r"(?:instrucciones|instruções|reglas|regras|órdenes|ordens|indicaciones)\b",
    ),
    (
        ("respond", "escrib", "escrev"),
        r"\b(?:respond[ae]n?|escrib[ae]|escrev[ae]) (?:solo|sólo|solamente|únicamente|apenas|somente)\b",
    ),
    (("ignora", "dimentica"), rf"\b(?:ignora\w*|dimentica\w*){_GAP}(?:istruzioni|regole|direttive|ordini)\b"),
    (("rispond", "scriv"), r"\b(?:rispond[ia]|scriv[ia]) (?:solo|soltanto|esclusivamente|unicamente)\b"),
    (("negeer", "vergeet"), rf"\b(?:negeer|vergeet){_GAP}(?:instructies?|opdrachten|regels|aanwijzingen)\b"),
    (("ignoruj", "zapomnij"), rf"\b(?:zi?gnoruj|ignoruj|zapomnij){_GAP}(?:instrukcj\w*|polece\w*|zasad\w*)\b"),
    (("bortse", "ignorera", "glöm"), rf"\b(?:bortse|ignorera|glöm){_GAP}(?:instruktion\w*|regler\w*|anvisning\w*)\b"),
    (("игнорир", "забудь", "обращай"), rf"(?:\w*игнорир\w+|забудь\w*|не обращай\w*){_GAP}(?:инструкци|указани|правил)"),
    (("ігнору", "забудь"), rf"(?:\w*ігнору\w+|забудь\w*){_GAP}(?:інструкці|вказів|правил)"),
    (("talimat", "komut", "yönerge"), r"\b(?:talimat|yönerge|komut)\w*\W+(?:\w+\W+){0,3}?(?:yok say|görmezden|unut)"),
    (
        ("指令", "指示", "规则", "提示", "說明"),
        r"(?:忽略|无视|無視|忘记|忘記|不要理会).{0,20}(?:指令|指示|规则|提示|說明)",
    ),
    (("無視", "忘れ"), r"(?:指示|命令|プロンプト|ルール).{0,12}(?:無視|忘れ)"),
    (("무시", "잊"), r"(?:지시|명령|지침|프롬프트).{0,12}(?:무시|잊)"),
    (("تجاهل", "انس"), r"(?:تجاهل|انس).{0,30}(?:التعليمات|الأوامر|القواعد)"),
    (("התעלם",), r"התעלם.{0,30}(?:הוראות|ההוראות|הנחיות)"),
    (("निर्देश",), r"निर्देश.{0,20}(?:अनदेखा|नज़रअंदाज़|भूल)"),
    # What belongs to the machinery around a model.
    (("<|", "|>"), r"<\|[\w ]{1,40}\|>"),
    (("inst]", "<<sys", "</s>"), r"\[/?inst\]|<</?sys>>|</s>"),
    (
        ("<",),
        r"</?(?:system|assistant|user|instructions?|material|tool_call|function_calls?|script|img|iframe)\b",
    ),
    (("system", "assistant", "developer"), r"(?m)^\W{0,3}(?:system|assistant|developer)(?: message)?\s*:"),
    (("###",), r"###\s*(?:system|instructions?|response|human|assistant)\b"),
    (("begin ", "end "), r"(?m)^(?:begin|end)(?: of)? [0-9a-f]{6,}\b"),
    (('"',), r"\"(?:tool|tool_calls?|function|function_call|name)\"\s*:.{0,200}\"(?:arguments|parameters|input)\"\s*:"),
    (('"sentences"',), r"\"sentences\"\s*:\s*\["),
    (("](",), r"\]\((?:https?|data|javascript):"),
    (("javascript:", "data:text"), r"\bjavascript:|\bdata:text/html"),
)
_ORDERS = tuple((stems, re.compile(pattern, re.DOTALL)) for stems, pattern in _PATTERNS)
_BLOB = re.compile(r"[A-Za-z0-9+/]{32,}={0,2}")


@dataclass(frozen=True, slots=True)
class Line:
    """A word of a page as orders are looked for in it: its text, and whether a line begins with it. `block` is the
    parser's."""

    text: str
    begins: bool
    block: int


def passages(words: Sequence[Line]) -> Iterator[tuple[int, int]]:
    """Words from the first to the last, both included, of each passage that speaks to a model; they may overlap."""
    if not _may_speak(words):
        return
    texts = [_bare(word.text) for word in words]
    starts, pieces, size = array("I"), list[str](), 0
    for text, word in zip(texts, words, strict=True):
        pieces.append("\n" if word.begins else " ")
        starts.append(size + 1)
        pieces.append(text)
        size += 1 + len(text)
    joined = "".join(pieces)
    for first, last in _found(joined):
        yield _around(words, bisect_right(starts, first) - 1, bisect_right(starts, last - 1) - 1)
    for number, word in enumerate(words):
        if decoded(word.text):
            yield _around(words, number, number)


def decoded(word: str) -> str:
    """What a word says in base64, where that is text; else nothing."""
    found = _BLOB.search(word[:_MAX_BLOB_CHARS]) if len(word) >= 32 else None
    if found is None:
        return ""
    blob = found.group().rstrip("=")
    try:
        text = base64.b64decode(blob[: len(blob) // 4 * 4]).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return text if text.isprintable() and " " in text else ""


def _may_speak(words: Sequence[Line]) -> bool:
    """Whether it is worth a closer look; most pages are not."""
    plain = " ".join(word.text for word in words)
    text = _bare(plain)
    alike = text if text.isascii() else text + text.translate(_ALIKE)
    return any(stem in alike for stems, _ in _ORDERS for stem in stems) or _BLOB.search(plain) is not None


def _found(joined: str) -> Iterator[tuple[int, int]]:
    # Letters that look alike are tried as what they look like, and as what they are.
    for text in dict.fromkeys((joined, joined.translate(_ALIKE))):
        for stems, pattern in _ORDERS:
            if any(stem in text for stem in stems):
                for match in pattern.finditer(text):
                    yield max(match.start(), 1), max(match.end(), 2)


def _around(words: Sequence[Line], first: int, last: int) -> tuple[int, int]:
    first, last = max(first, 0), max(last, 0)
    lowest, highest = max(0, first - _BEFORE_WORDS), min(len(words) - 1, last + _AFTER_WORDS)
    begin, end = first, last
    while begin > lowest and words[begin - 1].block == words[first].block and not _ENDS.search(words[begin - 1].text):
        begin -= 1
    while end < highest and words[end + 1].block == words[last].block:
        end += 1
    return begin, end


def _bare(word: str) -> str:
    """The word as it looks, in one case."""
    if word.isascii():
        return word.lower()
    lowered = unicodedata.normalize("NFKC", word).translate(_UNSEEN).lower()
    # One letter for one, so that accents of any spelling are met.
    return unicodedata.normalize("NFC", lowered)

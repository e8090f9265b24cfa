"""Takes the prose out of an answer while its JSON is still being written."""

from enum import Enum, auto

_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": " ", "f": " ", "n": " ", "r": " ", "t": " "}
_REPLACEMENT = "\ufffd"


class _In(Enum):
    """What the next character belongs to."""

    STRUCTURE = auto()
    STRING = auto()
    ESCAPE = auto()
    UNICODE = auto()


class ProseStream:
    """`feed` it the answer in pieces, cut anywhere; it gives back what is new of the sentences' texts.

    A text is a string at `$.sentences[*].text`, three containers deep; sentences are joined by a space. Malformed JSON
    gives nothing or too little, never an error: the whole answer is read strictly afterwards.
    """

    _TEXT_DEPTH = 3
    _MAX_KEY_CHARS = 16

    def __init__(self) -> None:
        self._in = _In.STRUCTURE
        self._depth = 0
        self._awaits_value = False
        self._key = ""
        self._string = ""
        self._is_text = False
        self._digits = ""
        self._high = 0
        self._sentences = 0

    def feed(self, piece: str) -> str:
        """The prose that the piece brings."""
        return "".join(self._step(char) for char in piece)

    def _step(self, char: str) -> str:
        if self._in is _In.STRUCTURE:
            return self._structure(char)
        if self._in is _In.ESCAPE:
            return self._escape(char)
        if self._in is _In.UNICODE:
            return self._unicode(char)
        if char == "\\":
            self._in = _In.ESCAPE
            return ""
        if char == '"':
            return self._end_string()
        return self._character(char)

    def _structure(self, char: str) -> str:
        if char == '"':
            self._in, self._string = _In.STRING, ""
            self._is_text = self._awaits_value and self._key == "text" and self._depth == self._TEXT_DEPTH
            if self._is_text:
                self._sentences += 1
                return " " if self._sentences > 1 else ""
        elif char in "{[":
            self._depth += 1
            self._awaits_value = False
        elif char in "}]":
            self._depth -= 1
            self._awaits_value = False
        elif char == ":":
            self._key, self._awaits_value = self._string, True
        elif char == ",":
            self._awaits_value = False
        return ""

    def _escape(self, char: str) -> str:
        if char == "u":
            self._in, self._digits = _In.UNICODE, ""
            return ""
        self._in = _In.STRING
        return self._character(_ESCAPES.get(char, char))

    def _unicode(self, char: str) -> str:
        self._digits += char
        if len(self._digits) < 4:
            return ""
        self._in = _In.STRING
        try:
            code = int(self._digits, 16)
        except ValueError:
            return self._character(_REPLACEMENT)
        if 0xD800 <= code < 0xDC00:
            lone = self._lone_surrogate()
            self._high = code
            return lone
        if 0xDC00 <= code < 0xE000:
            high, self._high = self._high, 0
            pair = chr(0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00)) if high else _REPLACEMENT
            return self._character(pair)
        return self._character(" " if code < 0x20 or 0x7F <= code < 0xA0 else chr(code))

    def _end_string(self) -> str:
        lone = self._lone_surrogate()
        self._in = _In.STRUCTURE
        return lone

    def _character(self, char: str) -> str:
        lone = self._lone_surrogate()
        if len(self._string) < self._MAX_KEY_CHARS:
            self._string += char
        return lone + char if self._is_text else lone

    def _lone_surrogate(self) -> str:
        """Half a character whose other half did not follow."""
        high, self._high = self._high, 0
        return _REPLACEMENT if high and self._is_text else ""

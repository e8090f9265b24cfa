"""The port of text recognition in memory."""

from services.extractor.domain.pages import Picture
from services.extractor.domain.recognised import LineWord, Reading, TextLine


class MemoryTextReader:
    """Implements `TextReader` for pictures of its own kind: a row is a line of UTF-8, filled up with white."""

    async def read(self, tenant: str, picture: Picture, *, wait_s: float | None) -> Reading:
        """See the port."""
        rows = range(picture.height_px)
        lines = (_line(picture.content[y * picture.width_px : (y + 1) * picture.width_px], y) for y in rows)
        return Reading(tuple(line for line in lines if line.words))


def _line(row: bytes, y: int) -> TextLine:
    text = row.rstrip(b"\xff").decode()
    width = len(row)
    words, at = [], 0
    for word in text.split():
        begin = text.index(word, at)
        at = begin + len(word)
        words.append(LineWord(word, begin / width, min(at / width, 1.0)))
    return TextLine(tuple(words), ((0, y), (width, y), (width, y + 1), (0, y + 1)), 1.0)

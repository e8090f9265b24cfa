"""How large an image is, by its first bytes: known before anything decodes it."""

from mmap import mmap

from services.extractor.adapters.parser_protocol import Format

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG after which its size stands."""
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_MAX_SEGMENTS = 10_000


def pixels(data: bytes | mmap, file_format: Format) -> int:
    """Width times height as the header says; 0 where it says none, and no reader could go on either."""
    return _png(data) if file_format is Format.PNG else _jpeg(data)


def _png(data: bytes | mmap) -> int:
    if len(data) < 24:
        return 0
    return _number(data, 16, 4) * _number(data, 20, 4)


def _jpeg(data: bytes | mmap) -> int:
    at = 2
    largest = 0
    for _ in range(_MAX_SEGMENTS):
        while at < len(data) and data[at] != 0xFF:
            at += 1
        while at < len(data) and data[at] == 0xFF:
            at += 1
        if at + 8 > len(data):
            break
        marker = data[at]
        at += 1
        if marker in _ALONE or marker == 0:
            continue
        if marker in _FRAMES:
            largest = max(largest, _number(data, at + 3, 2) * _number(data, at + 5, 2))
        if marker == 0xDA:
            break
        at += max(2, _number(data, at, 2))
    return largest


def _number(data: bytes | mmap, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")

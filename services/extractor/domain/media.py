"""What a file is, decided by its first bytes alone; names and declared types are not asked."""

import re
from enum import StrEnum

from services.runtime.errors import FieldViolation, InvalidArgument

SNIFF_BYTES = 1024 + len(b"%PDF-")
"""Bytes that decide. Readers accept a PDF header within the first 1024 (ISO 32000-1, annex H.3.4.1)."""

_PDF = b"%PDF-"
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"

_OTHER_FORMATS = re.compile(
    rb"PK\x03\x04|PK\x05\x06|GIF8|RIFF|II\*\x00|MM\x00\*|BM|\x7fELF|MZ|#!|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ"
    rb"|%!PS|<[!?a-zA-Z]|\x00\x00\x00.ftyp|\xd0\xcf\x11\xe0|\{\\rtf|\xca\xfe\xba\xbe|\x00asm"
)
"""Beginnings of formats that something else would open: with a PDF header behind them they are two files in one."""

_FORM = re.compile(rb"--[^\r\n]{1,200}\r?\nContent-Disposition: form-data", re.IGNORECASE)
"""Beginning of multipart/form-data (RFC 7578), in which a PDF would count as one with junk before its header."""


class MediaType(StrEnum):
    """The formats that are taken."""

    PDF = "application/pdf"
    JPEG = "image/jpeg"
    PNG = "image/png"


def sniff(head: bytes) -> MediaType:
    """The type of a file that begins with `head`: SNIFF_BYTES of it, or all where the file is shorter.

    Junk before a PDF header is common in real files (mail headers, byte order marks) and is let through; another
    format before it is not, because such a file means different things to different readers.
    Raises InvalidArgument UNSUPPORTED_MEDIA_TYPE.
    """
    head = head[:SNIFF_BYTES]
    pdf_at = head.find(_PDF)
    image = MediaType.JPEG if head.startswith(_JPEG) else MediaType.PNG if head.startswith(_PNG) else None
    if _FORM.match(head):
        raise _unsupported("This is a form with a file in it. Send the file itself: curl --data-binary @FILE, not -F.")
    if pdf_at == 0:
        return MediaType.PDF
    if pdf_at > 0 and (image or _OTHER_FORMATS.match(head.lstrip(b"\xef\xbb\xbf \t\r\n\x0c\x00"))):
        raise _unsupported("The file is two formats in one. Send a plain PDF, JPEG or PNG.")
    if pdf_at > 0:
        return MediaType.PDF
    if image is None:
        raise _unsupported("The file is not a PDF, JPEG or PNG; its first bytes decide, not its name.")
    return image


def _unsupported(message: str) -> InvalidArgument:
    return InvalidArgument("UNSUPPORTED_MEDIA_TYPE", message, fields=[FieldViolation("content", message)])

"""What the first bytes of a file say."""

import pytest

from services.extractor.domain.media import SNIFF_BYTES, MediaType, sniff
from services.runtime.errors import InvalidArgument

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b"%PDF-1.7\n", MediaType.PDF),
        (JPEG, MediaType.JPEG),
        (PNG, MediaType.PNG),
        (b"\xef\xbb\xbf%PDF-1.4", MediaType.PDF),
        (b"\r\n  %PDF-1.4", MediaType.PDF),
        (b"Content-Type: application/pdf\r\n\r\n%PDF-1.4", MediaType.PDF),
        (b"x" * 1024 + b"%PDF-", MediaType.PDF),
    ],
)
def test_the_three_formats_are_known(head: bytes, wanted: MediaType) -> None:
    assert sniff(head) is wanted


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"%PD",
        b"plain text that calls itself a PDF",
        b"<!DOCTYPE html><html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"PK\x03\x04\x14\x00",
        b"GIF89a",
        b"\xff\xd8",
        b"x" * 1025 + b"%PDF-",
    ],
)
def test_everything_else_is_refused(head: bytes) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sniff(head)
    assert refused.value.reason == "UNSUPPORTED_MEDIA_TYPE"
    assert [violation.field for violation in refused.value.fields] == ["content"]


@pytest.mark.parametrize(
    "beginning",
    [
        JPEG,
        PNG,
        b"PK\x03\x04",
        b"<html>",
        b"\xef\xbb\xbf<svg",
        b"\n <!DOCTYPE",
        b"GIF89a",
        b"MZ",
        b"#!/bin/sh\n",
        b"%!PS",
    ],
)
def test_two_formats_in_one_file_are_refused(beginning: bytes) -> None:
    with pytest.raises(InvalidArgument, match="two formats"):
        sniff(beginning + b" " * 100 + b"%PDF-1.7")


def test_a_form_is_not_taken_for_the_file_in_it() -> None:
    """A PDF may have junk before its header, such as a mail's; a form is a mistake of the caller's, and told."""
    with pytest.raises(InvalidArgument, match="--data-binary"):
        sniff(b'--------x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.7')
    assert sniff(b"--x\r\nContent-Type: application/pdf\r\n\r\n%PDF-1.7") is MediaType.PDF


def test_only_the_beginning_decides() -> None:
    assert sniff(JPEG.ljust(SNIFF_BYTES, b"\0") + b"%PDF-1.7") is MediaType.JPEG

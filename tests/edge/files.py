"""Documents of our own making, good and bad. MuPDF writes them; the stack under test only reads them."""

from typing import Any

import pymupdf

_PARAGRAPHS = (
    "Pagemesh reads a document page by page. Every page is parsed in a process of its own, so that a damaged page "
    "costs nothing but itself. The words keep the boxes in which they stand.",
    "A summary is made of sentences, and every sentence names the page it was taken from. A reader who doubts it can "
    "look at the very words. What cannot be found on a page is marked as not grounded.",
    "Money is counted in whole micro-units. Before a model is called, the highest possible price is set aside. After "
    "the call the exact price is written into the books, once and never twice.",
)


def good(pages: int = 3, mark: str = "") -> bytes:
    """A plain document with a paragraph on each page; `mark` makes its text differ from every other's."""
    document: Any = pymupdf.open()
    for number in range(pages):
        page = document.new_page()
        text = " ".join([_PARAGRAPHS[number % len(_PARAGRAPHS)], mark])
        page.insert_textbox(pymupdf.Rect(72, 72, 523, 770), text, fontsize=12)
    return bytes(document.tobytes(deflate=True))


def dense(words: int) -> bytes:
    """One page with so many words."""
    document: Any = pymupdf.open()
    page = document.new_page(width=3000, height=2000)
    for line, start in enumerate(range(0, words, 200)):
        text = " ".join(f"{number:05d}" for number in range(start, min(start + 200, words)))
        page.insert_text((5, 10 + line * 6), text, fontsize=4)
    return bytes(document.tobytes(deflate=True))


def encrypted() -> bytes:
    """Needs a password to open."""
    document: Any = pymupdf.open(stream=good(1), filetype="pdf")
    return bytes(document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, owner_pw="owner", user_pw="user"))


def without_pages() -> bytes:
    """A valid structure with an empty page tree."""
    return (
        b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n"
        b"2 0 obj\n<< /Type /Pages /Kids [] /Count 0 >>\nendobj\n"
        b"xref\n0 3\n0000000000 65535 f \n0000000009 00000 n \n0000000058 00000 n \n"
        b"trailer\n<< /Size 3 /Root 1 0 R >>\nstartxref\n110\n%%EOF\n"
    )


def header_only() -> bytes:
    """What is left of a file whose upload tool died at once."""
    return b"%PDF-1.7\n"


def truncated() -> bytes:
    """The first two thirds of a document: its table of contents is gone, its first pages can be rebuilt."""
    whole = good(6)
    return whole[: len(whole) * 2 // 3]


def html() -> bytes:
    return b"<!doctype html><html><body>%PDF-1.4 is mentioned here</body></html>"


def archive() -> bytes:
    return b"PK\x03\x04" + b"\0" * 200

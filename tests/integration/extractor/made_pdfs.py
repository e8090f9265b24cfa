"""PDF files made for tests, object by object: good ones, and ones that harm whoever reads them carelessly."""

import zlib
from collections.abc import Callable, Mapping, Sequence

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
_BOX = b"/MediaBox[0 0 612 792]"


def assemble(objects: Mapping[int, bytes]) -> bytes:
    """A file with these objects; number 1 is the catalogue."""
    out = bytearray(b"%PDF-1.7\n")
    offsets = {}
    for number, body in sorted(objects.items()):
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    size = max(objects) + 1
    begin = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % offsets[number] if number in offsets else b"0000000000 00000 f \n"
    return bytes(out) + b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, begin)


def stream(data: bytes, entries: bytes = b"", *, times: int = 1) -> bytes:
    """A stream object, deflated so many times."""
    for _ in range(times):
        data = zlib.compress(data, 9)
    filters = b"/FlateDecode" * times
    return b"<</Length %d/Filter[%s]%s>>\nstream\n%s\nendstream" % (len(data), filters, entries, data)


def page_text(number: int) -> str:
    return f"This is page {number} of the book."


def document(
    contents: Sequence[bytes],
    extra: Mapping[int, bytes] | None = None,
    resources: bytes = b"",
    *,
    font_of: Callable[[int], int] = lambda _: 3,
) -> bytes:
    """One page for each content stream; font /F1 is number 3 or `font_of(index)`, and `extra` objects begin at 10."""
    first = 10 + len(extra or {})
    objects = {3: FONT, **(extra or {})}
    kids = []
    for index, content in enumerate(contents):
        page, body = first + 2 * index, first + 2 * index + 1
        kids.append(b"%d 0 R" % page)
        entries = b"%s/Resources<</Font<</F1 %d 0 R>>%s>>/Contents %d 0 R" % (_BOX, font_of(index), resources, body)
        objects[page] = b"<</Type/Page/Parent 2 0 R%s>>" % entries
        objects[body] = stream(content)
    objects[1] = b"<</Type/Catalog/Pages 2 0 R>>"
    objects[2] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(kids))
    return assemble(objects)


def line(text: str, y: int = 700) -> bytes:
    return b"BT /F1 12 Tf 72 %d Td (%s) Tj ET\n" % (y, text.encode())


def book(pages: int) -> bytes:
    """Pages of one line each, `page_text(number)`."""
    return document([line(page_text(number)) for number in range(1, pages + 1)])


def dense_book(pages: int) -> bytes:
    """Pages of 90 lines each, so that a thousand of them with their words are more than lie on the way to a reader."""
    return document([b"".join(line(page_text(number), y) for y in range(60, 780, 8)) for number in range(1, pages + 1)])


def book_of_many_fonts(pages: int) -> bytes:
    """The same with a font for each page, so that whoever keeps what it has read grows with every page."""
    fonts = {10 + number: FONT for number in range(pages)}
    contents = [line(page_text(number)) for number in range(1, pages + 1)]
    return document(contents, fonts, font_of=lambda index: 10 + index)


def with_laughing_page(before: int, after: int) -> bytes:
    """Good pages around one that draws 10^12 letters out of forms that draw forms."""
    forms = {
        number: stream(
            b"/X Do " * 10,
            b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X %d 0 R>>>>" % (number + 1),
        )
        for number in range(10, 22)
    }
    forms[22] = stream(
        b"BT /F1 1 Tf (x) Tj ET", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</Font<</F1 3 0 R>>>>"
    )
    good = [line(page_text(number)) for number in range(1, before + after + 2)]
    good[before] = b"/X Do"
    return document(good, forms, b"/XObject<</X 10 0 R>>")


def with_swelling_page(before: int, after: int) -> bytes:
    """Good pages around one whose letters each stand for 512, by its font's ToUnicode: gigabytes out of kilobytes."""
    cmap = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def "
        b"1 begincodespacerange <00> <FF> endcodespacerange 1 beginbfchar <41> <%s> endbfchar endcmap end end"
        % (b"0041" * 512)
    )
    extra = {10: stream(cmap), 11: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 10 0 R>>"}
    good = [line(page_text(number)) for number in range(1, before + after + 2)]
    good[before] = b"BT /F1 12 Tf 1 0 0 1 72 720 Tm (%s) Tj ET\n" % (b"A" * 64) * 30_000
    return document(good, extra, font_of=lambda index: 11 if index == before else 3)


def double_deflate_bomb(size_bytes: int) -> bytes:
    """A page whose content is so many spaces, deflated twice."""
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Count 1/Kids[4 0 R]>>",
        3: FONT,
        4: b"<</Type/Page/Parent 2 0 R%s/Resources<</Font<</F1 3 0 R>>>>/Contents 5 0 R>>" % _BOX,
        5: stream(b" " * size_bytes, times=2),
    }
    return assemble(objects)


def page_tree_of_itself() -> bytes:
    return assemble({1: b"<</Type/Catalog/Pages 2 0 R>>", 2: b"<</Type/Pages/Count 1/Kids[2 0 R]>>"})


def without_pages() -> bytes:
    return assemble({1: b"<</Type/Catalog/Pages 2 0 R>>", 2: b"<</Type/Pages/Count 0/Kids[]>>"})


def with_broken_page(before: int, after: int) -> bytes:
    """Good pages around one that opens more graphics states than there can be."""
    contents = [line(page_text(number)) for number in range(1, before + after + 2)]
    contents[before] = b"q " * 1_000_000
    return document(contents)


def rotated() -> bytes:
    """One line on a page that is shown turned by 90 degrees."""
    return document([line("turned")]).replace(b"/Type/Page/Parent", b"/Type/Page/Rotate 90/Parent")


def encrypted(password: str = "secret", *, owner_only: bool = False) -> bytes:
    """A good file that asks for a password, or, with `owner_only`, is encrypted and opens without one."""
    import pymupdf

    with pymupdf.open(stream=book(2), filetype="pdf") as made:
        data: bytes = made.tobytes(
            encryption=pymupdf.PDF_ENCRYPT_AES_256, owner_pw=password, user_pw="" if owner_only else password
        )
    return data


def png(width: int, height: int) -> bytes:
    """A white PNG of that size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress((b"\0" + b"\xff" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

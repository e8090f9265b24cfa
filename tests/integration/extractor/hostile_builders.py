"""What hostile_files.py makes its files of: one page, and something in it or around it."""

import zlib
from collections.abc import Callable, Mapping

from tests.integration.extractor import made_pdfs
from tests.integration.extractor.made_pdfs import FONT, assemble, line, stream

GOOD_TEXT = "This page is as good as any."
GOOD = line(GOOD_TEXT)
FORM = b"/Type/XObject/Subtype/Form/BBox[0 0 612 792]"
_IMAGE = b"/Type/XObject/Subtype/Image/ColorSpace/DeviceGray/BitsPerComponent 8"
_DRAW = b"q 600 0 0 700 0 0 cm /X Do Q "


def one_page(
    content: bytes = GOOD,
    *,
    resources: bytes = b"",
    page: bytes = b"",
    catalog: bytes = b"",
    box: bytes = b"[0 0 612 792]",
    extra: Mapping[int, bytes] | None = None,
) -> bytes:
    """Catalogue 1, pages 2, font 3, page 4, its content 5; `extra` objects begin at 10."""
    return assemble(
        {
            1: b"<</Type/Catalog/Pages 2 0 R%s>>" % catalog,
            2: b"<</Type/Pages/Count 1/Kids[4 0 R]>>",
            3: FONT,
            4: b"<</Type/Page/Parent 2 0 R/MediaBox%s/Resources<</Font<</F1 3 0 R>>%s>>/Contents 5 0 R%s>>"
            % (box, resources, page),
            5: stream(content),
            **(extra or {}),
        }
    )


def page_with_image(entries: bytes, data: bytes, filters: bytes) -> bytes:
    """A page that draws one picture, and says GOOD_TEXT below."""
    body = b"<<%s%s/Filter%s/Length %d>>\nstream\n%s\nendstream" % (_IMAGE, entries, filters, len(data), data)
    return one_page(_DRAW + GOOD, resources=b"/XObject<</X 10 0 R>>", extra={10: body})


def chain(count: int, of: Callable[[int], bytes], last: bytes, begin: int = 10) -> dict[int, bytes]:
    """Objects of which each names the next one, `of(next)`."""
    return {**{begin + n: of(begin + n + 1) for n in range(count - 1)}, begin + count - 1: last}


def laughing(draw: bytes, times: int, depth: int, last: bytes) -> dict[int, bytes]:
    """Forms that draw forms, `times` each."""

    def form(below: int) -> bytes:
        return stream(draw * times, FORM + b"/Resources<</XObject<</X %d 0 R>>>>" % below)

    return chain(depth, form, stream(last, FORM + b"/Resources<</Font<</F1 3 0 R>>>>"))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png_of(width: int, height: int, *, data: bytes = b"", kind: int = 6, interlaced: bool = False) -> bytes:
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, kind, 0, 0, interlaced])
    chunks = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", data or zlib.compress(b"\0" * 64)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def deflated(megabytes: int, piece: bytes = b"\0") -> bytes:
    """So many megabytes of one byte, a thousandth in size, made without holding them."""
    packer = zlib.compressobj(9)
    block = piece * 1_000_000
    return b"".join([*(packer.compress(block) for _ in range(megabytes)), packer.flush()])


def png_with_text_bomb() -> bytes:
    good = made_pdfs.png(30, 20)
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + deflated(200)) + png_chunk(b"iCCP", b"x\0\0" + deflated(200))
    return good[:33] + bomb + good[33:]


def jpeg(width: int, height: int, *, progressive: bool = False, scans: int = 1) -> bytes:
    """A header that promises pixels, and next to no data."""
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    table = b"\x00" + bytes([1] + [0] * 15) + b"\x00"

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    head = b"\xff\xd8" + segment(0xDB, b"\x00" + b"\x01" * 64) + segment(0xC2 if progressive else 0xC0, frame)
    tables = segment(0xC4, table) + segment(0xC4, b"\x10" + table[1:])
    scan = segment(0xDA, b"\x01\x01\x00\x00\x00\x00" if progressive else b"\x01\x01\x00\x00\x3f\x00") + b"\x00" * 8
    return head + tables + scan * scans + b"\xff\xd9"


def page_tree(kids: bytes, count: bytes = b"") -> bytes:
    """Ten levels of ten kids each, all the same object."""
    levels = chain(10, lambda below: b"<</Type/Pages%s/Kids[%s]>>" % (count, b"%d 0 R " % below * 10), kids)
    return assemble({1: b"<</Type/Catalog/Pages 10 0 R>>", 3: FONT, **levels})


def pages_that_are_one(count: int) -> bytes:
    return one_page().replace(b"/Count 1/Kids[4 0 R]", b"/Count %d/Kids[%s]" % (count, b"4 0 R " * count))


def xref_stream(entries: bytes, rows: bytes = b"\1\0\0\0\0\0") -> bytes:
    body = b"<</Type/XRef/Root 1 0 R%s/Length %d>>\nstream\n%s\nendstream" % (entries, len(rows), rows)
    file = one_page()
    return file[: file.index(b"xref\n0 ")] + b"9 0 obj\n%s\nendobj\nstartxref\n%d\n%%%%EOF\n" % (
        body,
        file.index(b"xref\n0 "),
    )


def trailer(entries: bytes) -> bytes:
    return one_page().replace(b"/Root 1 0 R>>\nstartxref", b"/Root 1 0 R%s>>\nstartxref" % entries)


def updates(count: int) -> bytes:
    """The page replaced again and again, each time with a table that names the one before."""
    out = bytearray(one_page())
    before = out.rindex(b"xref\n0 ")
    page = bytes(out[out.index(b"4 0 obj") : out.index(b"5 0 obj")])
    for _ in range(count):
        at = len(out)
        out += page
        table = len(out)
        out += b"xref\n4 1\n%010d 00000 n \ntrailer\n<</Size 6/Root 1 0 R/Prev %d>>\nstartxref\n%d\n%%%%EOF\n" % (
            at,
            before,
            table,
        )
        before = table
    return bytes(out)


def outline(count: int) -> bytes:
    """So many entries, one beside the other."""
    items = {
        10 + n: b"<</Title(Entry %d)/Parent 9 0 R/Dest[4 0 R/Fit]%s>>"
        % (n, b"/Next %d 0 R" % (11 + n) * (n < count - 1))
        for n in range(count)
    }
    root = b"<</Type/Outlines/First 10 0 R/Last %d 0 R/Count %d>>" % (9 + count, count)
    return one_page(catalog=b"/Outlines 9 0 R", extra={9: root, **items})


def outline_depth(depth: int) -> bytes:
    items = chain(depth, lambda below: b"<</Title(In)/First %d 0 R/Last %d 0 R>>" % (below, below), b"<</Title(End)>>")
    return one_page(catalog=b"/Outlines 9 0 R", extra={9: b"<</First 10 0 R/Last 10 0 R>>", **items})


def type3(glyph: bytes, resources: bytes) -> bytes:
    font = (
        b"<</Type/Font/Subtype/Type3/FontBBox[0 0 9 9]/FontMatrix[1 0 0 1 0 0]/FirstChar 65/LastChar 65/Widths[9]"
        b"/Encoding<</Type/Encoding/Differences[65/A]>>/CharProcs<</A 11 0 R>>/Resources<<%s>>>>" % resources
    )
    return one_page(
        b"BT /T 9 Tf 72 500 Td (%s) Tj ET " % (b"A" * 50) + GOOD,
        resources=b"/Font<</F1 3 0 R/T 10 0 R>>",
        extra={10: font, 11: stream(b"9 0 d0 " + glyph)},
    ).replace(b"/Font<</F1 3 0 R>>/Font", b"/Font")


def pattern(step: bytes, cell: bytes, resources: bytes = b"") -> bytes:
    pattern = (
        b"/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 9 9]/XStep %s/YStep %s/Resources<<%s>>"
        % (step, step, resources)
    )
    content = b"/Pattern cs /P scn 0 0 612 792 re f " + GOOD
    return one_page(content, resources=b"/Pattern<</P 10 0 R>>", extra={10: stream(cell, pattern)})


def shading(shading: bytes, extra: Mapping[int, bytes] | None = None) -> bytes:
    return one_page(b"/S sh " + GOOD, resources=b"/Shading<</S 10 0 R>>", extra={10: shading, **(extra or {})})


def mesh(megabytes: int) -> bytes:
    entries = (
        b"/ShadingType 4/ColorSpace/DeviceGray/BitsPerCoordinate 8/BitsPerComponent 8/BitsPerFlag 8"
        b"/Decode[0 612 0 792 0 1]/Filter/FlateDecode"
    )
    data = deflated(megabytes, b"\x00\x00\x01\x02\x00\xff\xf0\x05\x00\x80\x99\xfe")
    return shading(b"<<%s/Length %d>>\nstream\n%s\nendstream" % (entries, len(data), data))


def colour_space(space: bytes, extra: Mapping[int, bytes] | None = None) -> bytes:
    content = b"/C cs 0.5 sc 100 100 200 200 re f " + GOOD
    return one_page(content, resources=b"/ColorSpace<</C 10 0 R>>", extra={10: space, **(extra or {})})


def tint(function: bytes, extra: Mapping[int, bytes] | None = None) -> bytes:
    return colour_space(b"[/Separation/X/DeviceGray 11 0 R]", {11: function, **(extra or {})})


def function_laughs() -> dict[int, bytes]:
    def joined(below: int) -> bytes:
        return b"<</FunctionType 3/Domain[0 1]/Functions[%s]/Bounds[.1 .2 .3 .4 .5 .6 .7 .8 .9]/Encode[%s]>>" % (
            b"%d 0 R " % below * 10,
            b"0 1 " * 10,
        )

    return chain(12, joined, b"<</FunctionType 2/Domain[0 1]/N 1>>", begin=11)


def annotations(count: int, annotation: bytes, extra: Mapping[int, bytes] | None = None) -> bytes:
    return one_page(page=b"/Annots[%s]" % (b"10 0 R " * count), extra={10: annotation, **(extra or {})})


def with_catalog_objects(catalog: bytes, extra: Mapping[int, bytes]) -> bytes:
    return one_page(catalog=catalog, extra=extra)


def object_stream(entries: bytes, length: bytes = b"40") -> bytes:
    """An object stream that holds what is needed to read it."""
    body = b"<</Type/ObjStm/N 1/First 5%s/Length %s>>\nstream\n11 0 %s\nendstream" % (entries, length, b" " * 40)
    return one_page(page=b"/Extra 11 0 R", extra={10: body}).replace(b"/F1 3 0 R", b"/F1 11 0 R")


def font(font: bytes, extra: Mapping[int, bytes] | None = None) -> bytes:
    return one_page(extra={3: font, **(extra or {})})


def lines(count: int) -> bytes:
    """A page ruled into ever so many cells: for whoever looks for tables."""
    rows = [b"10 %.2f m 600 %.2f l S " % (10 + n * 770 / count, 10 + n * 770 / count) for n in range(count)]
    columns = [b"%.2f 10 m %.2f 780 l S " % (10 + n * 590 / count, 10 + n * 590 / count) for n in range(count)]
    return one_page(b"".join(rows) + b"".join(columns) + GOOD)


def letters(count: int) -> bytes:
    """So many letters in one place."""
    return one_page(GOOD + b"BT /F1 1 Tf 300 300 Td " + b"1 0 0 1 0 0 Tm (ab) Tj " * count + b"ET")


def soft_mask() -> dict[int, bytes]:
    return {
        10: b"<</Type/ExtGState/SMask<</S/Alpha/G 11 0 R>>>>",
        11: stream(b"/G gs 0 0 9 9 re f", FORM + b"/Group<</S/Transparency>>/Resources<</ExtGState<</G 10 0 R>>>>"),
    }


def groups(depth: int) -> bytes:
    group = FORM + b"/Group<</S/Transparency/I true/K true>>"
    forms = chain(
        depth,
        lambda below: stream(b"/X Do", group + b"/Resources<</XObject<</X %d 0 R>>>>" % below),
        stream(b"0 0 9 9 re f", group),
    )
    return one_page(b"/X Do " + GOOD, resources=b"/XObject<</X 10 0 R>>", extra=forms)


def attachment() -> dict[int, bytes]:
    return {
        10: b"<</Names[(a.exe) 11 0 R]>>",
        11: b"<</Type/Filespec/F(../../a.exe)/EF<</F 12 0 R>>>>",
        12: stream(b"MZ" + b"\0" * 100_000_000, b"/Type/EmbeddedFile"),
    }

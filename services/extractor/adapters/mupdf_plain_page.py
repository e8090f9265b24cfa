"""A page of which nothing but its text is asked for: the shortest way from a file to the wire.

PyMuPDF's `Page` and `TextPage` add a good tenth to what MuPDF itself takes for the text of a page.
"""

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_pages import was_damaged
from services.extractor.adapters.mupdf_text import plain_text
from services.extractor.adapters.parser_protocol import MAX_PAGE_BYTES

_mupdf = pymupdf.mupdf
_FLAGS = pymupdf.TEXTFLAGS_TEXT
_MOST_CHARS = MAX_PAGE_BYTES // 8
"""Whatever its letters are, so many fit into a page."""
_LARGEST_PT = 1e6


def plain_page(document: pymupdf.Document, number: int) -> bytes | None:
    """What `mupdf_pages.text_page` says of page `number` of a PDF, counting from 1, for `PartBit.TEXT` alone. None
    where it has to say it: of a page that is turned, has no text, or is out of the ordinary in another way."""
    page = _mupdf.fz_load_page(document.this, number - 1)
    pymupdf.TOOLS.reset_mupdf_warnings()
    if _is_turned(page):
        return None
    box = _mupdf.fz_bound_page(page)
    width, height = box.x1 - box.x0, box.y1 - box.y0
    if not (0 <= width < _LARGEST_PT and 0 <= height < _LARGEST_PT):
        return None
    textpage = _mupdf.FzStextPage(pymupdf.extra.page_get_textpage(page, None, _FLAGS, None))
    text = plain_text(textpage)
    if not text or text.isspace() or len(text) > _MOST_CHARS:
        return None
    out = page_pb2.Page(number=number, width_pt=width, height_pt=height, text=text)
    if was_damaged():
        out.flags.append(page_pb2.PAGE_FLAG_PARTIAL)
    return out.SerializeToString()


def _is_turned(page: pymupdf.mupdf.FzPage) -> bool:
    found = _mupdf.pdf_dict_get_inheritable(_mupdf.pdf_page_from_fz_page(page).obj(), _mupdf.PDF_ENUM_NAME_Rotate)
    return bool(_mupdf.pdf_to_int(found))

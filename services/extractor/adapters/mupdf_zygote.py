"""The parent of all parser processes, with MuPDF loaded.

Started as `python -m services.extractor.adapters.mupdf_zygote <socket fd> <memory bytes>`.
"""

import contextlib
import gc

from services.extractor.adapters.mupdf_document import document_info
from services.extractor.adapters.mupdf_images import check_pixels
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_pages import text_page
from services.extractor.adapters.mupdf_worker import work
from services.extractor.adapters.parser_protocol import PartBit
from services.extractor.adapters.zygote import serve


def warm_up() -> None:
    """Runs what a page needs once, so that nothing is imported, built or looked up after the fork."""
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    with pymupdf.open() as made:
        made.new_page().insert_text((72, 72), "warm")
        _draw_table(made.new_page())
        made.set_toc([[1, "warm", 1]])
        made.set_metadata({"creationDate": "D:20200101000000Z"})
        made.new_page().insert_image(pymupdf.Rect(0, 0, 9, 9), pixmap=pymupdf.Pixmap(pymupdf.csRGB, (0, 0, 4, 4)))
        data = made.tobytes()
    with pymupdf.open(stream=memoryview(data), filetype="pdf") as read:
        document_info(read, PartBit(-1))
        for index, page in enumerate(read):
            page.set_rotation(90)
            text_page(page, index + 1, PartBit(-1))
            check_pixels(page, 0 if index == 0 else 16)
            page.get_pixmap(dpi=9, alpha=False).tobytes("jpeg")
    with contextlib.suppress(pymupdf.FileDataError):
        pymupdf.open(stream=b"%PDF-1.7\nbroken", filetype="pdf")
    gc.collect()
    # Children share these pages for as long as nobody writes to them.
    gc.freeze()


def _draw_table(page: pymupdf.Page) -> None:
    """A table of four cells with a link and a white word, so that whatever looks for such things finds them."""
    for x in (72, 172):
        for y in (72, 92, 112):
            page.draw_rect(pymupdf.Rect(x, y, x + 100, y + 20), fill=(0.9, 0.9, 0.9))
            page.insert_text((x + 5, y + 15), f"{x} {y}", color=(1, 1, 1))
    page.insert_link({"kind": pymupdf.LINK_URI, "uri": "https://a.example", "from": pymupdf.Rect(72, 72, 90, 90)})
    page.insert_link({"kind": pymupdf.LINK_GOTO, "page": 0, "from": pymupdf.Rect(72, 92, 90, 100)})


if __name__ == "__main__":
    serve(work, warm_up=warm_up)

"""The parent of all parser processes, with MuPDF loaded.

Started as `python -m services.extractor.adapters.mupdf_zygote <socket fd> <memory bytes>`.
"""

import contextlib
import gc

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
        made.new_page().insert_image(pymupdf.Rect(0, 0, 9, 9), pixmap=pymupdf.Pixmap(pymupdf.csRGB, (0, 0, 4, 4)))
        data = made.tobytes()
    with pymupdf.open(stream=memoryview(data), filetype="pdf") as read:
        for index, page in enumerate(read):
            page.set_rotation(90)
            text_page(page, index + 1, PartBit.TEXT | PartBit.BLOCKS | PartBit.WORDS)
            check_pixels(page, 0 if index == 0 else 16)
            page.get_pixmap(dpi=9, alpha=False).tobytes("jpeg")
    with contextlib.suppress(pymupdf.FileDataError):
        pymupdf.open(stream=b"%PDF-1.7\nbroken", filetype="pdf")
    gc.collect()
    # Children share these pages for as long as nobody writes to them.
    gc.freeze()


if __name__ == "__main__":
    serve(work, warm_up=warm_up)

"""Drawn pages, and pictures taken out of a document, within bounds that hold before anything is allocated."""

import itertools
import math

from services.extractor.adapters.mupdf_images import TooManyPixelsError, check_pixels, image_file, placed_images
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.parser_protocol import MAX_PICTURE_BYTES
from services.extractor.adapters.picture_protocol import (
    NO_INDEX,
    Missing,
    PictureAnswer,
    PictureCode,
    PictureOrder,
    no_picture,
)

__all__ = ["TooManyPixelsError", "picture_answer"]

_POINTS_PER_INCH = 72.0


def picture_answer(document: pymupdf.Document, number: int, order: PictureOrder) -> tuple[bytes, ...]:
    """The frame that answers an order for a picture of page `number`, in pieces that belong together.

    Raises TooManyPixelsError, MemoryError, ValueError and whatever MuPDF raises.
    """
    page_count = document.page_count
    if number > page_count:
        return (no_picture(Missing.PAGE_OUT_OF_RANGE, page_count),)
    page = document[number - 1]
    if order.index == NO_INDEX:
        check_pixels(page, order.max_pixels)
        answer = drawn(page, order)
    else:
        images = [image for image, _ in itertools.islice(placed_images(page), order.index, order.index + 1)]
        if not images:
            count = sum(1 for _ in placed_images(page))
            return (no_picture(Missing.IMAGE_OUT_OF_RANGE, count),)
        answer = _taken_out(images[0], order)
    if len(answer.content) > MAX_PICTURE_BYTES:
        return (no_picture(Missing.TOO_LARGE, len(answer.content)),)
    return answer.frame()


def drawn(page: pymupdf.Page, order: PictureOrder) -> PictureAnswer:
    """The page as it is shown, turned and with its annotations, on white."""
    matrix, dpi = scale(page.rect.width, page.rect.height, dpi=order.dpi, max_side_px=order.max_side_px)
    colours = pymupdf.csGRAY if order.format is PictureCode.GRAY else pymupdf.csRGB
    pixmap = page.get_pixmap(matrix=matrix, colorspace=colours, alpha=False, annots=True)
    pixmap.set_dpi(dpi, dpi)
    if order.format is PictureCode.GRAY:
        content = bytes(pixmap.samples_mv)
    elif order.format is PictureCode.PNG:
        content = pixmap.tobytes("png")
    else:
        content = pixmap.tobytes("jpeg", jpg_quality=order.jpeg_quality)
    return PictureAnswer(order.format, pixmap.width, pixmap.height, content)


def scale(width_pt: float, height_pt: float, *, dpi: int, max_side_px: int) -> tuple[pymupdf.Matrix, int]:
    """How a page is scaled so that neither side is longer than `max_side_px` nor shorter than a pixel, and to how many
    dots per inch. Raises ValueError for a page without a size."""
    longest, shortest = max(width_pt, height_pt), min(width_pt, height_pt)
    if not (math.isfinite(longest) and shortest > 0):
        raise ValueError("a page without a size")
    # A little less than the limit, because MuPDF rounds outwards, in numbers of 24 bits.
    zoom = min(dpi / _POINTS_PER_INCH, (max_side_px - 0.01) / longest)
    # A page that is a thousand times as wide as high is drawn distorted rather than not at all.
    across, down = (max(zoom, 1.0 / side) for side in (width_pt, height_pt))
    return pymupdf.Matrix(across, down), max(1, round(zoom * _POINTS_PER_INCH))


def _taken_out(image: pymupdf.mupdf.FzImage, order: PictureOrder) -> PictureAnswer:
    content = image_file(image, order.max_pixels)
    code = PictureCode.PNG if content.startswith(b"\x89PNG") else PictureCode.JPEG
    return PictureAnswer(code, image.w(), image.h(), content)

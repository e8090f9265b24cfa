"""Pictures that are placed on a page, and one of them as a file."""

from collections.abc import Iterator

from services.extractor.adapters.mupdf_import import pymupdf

mupdf = pymupdf.mupdf
_SUFFIX_OF = {mupdf.FZ_IMAGE_JPEG: b"\xff\xd8\xff", mupdf.FZ_IMAGE_PNG: b"\x89PNG\r\n\x1a\n"}


class TooManyPixelsError(Exception):
    """An image has more pixels than may be decoded."""


def placed_images(page: pymupdf.Page) -> Iterator[tuple[pymupdf.mupdf.FzImage, pymupdf.mupdf.FzMatrix]]:
    """Each image with the matrix that places it, in the order in which they are drawn, which is their index in the
    page's list. No pixel is decoded."""
    textpage = page.get_textpage(flags=pymupdf.TEXT_PRESERVE_IMAGES)
    for block in textpage.this:
        if block.m_internal.type == mupdf.FZ_STEXT_BLOCK_IMAGE:
            yield block.i_image(), block.i_transform()


def check_pixels(page: pymupdf.Page, max_pixels: int) -> None:
    """Raises TooManyPixelsError where an image that is placed on the page, or its mask, has more."""
    for image, _ in placed_images(page):
        _check(image, max_pixels)


def image_file(image: pymupdf.mupdf.FzImage, max_pixels: int) -> bytes:
    """The image as it is in the file where that is a plain JPEG or PNG, and as PNG with its mask as transparency
    otherwise. Raises TooManyPixelsError where it would have to be decoded and has too many."""
    plain = _plain_file(image)
    if plain is not None:
        return plain
    _check(image, max_pixels)
    pixmap = pymupdf.Pixmap("raw", mupdf.fz_get_unscaled_pixmap_from_image(image))
    if image.imagemask():
        pixmap = _stencil(pixmap)
    elif pixmap.colorspace.n > 3 or pixmap.colorspace.n == 2:
        pixmap = pymupdf.Pixmap(pymupdf.csRGB, pixmap)
    mask = image.mask()
    if mask.m_internal:
        pixmap = _masked(pixmap, pymupdf.Pixmap("raw", mupdf.fz_get_unscaled_pixmap_from_image(mask)))
    data: bytes = pixmap.tobytes("png")
    return data


def _check(image: pymupdf.mupdf.FzImage, max_pixels: int) -> None:
    mask = image.mask()
    if image.w() * image.h() > max_pixels or (mask.m_internal and mask.w() * mask.h() > max_pixels):
        raise TooManyPixelsError


def _plain_file(image: pymupdf.mupdf.FzImage) -> bytes | None:
    """The bytes in the file, where they alone are the picture: a mask, a colour that stands for none, and an array that
    turns its values round would be lost."""
    if image.mask().m_internal or image.use_colorkey() or image.use_decode() or image.imagemask():
        return None
    compressed = mupdf.fz_compressed_image_buffer(image)
    if not compressed.m_internal:
        return None
    magic = _SUFFIX_OF.get(compressed.m_internal.params.type)
    if magic is None:
        return None
    data = bytes(mupdf.fz_buffer_extract_copy(mupdf.FzBuffer(mupdf.ll_fz_keep_buffer(compressed.m_internal.buffer))))
    return data if data.startswith(magic) else None


def _stencil(pixmap: pymupdf.Pixmap) -> pymupdf.Pixmap:
    """What a stencil paints in black, and the rest transparent."""
    black = pymupdf.Pixmap(pymupdf.csGRAY, (0, 0, pixmap.width, pixmap.height), False)
    black.clear_with(0)
    return pymupdf.Pixmap(black, pymupdf.Pixmap(pymupdf.csGRAY, pixmap.width, pixmap.height, pixmap.samples, False))


def _masked(pixmap: pymupdf.Pixmap, mask: pymupdf.Pixmap) -> pymupdf.Pixmap:
    """The pixmap with the mask, at the picture's own size, as transparency."""
    if (mask.width, mask.height) != (pixmap.width, pixmap.height):
        mask = pymupdf.Pixmap(mask, pixmap.width, pixmap.height, None)
    if pixmap.alpha:
        pixmap = pymupdf.Pixmap(pixmap, 0)
    return pymupdf.Pixmap(pixmap, mask)

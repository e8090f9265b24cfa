"""Pictures, and PDF files that hold some, made for tests; and what the pixels of an answer are."""

import io
import random
import struct
import zlib
from typing import Any

import pymupdf
from PIL import Image

from tests.integration.extractor import made_pdfs

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def pixmap_of(data: bytes) -> Any:
    """A picture in RGB, where it is transparent with what is below."""
    pixmap: Any = pymupdf.Pixmap(data)
    return pixmap if pixmap.colorspace.n == 3 else pymupdf.Pixmap(pymupdf.csRGB, pixmap)


def near(pixel: tuple[int, ...], wanted: tuple[int, ...], by: int = 12) -> bool:
    """JPEG changes colours a little."""
    return all(abs(a - b) <= by for a, b in zip(pixel[: len(wanted)], wanted, strict=True))


def half_and_half(width: int = 40, height: int = 20) -> Any:
    """The upper half red, the lower half blue."""
    pixmap: Any = pymupdf.Pixmap(pymupdf.csRGB, (0, 0, width, height))
    pixmap.set_rect((0, 0, width, height // 2), RED)
    pixmap.set_rect((0, height // 2, width, height), BLUE)
    return pixmap


def jpeg(*, exif_orientation: int = 0) -> bytes:
    """`half_and_half` as JPEG, with the orientation that a camera would note."""
    data: bytes = half_and_half().tobytes("jpeg", jpg_quality=95)
    if not exif_orientation:
        return data
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, exif_orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def four_colours(exif_orientation: int) -> bytes:
    """A JPEG with another colour in each quarter, and the orientation that a camera would note."""
    picture, exif, out = Image.new("RGB", (80, 40)), Image.Exif(), io.BytesIO()
    for number, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))):
        x, y = 40 * (number % 2), 20 * (number // 2)
        picture.paste(colour, (x, y, x + 40, y + 20))
    exif[0x0112] = exif_orientation
    picture.save(out, "jpeg", quality=95, subsampling=0, exif=exif)
    return out.getvalue()


def half_transparent_png() -> bytes:
    """Red and blue, of which the left half is transparent."""
    pixmap: Any = pymupdf.Pixmap(half_and_half(), 1)
    width, height = pixmap.width, pixmap.height
    pixmap.set_alpha(bytes(0 if x < width // 2 else 255 for _ in range(height) for x in range(width)), premultiply=1)
    data: bytes = pixmap.tobytes("png")
    return data


def placing(*images: bytes) -> bytes:
    """A page of 100 by 200 points on which each image is 80 by 40, one below the other."""
    with pymupdf.open() as made:
        page = made.new_page(width=100, height=200)
        for number, image in enumerate(images):
            page.insert_image((10, 10 + 50 * number, 90, 50 + 50 * number), stream=image, keep_proportion=False)
        data: bytes = made.tobytes()
    return data


def annotated() -> bytes:
    """A page of 100 by 100 points with a red square as an annotation, and nothing else."""
    with pymupdf.open() as made:
        annotation = made.new_page(width=100, height=100).add_rect_annot((20, 20, 80, 80))
        annotation.set_colors(stroke=(1, 0, 0), fill=(1, 0, 0))
        annotation.update()
        data: bytes = made.tobytes()
    return data


def turned() -> bytes:
    """A page of 100 by 200 points, shown turned clockwise by 90 degrees: red on the left as it lies, thus on top."""
    content = b"1 0 0 rg 0 0 50 200 re f"
    return made_pdfs.document([content]).replace(b"/MediaBox[0 0 612 792]", b"/MediaBox[0 0 100 200]/Rotate 90")


def with_image(entries: bytes, data: bytes, extra: bytes = b"") -> bytes:
    """A page of one image, as those entries say; `extra` is its soft mask, number 11."""
    objects = {10: made_pdfs.stream(data, b"/Type/XObject/Subtype/Image" + entries)}
    if extra:
        objects[11] = extra
    content = b"q 600 0 0 700 6 46 cm /I Do Q"
    return made_pdfs.document([content], objects, b"/XObject<</I 10 0 R>>")


def inked() -> bytes:
    """A page of two pixels, cyan and yellow."""
    entries = b"/Width 2/Height 1/ColorSpace/DeviceCMYK/BitsPerComponent 8"
    return with_image(entries, b"\xff\x00\x00\x00\x00\x00\xff\x00")


def stencil() -> bytes:
    """A page painted through 8 by 2 bits: the upper row is painted, the lower one is not."""
    return with_image(b"/Width 8/Height 2/ImageMask true/BitsPerComponent 1", b"\x00\xff")


def keyed() -> bytes:
    """Two gray pixels, of which black stands for nothing."""
    return with_image(b"/Width 2/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Mask[0 0]", b"\x00\x80")


def masked(width: int = 16, height: int = 4) -> bytes:
    """A gray image of eight by two pixels with a larger mask, whose left half is transparent."""
    mask = bytes(0 if x < width // 2 else 255 for _ in range(height) for x in range(width))
    entries = b"/Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8"
    image = b"/Width 8/Height 2/ColorSpace/DeviceGray/BitsPerComponent 8/SMask 11 0 R"
    return with_image(image, b"\x40" * 16, made_pdfs.stream(mask, entries % (width, height)))


def with_too_many_pixels() -> bytes:
    """A page of one image that says it has 10^10 pixels, in a few bytes."""
    return with_image(b"/Width 100000/Height 100000/ColorSpace/DeviceGray/BitsPerComponent 8", bytes(1000))


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of that size which holds but a pixel of it."""
    data = made_pdfs.png(1, 1)
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]


def noise(pixels: int) -> bytes:
    """A page that is drawn as noise, which no format makes smaller."""
    data = random.Random(1).randbytes(pixels * pixels * 3)
    entries = b"/Width %d/Height %d/ColorSpace/DeviceRGB/BitsPerComponent 8" % (pixels, pixels)
    return with_image(entries, data).replace(b"/MediaBox[0 0 612 792]", b"/MediaBox[6 46 606 746]")

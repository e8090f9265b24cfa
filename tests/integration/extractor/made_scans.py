"""Pages as a scanner makes them: pictures of text and no text."""

import pymupdf

WIDTH_PT, HEIGHT_PT = 595, 842
TEXT = (
    (90, "The extractor reads what a scanner saw"),
    (140, "and tells where each of the words stands."),
    (210, "Numbers such as 3,141 and 2026 come through."),
    (300, "42"),
)
"""Lines, and how far below the top edge their baselines are. The last is hardly wider than high."""
Boxes = dict[str, tuple[float, float, float, float]]


def drawn_page() -> tuple[pymupdf.Document, Boxes]:
    """A page of TEXT, and where its words are: those that are there once."""
    document = pymupdf.open()
    page = document.new_page(width=WIDTH_PT, height=HEIGHT_PT)
    for y, text in TEXT:
        page.insert_text((72, y), text, fontsize=14)
    words = [(word[4], word[:4]) for word in page.get_text("words")]
    texts = [text for text, _ in words]
    return document, {text: box for text, box in words if texts.count(text) == 1}


def picture(dpi: int = 150, turned: int = 0) -> tuple[pymupdf.Pixmap, Boxes]:
    """The page as pixels, turned clockwise by so many degrees before it was laid on the scanner."""
    document, boxes = drawn_page()
    with document:
        document[0].set_rotation(turned)
        matrix = document[0].rotation_matrix
        pixmap = document[0].get_pixmap(dpi=dpi)
        return pixmap, {text: tuple(pymupdf.Rect(box) * matrix) for text, box in boxes.items()}


def scanned_pdf(turned: int = 0, shown: int = 0, pages: int = 1) -> tuple[bytes, Boxes]:
    """A PDF of nothing but pictures; the page is shown turned by `shown` degrees, and the boxes are as it is shown."""
    pixmap, boxes = picture(turned=turned)
    with pymupdf.open() as document:
        size = (HEIGHT_PT, WIDTH_PT) if turned % 180 else (WIDTH_PT, HEIGHT_PT)
        for _ in range(pages):
            page = document.new_page(width=size[0], height=size[1])
            page.insert_image(page.rect, pixmap=pixmap)
            page.set_rotation(shown)
        matrix = document[0].rotation_matrix
        return document.tobytes(), {text: tuple(pymupdf.Rect(box) * matrix) for text, box in boxes.items()}


def image_file(kind: str) -> tuple[bytes, Boxes]:
    """A JPEG or PNG of the page at 150 dots per inch; a reader that believes it shows it in the page's own size."""
    pixmap, boxes = picture()
    pixmap.set_dpi(150, 150)
    return pixmap.tobytes(kind), boxes


def crowded() -> bytes:
    """A PNG of ninety lines in small print, which take seconds to read."""
    with pymupdf.open() as document:
        page = document.new_page(width=WIDTH_PT, height=HEIGHT_PT)
        for number in range(90):
            page.insert_text(
                (30, 30 + 9 * number), f"{number} the quick brown fox jumps over the lazy dog " * 2, fontsize=7
            )
        pixmap = page.get_pixmap(dpi=200)
    pixmap.set_dpi(200, 200)
    return bytes(pixmap.tobytes("png"))


def image_of_nothing() -> bytes:
    """A PNG that is white."""
    pixmap = pymupdf.Pixmap(pymupdf.csGRAY, (0, 0, 400, 500))
    pixmap.clear_with(255)
    return bytes(pixmap.tobytes("png"))

"""The plain text of a page, as PyMuPDF's `get_text()` says it and in less time."""

from services.extractor.adapters.mupdf_import import pymupdf

_mupdf = pymupdf.mupdf
_BUFFER_BYTES = 8 * 1024


def plain_text(textpage: pymupdf.mupdf.FzStextPage) -> str:
    """What PyMuPDF's `TextPage(textpage).extractText()` says.

    PyMuPDF walks over the letters one by one and writes most of them as escapes, which it then reads. MuPDF's own
    writer does not; it differs in an empty line behind each block, which is taken out here. What cannot be told apart
    from that, and what is no UTF-8, is left to PyMuPDF.
    """
    buffer = _mupdf.fz_new_buffer(_BUFFER_BYTES)
    out = _mupdf.FzOutput(buffer)
    _mupdf.fz_print_stext_page_as_text(out, textpage)
    out.fz_close_output()
    try:
        text: str = _mupdf.fz_buffer_extract_copy(buffer).decode()
    except UnicodeDecodeError:  # MuPDF writes U+0000 and surrogates as no UTF-8 that Python takes
        return str(pymupdf.TextPage(textpage).extractText())
    # A line that ends in a line break of its own, or is one.
    if text.startswith("\n") or "\n\n\n" in text:
        return str(pymupdf.TextPage(textpage).extractText())
    return text.replace("\n\n", "\n")

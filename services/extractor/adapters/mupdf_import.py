"""PyMuPDF without its layout models, which text does not need: 0.2 s and 47 MB instead of 0.6 s and 136 MB.

PyMuPDF imports them when they are installed and does without when they are not, so here they are made absent.
"""

import sys

for _optional in ("pymupdf.layout", "pymupdf4llm"):
    # A None in sys.modules makes an import fail as if nothing were installed.
    sys.modules.setdefault(_optional, None)  # type: ignore[arg-type]

import pymupdf  # noqa: E402  # after what must be out of its way

# PyMuPDF reads the whole outline of whatever it opens: a second where it is long, and the process's end where it is
# deep. Here it is read when somebody asks for it. So is the metadata, which takes as long as a tenth of a page.
pymupdf.Document.outline = property(pymupdf.Document._loadOutline)
pymupdf.Document.init_doc = lambda _: None

__all__ = ["pymupdf"]

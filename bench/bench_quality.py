"""How true the text is that pages are read as, and how much of it the Markdown keeps.

Text is compared with what a paper says in truth by Indel similarity (2 * longest common subsequence by the sum of the
lengths) after folding white space, and the ratio is ours by PyMuPDF's own. Words of Markdown are compared with words of
the text, after both were freed of hyphens at line ends and Markdown of its escapes; the ratio is the part that is kept.
"""

import os
import re
from collections import Counter
from pathlib import Path

from rapidfuzz.distance import Indel

from bench.report import report, skip
from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_pages import text_page
from services.extractor.adapters.parser_protocol import PartBit

TEXT, MARKDOWN = "text_quality", "markdown_words_kept"
TEXT_GOAL, MARKDOWN_GOAL = 1.0, 0.99
_HYPHEN = re.compile(r"(?<=\w)[-\u2010\u00ad]\s*\n\s*(?=[^\W\d_A-Z])")
_ESCAPE = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
_CJK = re.compile(r"[\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\uffef]")


def main() -> None:
    """Prints both lines; skips where there are no files."""
    corpus = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus"))
    papers = [path for path in sorted(corpus.glob("papers/*.pdf")) if path.with_suffix(".txt").exists()]
    files = sorted([*corpus.glob("clean/*.pdf"), *corpus.glob("papers/*.pdf")])
    if not papers or not files:
        skip(TEXT, "PAGEMESH_CORPUS names no folder with papers")
        return
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    scores = [similarities(paper) for paper in papers]
    ratio = min(ours / peer for ours, peer in scores)
    detail = {"papers": len(papers), "ours_and_pymupdf": [[round(x, 4) for x in pair] for pair in scores]}
    report(TEXT, ratio=ratio, goal=TEXT_GOAL, better="higher", detail=detail)
    kept = total = pages = 0
    for file in files:
        with pymupdf.open(file) as document:
            for index in range(document.page_count):
                page = read(document, index, PartBit.TEXT | PartBit.MARKDOWN)
                wanted, found = words(page.text), words(_ESCAPE.sub("", page.markdown))
                total += wanted.total()
                kept += (wanted & found).total()
                pages += 1
    report(MARKDOWN, ratio=kept / total, goal=MARKDOWN_GOAL, better="higher", detail={"pages": pages, "words": total})


def similarities(paper: Path) -> tuple[float, float]:
    """Ours and PyMuPDF's."""
    truth = folded(paper.with_suffix(".txt").read_text())
    with pymupdf.open(paper) as document:
        ours = "".join(read(document, index, PartBit.TEXT).text for index in range(document.page_count))
        peer = "".join(page.get_text() for page in document)
    return Indel.normalized_similarity(folded(ours), truth), Indel.normalized_similarity(folded(peer), truth)


def read(document: pymupdf.Document, index: int, parts: PartBit) -> page_pb2.Page:
    """The page as a parser process sends it."""
    return page_pb2.Page.FromString(text_page(document[index], index + 1, parts))


def folded(text: str) -> str:
    """White space as single spaces."""
    return " ".join(text.split())


def words(text: str) -> Counter[str]:
    """How often each word is there. Japanese and Chinese have no spaces, so there each character is one."""
    return Counter(re.findall(r"\w+", _CJK.sub(r" \g<0> ", _HYPHEN.sub("", text))))


if __name__ == "__main__":
    main()

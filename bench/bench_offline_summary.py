"""How close offline summaries come to the abstracts that the authors wrote, against the papers' first sentences.

The abstract is cut out of each paper, the rest is summarised in seven sentences, and both are compared by ROUGE (Lin,
2004, https://aclanthology.org/W04-1013): F1 of words, of pairs of words, and of the longest common subsequence. The
peer takes as many first sentences of the same text; it sees them through the same filter, which is kind to it. The
ratio is the worst of the three.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.report import report, skip
from services.summarizer.domain.chunking import plan
from services.summarizer.domain.extractive import summarize
from services.summarizer.domain.sentences import prose
from services.summarizer.domain.values import Chunk, Length, Options, Page, Prompt, Stage, Style

NAME = "offline_summary_rouge"
GOAL = 1.0
_PAGE_CHARS = 3_500
_ABSTRACT = re.compile(r"\bAbstract[\s\u2014.:]*\n*", re.IGNORECASE)
_AFTER = re.compile(r"\n\W*(?:[I1]\.?\s+)?(?:Introduction|Key ?words|Index terms)\b", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9]+")

Scores = tuple[float, float, float]


def main() -> None:
    """Prints the line; skips where there are no papers."""
    folder = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus")) / "papers"
    papers = [cut for path in sorted(folder.glob("*.txt")) if (cut := without_abstract(path.read_text())) is not None]
    if not papers:
        skip(NAME, "PAGEMESH_CORPUS names no folder with papers")
        return
    ours, peer = list[Scores](), list[Scores]()
    for abstract, rest in papers:
        chunks = list(plan(pages_of(rest), max_tokens=100_000, count=lambda text: len(text) // 4))
        ours.append(rouge(" ".join(chosen(chunks)), abstract))
        first = [sentence.text for chunk in chunks for sentence in prose(chunk)][: Length.MEDIUM.value]
        peer.append(rouge(" ".join(first), abstract))
    mine, theirs = mean(ours), mean(peer)
    detail = {"papers": len(papers), "sentences": Length.MEDIUM.value, "metric": "F1 of ROUGE-1, -2, -L, in per cent"}
    detail |= {"offline": [round(100 * x, 1) for x in mine], "lead": [round(100 * x, 1) for x in theirs]}
    worst = min(a / b for a, b in zip(mine, theirs, strict=True))
    report(NAME, ratio=worst, goal=GOAL, better="higher", detail=detail)


def without_abstract(text: str) -> tuple[str, str] | None:
    """The abstract and the rest, or None for a text without one."""
    start = _ABSTRACT.search(text)
    end = _AFTER.search(text, start.end()) if start else None
    if start is None or end is None:
        return None
    return text[start.end() : end.start()], f"{text[: start.start()]}\n\n{text[end.start() :]}"


def pages_of(text: str) -> list[Page]:
    """Pages of whole lines, about as long as real ones."""
    pages, lines, size = list[Page](), list[str](), 0
    for line in text.splitlines():
        lines.append(line)
        size += len(line)
        if size > _PAGE_CHARS:
            pages.append(Page(len(pages) + 1, "\n".join(lines), ()))
            lines, size = [], 0
    return [*pages, Page(len(pages) + 1, "\n".join(lines), ())]


def chosen(chunks: Sequence[Chunk]) -> list[str]:
    """The summary's sentences."""
    options = Options(Length.MEDIUM, Style.PARAGRAPH, "", "", "offline/lexrank")
    prompts = [Prompt(Stage.MAP, options, "lexrank", Length.MEDIUM.value, chunk=chunk) for chunk in chunks]
    claims = tuple(claim for prompt in prompts for claim in summarize(prompt) or ())
    if len(chunks) > 1:
        claims = summarize(Prompt(Stage.REDUCE, options, "lexrank", Length.MEDIUM.value, claims=claims)) or ()
    return [claim.text for claim in claims]


def rouge(candidate: str, reference: str) -> Scores:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L, without stemming."""
    a, b = _WORD.findall(candidate.lower()), _WORD.findall(reference.lower())
    return _shared(a, b, 1), _shared(a, b, 2), _f1(_common_subsequence(a, b), len(a), len(b))


def mean(scores: Sequence[Scores]) -> Scores:
    """Mean of each measure."""
    one, two, longest = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    return one, two, longest


def _shared(a: Sequence[str], b: Sequence[str], size: int) -> float:
    left, right = (Counter(tuple(x[i : i + size]) for i in range(len(x) - size + 1)) for x in (a, b))
    return _f1((left & right).total(), left.total(), right.total())


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def _f1(shared: int, size_a: int, size_b: int) -> float:
    return 2 * shared / (size_a + size_b) if size_a + size_b else 0.0


if __name__ == "__main__":
    main()

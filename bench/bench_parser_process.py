"""What a parser process adds to PyMuPDF: CPU time of both for the text of the same files.

Both are forks of one parent that has MuPDF loaded. The peer opens each file by its path and calls `get_text` for each
page. Ours is the process as the service runs it, under its filter of system calls: it is handed descriptors, maps the
files, and sends checked pages over its socket to this program, which gives it credits. The ratio is the peer's CPU time
by ours, the median of the rounds. What the service itself does with the pages is measured by bench_extract.
"""

import os
import resource
import socket
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.report import report, skip
from services.extractor.adapters import mupdf_zygote
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_worker import work
from services.extractor.adapters.parser_protocol import (
    CREDITS_AT_ONCE,
    Answer,
    AnswerKind,
    AnswerReader,
    Format,
    Order,
    OrderKind,
    PartBit,
)

NAME = "parser_process_text"
GOAL = 0.95
_ROUNDS = 9
_MEMORY_BYTES = 768 * 1024 * 1024
_ALL = 1 << 30


def main() -> None:
    """Prints the line; skips where there are no files."""
    corpus = Path(os.environ.get("PAGEMESH_CORPUS", "../shared/corpus"))
    files = sorted([*corpus.glob("clean/*.pdf"), *corpus.glob("papers/*.pdf")])
    if not files:
        skip(NAME, "PAGEMESH_CORPUS names no folder with files")
        return
    mupdf_zygote.warm_up()
    pairs = [(_cpu_s(lambda: _raw(files)), _cpu_s(lambda: _ours(files))) for _ in range(_ROUNDS)]
    ratio = statistics.median(peer / ours for peer, ours in pairs)
    medians = [round(statistics.median(times), 3) for times in zip(*pairs, strict=True)]
    report(NAME, ratio=ratio, goal=GOAL, better="higher", detail={"files": len(files), "peer_and_our_cpu_s": medians})


def _cpu_s(run: Callable[[], None]) -> float:
    """CPU time of the child processes that `run` waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _raw(files: Sequence[Path]) -> None:
    pid = os.fork()
    if pid == 0:
        for file in files:
            document = pymupdf.open(file)
            for page in document:
                page.get_text()
            document.close()
        os._exit(0)
    os.waitpid(pid, 0)


def _ours(files: Sequence[Path]) -> None:
    mine, its = socket.socketpair()
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        mine.close()
        work(its, parent_pid=parent_pid, memory_bytes=_MEMORY_BYTES)
        os._exit(0)
    its.close()
    with mine:
        reader = AnswerReader()
        list(reader.feed(mine.recv(1 << 16)))
        for task, file in enumerate(files):
            _read(mine, reader, file, task)
    os.waitpid(pid, 0)


def _read(orders: socket.socket, reader: AnswerReader, file: Path, task: int) -> None:
    order = Order(OrderKind.PARSE, task, Format.PDF, PartBit.TEXT, 1, _ALL)
    with file.open("rb") as opened:
        socket.send_fds(orders, [order.pack()], [opened.fileno()])
    pages = 0
    while True:
        answer: Answer | None = None
        for answer in reader.feed(orders.recv(1 << 20)):
            pages += answer.kind is AnswerKind.PAGE
            if pages == CREDITS_AT_ONCE:
                orders.sendall(Order(OrderKind.CREDIT, task, count=pages).pack())
                pages = 0
        if answer is not None and answer.kind in (AnswerKind.DONE, AnswerKind.REFUSED):
            return


if __name__ == "__main__":
    main()

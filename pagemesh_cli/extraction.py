"""An extraction from end to end: its ranges one after the other, and on where a call broke off."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh_cli.client import STREAM_TIMEOUT_S, Client
from pagemesh_cli.failures import ExitCode, Failure, from_status
from pagemesh_cli.output import Output
from pagemesh_cli.page_progress import PageProgress
from pagemesh_cli.page_targets import Target
from pagemesh_cli.passwords import Password
from pagemesh_cli.verbs.ranges import LAST, PageRange

_GO_ON = ("CUT_OFF",)
_GO_ON_CODES = (ExitCode.UNREACHABLE, ExitCode.TIMED_OUT)


@dataclass
class Tally:
    """What came out of an extraction."""

    failed: dict[int, str] = field(default_factory=dict)
    """The reason of each page that could not be read."""
    pictures: dict[int, int] = field(default_factory=dict)
    """How many pictures each page has that has any, where they were asked for."""
    read: int = 0
    """Pages that came."""
    textless: int = 0
    """Pages among them that have something to see and no text."""
    next_page: int = 0


class Extraction:
    """One document's pages, from the service into the target."""

    def __init__(
        self,
        client: Client,
        output: Output,
        request: pb.ExtractPagesRequest,
        password: Password,
        *,
        timeout_s: float,
    ) -> None:
        self._client = client
        self._output = output
        self._request = request
        self._password = password
        self._deadline = time.monotonic() + timeout_s
        self._tally = Tally()
        self._begun = False
        """Whether a page came, or failed."""

    def run(self, ranges: list[PageRange], target: Target, progress: PageProgress) -> Tally:
        """Raises Failure where it breaks off, after what came until then was written. However it ends, the target is
        finished."""
        complete = False
        try:
            for wanted in ranges:
                self._range(wanted, target, progress)
            complete = True
        finally:
            target.finish(complete=complete)
        return self._tally

    def _range(self, wanted: PageRange, target: Target, progress: PageProgress) -> None:
        """Calls again for what is missing as long as each call brings at least a page: the edge bounds each of them,
        and what was read once comes from the store."""
        self._tally.next_page = wanted.first
        begin = 0
        while True:
            try:
                self._call(wanted, target, progress, resumed=begin > 0)
                return
            except Failure as failure:
                if self._waits(failure):
                    continue
                hopeful = failure.exit_code in _GO_ON_CODES or failure.reason in _GO_ON
                moved = self._tally.next_page > max(begin, wanted.first)
                if not hopeful or not moved or time.monotonic() >= self._deadline:
                    raise
                begin = self._tally.next_page
                self._output.note(f"going on at page {begin} after {failure.reason}", "yellow")

    def _waits(self, failure: Failure) -> bool:
        """Whether there were too many calls amid the work; waited, then, until one more may be made."""
        wait_s = failure.retry_after_s
        if failure.exit_code is not ExitCode.LIMIT or wait_s is None or not self._begun:
            return False
        if time.monotonic() + wait_s >= self._deadline:
            return False
        time.sleep(max(wait_s, 0.1))
        return True

    def _call(self, wanted: PageRange, target: Target, progress: PageProgress, *, resumed: bool) -> None:
        for event in self._events(PageRange(self._tally.next_page, wanted.last)):
            kind = event.WhichOneof("event")
            self._begun |= kind in ("page", "failed_page")
            if kind == "error":
                raise from_status(event.error, request_id=self._client.request_id)
            if kind == "start":
                if resumed:
                    continue
                progress.expect(event.start.last_page - event.start.first_page + 1)
                self._tell_flags(event.start)
            if kind == "page":
                self._note_page(event.page, progress)
            elif kind == "failed_page":
                self._tally.failed[event.failed_page.number] = event.failed_page.reason
                self._tally.next_page = event.failed_page.number + 1
                progress.page(failed=True)
            target.take(event)
            if kind == "end":
                return
        raise Failure("The pages broke off before the end.", reason="CUT_OFF", request_id=self._client.request_id)

    def _events(self, wanted: PageRange) -> Iterator[pb.ExtractPagesResponse]:
        def ask() -> Iterator[pb.ExtractPagesResponse]:
            request = pb.ExtractPagesRequest()
            request.CopyFrom(self._request)
            request.first_page = wanted.first
            request.last_page = 0 if wanted.last == LAST else wanted.last
            request.password = self._password.value
            timeout_s = max(min(self._deadline - time.monotonic(), STREAM_TIMEOUT_S), 0.1)
            return self._client.stream(self._client.extractor.ExtractPages, request, timeout_s=timeout_s)

        return self._password.stream(ask)

    def _note_page(self, page: page_pb2.Page, progress: PageProgress) -> None:
        self._tally.read += 1
        self._tally.next_page = page.number + 1
        if page_pb2.PAGE_FLAG_NO_TEXT in page.flags and page_pb2.PAGE_FLAG_BLANK not in page.flags:
            self._tally.textless += 1
        if page.images:
            self._tally.pictures[page.number] = len(page.images)
        progress.page(recognised=page_pb2.PAGE_FLAG_OCR in page.flags)

    def _tell_flags(self, start: extraction_pb2.ExtractionStart) -> None:
        if extraction_pb2.DOCUMENT_FLAG_REPAIRED in start.flags:
            self._output.note("the file was damaged and had to be repaired: pages may be missing", "yellow")

"""Reading documents that nobody extracts, so that they can be searched: one at a time, when nothing else is to do."""

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from services.extractor.domain.extract import Extraction
from services.extractor.domain.pages import OcrMode, Part
from services.extractor.domain.ports import Clock
from services.extractor.domain.search import Extract
from services.runtime.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)

MAX_ATTEMPTS = 2
LEASE = dt.timedelta(minutes=10)
_AGAIN = dt.timedelta(minutes=1)
_NEVER_WORKS = (FailedPrecondition, NotFound, OutOfRange)
_NOT_ITS_FAULT = (Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable)


@dataclass(frozen=True, slots=True)
class Unread:
    """A document of which pages are missing in the index."""

    tenant: str
    name: str


class IndexBacklog(Protocol):
    """Documents that are to be read. Every method raises Unavailable where the database is down."""

    async def take(self, *, now: dt.datetime, until: dt.datetime) -> Unread | None:
        """The document that has been due for longest, and counts the attempt. Nobody else gets it before `until`.

        Documents whose pages are all in the index, and those that were attempted MAX_ATTEMPTS times, are struck off the
        list on the way; ephemeral ones are never given."""

    async def put_back(self, document: Unread, *, due: dt.datetime, counts: bool) -> None:
        """Has it read again at `due`. The attempt is taken back where it does not count."""

    async def strike_off(self, document: Unread) -> None:
        """Has it never read again."""

    async def size(self, *, now: dt.datetime) -> int:
        """How many are due; 10,000 where there are more."""


class Load(Protocol):
    """How busy the parser processes are."""

    @property
    def busy(self) -> int:
        """Processes at work."""

    @property
    def waiting(self) -> int:
        """Calls that wait for one."""


@dataclass(frozen=True, slots=True)
class IndexerSignals:
    """Called with the number of documents that are due, and for each that was begun with how it ended: `done`,
    `interrupted`, `postponed`, `refused` or `failed`."""

    backlog: Callable[[int], None]
    ended: Callable[[str], None]
    broken: Callable[[Exception], None]
    """Called with what nobody foresaw, to be logged."""


class Indexer:
    """Reads what is due while no parser is at work, and stops as soon as anybody waits for one.

    Text is not recognised: a page costs seconds, which nobody has asked for yet.
    """

    def __init__(
        self,
        *,
        backlog: IndexBacklog,
        extract: Extract,
        load: Load,
        clock: Clock,
        signals: IndexerSignals,
        every_s: float,
    ) -> None:
        self._backlog = backlog
        self._extract = extract
        self._load = load
        self._clock = clock
        self._signals = signals
        self._every_s = every_s

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            worked = False
            try:
                worked = await self.step()
            except PagemeshError:
                pass  # the database is away, which health tells; there is nothing to put back
            except Exception as exc:  # noqa: BLE001 - what breaks one attempt must not end all later ones
                self._signals.broken(exc)
            if not worked:
                await asyncio.sleep(self._every_s)

    async def step(self) -> bool:
        """Reads one document where one is due and nothing else is to do; answers whether it did."""
        now = self._clock.now()
        self._signals.backlog(await self._backlog.size(now=now))
        if self._load.busy or self._load.waiting:
            return False
        document = await self._backlog.take(now=now, until=now + LEASE)
        if document is None:
            return False
        outcome = "interrupted"
        try:
            outcome = await self._read(document)
        finally:
            # Also where the service stops in the middle.
            await self._settle(document, outcome)
            self._signals.ended(outcome)
        return outcome not in ("interrupted", "postponed")

    async def _read(self, document: Unread) -> str:
        extraction = Extraction(document.tenant, document.name, 0, 0, Part.TEXT, ocr=OcrMode.OFF)
        time_s = LEASE.total_seconds() / 2
        try:
            async with (
                asyncio.timeout(time_s),
                aclosing(self._extract(extraction, remaining_s=lambda: time_s)) as bursts,
            ):
                async for _ in bursts:
                    if self._load.waiting:
                        return "interrupted"
        except _NEVER_WORKS:
            return "refused"
        except _NOT_ITS_FAULT:
            return "postponed"
        except TimeoutError:
            return "failed"
        except Exception as exc:  # noqa: BLE001 - a file that breaks its reader in a new way is tried once more
            self._signals.broken(exc)
            return "failed"
        return "done"

    async def _settle(self, document: Unread, outcome: str) -> None:
        if outcome in ("done", "refused"):
            await self._backlog.strike_off(document)
        else:
            await self._backlog.put_back(document, due=self._clock.now() + _AGAIN, counts=outcome == "failed")

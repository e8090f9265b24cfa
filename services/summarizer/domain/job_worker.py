"""A worker: claims jobs, does them, tells how far they are, and ends each exactly once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from services.runtime.errors import DeadlineExceeded, PagemeshError
from services.summarizer.domain.events import Progress
from services.summarizer.domain.job_policy import judge, turn
from services.summarizer.domain.job_ports import QUEUED, JobBell, JobQueue
from services.summarizer.domain.job_work import Doer
from services.summarizer.domain.jobs import Claim, Fault, Forgotten, JobState, Priority, Result, Waiting

LOST = Fault(
    "Unavailable",
    "JOB_WORKER_LOST",
    "The worker died at it, or was not heard of for too long. If it happens each time, the document is at fault.",
)
POLL_S = 1.0
"""How often a worker looks for jobs that are due, when nobody rings."""
CARE_EVERY_S = 2.0
CLEAN_EVERY_S = 60.0
RECOVERED_AT_ONCE = 100
FORGOTTEN_AT_ONCE = 500
_PAUSE_S = 0.5
_END_TRIES = 20
"""How often the end of a job is written; after that its lease runs out, and it is done again out of what was paid."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """`places` jobs at once, and one more for urgent ones. A job whose worker says nothing for `lease_s` is taken from
    it; progress is told every `progress_s` at most; an attempt may take `attempt_s`; when the worker stops, its jobs
    have `grace_s` to end; ended jobs are kept for `keep_s`."""

    places: int
    most_of_tenant: int
    lease_s: float
    progress_s: float
    attempt_s: float
    grace_s: float
    keep_s: float


@dataclass(frozen=True, slots=True)
class WorkerSignals:
    """What a worker tells of itself."""

    started: Callable[[Claim], None]
    ended: Callable[[Claim, str, str], None]
    """With SUCCEEDED, FAILED, POSTPONED, HANDED_BACK, FENCED_OFF or UNWRITTEN, and the reason of what failed."""
    recovered: Callable[[int], None]
    forgotten: Callable[[Forgotten], None]
    waiting: Callable[[Sequence[Waiting]], None]
    broken: Callable[[str, Exception], None]
    """Something of the worker's own failed, and is tried again."""


class JobWorker:
    """One worker of any number. It runs until it is told to stop, and leaves no job behind."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        bell: JobBell,
        do: Doer,
        limits: WorkerLimits,
        signals: WorkerSignals,
        name: str,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._bell = bell
        self._do = do
        self._limits = limits
        self._signals = signals
        self._name = name
        self._now = now
        self._jitter = jitter
        self._claims = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; then what is running ends within the grace, or is handed back."""
        running: set[asyncio.Task[None]] = set()
        care = asyncio.create_task(self._care())
        try:
            async with asyncio.TaskGroup() as places:
                urgent = (Priority.URGENT,)
                places.create_task(self._place(stop, running, lambda: urgent))
                for _ in range(self._limits.places):
                    places.create_task(self._place(stop, running, self._turn))
                places.create_task(self._end(stop, running))
        finally:
            care.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await care

    def _turn(self) -> Sequence[Priority]:
        self._claims += 1
        return turn(self._claims)

    async def _place(
        self, stop: asyncio.Event, running: "set[asyncio.Task[None]]", order: Callable[[], Sequence[Priority]]
    ) -> None:
        """One job after the other."""
        with self._bell.listening(QUEUED) as rung:
            while not stop.is_set():
                rung.clear()
                claim = await self._claim(order())
                if claim is None:
                    await _first_of(stop, rung, POLL_S)
                    continue
                job = asyncio.create_task(self._work(claim))
                running.add(job)
                try:
                    await asyncio.wait([job])
                finally:
                    running.discard(job)
                    if not job.done():
                        job.cancel()
                        await asyncio.wait([job])
                if not job.cancelled() and isinstance(error := job.exception(), Exception):
                    # Nobody knows what became of it: its lease runs out, and it is taken up again.
                    self._signals.broken("job", error)

    async def _claim(self, order: Sequence[Priority]) -> Claim | None:
        try:
            return await self._queue.claim(
                order,
                worker=self._name,
                lease_s=self._limits.lease_s,
                most_of_tenant=self._limits.most_of_tenant,
            )
        except Exception as exc:  # noqa: BLE001  # the next look may succeed, and the place must not be lost
            self._signals.broken("claim", exc)
            await asyncio.sleep(_PAUSE_S)
            return None

    async def _end(self, stop: asyncio.Event, running: "set[asyncio.Task[None]]") -> None:
        """After the grace the jobs that still run are cancelled, which hands them back."""
        await stop.wait()
        if running:
            await asyncio.wait(running, timeout=self._limits.grace_s)
        for job in running:
            job.cancel()

    async def _work(self, claim: Claim) -> None:
        """One claim from its start to what became of it."""
        self._signals.started(claim)
        desk = _Desk(self._queue, claim, self._limits, self._signals)
        doing = asyncio.create_task(self._attempt(claim, desk))
        beating = asyncio.create_task(desk.beat(doing))
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            # The worker stops. What becomes of the job is written all the same.
            doing.cancel()
            await asyncio.wait([doing])
        finally:
            beating.cancel()
            await asyncio.wait([beating])
        if not desk.holds:
            self._signals.ended(claim, "FENCED_OFF", "")
        elif doing.cancelled():
            await self._settle(claim, "HANDED_BACK", lambda: self._queue.hand_back(claim))
        else:
            await self._conclude(claim, doing, desk.untold)

    async def _attempt(self, claim: Claim, desk: "_Desk") -> Result:
        try:
            async with asyncio.timeout(self._limits.attempt_s) as timer:
                return await self._do(claim, desk.told)
        except TimeoutError as exc:
            if not timer.expired():
                raise
            raise DeadlineExceeded(
                "JOB_TIMEOUT", "The attempt took too long. The next one goes on from what is paid for."
            ) from exc

    async def _conclude(self, claim: Claim, done: "asyncio.Task[Result]", progress: Progress | None) -> None:
        error, finish = done.exception(), partial(self._finish, claim, progress)
        if error is None:
            result = done.result()
            await self._settle(claim, "SUCCEEDED", partial(finish, JobState.SUCCEEDED, result, None))
            return
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, PagemeshError):
            self._signals.broken("work", error)
        verdict = judge(error, tries=claim.tries, max_attempts=claim.max_attempts, jitter=self._jitter)
        delay_s, fault = verdict.delay_s, verdict.fault
        if delay_s is None:
            await self._settle(claim, "FAILED", partial(finish, JobState.FAILED, None, fault), fault.reason)
        else:
            postpone = partial(self._queue.postpone, claim, delay_s=delay_s, fault=fault)
            await self._settle(claim, "POSTPONED", postpone, fault.reason)

    async def _finish(
        self, claim: Claim, progress: Progress | None, state: JobState, result: Result | None, fault: Fault | None
    ) -> bool:
        return await self._queue.finish(
            claim, state, result=result, fault=fault, keep_s=self._limits.keep_s, progress=progress
        )

    async def _settle(self, claim: Claim, outcome: str, write: Callable[[], Awaitable[bool]], reason: str = "") -> None:
        """Writes what became of it, and tries again while the database is away: what was made must not be lost."""
        for _ in range(_END_TRIES):
            try:
                held = await write()
            except PagemeshError as exc:
                self._signals.broken("end", exc)
                await asyncio.sleep(_PAUSE_S)
                continue
            self._signals.ended(claim, outcome if held else "FENCED_OFF", reason)
            return
        self._signals.ended(claim, "UNWRITTEN", reason)

    async def _care(self) -> None:
        """Takes jobs from workers that are gone, removes what has expired, and counts."""
        loop = asyncio.get_running_loop()
        clean_at = loop.time()
        while True:
            try:
                lost = await self._queue.recover(LOST, limit=RECOVERED_AT_ONCE, keep_s=self._limits.keep_s)
                if lost:
                    self._signals.recovered(lost)
                self._signals.waiting(await self._queue.waiting())
                if loop.time() >= clean_at:
                    forgotten = await self._queue.forget(self._now(), limit=FORGOTTEN_AT_ONCE)
                    if forgotten.jobs:
                        self._signals.forgotten(forgotten)
                    if forgotten.jobs < FORGOTTEN_AT_ONCE:
                        clean_at = loop.time() + CLEAN_EVERY_S
            except Exception as exc:  # noqa: BLE001  # a round that fails must not end the care
                self._signals.broken("care", exc)
            await asyncio.sleep(CARE_EVERY_S * (0.5 + self._jitter() / 2))


class _Desk:
    """Keeps one claim alive, and tells its progress now and then."""

    def __init__(self, queue: JobQueue, claim: Claim, limits: WorkerLimits, signals: WorkerSignals) -> None:
        self._queue = queue
        self._claim = claim
        self._limits = limits
        self._signals = signals
        self.untold: Progress | None = None
        """The newest progress, until it is written."""
        self._news = asyncio.Event()
        self.holds = True
        """False once somebody else has the job, or it has ended."""

    def told(self, progress: Progress) -> None:
        """Only the newest is kept until it is written."""
        self.untold = progress
        self._news.set()

    async def beat(self, doing: "asyncio.Task[Result]") -> None:
        """Until cancelled, or until the claim holds no more: then the work is cancelled."""
        pause_s = self._limits.lease_s / 5
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            self._news.clear()
            progress = self.untold
            try:
                self.holds = await self._queue.beat(self._claim, lease_s=self._limits.lease_s, progress=progress)
            except PagemeshError as exc:
                self._signals.broken("beat", exc)
            else:
                # Only now: a beat that is broken off may have told nothing.
                if self.untold is progress:
                    self.untold = None
            if not self.holds:
                doing.cancel()
                return
            await asyncio.sleep(self._limits.progress_s)


async def _first_of(stop: asyncio.Event, rung: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(rung.wait())]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()

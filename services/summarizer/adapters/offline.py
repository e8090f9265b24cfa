"""The provider that needs no network and no money: it chooses sentences of the document itself.

The work is pure CPU and mostly Python, which holds the interpreter's lock: in a thread it would delay every other
call of the service by up to 5 ms at each turn of the event loop. So it runs in processes of its own, which import only
the domain.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from types import TracebackType

from services.runtime.errors import DeadlineExceeded, NotFound, Unavailable
from services.summarizer.domain import extractive, extractive_answers, field_finder
from services.summarizer.domain.fields_values import AnyPrompt, ChatPrompt, FieldsPrompt, chat_prompt
from services.summarizer.domain.found_field import FoundField
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.values import Answer, Claim, Stage, TokenCount

MODEL = "lexrank"

_CHARS_PER_TOKEN = 4
"""A token of this provider is four characters, rounded up for each text: cheap, the same everywhere, and exact."""
_ABILITIES = Abilities(
    context_tokens=64_000, max_output_tokens=15_000, writes=False, bills_unanswered=False, local=True
)
_NOT_SENT = {"sent": "no", "billed": "no"}
_MIN_PROCESSES = 2
"""So that one long call does not hold all others up, even on one core."""
_JOIN_TIMEOUT_S = 5.0
_SPAWN = multiprocessing.get_context("spawn")
"""Forking a process that has threads (gRPC, Redis) may inherit a held lock: spawn starts a clean one."""


Found = tuple[Claim | FoundField, ...]
"""What a process answers: claims for a summary, fields for a schema."""


class OfflineProvider:
    """Position-biased LexRank over the sentences of the document."""

    name = "offline"
    version = extractive.VERSION

    def __init__(self, *, processes: int | None = None, timeout_s: float = 20.0) -> None:
        """`processes` is one for each core unless told otherwise; `timeout_s` bounds the work on one call, which takes
        half a second for the largest common chunk, and not the wait for a free process."""
        count = processes or max(_MIN_PROCESSES, os.cpu_count() or 1)
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="offline")
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []

    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (MODEL,)

    def abilities(self, model: str) -> Abilities:
        """The same for the one model. NotFound MODEL_UNKNOWN for any other."""
        if model != MODEL:
            raise NotFound("MODEL_UNKNOWN", f"There is no offline model {model[:100]!r}; there is {MODEL!r}.")
        return _ABILITIES

    def count(self, prompt: AnyPrompt) -> TokenCount:
        """The input is exact, the output the longest that can be chosen."""
        prompt = chat_prompt(prompt)
        if isinstance(prompt, FieldsPrompt):
            longest = _tokens("x" * field_finder.MAX_QUOTE_CHARS) * prompt.max_fields
        else:
            longest = _tokens("x" * extractive.MAX_CLAIM_CHARS) * prompt.max_sentences
        return TokenCount(_input_tokens(prompt), min(longest, _ABILITIES.max_output_tokens))

    async def complete(self, prompt: AnyPrompt) -> Answer:
        """Chooses the sentences.

        Raises DeadlineExceeded PROVIDER_TIMEOUT, and Unavailable PROVIDER_UNAVAILABLE where the process died. Giving up
        ends the process that was at it.
        """
        prompt = chat_prompt(prompt)
        self.abilities(prompt.model)
        async with self._free:
            found = await self._in_process(prompt)
        claims = tuple(item for item in found if isinstance(item, Claim))
        fields = tuple(item for item in found if isinstance(item, FoundField))
        said = sum(_tokens(claim.text) for claim in claims) + sum(_tokens(field.quote) for field in fields)
        most = self.count(prompt)
        return Answer(claims, TokenCount(most.input_tokens, min(said, most.output_tokens)), fields)

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        """The chosen sentences one by one, then the answer."""
        prompt = chat_prompt(prompt)
        answer = await self.complete(prompt)
        for index, claim in enumerate(answer.claims):
            yield f" {claim.text}" if index else claim.text
        yield answer

    async def close(self) -> None:
        """Ends the processes; what they are at is lost."""
        workers, self._workers, self._idle = self._workers, set(), []
        for worker in workers:
            worker.kill()
        await asyncio.to_thread(_join_all, workers)
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> "OfflineProvider":
        # It begins to start now and not with the first call.
        self._idle.append(self._started())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _in_process(self, prompt: ChatPrompt) -> Found:
        worker = self._idle.pop() if self._idle else self._started()
        answered = False
        try:
            async with asyncio.timeout(self._timeout_s):
                claims = await asyncio.get_running_loop().run_in_executor(self._threads, worker.ask, prompt)
            answered = True
            return claims
        except TimeoutError as exc:
            raise DeadlineExceeded(
                "PROVIDER_TIMEOUT",
                f"Choosing sentences took longer than {self._timeout_s:g} s.",
                metadata=_NOT_SENT,
            ) from exc
        except (EOFError, OSError) as exc:
            raise Unavailable(
                "PROVIDER_UNAVAILABLE", "The process that chooses sentences died. Try again.", metadata=_NOT_SENT
            ) from exc
        finally:
            # Nobody waits for what a process is at after its call was given up: it would only take a core from others.
            if answered:
                self._idle.append(worker)
            else:
                worker.kill()
                self._workers.discard(worker)

    def _started(self) -> "_Worker":
        worker = _Worker()
        self._workers.add(worker)
        return worker


class _Worker:
    """A process that chooses sentences for one call at a time."""

    def __init__(self) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        with theirs:
            self._process = _SPAWN.Process(target=_work, args=(theirs,), daemon=True)
            self._process.start()

    def ask(self, prompt: ChatPrompt) -> Found:
        """What it chooses. To be called in a thread. Raises EOFError or OSError where the process is no more, and what
        the choice raises."""
        try:
            self._connection.send(prompt)
            answer = self._connection.recv()
        except (EOFError, OSError):
            self.join()
            raise
        if isinstance(answer, Exception):
            raise answer
        claims: Found = answer
        return claims

    def kill(self) -> None:
        """Ends it, whatever it is at; `ask` then raises."""
        self._process.kill()

    def join(self) -> None:
        """Waits for its end and leaves nothing of it."""
        self._process.join(_JOIN_TIMEOUT_S)
        self._connection.close()


def _join_all(workers: Iterable[_Worker]) -> None:
    for worker in workers:
        worker.join()


def _work(connection: Connection) -> None:
    """Answers prompts until the service closes its end: the claims, or the error that choosing them raised."""
    _begin_worker()
    while True:
        try:
            prompt: ChatPrompt = connection.recv()
        except EOFError:
            return
        try:
            answer: Found | Exception = _found(prompt)
        except Exception as exc:  # noqa: BLE001  # raised again in the service, where it belongs
            answer = exc
        connection.send(answer)


def _found(prompt: ChatPrompt) -> Found:
    if isinstance(prompt, FieldsPrompt):
        return field_finder.find(prompt)
    return extractive_answers.answer(prompt) if prompt.stage is Stage.ASK else extractive.summarize(prompt)


def _begin_worker() -> None:
    """Makes the worker end with the service, and only with it."""
    # Ctrl-C goes to the whole process group; the service decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker that is at something would not notice that the service was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _input_tokens(prompt: ChatPrompt) -> int:
    if prompt.chunk is not None:
        return _tokens(prompt.chunk.text)
    return sum(_tokens(claim.text) for claim in prompt.claims)


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARS_PER_TOKEN)

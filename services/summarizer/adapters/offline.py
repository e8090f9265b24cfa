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
from collections.abc import AsyncGenerator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType

from services.runtime.errors import DeadlineExceeded, FieldViolation, InvalidArgument, NotFound, Unavailable
from services.summarizer.domain import extractive
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.values import Answer, Claim, Prompt, TokenCount

MODEL = "lexrank"

_CHARS_PER_TOKEN = 4
"""A token of this provider is four characters, rounded up for each text: cheap, the same everywhere, and exact."""
_ABILITIES = Abilities(context_tokens=64_000, max_output_tokens=15_000, writes=False, bills_unanswered=False)
_NOT_SENT = {"sent": "no", "billed": "no"}


class OfflineProvider:
    """Position-biased LexRank over the sentences of the document."""

    name = "offline"
    version = extractive.VERSION

    def __init__(self, *, processes: int = 1, timeout_s: float = 60.0) -> None:
        self._processes = processes
        self._timeout_s = timeout_s
        self._pool: ProcessPoolExecutor | None = None

    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (MODEL,)

    def abilities(self, model: str) -> Abilities:
        """The same for the one model. NotFound MODEL_UNKNOWN for any other."""
        if model != MODEL:
            raise NotFound("MODEL_UNKNOWN", f"There is no offline model {model[:100]!r}; there is {MODEL!r}.")
        return _ABILITIES

    def count(self, prompt: Prompt) -> TokenCount:
        """The input is exact, the output the longest that can be chosen."""
        longest = _tokens("x" * extractive.MAX_CLAIM_CHARS) * prompt.max_sentences
        return TokenCount(_input_tokens(prompt), min(longest, _ABILITIES.max_output_tokens))

    async def complete(self, prompt: Prompt) -> Answer:
        """Chooses the sentences.

        Raises InvalidArgument LANGUAGE_NOT_SUPPORTED where the options want another language than the document's,
        DeadlineExceeded PROVIDER_TIMEOUT, and Unavailable PROVIDER_UNAVAILABLE where the process died.
        """
        self.abilities(prompt.model)
        claims = await self._in_process(prompt)
        if claims is None:
            raise _other_language(prompt.options.language)
        return Answer(claims, TokenCount(_input_tokens(prompt), sum(_tokens(claim.text) for claim in claims)))

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Answer, None]:
        """The chosen sentences one by one, then the answer."""
        answer = await self.complete(prompt)
        for index, claim in enumerate(answer.claims):
            yield f" {claim.text}" if index else claim.text
        yield answer

    async def close(self) -> None:
        """Ends the processes; what they are at is lost."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    async def __aenter__(self) -> "OfflineProvider":
        self._pool = self._pool or self._started()
        # Nobody waits for it: the process begins to start now and not with the first call.
        self._pool.submit(_nothing)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _in_process(self, prompt: Prompt) -> tuple[Claim, ...] | None:
        pool = self._pool = self._pool or self._started()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(pool, extractive.summarize, prompt)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                "PROVIDER_TIMEOUT",
                f"Choosing sentences took longer than {self._timeout_s:g} s.",
                metadata=_NOT_SENT,
            ) from exc
        except BrokenProcessPool as exc:
            # A broken pool stays broken: the next call starts a new one.
            if self._pool is pool:
                self._pool = None
            raise Unavailable(
                "PROVIDER_UNAVAILABLE", "The process that chooses sentences died. Try again.", metadata=_NOT_SENT
            ) from exc

    def _started(self) -> ProcessPoolExecutor:
        # Forking a process that has threads (gRPC, Redis) may inherit a held lock: spawn starts a clean one.
        return ProcessPoolExecutor(
            self._processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
        )


def _nothing() -> None:
    """Work that only needs a process to be there."""


def _begin_worker() -> None:
    """Makes the worker end with the service, and only with it."""
    # Ctrl-C goes to the whole process group; the service decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker holds both ends of its queue and would never notice that the service was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _other_language(language: str) -> InvalidArgument:
    return InvalidArgument(
        "LANGUAGE_NOT_SUPPORTED",
        f"This model chooses sentences and cannot write {language!r}, which the document is not in. "
        "Leave the language empty or choose a model that writes.",
        fields=[FieldViolation("options.language", "must be the document's own for a model that chooses sentences")],
        metadata=_NOT_SENT,
    )


def _input_tokens(prompt: Prompt) -> int:
    if prompt.chunk is not None:
        return _tokens(prompt.chunk.text)
    return sum(_tokens(claim.text) for claim in prompt.claims)


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARS_PER_TOKEN)

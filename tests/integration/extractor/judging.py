"""What becomes of a file, in a word, and whether it is a word that a caller may hear."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc

from pagemesh.extractor.v1 import extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.runtime import status
from services.runtime.errors import FailedPrecondition, InvalidArgument, OutOfRange
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client

OUTCOME_S = 20
"""Within so many seconds every file has ended, one way or another: past them the call does, which is no outcome."""
ALL_PARTS = (
    "text",
    "blocks",
    "words",
    "markdown",
    "tables",
    "images",
    "links",
    "language",
    "flags",
    "metadata",
    "outline",
)
_ERRORS = Path(__file__).parents[3] / "docs" / "errors.md"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Outcome:
    """`word` is a reason, or what the pages are; `text` is that of the first page that was read."""

    word: str
    seconds: float
    text: str = ""


@cache
def documented_reasons() -> frozenset[str]:
    """Those that docs/errors.md tells callers what to do about."""
    return frozenset(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", _ERRORS.read_text()))


async def typed(asked: Callable[[], Awaitable[tuple[str, str]]]) -> Outcome:
    """The outcome of one question about a file. Fails where it is neither an answer nor a refusal that is documented:
    an internal error, a deadline, a lost connection."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        word, text = await asked()
    except (FailedPrecondition, InvalidArgument, OutOfRange) as refused:
        word, text = refused.reason, ""
        reasons = {word}
    else:
        reasons = set(word.split()) - {"OK", "some"}
    assert reasons <= documented_reasons()
    return Outcome(word, loop.time() - begun, text)


async def uploaded(client: Client, data: bytes, name: str = "a.pdf") -> str:
    """The document's name. Raises what the upload does."""
    return (await client.upload(data, name)).document.name


async def pages(client: Client, document: str, *parts: str, **request: Any) -> tuple[str, str]:
    """A word for all pages of a document, and the first text. No page is recognised but where `ocr` asks for it."""
    asked = {"ocr": extraction_pb2.OCR_MODE_OFF, **request}
    extracted = await client.extract(document, *parts, timeout_s=OUTCOME_S, **asked)
    assert extracted.end is not None
    assert extracted.start is not None
    assert extracted.end.pages_sent == len(extracted.pages)
    assert extracted.end.pages_failed == len(extracted.failed)
    reasons = {page.reason for page in extracted.failed}
    text = next((page.text for page in extracted.pages if page.text), "")
    if not reasons:
        return "OK", text
    return ("some " if extracted.pages else "") + " ".join(sorted(reasons)), text


async def recognised(client: Client, document: str) -> tuple[str, str]:
    """The first page, read by recognition where it has no text."""
    return await pages(client, document, "text", last_page=1, ocr=extraction_pb2.OCR_MODE_AUTO)


async def drawn(client: Client, document: str) -> tuple[str, str]:
    """The first page as a picture."""
    request = pb.RenderPageRequest(name=document, format=pb.RenderPageRequest.FORMAT_PNG)
    return await _picture(client.stub.RenderPage(request, timeout=OUTCOME_S, metadata=client.metadata))


async def taken_out(client: Client, document: str) -> tuple[str, str]:
    """The first image of the first page."""
    request = pb.ExtractImageRequest(name=document)
    return await _picture(client.stub.ExtractImage(request, timeout=OUTCOME_S, metadata=client.metadata))


async def _picture(call: Any) -> tuple[str, str]:
    """Whole and of the type that it says."""
    pieces, kind = [], ""
    try:
        async for response in call:
            kind = kind or response.content.content_type
            pieces.append(response.content.data)
    except grpc.aio.AioRpcError as exc:
        raise status.from_rpc_error(exc, service="extractor") from exc
    begins = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8"}[kind]
    assert b"".join(pieces).startswith(begins)
    return "OK", ""


Question = Callable[[Client, str], Awaitable[tuple[str, str]]]
QUESTIONS: dict[str, Question] = {
    "text": lambda client, document: pages(client, document, "text"),
    "all parts": lambda client, document: pages(client, document, *ALL_PARTS),
    "OCR": recognised,
    "drawing": drawn,
    "image": taken_out,
}
"""Everything that can be asked of a document, each within OUTCOME_S."""


async def good_file_is_whole(client: Client, pages_of_it: int = 3) -> None:
    """Sends a file that nobody has seen and wants each of its pages back."""
    words = [f"Page {page} of good file {next(_numbers)}." for page in range(pages_of_it)]
    name = await uploaded(client, made_pdfs.document([made_pdfs.line(text) for text in words]), "good.pdf")
    extracted = await client.extract(name, "text", timeout_s=OUTCOME_S)
    assert [page.text.strip() for page in extracted.pages] == words
    assert extracted.failed == []

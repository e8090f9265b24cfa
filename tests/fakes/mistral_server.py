"""A server that speaks Mistral's /v1/chat/completions, /v1/ocr and /v1/embeddings and misbehaves as it is told.

In a test: `with MistralServer() as server: server.script("429:1", "ok")`. Each call takes the next behaviour of the
script, and "ok" when there is none left. By hand, or for a service in another process:

    python -m tests.fakes.mistral_server --port 8080
    curl localhost:8080/control/script -d '["500", "ok"]'
    curl localhost:8080/control/calls

Behaviours: ok, slow:SECONDS, hang, hang_midway, STATUS or STATUS:RETRY_AFTER (such as 401, 422, 429:2, 500, 503:1),
cut, quiet_end, not_http, invalid_json, schema, schema_sentence, empty, no_choice, length, over_long, wrong_usage,
no_usage, say:JSON. Of an embedding also fewer, ragged, zero. Of /v1/ocr, whose "ok" says that the bytes of the picture
are the page's Markdown: ok, slow, hang, STATUS, cut, not_http, over_long, garbage, invalid_json, no_pages, two_pages,
no_usage, empty, say:MARKDOWN.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.embedding import embedded

_MAX_BODY_BYTES = 32 * 2**20
_PIECE_CHARS = 7
_CHARS_PER_TOKEN = 6
"""Fewer tokens than the real tokenizer counts, as a bill has to be no more than what was counted before."""
_TEMPLATE_TOKENS = 12
_OVER_LONG_BYTES = 20 * 2**20
_START_TIMEOUT_S = 10.0

_MATERIAL = re.compile(r"^BEGIN (?P<fence>\S+)\n(?P<material>.*)\nEND (?P=fence)$", re.DOTALL | re.MULTILINE)
_WANTED = re.compile(r"at most (\d+) sentences")
_SENTENCE = re.compile(r"[^\s.!?][^.!?]{20,400}[.!?]")


@dataclass
class Books:
    """What the server was asked, and what it charges for; a cut answer is charged, a refused or hung one is not."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    charges: list[tuple[int, int]] = field(default_factory=list)  # tokens sent and received, of each that is charged
    input_tokens: int = 0
    output_tokens: int = 0
    cancelled: int = 0
    pages: int = 0
    """Of pictures that were read; they are in `calls`."""


class MistralServer:
    """Runs in a thread of its own, on a free port unless told otherwise."""

    def __init__(
        self,
        *,
        port: int = 0,
        says: "Callable[[dict[str, Any]], dict[str, Any]] | None" = None,
        count_text: Callable[[str], int] | None = None,
    ) -> None:
        """`says` makes an "ok" answer out of the request's body, `count_text` is what tokens are charged by: then those
        of the schema and of the template too."""
        self.books = Books()
        self._charges_all = count_text is not None
        self._says = says or answer_of
        self._count_text = count_text or (lambda text: math.ceil(len(text) / _CHARS_PER_TOKEN))
        self._port = port
        self._script: list[str] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def calls(self) -> int:
        """Calls to the API so far."""
        return len(self.books.calls)

    def script(self, *behaviours: str) -> None:
        """Behaviours of the next calls, in order."""
        with self._lock:
            self._script = list(behaviours)

    def __enter__(self) -> "MistralServer":
        self._thread.start()
        assert self._ready.wait(_START_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_TIMEOUT_S)

    def wait(self) -> None:
        """Until it is stopped."""
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._one_request(reader, writer):
                pass
        except asyncio.IncompleteReadError:
            pass  # the client hung up between two requests: that is its right
        except ConnectionError:
            self.books.cancelled += 1  # and here it did so in the middle of an answer
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except ConnectionError:
            return False  # reset between two requests
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        size = int(headers.get("content-length", "0"))
        assert size <= _MAX_BODY_BYTES
        body = json.loads(await reader.readexactly(size) or b"null")
        if path == "/control/script":
            self.script(*body)
            return await _send(writer, 200, {})
        if path == "/control/calls":
            books = self.books
            told = {"calls": len(books.calls), "input_tokens": books.input_tokens, "output_tokens": books.output_tokens}
            return await _send(writer, 200, told)
        if method != "POST" or path not in ("/v1/chat/completions", "/v1/ocr", "/v1/embeddings"):
            return await _send(writer, 404, {"message": "no such route"})
        self.books.calls.append(body | {"authorization": headers.get("authorization", "")})
        with self._lock:
            behaviour = self._script.pop(0) if self._script else "ok"
        if path == "/v1/ocr":
            return await self._read_picture(behaviour, body, reader, writer)
        return await self._behave(behaviour, body, reader, writer)

    async def _behave(
        self, behaviour: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        name, _, detail = behaviour.partition(":")
        if name.isdigit():
            extra = {"retry-after": detail} if detail else {}
            return await _send(writer, int(name), {"message": "refused, and the document said SECRET"}, extra)
        if name == "hang":
            return await self._hang(reader)
        if name == "slow":
            await asyncio.sleep(float(detail))
        if name == "not_http":
            writer.write(b"this is not HTTP\r\n\r\n")
            await writer.drain()
            return False
        usage = self._charge(name, body)
        if "input" in body:
            if name == "cut":
                writer.write(_head(200, {"content-type": "application/json", "content-length": "100000"}) + b'{"data')
                await writer.drain()
                return False
            padding = {"padding": "x" * _OVER_LONG_BYTES} if name == "over_long" else {}
            return await _send(writer, 200, embedded(name, body) | {"usage": usage} | padding)
        content = self._content(name, detail, body)
        if body.get("stream"):
            finish_reason = "length" if name == "length" else "stop"
            return await self._stream(
                name, _pieces(name, content), (body["model"], finish_reason, usage), reader, writer
            )
        if name == "over_long":
            return await _send(writer, 200, {"padding": "x" * _OVER_LONG_BYTES})
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "length" if name == "length" else "stop"}
        answer = {"id": "cmpl-1", "object": "chat.completion", "created": int(time.time()), "model": body["model"]}
        answer |= {"choices": [] if name == "no_choice" else [choice], "usage": usage}
        if name == "cut":
            writer.write(_head(200, {"content-type": "application/json", "content-length": "100000"}))
            writer.write(json.dumps(answer).encode()[:50])
            await writer.drain()
            return False
        return await _send(writer, 200, answer)

    async def _read_picture(
        self, behaviour: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        name, _, detail = behaviour.partition(":")
        if name.isdigit() or name in ("hang", "not_http"):
            return await self._behave(behaviour, body, reader, writer)
        if name == "slow":
            await asyncio.sleep(float(detail))
        document = body["document"]
        assert (document["type"], body["include_blocks"]) == ("image_url", False)
        kind, _, data = document["image_url"].partition(";base64,")
        assert kind == "data:image/jpeg"
        self.books.pages += 1
        if name == "over_long":
            return await _send(writer, 200, {"padding": "x" * _OVER_LONG_BYTES})
        picture = base64.b64decode(data, validate=True)
        said = {"say": detail, "empty": ""}.get(name, picture.decode(errors="replace"))
        page = {"index": 0, "markdown": said, "images": [], "dimensions": {"dpi": 200, "height": 2200, "width": 1700}}
        pages = {"no_pages": [], "two_pages": [page, page | {"index": 1}]}.get(name, [page])
        answer = {"pages": pages, "model": body["model"], "usage_info": {"pages_processed": max(1, len(pages))}}
        if name == "no_usage":
            del answer["usage_info"]
        whole = {"garbage": b"[1, 2", "invalid_json": b'{"pages": "none"}'}.get(name, json.dumps(answer).encode())
        size = 100_000 if name == "cut" else len(whole)
        writer.write(_head(200, {"content-type": "application/json", "content-length": str(size)}) + whole)
        await writer.drain()
        return name != "cut"

    async def _stream(
        self,
        name: str,
        pieces: list[str],
        end: tuple[str, str, dict[str, int]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        writer.write(_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))
        breaks_off = name in ("cut", "hang_midway")
        for event in _events(pieces, *end):
            if (breaks_off or name == "quiet_end") and "usage" in event:
                break
            _write_chunk(writer, f"data: {json.dumps(event)}\n\n".encode())
            await writer.drain()
        if breaks_off:
            return await self._hang(reader) if name == "hang_midway" else False
        if name != "quiet_end":
            _write_chunk(writer, b"data: [DONE]\n\n")
        _write_chunk(writer, b"")
        await writer.drain()
        return True

    def _content(self, name: str, detail: str, body: dict[str, Any]) -> str:
        """What the model says."""
        fixed = {
            "invalid_json": '{"sentences": [{"text": "It stops',
            "schema": '{"answer": "no sentences"}',
            "schema_sentence": '{"sentences": [{"text": 7, "quotes": "none"}]}',
            "empty": "",
        }
        if name == "say":
            return detail
        return fixed[name] if name in fixed else json.dumps(self._says(body), ensure_ascii=False)

    async def _hang(self, reader: asyncio.StreamReader) -> bool:
        """Says nothing until the client hangs up."""
        await reader.read()
        raise ConnectionAbortedError

    def _charge(self, name: str, body: dict[str, Any]) -> dict[str, int]:
        usage = self._used(name, body)
        self.books.charges.append((usage["prompt_tokens"], usage["completion_tokens"]))
        self.books.input_tokens += usage["prompt_tokens"]
        self.books.output_tokens += usage["completion_tokens"]
        if name == "wrong_usage":
            return {"prompt_tokens": -5, "completion_tokens": 10**9, "total_tokens": 0}
        return {} if name == "no_usage" else usage | {"total_tokens": sum(usage.values())}

    def _used(self, name: str, body: dict[str, Any]) -> dict[str, int]:
        if "input" in body:
            return {"prompt_tokens": sum(map(self._count_text, body["input"])), "completion_tokens": 0}
        said = self._content(name, "", body)
        asked = "".join(message["content"] for message in body["messages"])
        around = _TEMPLATE_TOKENS + self._count_text(json.dumps(_schema(body))) if self._charges_all else 0
        most = body.get("max_tokens") or body["max_completion_tokens"]
        return {
            "prompt_tokens": self._count_text(asked) + around,
            "completion_tokens": min(self._count_text(said), most),
        }


def _schema(body: dict[str, Any]) -> Any:
    named = body["response_format"].get("json_schema", {})
    return named.get("schema") or named.get("schema_definition") or {}


def answer_of(body: dict[str, Any]) -> dict[str, Any]:
    """What an honest and lazy model says to whatever it is asked."""
    return _fields(body) if "You find values" in body["messages"][0]["content"] else summary_of(body)


def _fields(body: dict[str, Any]) -> dict[str, Any]:
    """A field for each line `name: value` whose name is one of the schema's properties."""
    asked = body["messages"][-1]["content"]
    fence, material = fenced(asked)
    fields: list[dict[str, Any]] = []
    for part in material.split(f"[{fence} page ")[1:]:
        page, _, text = part.partition("]\n")
        for line in text.splitlines():
            label, colon, value = line.partition(":")
            name = label.strip().lower().replace(" ", "_")
            if colon and f'"{name}":' in asked:
                fields.append({"pointer": f"/{name}", "value": value.strip(), "quote": line.strip(), "page": int(page)})
    return {"fields": fields}


def summary_of(body: dict[str, Any]) -> dict[str, Any]:
    """The first sentences of the material, each quoting itself: what an honest and lazy model would say."""
    asked = body["messages"][-1]["content"]
    fence, material, most = material_of(asked)
    if "`sources` are" in body["messages"][0]["content"]:
        lines = [line.partition(". ") for line in material.splitlines() if line]
        return {"sentences": [{"text": text, "sources": [int(number)]} for number, _, text in lines[:most]]}
    sentences: list[dict[str, Any]] = []
    for part in material.split(f"[{fence} page ")[1:]:
        page, _, text = part.partition("]\n")
        for match in _SENTENCE.finditer(text):
            words = " ".join(match.group().split())
            sentences.append({"text": words, "quotes": [{"quote": words, "page": int(page)}]})
    return {"sentences": sentences[:most]}


def fenced(asked: str) -> tuple[str, str]:
    """The fence, and what stands between its lines."""
    found = _MATERIAL.search(asked)
    assert found is not None, "the material is fenced"
    return found["fence"], found["material"]


def material_of(asked: str) -> tuple[str, str, int]:
    """The fence, what stands between its lines, and how many sentences are wanted."""
    return *fenced(asked), int(_WANTED.findall(asked)[0])


def _pieces(name: str, content: str) -> list[str]:
    if name == "over_long":
        return ["x" * 2**16] * (_OVER_LONG_BYTES // 2**16)
    pieces = [content[i : i + _PIECE_CHARS] for i in range(0, len(content), _PIECE_CHARS)]
    return pieces[: len(pieces) // 2] if name in ("cut", "hang_midway") else pieces


def _events(pieces: list[str], model: str, finish_reason: str, usage: dict[str, int]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        delta = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        yield {"id": "cmpl-1", "model": model, "choices": [delta]}
    last = {"index": 0, "delta": {"content": ""}, "finish_reason": finish_reason}
    yield {"id": "cmpl-1", "model": model, "choices": [last], "usage": usage}


async def _send(
    writer: asyncio.StreamWriter, status: int, answer: dict[str, Any], extra: dict[str, str] | None = None
) -> bool:
    payload = json.dumps(answer).encode()
    headers = {"content-type": "application/json", "content-length": str(len(payload))} | (extra or {})
    writer.write(_head(status, headers) + payload)
    await writer.drain()
    return True


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    with MistralServer(port=parser.parse_args().port) as server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()


if __name__ == "__main__":
    main()

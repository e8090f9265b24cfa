"""Server-sent events come out whole, however the bytes are cut."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from services.summarizer.adapters.provider_http import ProviderHttp, Refused

STREAM = (
    b': a comment\r\n\r\nevent: message\r\ndata: {"text": "Bees"}\r\n\r\n'
    b'id: 7\ndata: {"text":\ndata: " make"}\n\n'
    b'data:{"text": "\xe2\x80\xa8\xc2\x85 honey \xf0\x9f\x90\x9d"}\n\n'
    b'data: [DONE]\n\ndata: {"text": "never seen"}\n\n'
)
EVENTS = [{"text": "Bees"}, {"text": " make"}, {"text": "\u2028\x85 honey \U0001f41d"}]


def api(pieces: list[bytes], *, status: int = 200) -> ProviderHttp:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer the-key"
        assert str(request.url) == "https://model.test/v1/chat"
        return httpx2.Response(status, content=body(), headers={"retry-after": "3"})

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return ProviderHttp(http, url="https://model.test/", api_key=SecretStr("the-key"))


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20).map(sorted))
async def test_events_are_whole_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    pieces = [STREAM[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert [event async for event in api(pieces).events("/v1/chat", {})] == EVENTS


async def test_an_event_that_does_not_end_is_passed_over() -> None:
    assert [event async for event in api([b'data: {"a": 1}\n\ndata: {"b"']).events("/v1/chat", {})] == [{"a": 1}]


@pytest.mark.parametrize("body", [b"[]", b"7", b"{", b"\xff"])
async def test_what_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"no JSON object|Expecting|decode"):
        await api([body]).post("/v1/chat", {})
    with pytest.raises(ValueError, match=r"no JSON object|Expecting|decode"):
        [event async for event in api([b"data: " + body + b"\n\n"]).events("/v1/chat", {})]


async def test_a_refusal_tells_status_and_headers() -> None:
    with pytest.raises(Refused) as refused:
        await api([b"not read"], status=429).post("/v1/chat", {})
    assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "3")

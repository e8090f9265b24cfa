"""Messages are attempted until they arrive or are given up; a courier that dies loses none."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from services.webhooks.courier import LEASE, LONGEST_PAUSE_S, MOST_AT_ONCE, MOST_OF_TENANT, Courier, Message
from services.webhooks.sender import Sender, Sent

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def a_message(number: int = 0, *, url: str = "https://example.com/", tenant: str = "acme") -> Message:
    return Message(tenant, f"m{number}", url, b"secret", b"{}", 0)


@dataclass
class ListOutbox:
    """An outbox in a dictionary: when each message is due, and what became of it."""

    due: dict[str, tuple[Message, datetime]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)

    def add(self, *messages: Message) -> None:
        self.due |= {message.message_id: (message, NOW) for message in messages}

    async def take(
        self, now: datetime, until: datetime, limit: int, *, each: int, busy: Collection[str] = ()
    ) -> Sequence[Message]:
        found: list[Message] = []
        for message, when in self.due.values():
            own = sum(one.tenant == message.tenant for one in found)
            if when <= now and message.tenant not in busy and own < each and len(found) < limit:
                found.append(replace(message, attempts=message.attempts + 1))
        self.due |= {message.message_id: (message, until) for message in found}
        return found

    async def delivered(self, message: Message, now: datetime) -> None:
        del self.due[message.message_id]
        self.ended[message.message_id] = "delivered"

    async def failed(self, message: Message, failure: str, *, again: datetime) -> None:
        self.due[message.message_id] = (message, again)

    async def dead(self, message: Message, failure: str, now: datetime) -> None:
        del self.due[message.message_id]
        self.ended[message.message_id] = failure

    async def forget(self, before: datetime, limit: int) -> int:
        return 0


@dataclass
class ScriptedSender(Sender):
    """Answers what it is told to, and success afterwards."""

    answers: list[Sent] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        self.headers.append(headers)
        return self.answers.pop(0) if self.answers else Sent()


@dataclass
class MovedClock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


async def test_a_message_is_attempted_until_it_arrives() -> None:
    outbox, clock = ListOutbox(), MovedClock()
    sender = ScriptedSender([Sent("no"), Sent("no")])
    courier = Courier(outbox, sender, clock=clock, retry_s=4)
    outbox.add(a_message())
    for attempt in (1, 2):
        assert await courier.round() == 1
        pause = outbox.due["m0"][1] - clock.now
        assert timedelta(seconds=2 * attempt) <= pause <= timedelta(seconds=4 * attempt)
        assert await courier.round() == 0
        clock.now += pause
    assert await courier.round() == 1
    assert outbox.ended == {"m0": "delivered"}
    assert {headers["webhook-id"] for headers in sender.headers} == {"m0"}
    assert len({headers["webhook-timestamp"] for headers in sender.headers}) == 3


async def test_a_message_is_given_up_in_the_end() -> None:
    outbox, clock = ListOutbox(), MovedClock()
    courier = Courier(outbox, ScriptedSender([Sent("no")] * 9), clock=clock, most_attempts=3)
    outbox.add(a_message())
    with capture_logs() as lines:
        for _ in range(3):
            assert await courier.round() == 1
            clock.now += timedelta(hours=1)
    (line,) = (line for line in lines if line["event"] == "webhook_dead")
    assert (line["tenant"], line["message_id"], line["failure"]) == ("acme", "m0", "no")
    assert (outbox.ended, await courier.round()) == ({"m0": "no"}, 0)


async def test_who_is_gone_is_not_tried_again() -> None:
    outbox = ListOutbox()
    sender = ScriptedSender([Sent("the server answered 410", final=True)])
    courier = Courier(outbox, sender, clock=MovedClock())
    outbox.add(a_message(0), a_message(1, url=""))
    await courier.round()
    assert outbox.ended == {"m0": "the server answered 410", "m1": "the webhook was deleted"}


async def test_what_a_dead_courier_took_is_taken_up_again() -> None:
    outbox, clock = ListOutbox(), MovedClock()
    outbox.add(a_message())
    await outbox.take(clock.now, clock.now + LEASE, 1, each=1)
    courier = Courier(outbox, ScriptedSender(), clock=clock)
    assert await courier.round() == 0
    clock.now += LEASE
    assert await courier.round() == 1
    assert outbox.ended == {"m0": "delivered"}


async def test_a_round_is_bounded_and_pauses_are() -> None:
    outbox = ListOutbox()
    courier = Courier(outbox, ScriptedSender(), clock=MovedClock())
    outbox.add(*(a_message(number, tenant=f"t{number}") for number in range(MOST_AT_ONCE + 3)))
    assert [await courier.round(), await courier.round(), await courier.round()] == [MOST_AT_ONCE, 3, 0]
    assert courier.pause(10**6) <= timedelta(seconds=LONGEST_PAUSE_S)


@dataclass
class HangingSender(ScriptedSender):
    """Never comes back from some addresses."""

    hanging: str = ""
    on_the_way: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        if url == self.hanging:
            self.on_the_way += 1
            await asyncio.Event().wait()
        if headers["webhook-id"] == "m999":
            self.arrived.set()
        return await super().post(url, headers, body)


async def test_a_tenant_whose_receivers_hang_holds_up_nobody_else() -> None:
    outbox, sender = ListOutbox(), HangingSender(hanging="https://hangs.example/")
    courier = Courier(outbox, sender, clock=MovedClock(), interval_s=0.01)
    outbox.add(*(a_message(number, url=sender.hanging) for number in range(10 * MOST_AT_ONCE)))
    outbox.add(*(a_message(number, tenant="other") for number in range(980, 1000)))
    running = asyncio.create_task(courier.run())
    try:
        async with asyncio.timeout(60):
            await sender.arrived.wait()
        assert sender.on_the_way == MOST_OF_TENANT
    finally:
        running.cancel()
        await asyncio.wait([running])

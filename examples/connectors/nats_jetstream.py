"""NATS JetStream: a table of the messages of a stream, and messages made of rows.

CREATE EXTERNAL STREAM orders SETTINGS type = 'python', class = 'nats_jetstream:JetStream',
    mode = 'streaming', url = 'nats://localhost:4222', stream = 'ORDERS', subject = 'orders.>';

SELECT sequence, subject, payload FROM orders;

CREATE EXTERNAL STREAM new_orders (item string, amount int64) SETTINGS type = 'python',
    class = 'nats_jetstream:JetStreamSink', url = 'nats://localhost:4222', subject = 'orders.new';

INSERT INTO new_orders VALUES ('apples', 3);
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from string import Formatter
from typing import Any, Literal

import nats
from couatl.sinks import AsyncSink, Columns, objects, to_json
from couatl.sources import AsyncPartition, AsyncSource
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

#: How long the server holds a request for messages that do not come, in seconds.
WAIT = 1.0
#: How many sequence numbers are known again: more than messages that a server lets wait for their acknowledgement.
KNOWN = 10_000


class JetStream(AsyncSource):
    """The messages of a stream, from the sequence number `start`, and from then on those that are published.

    Each query has a consumer of its own, and so all messages. With `durable`, the server remembers under that name what
    was read: queries that run at the same time share that consumer, as JetStream's clients do, and each message goes to
    one of them. It is then acknowledged when the query asks for those after it: it may come again, to the next query,
    and is never left out. One that the server sends again because a slow query has not acknowledged it in time is left
    out in that query. A lost connection is made again, every half second, `reconnects` times; then the query ends with
    an error of ``nats.errors``. A payload that is no UTF-8 is an error, unless `payload` is ``bytes``.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        subject: str = ">",
        durable: str | None = None,
        start: int = 1,
        batch: int = 256,
        reconnects: int = 20,
        payload: Literal["text", "bytes"] = "text",
    ) -> None:
        self.url, self.stream, self.subject, self.durable = url, stream, subject, durable
        self.start, self.batch, self.reconnects, self.payload = start, batch, reconnects, payload

    def schema(self) -> str:
        payload = {"text": "string", "bytes": "binary"}[self.payload]
        return f"sequence uint64, subject string, time timestamptz, payload {payload}"

    async def open(self, partition: str, state: int | None) -> Messages:
        client = Client()
        messages = Messages(self, client, state)
        await connect(client, self.url, self.reconnects, messages.subscribe_again)
        return messages


class Messages(AsyncPartition):
    """A consumer; its state is the sequence number of the last message."""

    def __init__(self, source: JetStream, client: Client, last: int | None) -> None:
        self.source, self.client = source, client
        self.before = self.last = source.start - 1 if last is None else last
        self.given: list[Msg] = []
        self.known: dict[int, None] = {}
        self.subscription: JetStreamContext.PullSubscription | None = None

    async def subscribe_again(self) -> None:
        """The server may have forgotten a consumer without a name while it was away."""
        self.subscription = None

    async def subscribe(self) -> JetStreamContext.PullSubscription:
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            # A consumer that has a name stays as it was made; what it gives from before is left out below.
            opt_start_seq=self.source.start if self.source.durable else self.last + 1,
            ack_policy=AckPolicy.EXPLICIT if self.source.durable else AckPolicy.NONE,
        )
        context = self.client.jetstream()
        return await context.pull_subscribe(
            self.source.subject, self.source.durable, stream=self.source.stream, config=config
        )

    async def next_batch(self) -> list[tuple[Any, ...]] | None:
        await self.answer(Msg.ack)
        if self.subscription is None:
            self.subscription = await self.subscribe()
        try:
            messages = await self.subscription.fetch(self.source.batch, timeout=WAIT)
        except (nats.errors.TimeoutError, asyncio.TimeoutError):
            return None
        self.given = messages if self.source.durable else []
        rows = [
            (message.metadata.sequence.stream, message.subject, message.metadata.timestamp, self.payload(message))
            for message in messages
            if message.metadata.sequence.stream > self.before and not self.is_known(message)
        ]
        # What was lost on its way comes again later, out of its turn.
        self.last = max([self.last, *(row[0] for row in rows)])
        return rows

    def is_known(self, message: Msg) -> bool:
        """Whether it has come before: the server sends again what is not acknowledged in time. From now on, it has."""
        number = message.metadata.sequence.stream
        if number in self.known:
            return True
        self.known[number] = None
        if len(self.known) > max(KNOWN, 2 * self.source.batch):
            del self.known[next(iter(self.known))]
        return False

    def payload(self, message: Msg) -> str | bytes:
        try:
            return message.data if self.source.payload == "bytes" else message.data.decode()
        except UnicodeDecodeError as error:
            place = f"{message.subject}, sequence {message.metadata.sequence.stream}"
            raise ValueError(f"{place}: {error}; the option payload = 'bytes' takes it") from None

    async def answer(self, how: Callable[[Msg], Awaitable[None]]) -> None:
        """Say what has become of the messages that were given."""
        while self.given:
            await how(self.given.pop(0))

    def snapshot(self) -> int:
        return self.last

    async def close(self) -> None:
        if self.client.is_connected:
            # They come again to the next query at once, not when the server has waited long enough for this one.
            await self.answer(Msg.nak)
            with contextlib.suppress(nats.errors.Error):
                await self.client.flush(1)
        await self.client.close()


class JetStreamSink(AsyncSink):
    """Publishes each row as a JSON object, and waits until the stream has stored those of a batch.

    Bytes are Base64 in it, structs are objects, and NaN is null. The names in braces in `subject` are columns of the
    row, not NULL. What is published cannot be taken back.
    """

    def __init__(self, url: str, subject: str) -> None:
        self.url, self.subject = url, subject

    async def open(self, columns: Columns) -> None:
        self.columns = columns
        self.client = Client()
        await connect(self.client, self.url, 1)

    async def write(self, *columns: list[Any]) -> None:
        rows = list(objects(self.columns, columns))
        messages = [(filled(self.subject, row), to_json(row).encode()) for row in rows]
        await asyncio.gather(*(self.client.jetstream().publish(*message) for message in messages))

    async def close(self) -> None:
        await self.client.close()


async def connect(client: Client, url: str, reconnects: int, reconnected: Any = None) -> None:
    """Connect, or raise what the first attempt does."""
    await client.connect(
        url,
        connect_timeout=5,
        max_reconnect_attempts=reconnects,
        reconnect_time_wait=0.5,
        reconnected_cb=reconnected,
    )


def filled(template: str, row: dict[str, Any]) -> str:
    """The text, with the values of a row in the place of the names in braces."""
    for _, name, _, _ in Formatter().parse(template):
        if name is not None and row.get(name) is None:
            what = "NULL" if name in row else "no column"
            raise ValueError(f"'{template}' needs a value of '{name}', which is {what}")
    return template.format_map(row)

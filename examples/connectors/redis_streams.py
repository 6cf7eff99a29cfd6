"""Redis streams: a table of their entries, and entries made of rows.

CREATE EXTERNAL STREAM orders SETTINGS type = 'python', class = 'redis_streams:RedisStreams',
    mode = 'streaming', url = 'redis://localhost:6379', keys = 'orders:north, orders:south';

SELECT id, fields['item'] FROM orders;

CREATE EXTERNAL STREAM new_orders (item string, amount int64) SETTINGS type = 'python',
    class = 'redis_streams:RedisStreamSink', url = 'redis://localhost:6379', key = 'orders:north';

INSERT INTO new_orders VALUES ('apples', 3);
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Literal

from couatl.sinks import Columns, Sink, objects, to_json
from couatl.sources import Partition, Source
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

#: How long Redis holds a request for entries that do not come, in milliseconds: a cancel waits no longer.
BLOCK_MS = 100


class RedisStreams(Source):
    """The entries of streams, each stream a partition, and from then on those that are added.

    `start` is the id after which to begin: ``0`` is the first entry there is, ``$`` the next that is added. With
    `follow` off, reading ends where there are no more. A lost connection is made again for about five seconds; no entry
    is left out or comes twice. After that the query ends with redis.exceptions.ConnectionError. A field that is no
    UTF-8 is an error, unless `values` is ``bytes``.
    """

    def __init__(
        self,
        url: str,
        keys: list[str],
        start: str = "0",
        follow: bool = True,
        count: int = 1000,
        values: Literal["text", "bytes"] = "text",
    ) -> None:
        self.url, self.keys, self.start, self.follow, self.count = url, keys, start, follow, count
        self.values = values

    def schema(self) -> str:
        value = {"text": "string", "bytes": "binary"}[self.values]
        return f"key string, id string, time datetime64(3, 'UTC'), fields map(string, {value})"

    def partitions(self) -> list[str]:
        return self.keys

    def open(self, partition: str, state: str | None) -> Entries:
        return Entries(self, partition, state)


class Entries(Partition):
    """One stream; its state is the id of the last entry."""

    def __init__(self, source: RedisStreams, key: str, last: str | None) -> None:
        self.source, self.key = source, key
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=12)
        self.redis = Redis.from_url(source.url, protocol=2, retry=retry)
        self.last = last or source.start
        if self.last == "$":
            newest = self.redis.xrevrange(key, count=1)
            self.last = newest[0][0].decode() if newest else "0"

    def next_batch(self) -> list[tuple[Any, ...]] | None:
        block = BLOCK_MS if self.source.follow else None
        found = self.redis.xread({self.key: self.last}, count=self.source.count, block=block)
        if found:
            rows = [self.row(id.decode(), fields) for id, fields in found[0][1]]
            self.last = rows[-1][1]
            return rows
        if not self.source.follow:
            raise StopIteration
        return None

    def row(self, id: str, fields: dict[bytes, bytes]) -> tuple[Any, ...]:
        is_text = self.source.values == "text"
        try:
            named = {name.decode(): value.decode() if is_text else value for name, value in fields.items()}
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.key}, entry {id}: {error}; the option values = 'bytes' takes it") from None
        return self.key, id, time_of(id), named

    def snapshot(self) -> str:
        return self.last

    def close(self) -> None:
        self.redis.close()


def time_of(id: str) -> datetime:
    """When an entry was added: its id begins with that, in milliseconds."""
    return datetime.fromtimestamp(int(id.partition("-")[0]) / 1000, timezone.utc)


class RedisStreamSink(Sink):
    """Adds an entry for each row, with a field for each column that is not NULL; there must be one.

    A batch is one transaction of Redis: all of its entries are added, or none. Those of earlier batches stay where a
    later one fails. With `length`, about that many of the newest entries are kept.
    """

    def __init__(self, url: str, key: str, length: int | None = None) -> None:
        self.url, self.key, self.length = url, key, length

    def open(self, columns: Columns) -> None:
        self.columns = columns
        # Nothing is sent twice: whether a transaction whose answer is lost took place cannot be told.
        self.redis = Redis.from_url(self.url, protocol=2, retry=Retry(ExponentialBackoff(), retries=0))

    def write(self, *columns: list[Any]) -> None:
        with self.redis.pipeline(transaction=True) as pipeline:
            for row in objects(self.columns, columns):
                fields = {name: field(value) for name, value in row.items() if value is not None}
                if not fields:
                    raise ValueError("expected a value for an entry's fields, got a row of NULLs alone")
                pipeline.xadd(self.key, fields, maxlen=self.length)
            pipeline.execute()

    def close(self) -> None:
        self.redis.close()


def field(value: Any) -> str | bytes:
    """Text and bytes as they are, everything else as JSON, in which structs are objects, and NaN is null."""
    return value if isinstance(value, (str, bytes)) else to_json(value)

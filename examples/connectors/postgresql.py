"""PostgreSQL: a table of what a query gives, a stream of a table's new rows, and rows that are inserted.

CREATE EXTERNAL STREAM customers SETTINGS type = 'python', class = 'postgresql:PostgresQuery', mode = 'batch',
    url = 'postgresql://localhost/shop', query = 'SELECT id, name FROM customers';

CREATE EXTERNAL STREAM orders SETTINGS type = 'python', class = 'postgresql:PostgresTable', mode = 'streaming',
    url = 'postgresql://localhost/shop', table = 'orders', key = 'id', interval = '500ms';

CREATE EXTERNAL STREAM new_orders (item string, amount int64) SETTINGS type = 'python',
    class = 'postgresql:PostgresSink', url = 'postgresql://localhost/shop', table = 'orders';

INSERT INTO new_orders SELECT item, amount FROM sold;
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
from couatl.sinks import Columns, Sink
from couatl.sources import AsyncSource, Partition, Source
from psycopg import AsyncConnection, Connection, sql
from psycopg.types.json import Json, set_json_loads

#: PostgreSQL's types, by the names of psycopg, in a stream.
TYPES = {
    "bool": "bool",
    "int2": "int16",
    "int4": "int32",
    "int8": "int64",
    "float4": "float32",
    "float8": "float64",
    "text": "string",
    "varchar": "string",
    "bpchar": "string",
    "name": "string",
    "bytea": "binary",
    "date": "date",
    "time": "time",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "uuid": "uuid",
    "json": "json",
    "jsonb": "json",
}
#: How long a request to cancel a query may take, in seconds.
CANCEL = 2.0


class PostgresQuery(AsyncSource):
    """What a query gives, `fetch` rows at a time.

    The columns are the query's. A ``numeric`` without a precision is taken as ``decimal(38, 10)``; a type that is not
    known here is to be cast, ``address::text``. A query that is cancelled is cancelled in PostgreSQL too.
    """

    def __init__(self, url: str, query: str, fetch: int = 1000) -> None:
        self.url, self.query, self.fetch = url, query, fetch

    def schema(self) -> str:
        return columns_of(self.url, self.query)

    async def open(self, partition: str, state: Any) -> AsyncIterator[list[tuple[Any, ...]]]:
        connection = await AsyncConnection.connect(self.url)
        keep_json(connection)
        async with connection, connection.cursor(name="couatl") as cursor:
            await cursor.execute(self.query)
            while rows := await cursor.fetchmany(self.fetch):
                yield rows


class PostgresTable(Source):
    """The rows of a table, and from then on those that are added, by a `key` that grows from row to row.

    A row whose key is NULL, or not above those that have been read, is left out, so also one of a transaction that
    takes a number of a sequence, and commits after another which took a later one. A lost connection ends the query
    with psycopg.OperationalError.
    """

    def __init__(
        self, url: str, table: str, key: str, interval: timedelta = timedelta(seconds=1), fetch: int = 1000
    ) -> None:
        self.url, self.table, self.key, self.interval, self.fetch = url, table, key, interval, fetch

    def schema(self) -> str:
        return columns_of(self.url, sql.SQL("SELECT * FROM {}").format(name(self.table)))

    def open(self, partition: str, state: Any) -> NewRows:
        return NewRows(self, state)


class NewRows(Partition):
    """The rows after a key; the state is the last one."""

    def __init__(self, source: PostgresTable, last: Any) -> None:
        self.source, self.last = source, last
        self.connection = psycopg.connect(source.url)
        keep_json(self.connection)
        self.awake: datetime | None = None
        self.query = sql.SQL("SELECT * FROM {table} WHERE {key} {after} ORDER BY {key} LIMIT {fetch}")

    def next_batch(self) -> list[tuple[Any, ...]]:
        query = self.query.format(
            table=name(self.source.table),
            after=sql.SQL("IS NOT NULL") if self.last is None else sql.SQL("> {}").format(self.last),
            key=sql.Identifier(self.source.key),
            fetch=self.source.fetch,
        )
        # No transaction is left open while nobody asks.
        with self.connection.transaction():
            cursor = self.connection.execute(query)
            rows = cursor.fetchall()
        if rows and cursor.description is not None:
            names = [column.name for column in cursor.description]
            self.last = rows[-1][names.index(self.source.key)]
        full = len(rows) == self.source.fetch
        self.awake = None if full else datetime.now(timezone.utc) + self.source.interval
        return rows

    def next_awake(self) -> datetime | None:
        return self.awake

    def snapshot(self) -> Any:
        return self.last

    def cancel(self) -> None:
        self.connection.cancel_safe(timeout=CANCEL)

    def close(self) -> None:
        self.connection.close()


class PostgresSink(Sink):
    """Adds rows to a table, by the names of the columns: all that an INSERT brings, or nothing.

    The rows go by COPY, in one transaction, which is committed when all of them are there. A wait for a lock ends when
    the INSERT is cancelled; ``?options=-c%20lock_timeout%3D5s`` in the URL bounds it.
    """

    def __init__(self, url: str, table: str) -> None:
        self.url, self.table = url, table

    def open(self, columns: Columns) -> None:
        self.is_json = [type.lower() == "json" for type in columns.types]
        self.copy = sql.SQL("COPY {} ({}) FROM STDIN").format(
            name(self.table), sql.SQL(", ").join(map(sql.Identifier, columns.names))
        )
        self.connection = psycopg.connect(self.url)

    def write(self, *columns: list[Any]) -> None:
        with self.connection.cursor() as cursor, cursor.copy(self.copy) as copy:
            for row in zip(*map(written, columns, self.is_json)):
                copy.write_row(row)

    def commit(self) -> None:
        self.connection.commit()

    def cancel(self) -> None:
        self.connection.cancel_safe(timeout=CANCEL)

    def abort(self) -> None:
        self.connection.rollback()

    def close(self) -> None:
        self.connection.close()


def written(values: list[Any], is_json: bool) -> list[Any]:
    """The values of a column, as psycopg takes them."""
    return [None if value is None else Json(value) for value in values] if is_json else values


def keep_json(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    """Let JSON stay text there: not everything that it can say is a Python dict or list."""
    set_json_loads(lambda text: text if isinstance(text, str) else text.decode(), connection)


def name(table: str) -> sql.Identifier:
    """The name of a table, which may have a schema before it."""
    return sql.Identifier(*table.split("."))


def columns_of(url: str, query: Any) -> str:
    """The columns that a query has, of which no row is asked for."""
    with psycopg.connect(url) as connection, connection.cursor(name="couatl") as cursor:
        columns = cursor.execute(query).description or ()
        return ", ".join(f"{quoted(column.name)} {type_of(connection, column)}" for column in columns)


def quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def type_of(connection: psycopg.Connection[Any], column: psycopg.Column) -> str:
    """The type of a column in a stream."""
    found = connection.adapters.types.get(column.type_code)
    if found is not None and found.name == "numeric":
        plain = f"decimal({column.precision or 38}, {10 if column.scale is None else column.scale})"
    elif found is None or found.name not in TYPES:
        kind = column.type_display
        raise ValueError(f"column '{column.name}' is of PostgreSQL's type {kind}: cast it in the query, as in a::text")
    else:
        plain = TYPES[found.name]
    return plain if column.type_code == found.oid else f"array({plain})"

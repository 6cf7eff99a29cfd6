"""What listings cost as streams become many: the same calls over a hundred streams, and over ten thousand.

GetTables is called in two ways. A bare Flight client makes nothing of the rows, so that the ratio is the server's. An
ADBC client makes nested objects of them, and opens the schemas that it is given: that is what people wait for.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_flightsql import dbapi
from pyarrow import flight

from benches.engine import execute, server, stream
from benches.flight_server import command
from benches.measure import Outcome, Result, Scale, at_most, best
from benches.source import COLUMNS

TITLE = "Listings"
ABOUT = (
    "Two servers have streams that differ in their names alone, one a hundred times as many as the other, and both "
    "answer the same calls, over sockets: a listing of everything gives a hundred times the rows. GetTables comes from "
    "a bare Flight client, which makes nothing of the rows, and as `adbc_get_objects` from ADBC; statements come from "
    "ADBC."
)
TARGET = at_most(20)
# Fields of CommandGetTables.
TABLE_NAME, INCLUDE_SCHEMA = 3, 5


@dataclass(frozen=True)
class Clients:
    """Two clients of a server that has so many streams."""

    streams: int
    adbc: dbapi.Connection
    flight: flight.FlightClient

    @property
    def one(self) -> str:
        """The name of one stream, amid the others."""
        return name(self.streams // 2)

    def tables(self, *fields: tuple[int, bytes | int]) -> pa.Table:
        wanted = flight.FlightDescriptor.for_command(command("CommandGetTables", *fields))
        (endpoint,) = self.flight.get_flight_info(wanted).endpoints
        return self.flight.do_get(endpoint.ticket).read_all()

    def objects(self, **wanted: Any) -> pa.Table:
        return self.adbc.adbc_get_objects(**wanted).read_all()

    def rows(self, query: str) -> pa.Table:
        with self.adbc.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetch_arrow_table()


Call = Callable[[Clients], pa.Table]

ALL: dict[str, Call] = {
    "GetTables": lambda clients: clients.tables(),
    "GetTables, from ADBC": lambda clients: clients.objects(depth="tables"),
    "GetTables with columns": lambda clients: clients.tables((INCLUDE_SCHEMA, True)),
    "GetTables with columns, from ADBC": lambda clients: clients.objects(depth="all"),
    "SHOW STREAMS": lambda clients: clients.rows("SHOW STREAMS"),
}
ONE: dict[str, Call] = {
    "GetTables of one name": lambda clients: clients.tables((TABLE_NAME, clients.one.encode())),
    "GetTables of one name, from ADBC": lambda clients: clients.objects(depth="tables", table_name_filter=clients.one),
    "one name in information_schema.tables": lambda clients: clients.rows(
        f"SELECT table_name FROM information_schema.tables WHERE table_name = '{clients.one}'"
    ),
}


def name(number: int) -> str:
    return f"listed{number:05}"


def names(answer: pa.Table) -> list[str]:
    """The streams that are listed; what every server has is listed as well."""
    if "catalog_db_schemas" in answer.column_names:
        schemas = pc.list_flatten(answer["catalog_db_schemas"])
        found = pc.struct_field(pc.list_flatten(pc.struct_field(schemas, "db_schema_tables")), "table_name")
    else:
        found = answer["name" if "name" in answer.column_names else "table_name"]
    return [listed for listed in found.to_pylist() if listed.startswith("listed")]


def started(stack: ExitStack, streams: int) -> Clients:
    """A server with so many streams, made in one text, and its clients."""
    couatl = stack.enter_context(server())
    adbc = stack.enter_context(couatl.connect())
    bodies = [(name(number), f"def {name(number)}():\n    return []") for number in range(streams)]
    execute(adbc, ";\n".join(stream(listed, COLUMNS, body, mode="batch") for listed, body in bodies))
    return Clients(streams, adbc, stack.enter_context(flight.connect(couatl.uri)))


def timed(call: Call, clients: Clients) -> float:
    start = time.perf_counter()
    call(clients)
    return time.perf_counter() - start


def measure(scale: Scale) -> Iterator[Outcome]:
    # Calls of a millisecond want more rounds than queries of a second.
    rounds = scale.of(30, 2)
    with ExitStack() as stack:
        few, many = (started(stack, count) for count in (scale.of(100, 2), scale.of(10_000, 200)))
        for what, call in {**ALL, **ONE}.items():
            for clients in (few, many):
                wanted = [clients.one] if what in ONE else [name(number) for number in range(clients.streams)]
                assert sorted(names(call(clients))) == wanted, what
            theirs, ours = [], []
            for _ in range(rounds):
                theirs.append(timed(call, few))
                ours.append(timed(call, many))
            yield Result(
                what,
                best(ours) / best(theirs),
                "×",
                TARGET,
                f"{best(ours) * 1e3:.2f} ms, {many.streams:,} streams",
                f"{best(theirs) * 1e3:.2f} ms, {few.streams:,} streams",
            )

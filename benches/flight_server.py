"""A Flight SQL server in a few lines of pyarrow, for the same clients: ``python -m benches.flight_server ROWS BATCH``.

It answers every query with the same batches, which lie in memory and go out without Python, and drops whatever is
ingested. It is what Arrow's own C++ does at best, and so what Couatl's wire is measured against. No more of the
protocol is here than an ADBC client needs for this.
"""

import sys

import pyarrow as pa
from pyarrow import flight

from benches.source import batches

ALL, NOTHING = b"all", b"nothing"
UPDATED = 1


def message(*fields: tuple[int, bytes | int]) -> bytes:
    """A protobuf message of length-delimited fields, and of varints."""
    return b"".join(
        bytes([number << 3]) + varint(value)
        if isinstance(value, int)
        else bytes([number << 3 | 2]) + varint(len(value)) + value
        for number, value in fields
    )


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def command(name: str, *fields: tuple[int, bytes | int]) -> bytes:
    """A message of Flight SQL, in the envelope that says which it is."""
    return message((1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()), (2, message(*fields)))


class Server(flight.FlightServerBase):
    """The server."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.table = table

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:
        if action.type != "CreatePreparedStatement":
            return []
        schema = self.table.schema.serialize().to_pybytes()
        return [command("ActionCreatePreparedStatementResult", (1, ALL), (2, schema))]

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        # A client that connects asks what the server can do. It gets no rows.
        name = NOTHING if b"CommandGetSqlInfo" in descriptor.command else ALL
        endpoint = flight.FlightEndpoint(command("TicketStatementQuery", (1, name)), [])
        return flight.FlightInfo(self.table.schema, descriptor, [endpoint], -1, -1)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        return flight.RecordBatchStream(self.table.slice(0, 0) if ticket.ticket.endswith(NOTHING) else self.table)

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        rows = sum(chunk.data.num_rows for chunk in reader)
        # DoPutUpdateResult: the count.
        writer.write(message((UPDATED, rows)))


def main() -> None:
    rows, size = map(int, sys.argv[1:])
    server = Server(pa.Table.from_batches(batches(rows, size)))
    print(f"listening on grpc://127.0.0.1:{server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()

"""duckdb: it has no table functions in Python; nearest is a reader of Arrow batches made of the rows as they come."""

import duckdb
import pyarrow as pa

from benches.peers.pyarrow import SCHEMA, record_batches

PACKAGE = "duckdb"
DOCUMENTED = "https://duckdb.org/docs/2.0/guides/python/sql_on_arrow.html"


def rows(count):
    connection = duckdb.connect()

    def query():
        # The query finds the reader by its name.
        reader = pa.RecordBatchReader.from_batches(SCHEMA, record_batches(count))  # noqa: F841
        return connection.execute("SELECT count(*), sum(a), max(c) FROM reader").fetchone()

    return query

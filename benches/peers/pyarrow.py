"""pyarrow, by hand: rows transposed, columns made by `array`, aggregates by `compute`."""

import pyarrow as pa
import pyarrow.compute as pc

from benches.source import columns, lists

PACKAGE = "pyarrow"
DOCUMENTED = "https://arrow.apache.org/docs/python/data.html#arrays"
CHUNK_ROWS = 8192
SCHEMA = pa.schema({"a": pa.int64(), "b": pa.float64(), "c": pa.string()})


def record_batches(count):
    """The rows as Arrow batches; other peers have no better way in."""
    for chunk in lists(count, CHUNK_ROWS):
        arrays = [pa.array(column, field.type) for column, field in zip(columns(chunk), SCHEMA)]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def rows(count):
    def query():
        found, total, largest = 0, 0, ""
        for batch in record_batches(count):
            found += len(batch)
            total += pc.sum(batch["a"]).as_py()
            largest = max(largest, pc.max(batch["c"]).as_py())
        return found, total, largest

    return query

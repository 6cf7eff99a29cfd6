"""polars: an IO plugin whose generator makes frames of rows, below a lazy aggregate."""

import polars as pl
from polars.io.plugins import register_io_source

from benches.source import lists

PACKAGE = "polars"
DOCUMENTED = "https://docs.pola.rs/user-guide/plugins/io_plugins"
CHUNK_ROWS = 8192
SCHEMA = {"a": pl.Int64, "b": pl.Float64, "c": pl.String}


def rows(count):
    def source(with_columns, predicate, n_rows, batch_size):
        for chunk in lists(count, CHUNK_ROWS):
            frame = pl.DataFrame(chunk, schema=SCHEMA, orient="row")
            yield frame if with_columns is None else frame.select(with_columns)

    def query():
        frame = register_io_source(source, schema=SCHEMA)
        aggregates = [pl.len(), pl.col("a").sum().alias("sum"), pl.col("c").max().alias("max")]
        return frame.select(aggregates).collect(engine="streaming").row(0)

    return query

"""polars: an IO plugin whose generator makes frames below a lazy aggregate.

They are made of columns, which is quicker than what `orient="row"` does.
"""

import polars as pl
from polars.io.plugins import register_io_source

from benches.source import columns, lists

PACKAGE = "polars"
DOCUMENTED = "https://docs.pola.rs/user-guide/plugins/io_plugins"
CHUNK_ROWS = 8192
SCHEMA = {"a": pl.Int64, "b": pl.Float64, "c": pl.String}


def rows(count):
    def source(with_columns, predicate, n_rows, batch_size):
        for chunk in lists(count, CHUNK_ROWS):
            series = zip(SCHEMA.items(), columns(chunk))
            frame = pl.DataFrame([pl.Series(name, column, kind) for (name, kind), column in series])
            yield frame if with_columns is None else frame.select(with_columns)

    def query():
        frame = register_io_source(source, schema=SCHEMA)
        aggregates = [pl.len(), pl.col("a").sum().alias("sum"), pl.col("c").max().alias("max")]
        return frame.select(aggregates).collect(engine="streaming").row(0)

    return query

"""chDB: a PyReader, which is asked for columns, so that it transposes its rows."""

from itertools import islice

import chdb

from benches.source import columns, generate

PACKAGE = "chdb"
DOCUMENTED = "https://clickhouse.com/docs/chdb/api/python"


class Reader(chdb.PyReader):
    def __init__(self, count):
        super().__init__(None)
        self.rows = generate(count)

    def get_schema(self):
        return [("a", "int"), ("b", "float"), ("c", "str")]

    def read(self, col_names, count):
        found = dict(zip("abc", columns(list(islice(self.rows, count)))))
        return [found[name] for name in col_names]


def rows(count):
    def query():
        # The query finds the reader by its name.
        reader = Reader(count)  # noqa: F841
        found = str(chdb.query("SELECT count(), sum(a), max(c) FROM Python(reader)", "TSV")).split("\t")
        return int(found[0]), int(found[1]), found[2].strip()

    return query

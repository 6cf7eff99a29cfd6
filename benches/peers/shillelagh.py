"""shillelagh: an adapter whose `get_rows` gives dicts of native values, so that no field parses them again."""

from shillelagh.adapters.base import Adapter
from shillelagh.adapters.registry import registry
from shillelagh.backends.apsw.db import connect
from shillelagh.fields import Float, Integer, String

from benches.source import generate

PACKAGE = "shillelagh"
DOCUMENTED = "https://shillelagh.readthedocs.io/en/latest/development.html"


class Rows(Adapter):
    safe = True
    a, b, c = Integer(), Float(), String()

    @staticmethod
    def supports(uri, fast=True, **kwargs):
        return uri.startswith("rows://")

    @staticmethod
    def parse_uri(uri):
        return (int(uri.removeprefix("rows://")),)

    def __init__(self, count):
        super().__init__()
        self.count = count

    def get_rows(self, bounds, order, **kwargs):
        for a, b, c in generate(self.count):
            yield {"rowid": a, "a": a, "b": b, "c": c}


def rows(count):
    registry.add("rows", Rows)
    cursor = connect(":memory:", adapters=["rows"]).cursor()
    return lambda: cursor.execute(f'SELECT count(*), sum(a), max(c) FROM "rows://{count}"').fetchall()[0]

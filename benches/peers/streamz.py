"""streamz: a stream of its core, into which rows are emitted, and a sink that only counts.

`emit` on a stream without an event loop is its quickest way: `from_iterable` awaits once per row.
"""

from streamz import Stream

from benches.source import generate

PACKAGE = "streamz"
DOCUMENTED = "https://streamz.readthedocs.io/en/latest/core.html"


def rows(count):
    def query():
        found = 0

        def sink(_):
            nonlocal found
            found += 1

        source = Stream()
        node = source.sink(sink)
        for row in generate(count):
            source.emit(row)
        node.destroy()
        return (found,)

    return query

"""pathway: a Python connector that never deletes, into the null sink."""

import pathway as pw

from benches.source import generate

PACKAGE = "pathway"
DOCUMENTED = "https://pathway.com/developers/api-docs/pathway-io/python"


class Schema(pw.Schema):
    a: int
    b: float
    c: str


class Subject(pw.io.python.ConnectorSubject):
    def __init__(self, count):
        super().__init__()
        self.count = count

    def run(self):
        send = self.next
        for a, b, c in generate(self.count):
            send(a=a, b=b, c=c)

    @property
    def _deletions_enabled(self):
        return False


def rows(count):
    def query():
        pw.internals.parse_graph.G.clear()
        pw.io.null.write(pw.io.python.read(Subject(count), schema=Schema))
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
        return (count,)

    return query

"""bytewax: a partition that gives batches from its own helper, and a sink that counts, or that answers the query."""

from operator import itemgetter

from bytewax import operators
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition, batch
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from benches.source import generate

PACKAGE = "bytewax"
DOCUMENTED = "https://docs.bytewax.io/v0.21.0/api/bytewax/bytewax.inputs.html"
BATCH_ROWS = 1000


class Partition(StatelessSourcePartition):
    def __init__(self, count):
        self.batches = batch(generate(count), BATCH_ROWS)

    def next_batch(self):
        return next(self.batches)


class Source(DynamicSource):
    def __init__(self, count):
        self.count = count

    def build(self, step_id, worker_index, worker_count):
        return Partition(self.count)


class Count(DynamicSink, StatelessSinkPartition):
    rows = 0

    def build(self, step_id, worker_index, worker_count):
        return self

    def write_batch(self, items):
        self.rows += len(items)


class Aggregate(Count):
    total, largest = 0, ""

    def write_batch(self, items):
        self.rows += len(items)
        self.total += sum(map(itemgetter(0), items))
        self.largest = max(self.largest, max(map(itemgetter(2), items)))


def run(count, sink):
    flow = Dataflow("rows")
    operators.output("sink", operators.input("source", flow, Source(count)), sink)
    run_main(flow)
    return sink


def rows(count):
    return lambda: (run(count, Count()).rows,)


def answers(count):
    def query():
        sink = run(count, Aggregate())
        return sink.rows, sink.total, sink.largest

    return query

"""Bytewax's own engine, and classes that misbehave, for the tests that compare with it."""

from __future__ import annotations

from datetime import timedelta

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import TestingSink, run_main


def engine(source, sink=None, recovery=None):
    """The items that Bytewax's engine reads of a source, and the error, without what it wraps it in."""
    items = []
    flow = Dataflow("flow")
    op.output("out", op.input("in", flow, source), sink or TestingSink(items))
    try:
        run_main(flow, recovery_config=recovery, epoch_interval=timedelta(0) if recovery else None)
    except BaseException as error:
        while isinstance(error, BytewaxRuntimeError) and error.__cause__ is not None:
            error = error.__cause__
        return items, error
    return items, None


def class_of(base, **methods):
    return type("Bad", (base,), {name: (lambda self, *_, given=given: given) for name, given in methods.items()})


def part_of(base, **methods):
    methods = {"next_batch": [1], "snapshot": None, "write_batch": None} | methods
    return class_of(base, **methods)()

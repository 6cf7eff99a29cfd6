"""Which model a class follows. The classes of the libraries are told by their names alone, so these are made here."""

from __future__ import annotations

import sys
from unittest.mock import MagicMock

import pytest
from couatl._models import COUATL, MODELS, is_connector, recognise
from couatl.sinks import Sink
from couatl.sources import AsyncSource, PollingSource, PushSource, Source


def library(qualified, *bases, **members):
    """A class as a library defines it."""
    module, _, name = qualified.rpartition(".")
    return type(name, bases, {"__module__": module, "__qualname__": name, **members})


def method(self):
    pass


def with_methods(*names, base=object):
    return type("Duck", (base,), dict.fromkeys(names, method))


BYTEWAX = library("bytewax.inputs.FixedPartitionedSource", library("bytewax.inputs.Source"))
BYTEWAX_SINK = library("bytewax.outputs.DynamicSink", library("bytewax.outputs.Sink"))
SUBJECT = library("pathway.io.python.ConnectorSubject")
DATA_SOURCE = library("pyspark.sql.datasource.DataSource")
STREAM = library("streamz.core.Stream")
STREAMZ = library("streamz.sources.Source", STREAM)
STREAMZ_SINK = library("streamz.sinks.Sink", STREAM)
EKUIPER = library("ekuiper.source.Source")


@pytest.mark.parametrize(
    ("base", "role", "name"),
    [
        (Source, "source", "couatl"),
        (PollingSource, "source", "couatl"),
        (PushSource, "source", "couatl"),
        (AsyncSource, "source", "couatl"),
        (Sink, "sink", "couatl"),
        (BYTEWAX, "source", "bytewax"),
        (library("bytewax.inputs.SimplePollingSource", BYTEWAX), "source", "bytewax"),
        (BYTEWAX_SINK, "sink", "bytewax"),
        (SUBJECT, "source", "pathway"),
        (DATA_SOURCE, "source", "pyspark"),
        (DATA_SOURCE, "sink", "pyspark"),
        (STREAMZ, "source", "streamz"),
        (STREAMZ_SINK, "sink", "streamz"),
        (STREAM, "transform", "streamz"),
        (EKUIPER, "source", "ekuiper"),
        (library("ekuiper.sink.Sink"), "sink", "ekuiper"),
        (library("ekuiper.function.Function"), "function", "ekuiper"),
        (library("couatl.compat.bytewax.DynamicSource"), "source", "bytewax"),
        (library("couatl.compat.pathway.ConnectorSubject", PushSource), "source", "pathway"),
        (library("couatl.compat.ekuiper.Sink", Sink), "sink", "ekuiper"),
    ],
)
def test_by_name(base, role, name):
    cls = type("Mine", (base,), {})
    assert recognise(cls, role).name == name
    assert recognise(object.__new__(cls), role).name == name
    assert recognise(type("Derived", (cls,), {}), role).name == name


@pytest.mark.parametrize(
    ("methods", "role", "name"),
    [
        (["list_parts", "build_part"], "source", "bytewax"),
        (["list_parts", "build_part"], "sink", "bytewax"),
        (["run", "on_stop"], "source", "pathway"),
        (["schema", "reader"], "source", "pyspark"),
        (["schema", "streamReader"], "source", "pyspark"),
        (["schema", "reader", "writer"], "source", "pyspark"),
        (["schema", "reader", "writer"], "sink", "pyspark"),
        (["configure", "open", "close"], "source", "ekuiper"),
        (["configure", "open", "collect", "close"], "sink", "ekuiper"),
        (["validate", "exec", "is_aggregate"], "function", "ekuiper"),
    ],
)
def test_by_methods(methods, role, name):
    cls = with_methods(*methods)
    assert recognise(cls, role).name == name
    assert recognise(cls(), role).name == name


def test_names_come_before_methods():
    assert recognise(with_methods("list_parts", "build_part", base=SUBJECT), "source").name == "pathway"
    assert recognise(with_methods("run", "on_stop", base=Source), "source") is COUATL


def test_what_fits_two_is_an_error_that_names_both():
    both = type("Both", (SUBJECT, BYTEWAX), {})
    with pytest.raises(TypeError, match="class Both can be read as a bytewax source and as a pathway source; derive"):
        recognise(both, "source")
    with pytest.raises(TypeError, match="class Duck can be read as a bytewax source and as a pathway source"):
        recognise(with_methods("list_parts", "build_part", "run", "on_stop"), "source")


def test_a_source_and_a_sink_of_one_model():
    both = type("Both", (BYTEWAX, BYTEWAX_SINK), {})
    assert recognise(both, "source").name == recognise(both, "sink").name == "bytewax"
    apart = type("Apart", (Source, BYTEWAX_SINK), {})
    assert recognise(apart, "source") is COUATL
    assert recognise(apart, "sink").name == "bytewax"


@pytest.mark.parametrize(
    ("cls", "role", "said"),
    [
        (Sink, "source", "expected a source, and class Mine is a couatl sink"),
        (STREAMZ, "transform", "expected a transform, and class Mine is a streamz source"),
        (STREAMZ_SINK, "source", "expected a source, and class Mine is a streamz sink"),
        (DATA_SOURCE, "function", "expected a function, and class Mine is a pyspark sink and source"),
        (
            with_methods("configure", "open", "collect"),
            "source",
            "expected a source, and class Mine is an ekuiper sink",
        ),
    ],
)
def test_another_role_is_an_error_that_names_it(cls, role, said):
    with pytest.raises(TypeError, match=said):
        recognise(type("Mine", (cls,), {}), role)


@pytest.mark.parametrize("thing", [object(), 3, None, "abc", len, int, {"run": 1}, MagicMock(), sys])
def test_what_fits_none_is_an_error_that_says_what_would(thing):
    with pytest.raises(TypeError) as raised:
        recognise(thing, "source")
    said = str(raised.value)
    assert said.startswith("expected a source, got ")
    for model in MODELS:
        assert model.classes["source"][0] in said
        for methods in model.ducks.get("source", ()):
            assert " and ".join(f"{name}()" for name in methods) in said


def test_methods_are_looked_for_without_running_anything():
    class Lazy:
        @property
        def list_parts(self):
            raise AssertionError("looked at")

        def build_part(self):
            pass

        def __getattr__(self, name):
            raise AssertionError("looked at")

    with pytest.raises(TypeError, match="expected a source"):
        recognise(Lazy(), "source")


def test_class_methods_and_static_ones_count():
    class Duck:
        @classmethod
        def schema(cls):
            pass

        @staticmethod
        def reader(schema):
            pass

    assert recognise(Duck, "source").name == "pyspark"


def test_no_library_is_imported(monkeypatch):
    for model in MODELS:
        monkeypatch.delitem(sys.modules, model.module, raising=False)
    recognise(type("Mine", (BYTEWAX,), {}), "source")
    assert not {"bytewax", "pathway", "pyspark", "streamz", "ekuiper"} & set(sys.modules)


def test_what_is_a_connector_at_all():
    for thing in (
        Source,
        PushSource(),
        Sink(),
        BYTEWAX,
        with_methods("run", "on_stop"),
        type("Both", (Sink, BYTEWAX), {}),
    ):
        assert is_connector(thing, "source")
    for thing in (with_methods("validate", "exec"), [], {}, None, 3, "abc", len, object, iter([]), MagicMock()):
        assert not is_connector(thing, "source")

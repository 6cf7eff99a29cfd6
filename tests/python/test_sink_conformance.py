"""The check of sinks in couatl.testing: what keeps to the contract passes, and every break of it is a sentence."""

from __future__ import annotations

import threading

import pytest
from couatl.sinks import AsyncSink, Sink
from couatl.testing import ContractError, check_sink
from pulling import nothing_left_running  # noqa: F401


def refusal(check, *arguments, **named):
    """What a check says of what does not pass it."""
    with pytest.raises(ContractError) as raised:
        check(*arguments, **named)
    return str(raised.value)


class Table(Sink):
    """All rows, or none."""

    def __init__(self, rows: list):
        self.rows = rows

    def open(self, columns):
        self.draft = []

    def write(self, *columns):
        self.draft += zip(*columns)

    def commit(self):
        self.rows += self.draft


class AwaitedTable(AsyncSink):
    def __init__(self, rows: list):
        self.rows = rows

    async def open(self, columns):
        self.draft = []

    async def write(self, *columns):
        self.draft += zip(*columns)

    async def commit(self):
        self.rows += self.draft


#: The constructor's list is one that the test sees: options are taken over as they are where they have no annotation.
def stored_in(base):
    rows = []

    class Bad(base):
        def __init__(self):
            super().__init__(rows)

    return Bad, rows


PAIRS = [(1, "a"), (2, "b"), (2, "b")]
PAIR = {"n": "int64", "s": "string"}


@pytest.mark.parametrize("base", [Table, AwaitedTable])
def test_a_sink_that_keeps_to_the_contract_passes(base):
    sink, rows = stored_in(base)
    rows.append((0, "before"))
    check_sink(sink, PAIRS, columns=PAIR, stored=lambda: rows)
    assert rows == [(0, "before"), *PAIRS]
    check_sink(sink, [{"s": "c", "n": 3}], columns=PAIR)
    assert rows[4:] == [(3, "c")]


def test_a_sink_is_cancelled_once():
    cancels = []
    sink, rows = breaks("cancel", lambda self: cancels.append(list(self.draft)))
    check_sink(sink, PAIRS, columns=PAIR, stored=lambda: rows)
    assert cancels == [PAIRS[:1]]


def test_a_sink_gets_values_as_the_engine_gives_them():
    sink, rows = stored_in(Table)
    check_sink(sink, [3], columns={"n": "float64"})
    assert [type(n) for (n,) in rows] == [float]


def breaks(name, function):
    """A sink that differs from one that passes by a method, and where it stores."""
    sink, rows = stored_in(Table)
    setattr(sink, name, function)
    return sink, rows


@pytest.mark.parametrize(
    ("name", "function", "said"),
    [
        (
            "write",
            lambda self, *columns: self.rows.extend(zip(*columns)),
            "Bad.abort() left (1, 'a'), (2, 'b'), (2, 'b') of what had been written; expected none of it",
        ),
        (
            "close",
            lambda self: self.rows.extend(self.draft[:1]) if len(self.draft) == 1 else None,
            "Bad left (1, 'a') after a cancel; expected abort() to undo what had been written",
        ),
        (
            "commit",
            lambda self: self.rows.extend(self.draft or [(0, "")]),
            "Bad.commit() stored (0, ''), and nothing had been written; expected no rows",
        ),
        (
            "commit",
            lambda self: self.rows.extend(self.draft[:-1]),
            "Bad.commit() stored no (2, 'b'); expected what had been written",
        ),
        (
            "commit",
            lambda self: self.rows.extend(self.draft * 2),
            "Bad.commit() stored (1, 'a'), (2, 'b'), (2, 'b') too; expected what had been written, once",
        ),
    ],
)
def test_what_is_stored_is_all_or_nothing(name, function, said):
    sink, rows = breaks(name, function)
    assert refusal(check_sink, sink, PAIRS, columns=PAIR, stored=lambda: rows) == said


def test_methods_of_a_sink_that_run_nothing():
    def write(self, *columns):
        yield columns

    sink, _ = breaks("write", write)
    assert refusal(check_sink, sink, PAIRS, columns=PAIR) == (
        "Bad.write() has a yield, so that nothing of it runs; expected a method without one"
    )


def test_a_sink_that_does_not_take_its_columns():
    sink, _ = breaks("write", lambda self, n: None)
    with pytest.raises(TypeError, match=r"Bad\.write\(n\) cannot be called with one list for each of the columns n, s"):
        check_sink(sink, PAIRS, columns=PAIR)


@pytest.mark.parametrize("name", ["open", "write", "flush", "commit", "abort", "close"])
def test_what_a_sink_raises_is_raised(name):
    def fails(self, *_):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        check_sink(breaks(name, fails)[0], PAIRS, columns=PAIR)


def test_a_sink_that_leaves_a_thread_running(monkeypatch):
    monkeypatch.setattr("couatl._contract.CANCEL", 0.1)
    enough = threading.Event()

    def flush(self):
        threading.Thread(target=enough.wait, name="sender").start()

    said = refusal(check_sink, breaks("flush", flush)[0], PAIRS, columns=PAIR)
    enough.set()
    assert said == "Bad left the thread 'sender' running; expected close() to end it"


def test_a_check_of_a_sink_needs_rows():
    with pytest.raises(ValueError, match="expected some rows to write"):
        check_sink(stored_in(Table)[0], [], columns=PAIR)

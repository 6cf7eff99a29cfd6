"""The contract of sinks, as a check. It is apart from that of sources, which knows readings, places and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from couatl._columns import Columns
from couatl._contract import ContractError, NoThreadsLeft, check_options, check_plain, some, without
from couatl._errors import class_name
from couatl._models import recognise
from couatl._plain import as_sink
from couatl._shapes import converted, declaration, row_of, text_of
from couatl._writing import Writing, writing

__all__ = ["check_sink"]

Row = tuple[Any, ...]


def check_sink(
    thing: object,
    rows: Iterable[Any],
    *,
    columns: Columns | Mapping[str, str],
    stored: Callable[[], Iterable[Any]] | None = None,
    **options: Any,
) -> None:
    """Check that a sink, a class with these options or an instance, does what the engine expects of it.

    >>> from couatl.sinks import Sink
    >>> from couatl.testing import check_sink
    >>> class Hasty(Sink):
    ...     written = []
    ...
    ...     def write(self, numbers):
    ...         self.written += numbers
    >>> check_sink(Hasty, [1, 2], columns={"n": "int64"})
    >>> check_sink(Hasty, [1, 2], columns={"n": "int64"}, stored=lambda: Hasty.written)
    Traceback (most recent call last):
    couatl._contract.ContractError: Hasty.abort() left (1,), (2,) of what had been written; expected none of it

    It is written to several times: rows, in the shapes that :func:`~couatl.testing.write` takes, are aborted, then
    cancelled; there is a commit without rows, and at last they are committed, once. Where a function `stored` gives the
    rows that are where the sink writes to, those are looked at too: nothing of what is aborted may be left there.
    """
    thing = as_sink(thing)
    model = recognise(thing, "sink")
    if model.is_called and isinstance(thing, type):
        check_options(thing)
    check_plain(thing, "open", "write", "flush", "commit", "abort", "close")
    declared = declaration(columns)
    given = [row_of(row, declared) for row in rows]
    if not given:
        raise ValueError("check_sink: expected some rows to write, got none")
    told, values = converted(thing, text_of(declared), given)
    _Writes(thing, options, told, given, values, stored).check()


class _Writes:
    """The statements that a sink is checked with."""

    def __init__(
        self,
        thing: object,
        options: Mapping[str, Any],
        columns: Columns,
        given: list[Row],
        rows: list[Row],
        stored: Callable[[], Iterable[Any]] | None,
    ) -> None:
        self.thing, self.options, self.columns = thing, options, columns
        #: The rows, as the test has them and as a sink gets them.
        self.given, self.rows = given, rows
        self.stored = stored
        self.name = class_name(thing)
        self.before = self.found()

    def check(self) -> None:
        """Run all of them."""
        self.aborted()
        with NoThreadsLeft(self.thing):
            self.ended_without_rows()
            self.cancelled()
            self.committed()

    def aborted(self) -> None:
        with self.opened() as sink:
            for row in self.rows:
                sink.write(*([value] for value in row))
            sink.flush()
            sink.abort()
        self.expect_nothing(f"{self.name}.abort() left {{}} of what had been written; expected none of it")

    def ended_without_rows(self) -> None:
        with self.opened() as sink:
            sink.abort()
        with self.opened() as sink:
            sink.flush()
            sink.commit()
        self.expect_nothing(f"{self.name}.commit() stored {{}}, and nothing had been written; expected no rows")

    def cancelled(self) -> None:
        with self.opened() as sink:
            self.write(sink, self.rows[:1])
            sink.cancel()
            sink.abort()
        self.expect_nothing(f"{self.name} left {{}} after a cancel; expected abort() to undo what had been written")

    def committed(self) -> None:
        with self.opened() as sink:
            self.write(sink, self.rows[:1])
            self.write(sink, self.rows[1:])
            sink.flush()
            sink.commit()
        if self.stored is None:
            return
        if missing := without(self.before + self.given, self.found()):
            raise ContractError(f"{self.name}.commit() stored no {some(missing)}; expected what had been written")
        if others := without(self.found(), self.before + self.given):
            raise ContractError(f"{self.name}.commit() stored {some(others)} too; expected what had been written, once")

    @contextmanager
    def opened(self) -> Iterator[Writing]:
        sink = writing(self.thing, self.options, self.columns)
        sink.open()
        try:
            yield sink
        except BaseException:
            sink.abort()
            raise
        finally:
            sink.close()

    def write(self, sink: Writing, rows: Sequence[Row]) -> None:
        if rows:
            sink.write(*map(list, zip(*rows)))

    def found(self) -> list[Row]:
        return [] if self.stored is None else [row_of(row, self.columns) for row in self.stored()]

    def expect_nothing(self, sentence: str) -> None:
        """Whether all is as it was before."""
        if left := without(self.found(), self.before):
            raise ContractError(sentence.format(some(left)))

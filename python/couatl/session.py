"""The engine in a Python program or a notebook.

>>> import couatl
>>> session = couatl.Session()
>>> @session.source("n int64, square int64", mode="batch")
... def squares():
...     return [(n, n * n) for n in range(4)]
>>> session.sql("SELECT sum(square) AS sum FROM squares").to_arrow().to_pydict()
{'sum': [14]}
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from couatl import _couatl
from couatl._annotations import (
    columns_of,
    columns_of_class,
    columns_taken,
    in_tuples,
    is_aggregate,
    row_of,
    signature_of,
)
from couatl._columns import quoted
from couatl._errors import Misuse, shown
from couatl._models import is_connector
from couatl.exceptions import InterfaceError

__all__ = ["Result", "Session"]

F = TypeVar("F", bound=Callable[..., Any])

#: How many rows a notebook shows.
SHOWN_ROWS = 20
VOLATILITIES = ("volatile", "stable", "immutable")


class Session:
    """Streams, tables and settings, and the queries over them. Every thread may use it."""

    def __init__(self) -> None:
        self._session = _couatl.Session()

    def sql(self, text: str) -> Result:
        """Run statements; what the last of them gives. Those before it run to their end.

        Raises :mod:`couatl.exceptions`, and whatever the code of a stream raises, as itself. Ctrl-C cancels.
        """
        rows, count = self._session.execute(text)
        return Result(rows, count)

    @overload
    def source(self, columns: F) -> F: ...
    @overload
    def source(
        self, columns: str | None = None, *, name: str | None = None, mode: str = "auto"
    ) -> Callable[[F], F]: ...
    def source(self, columns: Any = None, *, name: str | None = None, mode: str = "auto") -> Any:
        """Make a stream of the function below, or of a class of ``couatl.sources``, in the place of one of that name.

        `columns` are those of a statement; without them, the class has a ``schema()``, or the function is annotated to
        return an iterator or a list of a dataclass or a NamedTuple. `mode` is ``batch``, ``streaming`` or ``auto``.
        """

        if callable(columns):
            # Without parentheses.
            return self.source()(columns)

        def register(function: F) -> F:
            known, row, told = _name(function, name), None, columns
            if told is None and (isinstance(function, type) or is_connector(function, "source")):
                told = columns_of_class(function, "source")
            elif told is None:
                row = row_of(function) if hasattr(function, "__name__") else None
                told = columns_of(row, known)
            self._session.register(known, told, mode, in_tuples(function, row), None)
            return function

        return register

    @overload
    def sink(self, columns: F) -> F: ...
    @overload
    def sink(self, columns: str | None = None, *, name: str | None = None) -> Callable[[F], F]: ...
    def sink(self, columns: Any = None, *, name: str | None = None) -> Any:
        """Make a stream to INSERT into: of the function below, which takes a list per column, or of a sink's class.

        `columns` are those of a statement; without them, the class has a ``schema()``, or the function's parameters are
        annotated, as in ``tick: list[int]``.
        """

        if callable(columns):
            return self.sink()(columns)

        def register(function: F) -> F:
            known, told = _name(function, name), columns
            if told is None:
                is_class = isinstance(function, type) or is_connector(function, "sink")
                told = columns_of_class(function, "sink") if is_class else columns_taken(function, known)
            self._session.register(known, told, "auto", None, function)
            return function

        return register

    @overload
    def function(self, parameters: F) -> F: ...
    @overload
    def function(
        self,
        parameters: str | None = None,
        returns: str | None = None,
        *,
        name: str | None = None,
        format: str | None = None,
        volatility: str = "volatile",
        strict: bool = False,
    ) -> Callable[[F], F]: ...
    def function(
        self,
        parameters: Any = None,
        returns: str | None = None,
        *,
        name: str | None = None,
        format: str | None = None,
        volatility: str = "volatile",
        strict: bool = False,
    ) -> Any:
        """Make a function of SQL of the one below, in the place of one of that name; of a class, an aggregate.

        `parameters` and `returns` are those of ``CREATE FUNCTION``: ``"a int64, b string"`` and ``"string"``, or
        ``"input TABLE, n int"`` and ``"TABLE (a int64)"``. Without them, they are what the function is annotated with,
        or an aggregate's ``process`` and ``finalize``; it is called for each row, unless an aggregate takes lists. One
        that is annotated to return an iterator or a list of a dataclass or a NamedTuple gives a table, and each of its
        parameters that is an ``Iterator`` takes one.
        `format` is ``list``, ``row``, ``arrow`` or ``numpy``; `volatility` is ``volatile``, ``stable`` or
        ``immutable``; one that is `strict` gives NULL where an argument is NULL.

        >>> import couatl
        >>> session = couatl.Session()
        >>> @session.function()
        ... def initials(first: str, last: str) -> str:
        ...     return first[0] + last[0]
        >>> session.sql("SELECT initials('Ada', 'Lovelace') AS initials").to_arrow().to_pydict()
        {'initials': ['AL']}
        """

        if callable(parameters):
            return self.function()(parameters)
        if (parameters is None) != (returns is None):
            raise Misuse(f"expected both parameters and returns, or none of them; got {parameters!r} and {returns!r}")
        if volatility not in VOLATILITIES:
            raise Misuse(f"expected a volatility of {', '.join(VOLATILITIES)}, got {volatility!r}")

        def register(function: F) -> F:
            told = _name(function, name)
            if parameters is None and not hasattr(function, "__name__"):
                expected = 'parameters and returns, as in ("a int64, b string", "string")'
                raise Misuse(f"{told}: expected {expected}, or a function or a class, got {shown(function)}")
            if parameters is None:
                head, by, row = signature_of(function, told)
            else:
                head, by, row = f"({parameters}) RETURNS {returns}", None, None
            kind = "AGGREGATE FUNCTION" if is_aggregate(function, returns or "") else "FUNCTION"
            clauses = [volatility.upper(), *(["STRICT"] if strict else []), *_options(format or by)]
            statement = f"CREATE {kind} {quoted(told)}{head} LANGUAGE PYTHON {' '.join(clauses)} AS $$$$"
            self._session.register_function(statement, in_tuples(function, row))
            return function

        return register


def _name(function: object, told: str | None) -> str:
    """The name that something is told, or has."""
    name = told or getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise Misuse(f"expected name='…' beside {shown(function)}, which has no name of its own")
    return name


def _options(format: str | None) -> list[str]:
    """The clause that says how a function is called, where it is said."""
    text = (format or "").replace("'", "''")
    return [f"OPTIONS (format '{text}')"] if text else []


class Result:
    """What a statement gives: rows, which come as they are asked for, once; or how many were written.

    Any Arrow library takes it: ``polars.DataFrame(result)``, ``pyarrow.table(result)``. Iterated over, it gives record
    batches of pyarrow's, each as soon as it is there. A notebook that shows the first rows does not take them; a query
    that has more waits meanwhile, until they are taken, or until ``close()``.
    """

    def __init__(self, rows: _couatl.Rows | None, count: int | None) -> None:
        self._rows = rows
        # Batches that have been shown, and come first.
        self._shown: list[Any] = []
        #: How many rows a statement wrote, where it counts them.
        self.count = count

    def _taken(self) -> _couatl.Rows:
        if self._rows is None:
            raise InterfaceError("there are no rows: the statement gives none, or they have been taken already")
        rows, self._rows = self._rows, None
        return rows

    def to_reader(self) -> Any:
        """The rows as a ``pyarrow.RecordBatchReader``, which asks for each batch when it is wanted."""
        import pyarrow  # type: ignore[import-untyped]

        rows = self._taken()
        first, self._shown = self._shown, []

        def batches() -> Iterator[Any]:
            try:
                while first:
                    yield first.pop(0)
                while (batch := rows.next()) is not None:
                    yield pyarrow.record_batch(batch)
            finally:
                rows.close()

        return pyarrow.RecordBatchReader.from_batches(pyarrow.schema(rows), batches())

    def __iter__(self) -> Iterator[Any]:
        """Record batches, one after the other. Leaving the loop cancels the query."""
        reader = self.to_reader()
        try:
            yield from reader
        finally:
            reader.close()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows, for any Arrow library."""
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> Any:
        """All rows as a ``pyarrow.Table``."""
        return self.to_reader().read_all()

    def to_pandas(self) -> Any:
        """All rows as a ``pandas.DataFrame``."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """All rows as a ``polars.DataFrame``."""
        import polars

        return polars.from_arrow(self.to_arrow())

    def close(self) -> None:
        """Let go of rows that nobody wants: their query is cancelled."""
        rows, self._rows, self._shown = self._rows, None, []
        if rows is not None:
            rows.close()

    def __enter__(self) -> Result:
        """The result itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of its rows."""
        self.close()

    def __repr__(self) -> str:
        """What it holds, without taking it."""
        if self._rows is not None:
            return "<couatl.Result: rows, not taken yet>"
        return "<couatl.Result>" if self.count is None else f"<couatl.Result: {self.count} rows written>"

    def _first(self, rows: _couatl.Rows, count: int) -> list[list[Any]]:
        """So many rows, which are still to be taken."""
        import pyarrow

        while sum(map(len, self._shown)) < count and (batch := rows.next()) is not None:
            self._shown.append(pyarrow.record_batch(batch))
        first: list[list[Any]] = []
        for batch in self._shown:
            columns = [column.to_pylist() for column in batch.slice(0, count - len(first)).columns]
            first += [list(row) for row in zip(*columns)]
        return first

    def _repr_html_(self) -> str:
        """A table of the first rows, for notebooks. They can be taken afterwards."""
        import pyarrow

        if self._rows is None:
            return html.escape(repr(self))
        try:
            first = self._first(self._rows, SHOWN_ROWS + 1)
        except BaseException:
            # What follows is lost: nobody is to take what came before for all of it.
            self.close()
            raise
        head = "".join(f"<th>{html.escape(name)}</th>" for name in pyarrow.schema(self._rows).names)
        cells = ["".join(f"<td>{html.escape(str(value))}</td>" for value in row) for row in first[:SHOWN_ROWS]]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        rest = f"<p>the first {SHOWN_ROWS} rows</p>" if len(first) > SHOWN_ROWS else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"

"""Sinks: classes that write, for connectors that are more than one function.

A plain function that takes one list per column stays the simplest sink. A class says more: what a connection is, when
rows are on their way, and what makes them count.

    >>> from couatl.sinks import Sink
    >>> class Lines(Sink):
    ...     def __init__(self, separator: str = " "):
    ...         self.separator = separator
    ...
    ...     def open(self, columns):
    ...         self.lines = [self.separator.join(columns.names)]
    ...
    ...     def write(self, id, name):
    ...         self.lines += [f"{i}{self.separator}{n}" for i, n in zip(id, name)]
    ...
    ...     def commit(self):
    ...         print("\\n".join(self.lines))
    >>> from couatl.testing import write
    >>> write(Lines, [(1, "a"), (2, "b")], columns={"id": "int64", "name": "string"}, separator=",")
    id,name
    1,a
    2,b
"""

from __future__ import annotations

from typing import Any

from couatl._columns import Columns
from couatl._errors import missing
from couatl._json import objects, to_json

__all__ = ["AsyncSink", "Columns", "Sink", "objects", "to_json"]


class Sink:
    """Something to write to.

    ```text
    open ──> write … ──> flush ──> commit ──> close
                 └── an error, a cancel ──> abort ──> close
    ```

    Everything but ``cancel`` is called on one thread, once but for ``write``. Options are the parameters of
    ``__init__``, by keyword; a setting's text becomes what the parameter is annotated with. Where ``open`` raises,
    nothing else is called. An exception fails the statement, and is raised as it is. A cancel raises KeyboardInterrupt,
    as soon as Python code runs; where a library waits for longer, ``cancel`` can end that.

    >>> class Total(Sink):
    ...     def open(self, columns):
    ...         self.total = 0
    ...
    ...     def write(self, amounts):
    ...         self.total += sum(amounts)
    ...
    ...     def commit(self):
    ...         print(self.total)
    >>> from couatl.testing import write
    >>> write(Total, [1, 2], columns={"amount": "int64"})
    3
    """

    def schema(self) -> Any:
        """The columns, as a statement has them (``"a int64, b string"``) or as an Arrow schema.

        None leaves them to the statement.
        """
        return None

    def open(self, columns: Columns) -> None:
        """Get ready for rows of these columns."""

    def write(self, *columns: Any) -> None:
        """Take the next rows: one list per column, all of one length.

        The lists come in the order of the columns; where the parameters are named as the columns are, or are only
        ``**columns``, by name.
        """
        raise missing(self, "write(*columns)")

    def flush(self) -> None:
        """Send off what was written and is still here: all rows have been given."""

    def commit(self) -> None:
        """Make what was written count."""

    def cancel(self) -> None:
        """End what ``write``, ``flush`` or ``commit`` waits for: a lock in a database, an answer.

        Called once, on a thread of its own, when the statement is cancelled: after ``open``, whatever else runs, and
        before ``abort`` and ``close``, which wait for it up to three seconds. What it raises is logged.
        """

    def abort(self) -> None:
        """Undo what was written, as far as that is possible."""

    def close(self) -> None:
        """Clean up, once, after ``commit`` or ``abort``."""


class AsyncSink:
    """A :class:`Sink` whose methods are awaited, one after the other, on an event loop of its own.

    Tasks that a method begins go on between the calls, until after ``close``. A cancel is a CancelledError where
    ``open``, ``write``, ``flush`` or ``commit`` waits; what comes then, ``abort`` and ``close``, may take three seconds
    each.

    >>> class Sent(AsyncSink):
    ...     async def open(self, columns):
    ...         import asyncio
    ...
    ...         self.answers = asyncio.Queue()
    ...
    ...     async def write(self, *columns):
    ...         for row in zip(*columns):
    ...             await self.answers.put(row)
    ...
    ...     async def commit(self):
    ...         print(self.answers.qsize(), await self.answers.get())
    >>> from couatl.testing import write
    >>> write(Sent, [(1, "a"), (2, "b")], columns={"id": "int64", "name": "string"})
    2 (1, 'a')
    """

    def schema(self) -> Any:
        """The columns, see :meth:`Sink.schema`: not awaited."""
        return None

    async def open(self, columns: Columns) -> None:
        """Get ready for rows of these columns. Where it raises, or is cancelled, nothing else is called."""

    async def write(self, *columns: Any) -> None:
        """Take the next rows: one list per column, all of one length; by name where the parameters are named so."""
        raise missing(self, "write(*columns)")

    async def flush(self) -> None:
        """Send off what was written and is still here: all rows have been given."""

    async def commit(self) -> None:
        """Make what was written count."""

    async def abort(self) -> None:
        """Undo what was written, as far as that is possible."""

    async def close(self) -> None:
        """Clean up, once, after ``commit`` or ``abort``."""

"""The extension module: see ``python/src/lib.rs``."""

from collections.abc import Sequence
from typing import final

__all__ = ["Batch", "PythonTable", "Rows", "Session", "__version__", "cancel_all", "hidden", "keep_stdout", "run"]

__version__: str

def run(args: Sequence[str]) -> int:
    """Run the command with its arguments, the first of which is its own name; give the exit code."""

def keep_stdout() -> bool:
    """Keep standard output for the command, so that file descriptor 1 can be pointed elsewhere.

    Give whether it is kept.
    """

def cancel_all(grace: float) -> int:
    """Cancel every scan and write of this process and wait for their threads, at most so many seconds.

    Give how many have not ended.
    """

def hidden(text: str) -> str:
    """A text for the log, without the secrets and passwords that open code has been told."""

@final
class Session:
    """An engine with streams, tables and settings of its own."""

    def __new__(cls) -> Session: ...
    def execute(self, text: str) -> tuple[Rows | None, int | None]:
        """Run statements, the last of which may give rows; give those, or how many were written."""

    def register(self, name: str, columns: str, mode: str, read: object | None, write: object | None) -> None:
        """Make a stream of callables, in the place of what has the name."""

    def register_function(self, statement: str, function: object) -> None:
        """Make a function of a callable, as a statement describes it."""

@final
class PythonTable:
    """Python functions as a table of a ``datafusion.SessionContext``.

    `columns` are those of a statement, as in ``"a int64, b string"``. `read` gives rows, as a stream's function does;
    or is a class of ``couatl.sources``. `write` takes a list for each column; or is a class of ``couatl.sinks``.
    `mode` is ``batch``, ``streaming`` or ``auto``; `name` stands in messages.

    >>> import datafusion
    >>> from couatl import PythonTable
    >>> context = datafusion.SessionContext()
    >>> context.register_table("squares", PythonTable("n int64, square int64", read=lambda: [(2, 4), (3, 9)]))
    >>> context.sql("SELECT sum(square) AS sum FROM squares").to_pydict()
    {'sum': [13]}

    Raises :mod:`couatl.exceptions` where the columns or the mode are not what they must be.
    """

    def __new__(
        cls,
        columns: str,
        *,
        read: object | None = None,
        write: object | None = None,
        mode: str = "auto",
        name: str | None = None,
    ) -> PythonTable: ...
    def __datafusion_table_provider__(self, session: object = None) -> object:
        """The table, for DataFusion."""

@final
class Rows:
    """The rows of a query, as they come. Who lets go of it cancels the query."""

    def next(self) -> Batch | None:
        """The next batch; None at the end."""

    def close(self) -> None:
        """Let go of what has not been fetched."""

    def __arrow_c_schema__(self) -> object: ...

@final
class Batch:
    """Some rows, for Python libraries, over the same memory."""

    def __len__(self) -> int: ...
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

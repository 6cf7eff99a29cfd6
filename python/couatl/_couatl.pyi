"""The extension module: see ``python/src/lib.rs``."""

from collections.abc import Sequence
from typing import final

__all__ = ["Batch", "Rows", "Session", "__version__", "cancel_all", "keep_stdout", "run"]

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

@final
class Session:
    """An engine with streams, tables and settings of its own."""

    def __new__(cls) -> Session: ...
    def execute(self, text: str) -> tuple[Rows | None, int | None]:
        """Run statements, the last of which may give rows; give those, or how many were written."""

    def register(self, name: str, columns: str, mode: str, read: object | None, write: object | None) -> None:
        """Make a stream of callables, in the place of what has the name."""

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

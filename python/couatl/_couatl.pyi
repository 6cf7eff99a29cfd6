"""The extension module: see ``python/src/lib.rs``."""

from collections.abc import Sequence

__all__ = ["__version__", "cancel_all", "keep_stdout", "run"]

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

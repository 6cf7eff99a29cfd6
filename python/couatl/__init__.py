"""Couatl: Python functions as SQL tables, over Arrow Flight SQL.

The package brings the command: ``couatl serve`` and ``couatl sql``. Bodies of streams import whatever is installed
beside it.
"""

import atexit

from couatl import exceptions
from couatl._couatl import PythonTable, __version__, cancel_all
from couatl.session import Result, Session

__all__ = ["PythonTable", "Result", "Session", "__version__", "cancel_all", "exceptions"]

# Before the interpreter goes away, no thread may run user code in it any more.
atexit.register(cancel_all, 5.0)

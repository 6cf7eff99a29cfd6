"""The context of a task: what ``TaskContext.get()`` gives to what a data source reads and writes with.

In Spark a task is a process, and the context is a global of it. Here tasks are threads of one process: the library's
``get`` looks at its thread first, and elsewhere gives what it always gave.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any

from couatl.compat._pyspark_types import named

_ATTEMPTS = itertools.count()
_instructing = threading.Lock()


class _Running(threading.local):
    """What runs on this thread."""

    context: Any = None


_running = _Running()


class TaskContext:
    """Says which task the caller is in.

    >>> from couatl.compat.pyspark import TaskContext
    >>> TaskContext.get() is None
    True
    """

    _partitionId = 0
    _taskAttemptId = 0

    @classmethod
    def get(cls) -> Any:
        """The context of the task that runs on this thread; None where there is none."""
        return _running.context

    def partitionId(self) -> int:
        """The number of the partition that it computes."""
        return self._partitionId

    def taskAttemptId(self) -> int:
        """A number that no other task has."""
        return self._taskAttemptId

    def attemptNumber(self) -> int:
        """How often it has been tried before: never."""
        return 0

    def stageId(self) -> int:
        """The stage that it belongs to; there is one."""
        return 0

    def cpus(self) -> int:
        """How many threads it has."""
        return 1

    def getLocalProperty(self, key: str) -> str | None:
        """None: no property is set."""
        return None

    def resources(self) -> dict[str, Any]:
        """None either."""
        return {}


class SparkTask:
    """A task: who is called in it finds its context."""

    def __init__(self, partition: int = 0) -> None:
        cls = named("pyspark.taskcontext", "TaskContext")
        if cls is not TaskContext:
            _instruct(cls)
        self._context = _context(cls, partition)
        self._before: Any = None

    def __enter__(self) -> None:
        self._before, _running.context = _running.context, self._context

    def __exit__(self, *_: object) -> None:
        _running.context = self._before

    def rows(self, read: Callable[[], Iterable[Any]]) -> Generator[Any, None, None]:
        """What is read in it, on a thread that does nothing else until this is at its end, or closed."""
        with self:
            yield from read()


def _context(cls: Any, partition: int) -> Any:
    # Calling the library's class gives the one of its process.
    context = object.__new__(cls)
    values = {"partitionId": partition, "taskAttemptId": next(_ATTEMPTS)}
    values |= {"attemptNumber": 0, "stageId": 0, "cpus": 1}
    vars(context).update({f"_{name}": value for name, value in values.items()})
    context._localProperties, context._resources = {}, {}
    return context


def _instruct(cls: Any) -> None:
    """Have the library's ``get`` look at the thread first."""
    with _instructing:
        of_process = cls.__dict__["get"].__func__
        if getattr(of_process, "looks_at_threads", False):
            return

        def get(cls: Any) -> Any:
            """The context of the task that runs on this thread, or else in this process."""
            own = TaskContext.get()
            return own if own is not None else of_process(cls)

        get.looks_at_threads = True  # type: ignore[attr-defined]
        cls.get = classmethod(get)

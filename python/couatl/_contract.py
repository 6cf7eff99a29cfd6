"""What connectors of every kind keep to, and the sentences that say where one does not."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterable
from typing import Any

from couatl import _options
from couatl._conversion import Unfit, convert
from couatl._errors import class_name, shown

#: How long a cancel may take to end what waits, in seconds: after that, a query leaves its thread behind.
CANCEL = 5.0


class ContractError(AssertionError):
    """A connector does what the engine does not expect: the message says who, what came, and what was expected."""


def check_options(cls: type) -> None:
    """Whether each default is what its annotation says, and every option can be set."""
    for option in _options.options_of(cls):
        of = f"{class_name(cls)}: option '{option.name}'"
        if option.required and option.name in _options.OWN_SETTINGS:
            raise ContractError(f"{of} is required, and a setting of that name is the stream's own; expected another")
        if option.required or option.default is None or _is_made_anew(option.default):
            continue
        try:
            convert(option.default, option.type)
        except Unfit as expected:
            raise ContractError(f"{of}: expected {expected} as its default, got {shown(option.default)}") from None


def _is_made_anew(default: object) -> bool:
    """Whether it stands for what a dataclass makes for each of its objects."""
    return type(default).__qualname__ == "_HAS_DEFAULT_FACTORY_CLASS"


def check_plain(of: object, *methods: str) -> None:
    """Whether calling each of the methods runs it."""
    for name in methods:
        method = getattr(of, name, None)
        if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            expected = "expected a method without one"
            raise ContractError(f"{class_name(of)}.{name}() has a yield, so that nothing of it runs; {expected}")


class NoThreadsLeft:
    """Sees that what runs within leaves no thread running; what was begun before is not looked at."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __enter__(self) -> None:
        self.before = set(threading.enumerate())

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        until = time.monotonic() + CANCEL
        for thread in set(threading.enumerate()) - self.before:
            # One that Python did not start is not the connector's.
            if not isinstance(thread, threading._DummyThread):
                thread.join(max(0.0, until - time.monotonic()))
                if thread.is_alive():
                    of = f"{class_name(self.thing)} left the thread '{thread.name}' running"
                    raise ContractError(f"{of}; expected close() to end it")


def same(one: Any, other: Any) -> bool:
    """Whether two values are one for a test; where they cannot be compared, whether they look the same."""
    try:
        if one == other:
            return True
    except Exception:
        pass
    return repr(one) == repr(other)


def without(some: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """Those that are not among the others, each of which stands for one."""
    left = list(others)
    missing = []
    for value in some:
        at = next((place for place, other in enumerate(left) if same(value, other)), None)
        if at is None:
            missing.append(value)
        else:
            del left[at]
    return missing


def some(rows: list[Any], most: int = 5) -> str:
    """Some of the rows, to be read."""
    if not rows:
        return "no rows"
    return ", ".join(map(repr, rows[:most])) + (f" and {len(rows) - most} more" if len(rows) > most else "")

"""Sentences about misuse: what a method of a user's class gave, and what it must give.

They are made in one place so that every base class and every connector model says it in the same words.
"""

from __future__ import annotations

import inspect
import re
import reprlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Set, ValuesView
from numbers import Integral
from typing import Any

#: What holds rows, or gives them later, and is no list of them.
_NO_ROWS = (AsyncIterator, Iterator, Set, ValuesView, deque, range)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class Misuse(TypeError):
    """What its reader is to mend, in a class or a statement: the message says all of it, a traceback nothing more."""


def misuse(of: object, method: str, returned: object, expected: str) -> Misuse:
    """The error for a method of `of`, a class or an instance, that returned what it must not.

    >>> class Bad: ...
    >>> misuse(Bad(), "next_batch", 3, "a list of rows, or None where there are none now")
    Misuse('Bad.next_batch() returned 3 (int); expected a list of rows, or None where there are none now')
    """
    error = Misuse(f"{class_name(of)}.{method}() returned {shown(returned)}; expected {expected}")
    if inspect.iscoroutine(returned):
        # Nobody awaits it now.
        returned.close()
    return error


def missing(of: object, method: str) -> Misuse:
    """The error for a class without a method that it must have; `method` is written as it is called."""
    return Misuse(f"{class_name(of)} has no {method}")


def shown(value: object) -> str:
    """The value, shortened, with its type: ``'abc' (str)``."""
    if value is None:
        return "None"
    # Tables are drawn in lines.
    text = re.sub(r"\s*\n\s*", " ", _SHORT.repr(value))
    return f"{text} ({type(value).__qualname__})"


def counted(of: str, name: str, value: object, least: int = 0) -> None:
    """Refuse what is no number of rows, or one below the least. `of` is whose argument it is."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{of}: expected a number of rows as {name}, got {shown(value)}")
    if value < least:
        raise ValueError(f"{of}: expected {name} to be at least {least}, got {value}")


def class_name(of: object) -> str:
    """The name of a class, or of the class of an instance."""
    name = (of if isinstance(of, type) else type(of)).__qualname__
    # Where a function made the class, that is of no interest.
    return name.rpartition("<locals>.")[2]


def synchronous(of: object, method: str, returned: Any) -> Any:
    """What a plain method returned, unless it is asynchronous."""
    if inspect.iscoroutine(returned):
        raise misuse(of, method, returned, "a plain method (def, not async def)")
    return returned


def batch(of: object, method: str, returned: Any) -> Any:
    """What was returned as rows, unless it is of no shape that they have, or only gives them later."""
    synchronous(of, method, returned)
    if isinstance(returned, _NO_ROWS) and not hasattr(returned, "__arrow_c_stream__"):
        raise misuse(of, method, returned, "a list of rows, or None where there are none now")
    return returned

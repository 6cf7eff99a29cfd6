"""How methods of the user's are called, so that what is wrong with one is said with its class and its name.

Each is named as it is called, ``open(partition, state)``: that is what a sentence expects.

```text
  ask       gives rows, or raises StopIteration at their end
  call      gives something else
  run       gives nothing, and has run when it returns
```
"""

from __future__ import annotations

import inspect
from typing import Any

from couatl._errors import class_name, misuse, synchronous
from couatl._methods import check_call


def ask(of: object, method: str, /, *arguments: Any, **named: Any) -> Any:
    """What a method of the user's gives; Misuse where it cannot be called so.

    >>> class Bad:
    ...     def open(self, partition): ...
    >>> ask(Bad(), "open(partition, state)", "north", None)
    Traceback (most recent call last):
    couatl._errors.Misuse: Bad.open(self, partition) cannot be called as it is; expected open(self, partition, state)
    """
    name, _, parameters = method.removesuffix(")").partition("(")
    function = getattr(of, name)
    try:
        return function(*arguments, **named)
    except TypeError as error:
        # Where the call itself has failed, nothing of the user's has run.
        if error.__traceback__ is None or error.__traceback__.tb_next is None:
            check_call(of, name, *filter(None, parameters.split(", ")))
        raise


def call(of: object, method: str, /, *arguments: Any, **named: Any) -> Any:
    """As `ask`, where no rows are asked for: a StopIteration would be taken for their end."""
    try:
        return ask(of, method, *arguments, **named)
    except StopIteration as error:
        what = f"{class_name(of)}.{name_of(method)}() raised StopIteration"
        raise RuntimeError(f"{what}, which is an end only where rows are asked for") from error


def run(of: object, method: str, /, *arguments: Any, **named: Any) -> None:
    """Call what gives nothing; Misuse where it is asynchronous, or has a yield: nothing of it has run then."""
    name = name_of(method)
    has_run(of, name, synchronous(of, name, call(of, method, *arguments, **named)))


def has_run(of: object, method: str, returned: object) -> None:
    """Misuse where what a method returned says that it has not run yet."""
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        raise misuse(of, method, returned, "a method without yield: nothing of it has run")


def name_of(method: str) -> str:
    """The name of a method that is given as it is called."""
    return method.partition("(")[0]

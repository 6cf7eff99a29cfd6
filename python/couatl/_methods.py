"""Whether the methods that an author has written can be called as they will be, asked before anything runs.

Of a class, nothing runs at all: what is asked here can be asked where a stream is made. Parameters are written as in a
call, ``("x", "who=None")``; those with a default are given by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from couatl._classes import has_own
from couatl._errors import Misuse, class_name, shown
from couatl._options import signature

#: Stands for a method that is not there, or of which nothing can be said before it is called.
_UNKNOWN = object()


def has(thing: Any, method: str, bases: Collection[str]) -> bool:
    """Whether a class, or an instance, has a method of its own, and not only that of one of these base classes."""
    cls = thing if isinstance(thing, type) else type(thing)
    return has_own(cls, method, bases) or (thing is not cls and method in getattr(thing, "__dict__", {}))


def check_made(cls: type, *parameters: str) -> None:
    """Misuse where a class is abstract, or its constructor does not take these.

    >>> class Numbers:
    ...     def __init__(self, path): ...
    >>> check_made(Numbers)
    Traceback (most recent call last):
    couatl._errors.Misuse: Numbers.__init__(self, path) cannot be called as it is; expected __init__(self)
    """
    check_concrete(cls)
    if cls.__init__ is not object.__init__:  # type: ignore[misc]
        check_call(cls, "__init__", *parameters)


def check_concrete(cls: type) -> None:
    """Misuse where a class is abstract."""
    if inspect.isabstract(cls):
        missing: Collection[str] = getattr(cls, "__abstractmethods__", ())
        methods = " and ".join(f"{method}()" for method in sorted(missing))
        raise Misuse(f"{class_name(cls)} is abstract; expected a class that defines {methods}")


def check_call(of: object, method: str, *parameters: str) -> None:
    """Misuse where a method of a class, or of an instance, does not take these; one that is not there is not asked."""
    function = check_callable(of, method, *parameters)
    if function is _UNKNOWN:
        return
    try:
        # What wraps a function may have arguments of its own for it, so that it is what counts.
        found = signature(getattr(function, "__func__", function), follow_wrapped=False)
    except (TypeError, ValueError):
        # One in C: it may take anything.
        return
    names = [parameter.partition("=")[0] for parameter in parameters]
    by_name = {name: None for name, given in zip(names, parameters) if "=" in given}
    first = ["self"] if hasattr(function, "__func__") or (isinstance(of, type) and _is_of_instances(of, method)) else []
    try:
        found.bind(*first, *[name for name in names if name not in by_name], **by_name)
    except TypeError:
        as_written = f"{class_name(of)}.{method}{_shown(found)}"
        raise Misuse(f"{as_written} cannot be called as it is; expected {_call(method, parameters)}") from None


def check_callable(of: object, method: str, *parameters: str) -> Any:
    """What is called as a method; Misuse where that is something else."""
    function = _bound(of, method)
    if function is not _UNKNOWN and not callable(function):
        raise Misuse(f"{class_name(of)}.{method} is {shown(function)}; expected a method {_call(method, parameters)}")
    return function


def check_plain(of: object, method: str, *parameters: str, yields: bool = False) -> None:
    """The same, and Misuse where calling it would run nothing: it is asynchronous, or has a yield and must not."""
    check_call(of, method, *parameters)
    function = _bound(of, method)
    what = f"{class_name(of)}.{method}()"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Misuse(f"{what} is asynchronous; expected a plain method (def, not async def)")
    if inspect.isgeneratorfunction(function) and not yields:
        raise Misuse(f"{what} has a yield, and nothing of it would run; expected a method without yield")


def check_has(of: object, method: str, bases: Collection[str], what: str, *parameters: str) -> None:
    """Misuse where a class, or an instance, lacks a method that `what`, such as "an eKuiper source", must have."""
    if not has(of, method, bases):
        raise Misuse(f"{class_name(of)} has no {method}({', '.join(parameters)}); {what} must")


def _bound(of: object, method: str) -> Any:
    """What is called as a method; of a class, nothing of the author's runs to find it."""
    if not isinstance(of, type):
        return getattr(of, method, _UNKNOWN)
    found = inspect.getattr_static(of, method, _UNKNOWN)
    if isinstance(found, (staticmethod, classmethod)):
        return found.__get__(None, of)
    # A property, or another descriptor, says what it is of an instance alone.
    return _UNKNOWN if hasattr(type(found), "__get__") and not callable(found) else found


def _is_of_instances(cls: type, method: str) -> bool:
    return inspect.isfunction(inspect.getattr_static(cls, method))


def _shown(found: inspect.Signature) -> str:
    """The parameters, without what they are annotated with."""
    empty = inspect.Parameter.empty
    parameters = [each.replace(annotation=empty) for each in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def _call(method: str, parameters: Collection[str]) -> str:
    """A method as a class is to write it."""
    return f"{method}({', '.join(['self', *parameters])})"

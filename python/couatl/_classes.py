"""What all models ask of classes: what they derive from, what is their own, and what ours are called in their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from couatl._errors import class_name
from couatl._models import qualified

T = TypeVar("T")


def derives(cls: type, *names: str) -> bool:
    """Whether it is one of the classes of these qualified names, or derived from one."""
    return any(qualified(base) in names for base in cls.__mro__)


def definer(cls: type, method: str) -> str | None:
    """The class that a method comes from, by qualified name; None where there is no such method."""
    return next((qualified(base) for base in cls.__mro__ if method in base.__dict__), None)


def has_own(cls: type, method: str, bases: Collection[str]) -> bool:
    """Whether it has a method that is not only that of a base class, of which these are the qualified names."""
    defined = definer(cls, method)
    return defined is not None and defined not in bases


def named_after(of: object, cls: type[T]) -> type[T]:
    """A class of ours under the name of the user's, which is what messages and threads are to say."""
    return type(class_name(of), (cls,), {})


def refuse_options(thing: Any, options: Mapping[str, Any]) -> None:
    """TypeError where there are options: they are for a class, and this is an instance."""
    if options:
        names = ", ".join(f"'{name}'" for name in options)
        raise TypeError(f"{class_name(thing)} has been made, and takes no options; got {names}")

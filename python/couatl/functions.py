"""Functions of SQL, as classes of packages have them: what an aggregate is.

A scalar function, and one that gives rows, is a plain function; see the page on functions. An aggregate is a class with
these methods, derived from :class:`Aggregate` or not. Of each group, an object is made without arguments.

>>> from couatl.functions import Aggregate
>>> class Longest(Aggregate):
...     def __init__(self):
...         self.best = ""
...
...     def process(self, words):
...         self.best = max([self.best, *words], key=len)
...
...     def merge(self, other):
...         self.process([other.best])
...
...     def finalize(self):
...         return self.best
>>> import couatl
>>> session = couatl.Session()
>>> session.function("word string", "string", name="longest")(Longest).__name__
'Longest'
>>> session.sql("SELECT longest(column1) AS word FROM (VALUES ('a'), ('ccc'), ('bb'))").to_arrow().to_pydict()
{'word': ['ccc']}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from couatl._errors import Misuse
from couatl._methods import check_plain
from couatl._options import signature

__all__ = ["Aggregate"]


class Aggregate:
    """A group of rows, of which one value is made.

    What derives from it has ``process`` and ``finalize``, which Misuse says where it has not, or where they cannot be
    called.
    """

    def __init_subclass__(cls, **given: Any) -> None:
        """Look for the methods that every aggregate has."""
        super().__init_subclass__(**given)
        missing = [name for name in ("process", "finalize") if getattr(cls, name) is getattr(Aggregate, name)]
        if missing:
            methods = " and no ".join(f"{name}()" for name in missing)
            raise Misuse(f"{cls.__qualname__} has no {methods}, which an aggregate has")
        check_plain(cls, "process", *_parameters(cls.process))
        check_plain(cls, "merge", "other")
        check_plain(cls, "finalize")

    def process(self, *columns: Any) -> None:
        """Take some rows: a list for each parameter; the values of one, where its format is ``row``."""

    def finalize(self) -> Any:
        """Give the value of all rows that were taken. It may be asked for again, after more of them."""


def _parameters(method: Callable[..., Any]) -> list[str]:
    """What a method takes by position, which is its own affair."""
    found = list(signature(method).parameters.values())[1:] if callable(method) else []
    return [each.name for each in found if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]

"""Connectors that installed packages have registered, by their entry points: listed without importing any of them.

```toml
[project.entry-points."couatl.sources"]
faker = "couatl_faker:People"
```
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from couatl import _models, _options

#: The role of the classes in each group.
GROUPS: dict[str, _models.Role] = {
    "couatl.sources": "source",
    "couatl.sinks": "sink",
    "couatl.functions": "function",
    "couatl.transforms": "transform",
    "streamz.sources": "source",
    "streamz.sinks": "sink",
    "streamz.nodes": "transform",
}

#: Types of streams that no package can give another meaning.
BUILT_IN = ("python",)

LISTED = "listed"
LOADED = "loaded"


class Unloadable(Exception):
    """A registered class cannot be had; the message names the entry point and its distribution."""


@dataclass
class Registered:
    """An entry point, and what has come of it."""

    name: str
    role: _models.Role
    point: EntryPoint
    state: str = LISTED
    cls: Any = None

    @property
    def distribution(self) -> str:
        """The distribution that brings it; empty where its metadata says none."""
        return self.point.dist.name if self.point.dist is not None else ""

    @property
    def version(self) -> str:
        """The version of its distribution."""
        return self.point.dist.version if self.point.dist is not None else ""

    def load(self) -> Any:
        """Import it, once; what has failed is tried again. Unloadable says why it cannot be had."""
        if self.cls is not None:
            return self.cls
        what = f"{self.role} '{self.name}' ({self.point.group}: {self.point.value}, of {self.distribution or 'nobody'})"
        try:
            thing: Any = self.point.load()
        except Exception as error:
            self.state = f"failed: {type(error).__name__}: {error}"
            raise Unloadable(f"the {what} cannot be imported: {type(error).__name__}: {error}") from error
        try:
            of, _, _ = self.point.group.partition(".")
            if of == "couatl" and self.role in ("function", "transform") and is_plain(thing):
                self.state, self.cls = LOADED, thing
                return thing
            if not isinstance(thing, type):
                raise TypeError(f"expected a class, found {thing!r}")
            model = _models.recognise(thing, self.role)
            if model.name != of and of != "couatl":
                raise TypeError(
                    f"expected a {of} {self.role}, and class {thing.__qualname__} is a {model.name} {self.role}"
                )
        except TypeError as error:
            self.state = f"failed: {error}"
            raise Unloadable(f"the {what} does not fit: {error}") from None
        self.state, self.cls = LOADED, thing
        return thing

    def options(self) -> str:
        """Its options as they are written, with types and defaults; empty before it was loaded."""
        return (
            ""
            if not isinstance(self.cls, type)
            else ", ".join(_shown(option) for option in _options.options_of(self.cls))
        )


def is_plain(thing: object) -> bool:
    """Whether it is a function, or an aggregate's class, as a body may have it too."""
    if isinstance(thing, type):
        return all(callable(getattr(thing, method, None)) for method in ("process", "finalize"))
    return callable(thing) and not _models.is_connector(thing, "function")


_found: dict[tuple[str, str, str, str], Registered] = {}


def registered() -> list[Registered]:
    """All of them. Where several have one name in one role, the first wins, and the others say so."""
    all_found = list(_registered())
    first: dict[tuple[str, str], Registered] = {}
    for each in all_found:
        if each.role in ("source", "sink") and each.name.lower() in BUILT_IN:
            each.state = f"hidden: the type '{each.name.lower()}' is built in"
            continue
        winner = first.setdefault((each.role, each.name), each)
        if winner is not each:
            each.state = f"hidden: {winner.distribution or winner.point.value} has the name"
    return all_found


def _registered() -> Iterator[Registered]:
    # Packages may have been installed meanwhile; what was loaded is remembered.
    points = entry_points()
    for group, role in GROUPS.items():
        found = (Registered(point.name, role, point) for point in points.select(group=group))
        for each in sorted(found, key=lambda each: (each.name, each.distribution, each.point.value)):
            key = (group, each.name, each.point.value, each.distribution)
            yield _found.setdefault(key, each)


def find(name: str, role: _models.Role) -> Registered | None:
    """The one that has a name in a role."""
    # Each query asks for it: what is loaded need not be looked for.
    loaded = (each for each in _found.values() if each.cls is not None and (each.name, each.role) == (name, role))
    if (known := next(loaded, None)) is not None:
        return known
    of = (each for each in registered() if (each.name, each.role) == (name, role))
    return next(of, None)


def names() -> list[str]:
    """The names that streams may have as their type, beside those that are built in."""
    found = {each.name for each in registered() if each.role in ("source", "sink")}
    return sorted(name for name in found if name.lower() not in BUILT_IN)


def _shown(option: _options.Option) -> str:
    of = "" if option.type is Any else f": {_options.type_name(option.type)}"
    return f"{option.name}{of}" if option.required else f"{option.name}{of} = {option.default!r}"

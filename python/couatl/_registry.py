"""Connectors that installed packages have registered, by their entry points: listed without importing any of them.

```toml
[project.entry-points."couatl.sources"]
faker = "couatl_faker:People"
```
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any

from couatl import _models, _options
from couatl._errors import shown
from couatl._methods import check_call, check_callable, check_has, has

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
#: It has begun, and not ended yet: what hangs there stays so.
IMPORTING = "importing"
LOADED = "loaded"

#: What a class of ours must define, by the class that it derives from; one that defines its own `open` needs no more.
_METHODS: dict[str, tuple[str, ...]] = {
    "couatl.sources.PollingSource": ("next_item",),
    "couatl.sources.PushSource": ("run",),
    "couatl.sources.Source": ("open", "partition", "state"),
    "couatl.sinks.Sink": ("write", "*columns"),
    "couatl.sinks.AsyncSink": ("write", "*columns"),
}
_BASES = {*_METHODS, "couatl.sources.AsyncSource"}
#: What else they may have, and is called with these; `write` takes a list for each column, by whatever names.
_CALLED: dict[str, dict[str, tuple[str, ...]]] = {
    "couatl.sources.PollingSource": {"next_item": (), "snapshot": (), "resume": ("state",), "cancel": ()},
    "couatl.sources.PushSource": {"run": (), "on_stop": ()},
    "couatl.sources.Source": {"schema": (), "partitions": (), "open": ("partition", "state"), "close": ()},
    "couatl.sinks.Sink": {
        "schema": (),
        "open": ("columns",),
        "flush": (),
        "commit": (),
        "cancel": (),
        "abort": (),
        "close": (),
    },
    "couatl.sinks.AsyncSink": {"schema": (), "open": ("columns",), "flush": (), "commit": (), "abort": (), "close": ()},
}


class Unloadable(Exception):
    """A registered class cannot be had; the message names the entry point and its distribution."""


@dataclass
class Registered:
    """An entry point, and what has come of it."""

    name: str
    role: _models.Role
    point: EntryPoint
    #: Of the distribution that brings it.
    distribution: str
    version: str
    state: str = LISTED
    cls: Any = None

    def load(self) -> Any:
        """Import it, once; what has failed is tried again. Unloadable says why it cannot be had."""
        if self.cls is not None:
            return self.cls
        what = f"{self.role} '{self.name}' ({self.point.group}: {self.point.value}, of {self.distribution})"
        self.state = IMPORTING
        try:
            thing = self._imported()
        except KeyboardInterrupt:
            self.state = "failed: its import was interrupted"
            raise
        except (Exception, SystemExit) as error:
            why = str(error) if isinstance(error, Unloadable) else f"{type(error).__name__}: {error}"
            self.state = f"failed: {why}"
            raise Unloadable(f"the {what} cannot be imported: {why}") from error
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
            check_class(thing, self.role, model)
        except TypeError as error:
            self.state = f"failed: {error}"
            raise Unloadable(f"the {what} does not fit: {error}") from None
        self.state, self.cls = LOADED, thing
        return thing

    def _imported(self) -> Any:
        if not EntryPoint.pattern.match(self.point.value):
            raise Unloadable(f"expected package.module:Class, found {shown(self.point.value)}")
        return self.point.load()

    def options(self) -> str:
        """Its options as they are written, with types and defaults; empty before it was loaded."""
        if not isinstance(self.cls, type):
            return ""
        options = _options.options_of(self.cls)
        if self.point.group in ("streamz.sinks", "streamz.nodes"):
            # The stream in front, whatever that is called, is no option.
            options = options[1:]
        return ", ".join(map(_shown, options))


@dataclass
class Unreadable:
    """A distribution whose entry points cannot be read, or are none."""

    distribution: str
    version: str
    state: str


def check_class(cls: type, role: _models.Role, model: _models.Model) -> None:
    """Misuse where a class lacks a method that one of its model must have; nothing of it runs."""
    if model is not _models.COUATL:
        if hasattr(model.adapter(), "check_class"):
            model.adapter().check_class(cls, role)
        return
    mro = [_models.qualified(base) for base in cls.__mro__]
    if role == "sink" or not (has(cls, "open", _BASES) or "couatl.sources.AsyncSource" in mro):
        method, *parameters = next(_METHODS[base] for base in mro if base in _METHODS)
        check_has(cls, method, _BASES, f"a {role}", *parameters)
    if role == "sink":
        check_callable(cls, "write", "*columns")
    for base in mro:
        # A class may be both, and is looked at as either.
        for method, taken in _CALLED.get(base, {}).items() if base.startswith(f"couatl.{role}s.") else ():
            check_call(cls, method, *taken)


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
    found = [each for each in _of_distributions() if isinstance(each, Registered)]
    order = list(GROUPS)
    found.sort(key=lambda each: (order.index(each.point.group), each.name, each.distribution, each.point.value))
    for each in found:
        key = (each.point.group, each.name, each.point.value, each.distribution)
        yield _found.setdefault(key, each)


def unreadable() -> list[Unreadable]:
    """The distributions that may have registered something, which cannot be read."""
    return [each for each in _of_distributions() if isinstance(each, Unreadable)]


def _of_distributions() -> Iterator[Registered | Unreadable]:
    """What each distribution has registered: one that is broken is no matter of the others."""
    seen = set()
    for distribution in distributions():
        folder = Path(str(getattr(distribution, "_path", ""))).name
        # Of two versions on the path, the first is the one that is imported.
        name = (folder.rpartition("-")[0] or folder).lower().replace(".", "_")
        if folder and name in seen:
            continue
        seen.add(name)
        try:
            points = [point for point in distribution.entry_points if point.group in GROUPS]
        except Exception as error:
            why = f"failed: its entry points cannot be read: {type(error).__name__}: {error}"
            yield Unreadable(*_called(distribution, folder), why)
            continue
        for point in points:
            yield Registered(point.name, GROUPS[point.group], point, *_called(distribution, folder))


def _called(distribution: Distribution, folder: str) -> tuple[str, str]:
    """The name and the version of a distribution; its folder's name where it does not say them."""
    try:
        return str(distribution.metadata["Name"] or folder), str(distribution.metadata["Version"] or "")
    except Exception:
        return folder, ""


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

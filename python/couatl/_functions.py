"""What functions of packages are called: by their import path, or as they are registered."""

from __future__ import annotations

from typing import Any

from couatl import _models, _registry
from couatl._connectors import Refused, names_plugin, of_plugin, thing_at


def required(name: str, role: _models.Role) -> Any:
    """The function, or the class, for a role; Refused where there is none."""
    if names_plugin(name):
        return of_plugin(name, role)
    if ":" in name:
        return _checked(thing_at(name, "function"), role)
    found = _registry.find(name, role)
    if found is None:
        raise Refused(f"no {role} is registered as '{name}'; SHOW CONNECTORS lists what there is")
    try:
        return found.load()
    except _registry.Unloadable as error:
        raise Refused(str(error)) from error.__cause__


def _checked(thing: Any, role: _models.Role) -> Any:
    """A function, or a class; Refused where that is of another system, and lacks what its system calls."""
    if isinstance(thing, type) and not _registry.is_plain(thing) and _models.is_connector(thing, role):
        _registry.check_class(thing, role, _models.recognise(thing, role))
    return thing

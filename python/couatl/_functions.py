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
        return thing_at(name, "function")
    found = _registry.find(name, role)
    if found is None:
        raise Refused(f"no {role} is registered as '{name}'; SHOW CONNECTORS lists what there is")
    try:
        return found.load()
    except _registry.Unloadable as error:
        raise Refused(str(error)) from error.__cause__

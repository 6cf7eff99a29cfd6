"""What functions of packages are called: by their import path, or as they are registered."""

from __future__ import annotations

import importlib
from typing import Any

from couatl import _models, _registry
from couatl._connectors import Refused


def required(name: str, role: _models.Role) -> Any:
    """The function, or the class, for a role; Refused where there is none."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        thing: Any = importlib.import_module(module)
        for part in attribute.split("."):
            if not hasattr(thing, part):
                raise Refused(f"module '{module}' has no '{attribute}'")
            thing = getattr(thing, part)
        return thing
    found = _registry.find(name, role)
    if found is None:
        raise Refused(f"no {role} is registered as '{name}'; SHOW CONNECTORS lists what there is")
    try:
        return found.load()
    except _registry.Unloadable as error:
        raise Refused(str(error)) from error.__cause__

"""Connector classes of installed packages, by their paths or the names that they are registered by.

The engine calls these where a stream is made, on a thread with a deadline, and ``load`` again for each query.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from traceback import walk_tb
from typing import Any

from couatl import _models, _options, _registry
from couatl._errors import Misuse, class_name, shown

SECRET = "${secret:"
#: What a stream does with a class.
ROLES: list[_models.Role] = ["source", "sink"]


#: A statement does not fit its class: the engine looks for this name.
Refused = Misuse


def load(name: str, role: _models.Role) -> type | None:
    """The class that ``package.module:Class`` names, or that is registered by a name in a role; None if none is.

    What the import of a package raises is raised as it is.
    """
    if ":" in name:
        return of_plugin(name, role) if names_plugin(name) else _at(name)
    found = _registry.find(name, role)
    try:
        return None if found is None else found.load()
    except _registry.Unloadable as error:
        raise Refused(str(error)) from error.__cause__


def names_plugin(path: str) -> bool:
    """Whether it is a part of an eKuiper plugin, by the file or the folder that this is packaged in."""
    location = path.rpartition(":")[0]
    # A module may be called json, too.
    is_description = location.endswith(".json") and Path(location).is_file()
    return is_description or location.endswith(".zip") or "/" in location


def of_plugin(path: str, role: _models.Role) -> type:
    from couatl.compat import ekuiper

    location, _, name = path.rpartition(":")
    try:
        return ekuiper.packaged(location, role, name)
    except (OSError, LookupError, ValueError) as error:
        if any(frame.f_globals.get("__name__") == "__main__" for frame, _ in walk_tb(error.__traceback__)):
            # It is the program's own.
            raise
        raise Refused(str(error)) from error.__cause__


def _at(path: str) -> type:
    thing = thing_at(path, "class")
    if not isinstance(thing, type):
        raise Refused(f"expected '{path}' to be a class, found {shown(thing)}")
    return thing


def thing_at(path: str, what: str) -> Any:
    """What an import path names; Refused where there is none."""
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Of the path itself, not of what a package that is there imports.
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise Refused(f"there is no module '{module}' in {sys.prefix}: is its package installed there?") from None
    thing: Any = found
    for part in name.split("."):
        if not hasattr(thing, part):
            raise Refused(f"module '{module}' has no {what} '{name}'")
        thing = getattr(thing, part)
    return thing


def required(name: str, role: _models.Role) -> type:
    """The class for a role; Refused where there is none."""
    cls = load(name, role)
    if cls is None:
        is_registered = name in _registry.names()
        what = (
            f"'{name}' is registered, and not as a {role}" if is_registered else f"no {role} is registered as '{name}'"
        )
        raise Refused(f"{what}; SHOW CONNECTORS lists what there is")
    return cls


def options_for(name: str, cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a stream that are for one of its classes: a source and a sink of one name have each their own."""
    others = [other for role in ROLES if (other := load(name, role)) is not None and other is not cls]
    of_others = {option for other in others for option in _names(other)}
    own = _names(cls)
    return {option: value for option, value in options.items() if option in own or option not in of_others}


def _which(name: str, cls: type, role: _models.Role) -> str:
    """Which of the two classes of one name it is, where there are two."""
    is_one_of_two = any(load(name, other) not in (None, cls) for other in ROLES)
    return f"; {class_name(cls)} is the {role} '{name}'" if is_one_of_two else ""


def _names(cls: type) -> set[str]:
    return {option.name for option in _options.options_of(cls)}


def check(name: str, options: Mapping[str, Any]) -> None:
    """Whether there is such a connector, and it takes these options; references to secrets are not read."""
    problems = []
    fits = False
    for role in ROLES:
        cls = load(name, role)
        if cls is None:
            continue
        try:
            model = _models.recognise(cls, role)
        except TypeError as error:
            problems.append(str(error))
            continue
        fits = True
        _refusing(_registry.check_class, cls, role, model)
        if model.is_called:
            own = options_for(name, cls, options)
            known = {name: value for name, value in own.items() if not _is_secret(value)}
            try:
                _refusing(_options.check, cls, known, set(own))
            except Refused as error:
                raise Refused(f"{error}{_which(name, cls, role)}") from None
    if problems and not fits:
        raise Refused(problems[0])
    if not fits:
        known_names = ["python", *_registry.names()]
        near = difflib.get_close_matches(name, known_names, 1)
        hint = f"; did you mean '{near[0]}'?" if near else "; SHOW CONNECTORS lists what there is"
        raise Refused(f"setting 'type' must be 'python', or the name of a connector, found '{name}'{hint}")


def listed() -> list[tuple[str, str, str, str, str, str]]:
    """What is registered: name, role, distribution, version, state, options; and where that cannot be read."""
    return [
        (each.name, each.role, each.distribution, each.version, each.state, each.options())
        for each in _registry.registered()
    ] + [("", "", each.distribution, each.version, each.state, "") for each in _registry.unreadable()]


def columns(name: str, options: Mapping[str, Any]) -> Any:
    """The columns that the class knows: a statement's text, or an Arrow schema."""
    from couatl import _reading, _writing

    cls, role = _of_either_role(name)
    own = options_for(name, cls, options)
    if role == "source":
        found = _reading.schema_of(_refusing(_reading.source_of, cls, own, None))
    else:
        found = _writing.schema_of(_refusing(_writing.sink_of, cls, own))
    if found is None:
        raise Refused(f"{class_name(cls)} leaves its columns to the statement: give them between ( and )")
    if not isinstance(found, str) and not hasattr(found, "__arrow_c_schema__"):
        raise Refused(
            f"{class_name(cls)}.schema() returned {shown(found)}; expected 'a int64, b string', or an Arrow schema"
        )
    return found


def _of_either_role(name: str) -> tuple[type, _models.Role]:
    """The class that is read, or else the one that is written to; Refused where it is neither."""
    for role in ROLES:
        cls = load(name, role)
        if cls is not None and _fits(cls, role):
            return cls, role
    cls = required(name, "source")
    _models.recognise(cls, "source")
    return cls, "source"


def _fits(cls: type, role: _models.Role) -> bool:
    try:
        _models.recognise(cls, role)
    except TypeError:
        return False
    return True


def _is_secret(value: object) -> bool:
    return isinstance(value, str) and SECRET in value


def _refusing(function: Any, *arguments: Any) -> Any:
    """What a function gives; the errors that say what does not fit are the statement's."""
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        if error.__traceback__ is not None and _is_ours(error):
            raise Refused(str(error)) from None
        raise


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised by the SDK itself, not by a class that it made."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_globals.get("__name__", "").startswith("couatl.")

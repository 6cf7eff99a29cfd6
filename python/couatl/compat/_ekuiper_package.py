"""eKuiper plugins as they are packaged: a JSON file that describes one, in a folder or a zip file with its program.

```text
  JSON, folder, zip  ──describe──>  Description  ──load──>  Plugin, of which a path names a part:
                                                            /plugins/pysam.zip:pyjson
```

It stands apart from the program because that knows no files. Nothing here installs anything.
"""

from __future__ import annotations

import gc
import json
import sys
import sysconfig
import tempfile
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from couatl._errors import shown
from couatl.compat._ekuiper_program import KINDS, Plugin, offered, program

_ENVIRONMENTS = ("", "conda", "venv", "uv")
#: The plugins whose packages have been loaded, and the time of their last change, by path.
_LOADED: dict[Path, tuple[int, Plugin]] = {}
#: Where the module of a plugin keeps the description, and so the folder that this was unpacked in.
_DESCRIPTION = "__couatl_package__"
_loading = threading.Lock()


def packaged(path: str, role: str, name: str) -> type:
    """A class for what a plugin offers that is packaged as a JSON file, a folder or a zip file. It is loaded once.

    One that is written anew takes its place, and what the older one defined goes with the last query that uses it.
    Where the name is that of a part with another role, that one is given: the adapters say so. LookupError and
    ValueError say what is not there, or does not fit; what the program raises is raised.
    """
    location = Path(path).resolve()
    if not location.exists():
        raise LookupError(f"there is no {location}; expected the JSON file of a plugin, or the folder or zip with it")
    changed = location.stat().st_mtime_ns
    older: Plugin | None = None
    with _loading:
        before, plugin = _LOADED.get(location, (None, None))
        if plugin is None or before != changed:
            older, plugin = plugin, describe(location).load()
            _LOADED[location] = (changed, plugin)
    if older is not None:
        older.close()
        del older
        # A module is in a cycle with its functions: its folder would stay until the next collection.
        gc.collect()
    having = [kind.removesuffix("s") for kind in KINDS if name in getattr(plugin, kind)]
    return offered(plugin, role if role in having or not having else having[0], name)


@dataclass(frozen=True)
class Description:
    """The JSON file of a plugin, as eKuiper's packaging has it."""

    path: Path
    #: The path, as messages have it: one in a zip file, not where that was unpacked.
    label: str
    version: str
    language: str
    executable: str
    environment_type: str
    environment: str
    sources: list[str]
    sinks: list[str]
    functions: list[str]
    #: The folder of a package that was unpacked, which is there as long as this is.
    unpacked: Any = field(default=None, repr=False, compare=False)

    def load(self) -> Plugin:
        """Run the executable. ValueError where it lacks what the file says that it has.

        It runs in this process: its packages are those that are installed here, then those of its environment.
        """
        packages, executable = self.packages(), self.path.parent / self.executable
        if not executable.is_file():
            raise ValueError(f"{self.label}: there is no executable {self.executable!r} beside it")
        try:
            plugin = program(executable, packages)
        except ModuleNotFoundError as error:
            what = f"{self.path.name}: {self.executable} imports '{error.name}', which is not in {sys.prefix}"
            where = "there" if packages is None else f"there, or in {packages}"
            raise ModuleNotFoundError(f"{what}; install {where} what the plugin needs", name=error.name) from error
        for kind in KINDS:
            missing = [name for name in getattr(self, kind) if name not in getattr(plugin, kind)]
            if missing:
                plugin.close()
                raise ValueError(f"{self.label}: {self.executable} has no {kind[:-1]} {', '.join(map(repr, missing))}")
        vars(plugin.module)[_DESCRIPTION] = self
        return plugin

    def packages(self) -> Path | None:
        """The packages of the environment, where ``env`` is its folder; None where it is a name, or there is none.

        ValueError where it is an environment of another Python.
        """
        folder = (self.path.parent / self.environment).resolve()
        if not self.environment or not folder.is_dir():
            return None
        packages = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder)}))
        if not packages.is_dir():
            raise ValueError(f"{self.label}: environment {folder} is of another Python: there is no {packages}")
        return packages


def describe(path: str | Path) -> Description:
    """Read the description of a plugin: its JSON file, or the folder or the zip file that this is packaged in.

    ``virtualEnvType`` may be ``venv`` and ``uv`` beside ``conda``, and ``env`` a folder, beside the JSON file or
    elsewhere; what other keys say is not looked at, and no installation script is run. ValueError where there is no
    description.
    """
    path = Path(path)
    if path.is_dir():
        return _described(_packaged(path, path.name))
    if path.suffix != ".zip":
        return _described(path)
    unpacked = tempfile.TemporaryDirectory(prefix="couatl-plugin-")
    try:
        with zipfile.ZipFile(path) as package:
            package.extractall(unpacked.name)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: expected a zip file, {error}") from None
    found = _packaged(Path(unpacked.name), path.stem)
    return _described(found, f"{path / found.name}", unpacked)


def _packaged(folder: Path, name: str) -> Path:
    """The JSON file of a package: the one of its name, or the only one."""
    found = sorted(folder.glob("*.json"))
    named = [path for path in found if path.stem == name]
    if len(named or found) == 1:
        return (named or found)[0]
    there = ", ".join(path.name for path in found) or "none"
    raise ValueError(f"package '{name}': expected one JSON file that describes a plugin, found {there}")


def _described(path: Path, label: str = "", unpacked: Any = None) -> Description:
    label = label or str(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{label}: expected JSON, {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{label}: expected a JSON object, got {shown(content)}")

    def text(key: str, default: str | None = None) -> str:
        value = content.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{label}: expected text at '{key}', got {shown(value)}")
        return value

    def names(key: str) -> list[str]:
        value = content.get(key) or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"{label}: expected a list of names at '{key}', got {shown(value)}")
        return value

    language, kind = text("language", "python"), text("virtualEnvType", "")
    if language.lower() != "python":
        raise ValueError(f"{label}: expected a plugin in python, got {language!r}")
    if kind not in _ENVIRONMENTS:
        raise ValueError(f"{label}: expected a virtualEnvType of conda, venv or uv, got {kind!r}")
    return Description(
        path=path,
        label=label,
        version=text("version", ""),
        language=language,
        executable=text("executable"),
        environment_type=kind,
        environment=text("env", ""),
        sources=names("sources"),
        sinks=names("sinks"),
        functions=names("functions"),
        unpacked=unpacked,
    )

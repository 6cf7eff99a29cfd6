"""Whole eKuiper plugins: the program that a plugin is, and the JSON file that describes it.

A plugin is a program whose last act is ``plugin.start(PluginConfig(…))``: it would wait for an engine there and never
come back. Here it is run up to that call, which hands over what the plugin offers. It stands apart from the adapters
because it is about modules and files, and they are about rows.

```text
  text or file  ──run as __main__──>  plugin.start(config)  ──>  Plugin(name, sources, sinks, functions)
```

Where the SDK (`ekuiper`, with pynng) is not installed, ``import ekuiper`` means :mod:`couatl.compat.ekuiper` while the
program runs.
"""

from __future__ import annotations

import importlib
import itertools
import json
import linecache
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from couatl._errors import shown

Factories = Mapping[str, Callable[[], Any]]

#: The modules of the SDK that programs import from.
_SDK = [
    "ekuiper",
    "ekuiper.source",
    "ekuiper.sink",
    "ekuiper.function",
    "ekuiper.runtime",
    "ekuiper.runtime.context",
    "ekuiper.runtime.plugin",
]
_ENVIRONMENTS = ("", "conda", "venv", "uv")
_numbers = itertools.count(1)
# What a program finds in `sys` belongs to the process: one program at a time.
_running = threading.Lock()


class PluginConfig:
    """What a plugin offers: its name, and by name what makes each source, sink and function.

    >>> from couatl.compat.ekuiper import PluginConfig, Source
    >>> class Numbers(Source): ...
    >>> sorted(PluginConfig("pysam", {"numbers": lambda: Numbers()}, {}, {}).sources)
    ['numbers']
    """

    def __init__(self, name: str, sources: Factories, sinks: Factories, functions: Factories) -> None:
        self.name = name
        self.sources = sources
        self.sinks = sinks
        self.functions = functions


class Starter:
    """``plugin`` of the SDK: the module whose ``start`` ends a plugin's program."""

    def start(self, config: Any) -> None:
        """Hand over what the plugin offers. RuntimeError where the program is not run by :func:`program`."""
        if not _running.locked():
            raise RuntimeError("plugin.start() waits for an engine; run the program with couatl.compat.ekuiper.program")
        raise _Started(config)


class _Started(BaseException):
    """Ends a program where it would wait: no `except Exception` of its own stops it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config


@dataclass
class Plugin:
    """A plugin whose program has run: what makes its sources, sinks and functions, by name.

    Its module is in ``sys.modules``, under a name of its own, until ``close()``: pickles and annotations look there.
    """

    name: str
    sources: dict[str, Callable[[], Any]]
    sinks: dict[str, Callable[[], Any]]
    functions: dict[str, Callable[[], Any]]
    module: ModuleType = field(repr=False)

    def close(self) -> None:
        """Take the module out of ``sys.modules``."""
        sys.modules.pop(self.module.__name__, None)


def program(source: str | Path) -> Plugin:
    """Run the Python program of a plugin, given as text or as the path of a file, and give what it starts.

    A string is a path where it is one line that ends in ``.py``. Modules beside a file can be imported while it runs;
    each plugin has its own of them. What the program raises is raised; RuntimeError where it starts no plugin.

    >>> from couatl.compat.ekuiper import program
    >>> plugin = program('''
    ... from couatl.compat.ekuiper import Function, PluginConfig, plugin
    ...
    ... class Revert(Function):
    ...     def exec(self, args, ctx):
    ...         return args[0][::-1]
    ...
    ... if __name__ == "__main__":
    ...     plugin.start(PluginConfig("pysam", {}, {}, {"revert": lambda: Revert()}))
    ... ''')
    >>> plugin.name, list(plugin.functions)
    ('pysam', ['revert'])
    >>> plugin.close()
    """
    path = Path(source) if isinstance(source, Path) or _is_path(source) else None
    text = path.read_text(encoding="utf-8") if path is not None else str(source)
    number = next(_numbers)
    filename = str(path) if path is not None else f"<ekuiper plugin {number}>"
    if path is None:
        # Tracebacks show lines of it.
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    module = ModuleType("__main__")
    module.__file__ = filename
    code = compile(text, filename, "exec")
    with _running, _as_main(module, path):
        try:
            exec(code, module.__dict__)
        except _Started as started:
            config = started.config
        except SystemExit as ended:
            raise RuntimeError(f"plugin program {filename} ended with exit({ended.code!r}) before it started") from None
        else:
            raise RuntimeError(f"plugin program {filename} does not call plugin.start(PluginConfig(…)); it must")
    plugin = _plugin(config, filename, module)
    _name(module, f"couatl_ekuiper_plugin_{number}")
    return plugin


def _is_path(text: str) -> bool:
    return "\n" not in text and text.endswith(".py")


def _plugin(config: Any, filename: str, module: ModuleType) -> Plugin:
    kinds = ("sources", "sinks", "functions")
    if not all(hasattr(config, name) for name in ("name", *kinds)):
        raise TypeError(f"plugin program {filename}: plugin.start() got {shown(config)}; expected a PluginConfig")
    for kind in kinds:
        for name, factory in getattr(config, kind).items():
            if not callable(factory):
                what = f"plugin {config.name!r}: {kind[:-1]} {name!r} is {shown(factory)}"
                raise TypeError(f"{what}; expected a function that makes it, such as a lambda")
    return Plugin(config.name, dict(config.sources), dict(config.sinks), dict(config.functions), module)


def _name(module: ModuleType, name: str) -> None:
    """Give what was ``__main__`` a name that no other has."""
    module.__name__ = name
    for value in module.__dict__.values():
        if isinstance(value, type) and value.__module__ == "__main__":
            value.__module__ = name
    sys.modules[name] = module


@contextmanager
def _as_main(module: ModuleType, path: Path | None) -> Iterator[None]:
    """Let a module be the program of this process, with the SDK's ``plugin.start`` intercepted."""
    started = Starter().start
    compat = sys.modules["couatl.compat.ekuiper"]
    try:
        sdk: Any = importlib.import_module("ekuiper.runtime.plugin")
        start = sdk.start
    except ImportError:
        sdk = None
    before, arguments, folders = dict(sys.modules), sys.argv, list(sys.path)
    sys.modules["__main__"] = module
    sys.argv = [module.__file__ or ""]
    if path is not None:
        sys.path.insert(0, str(path.resolve().parent))
    if sdk is not None:
        sdk.start = started
    else:
        sys.modules.update(dict.fromkeys(_SDK, compat))
    try:
        yield
    finally:
        if sdk is not None:
            sdk.start = start
        sys.path[:] = folders
        sys.argv = arguments
        _restore(before, [] if sdk is not None else _SDK, path)


def _restore(before: dict[str, ModuleType], aliases: list[str], path: Path | None) -> None:
    """Forget the aliases, and the modules beside a program: another plugin may have some of the same names."""
    sys.modules["__main__"] = before["__main__"]
    for name in aliases:
        sys.modules.pop(name, None)
        if name in before:
            sys.modules[name] = before[name]
    folder = path.resolve().parent if path is not None else None
    for name, found in list(sys.modules.items()):
        file = getattr(found, "__file__", None)
        if folder is not None and name not in before and file and folder in Path(file).parents:
            del sys.modules[name]


@dataclass(frozen=True)
class Description:
    """The JSON file of a plugin, as eKuiper's packaging has it."""

    path: Path
    version: str
    language: str
    executable: str
    environment_type: str
    environment: str
    sources: list[str]
    sinks: list[str]
    functions: list[str]

    def load(self) -> Plugin:
        """Run the executable. ValueError where it lacks what the file says that it has."""
        plugin = program(self.path.parent / self.executable)
        for kind in ("sources", "sinks", "functions"):
            missing = [name for name in getattr(self, kind) if name not in getattr(plugin, kind)]
            if missing:
                plugin.close()
                raise ValueError(f"{self.path}: {self.executable} has no {kind[:-1]} {', '.join(map(repr, missing))}")
        return plugin


def describe(path: str | Path) -> Description:
    """Read the JSON file of a plugin. ValueError where it is not one.

    ``virtualEnvType`` may be ``venv`` and ``uv`` beside ``conda``; what other keys say is not looked at.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {shown(content)}")

    def text(key: str, default: str | None = None) -> str:
        value = content.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{path}: expected text at '{key}', got {shown(value)}")
        return value

    def names(key: str) -> list[str]:
        value = content.get(key) or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"{path}: expected a list of names at '{key}', got {shown(value)}")
        return value

    language, kind = text("language", "python"), text("virtualEnvType", "")
    if language.lower() != "python":
        raise ValueError(f"{path}: expected a plugin in python, got {language!r}")
    if kind not in _ENVIRONMENTS:
        raise ValueError(f"{path}: expected a virtualEnvType of conda, venv or uv, got {kind!r}")
    return Description(
        path=path,
        version=text("version", ""),
        language=language,
        executable=text("executable"),
        environment_type=kind,
        environment=text("env", ""),
        sources=names("sources"),
        sinks=names("sinks"),
        functions=names("functions"),
    )

"""Whole eKuiper plugins: the program that a plugin is.

A plugin is a program whose last act is ``plugin.start(PluginConfig(…))``: it would wait for an engine there and never
come back. Here it is run up to that call, which hands over what the plugin offers. It stands apart from the adapters
because it is about modules, and they are about rows.

```text
  body of a stream  ──run_body──┐  run as
  text or file      ──program───┴─ __main__ ──>  plugin.start(config)  ──>  Plugin  ──offered──>  a source, a sink,
                                                                                                 a function, by name
```

Where the SDK (`ekuiper`, with pynng) is not installed, ``import ekuiper`` means :mod:`couatl.compat.ekuiper` while a
program runs.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import itertools
import linecache
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
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
KINDS = ("sources", "sinks", "functions")
#: What is done with a part.
_DONE = {"source": "read", "sink": "written to", "function": "called"}
#: Where the module of a body keeps what its program has started.
_STARTED = "__couatl_plugin__"
#: Where the modules beside a program keep what is its own.
_PROGRAM = "__couatl_program__"
_numbers = itertools.count(1)
# What a program finds in `sys` belongs to the process: one program of a file at a time.
_running = threading.Lock()
# How many programs run, and what is undone after the last of them.
_changing = threading.Lock()
_programs = 0
_undo: Callable[[], None] = lambda: None  # noqa: E731
#: The process's own `__main__`.
_main = sys.modules["__main__"]
#: The module of the program that this thread runs.
_here = threading.local()


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
        _hand_over(config)
        raise RuntimeError("plugin.start() waits for an engine; run the program with couatl.compat.ekuiper.program")


class _Started(BaseException):
    """Ends a program where it would wait: no `except Exception` of its own stops it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.config = config


def _hand_over(config: Any) -> None:
    """End the program that runs on this thread, if one does."""
    if getattr(_here, "module", None) is not None:
        raise _Started(config)


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

    def part(self, role: str, name: str) -> Callable[[], Any]:
        """What makes the ``source``, ``sink`` or ``function`` of a name. LookupError where there is none."""
        offered: dict[str, Callable[[], Any]] = getattr(self, f"{role}s")
        if name in offered:
            return offered[name]
        what = f"plugin {self.name!r} has no {role}"
        if not offered:
            raise LookupError(f"{what}s, so that {name!r} cannot be {_DONE[role]}; it has {self._listed()}")
        near = difflib.get_close_matches(name, offered, 1)
        there = f"did you mean '{near[0]}'?" if near else f"its {role}s are {', '.join(map(repr, offered))}"
        raise LookupError(f"{what} {name!r}; {there}")

    def _listed(self) -> str:
        """What it offers: ``the sink 'keep'``."""
        each = [f"the {kind[:-1]} {name!r}" for kind in KINDS for name in getattr(self, kind)]
        return " and ".join(each) or "nothing at all"

    def close(self) -> None:
        """Take the module out of ``sys.modules``."""
        sys.modules.pop(self.module.__name__, None)


def program(source: str | Path, packages: Path | None = None) -> Plugin:
    """Run the Python program of a plugin, given as text or as the path of a file, and give what it starts.

    A string is a path where it is one line that ends in ``.py``. Modules beside a file can be imported while it runs;
    each plugin has its own of them. So can those of a folder of `packages` that are not installed here. What the
    program raises is raised; RuntimeError where it starts no plugin.

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
    with _running, _as_program(module, path, packages):
        config = _started(code, module)
    plugin = _plugin(config, module)
    _name(module, f"couatl_ekuiper_plugin_{number}")
    return plugin


def is_program(tree: ast.Module) -> bool:
    """Whether the body of a stream is a program that starts a plugin, as far as its text tells.

    It imports the SDK, or ours, and calls something's ``start`` where it is run, or asks whether it is ``__main__``.

    >>> import ast
    >>> is_program(ast.parse("from ekuiper import plugin\\nif __name__ == '__main__':\\n    plugin.start(None)"))
    True
    >>> is_program(ast.parse("from ekuiper import Source"))
    False
    """
    starts = any(isinstance(node, ast.Expr) and _starts(node.value) for node in tree.body)
    if not starts and not any(isinstance(node, ast.If) and _asks_for_name(node.test) for node in tree.body):
        return False
    nodes = list(ast.walk(tree))
    return (starts or any(map(_starts, nodes))) and any(map(_imports_sdk, nodes))


def _asks_for_name(test: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(test))


def _imports_sdk(node: ast.AST) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return any(name in _SDK or name == "couatl.compat.ekuiper" for name in names)


def _starts(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return "start" in (getattr(called, "attr", None), getattr(called, "id", None))


def run_body(code: CodeType, module: ModuleType) -> None:
    """Run the body of a stream that is a program, in its module, which keeps what it starts for :func:`started_by`.

    What the program raises is raised; RuntimeError where it starts no plugin.
    """
    name = module.__name__
    module.__name__ = "__main__"
    try:
        config = _started(code, module)
    finally:
        _name(module, name)
    vars(module)[_STARTED] = _plugin(config, module)


def started_by(module: ModuleType) -> Plugin | None:
    """The plugin that the program of a body has started; None where it was none."""
    return vars(module).get(_STARTED)


class Offered:
    """What a plugin offers by a name: made where it is used. The class of one stands for it as its instances do."""

    factory: Callable[[], Any]


def offered(plugin: Plugin, role: str, name: str) -> type:
    """A class for what a plugin offers by a name as a ``source``, ``sink`` or ``function``, for the adapters.

    LookupError says what there is where there is no such name.
    """
    factory = plugin.part(role, name)
    base = getattr(sys.modules["couatl.compat.ekuiper"], role.capitalize())
    return type(name, (Offered, base), {"factory": staticmethod(factory), "__module__": plugin.module.__name__})


def _is_path(text: str) -> bool:
    return "\n" not in text and text.endswith(".py")


def _started(code: CodeType, module: ModuleType) -> Any:
    """Run a program, and give what it calls ``plugin.start`` with."""
    with _intercepted(module):
        try:
            exec(code, module.__dict__)
        except _Started as started:
            return started.config
        except SystemExit as ended:
            what = f"plugin program {module.__file__} ended with exit({ended.code!r}) before it started"
            raise RuntimeError(what) from None
    raise RuntimeError(f"plugin program {module.__file__} does not call plugin.start(PluginConfig(…)); it must")


def _plugin(config: Any, module: ModuleType) -> Plugin:
    if not all(hasattr(config, name) for name in ("name", *KINDS)):
        what = f"plugin program {module.__file__}: plugin.start() got {shown(config)}"
        raise TypeError(f"{what}; expected a PluginConfig")
    for kind in KINDS:
        for name, factory in getattr(config, kind).items():
            if not callable(factory):
                what = f"plugin {config.name!r}: {kind[:-1]} {name!r} is {shown(factory)}"
                raise TypeError(f"{what}; expected a function that makes it, such as a lambda")
    return Plugin(config.name, dict(config.sources), dict(config.sinks), dict(config.functions), module)


def _name(module: ModuleType, name: str) -> None:
    """Give what was ``__main__`` a name that no other has, and so what it has defined."""
    module.__name__ = name
    waiting = list(vars(module).values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, (type, FunctionType)) and value.__module__ == "__main__":
            value.__module__ = name
            # Methods, and classes within it.
            waiting += vars(value).values()
    sys.modules[name] = module


class _Main(ModuleType):
    """``__main__`` while programs run: to the thread of each, its own module, and to others that of the process."""

    def __getattribute__(self, name: str) -> Any:
        return getattr(_main_here(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_main_here(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_main_here(), name)

    def __repr__(self) -> str:
        return repr(_main_here())

    def __dir__(self) -> list[str]:
        return dir(_main_here())


def _main_here() -> ModuleType:
    return getattr(_here, "module", None) or _main


@contextmanager
def _intercepted(module: ModuleType) -> Iterator[None]:
    """Have ``plugin.start`` hand over on this thread, while a program runs there, whose module is ``__main__`` to it.

    What that changes belongs to the process: the first of several programs at a time does it, the last one undoes it.
    """
    global _programs, _undo, _main
    with _changing:
        if _programs == 0:
            _undo = _intercept()
            _main, sys.modules["__main__"] = sys.modules["__main__"], _Main("__main__")
        _programs += 1
    outer, _here.module = getattr(_here, "module", None), module
    try:
        yield
    finally:
        _here.module = outer
        with _changing:
            _programs -= 1
            if _programs == 0:
                sys.modules["__main__"] = _main
                _undo()


def _intercept() -> Callable[[], None]:
    """Replace ``start`` of the SDK; where that is not installed, give ours its names. Gives what undoes it."""
    try:
        sdk: Any = importlib.import_module("ekuiper.runtime.plugin")
    except ImportError:
        before = {name: sys.modules[name] for name in _SDK if name in sys.modules}
        sys.modules.update(dict.fromkeys(_SDK, sys.modules["couatl.compat.ekuiper"]))

        def forget() -> None:
            for name in _SDK:
                sys.modules.pop(name, None)
            sys.modules.update(before)

        return forget
    start = sdk.start

    def intercepted(config: Any) -> Any:
        _hand_over(config)
        return start(config)

    def restore() -> None:
        sdk.start = start

    sdk.start = intercepted
    return restore


@contextmanager
def _as_program(module: ModuleType, path: Path | None, packages: Path | None) -> Iterator[None]:
    """Let a module be the program of this process, with the modules beside its file, and with packages."""
    before, arguments, folders = dict(sys.modules), sys.argv, list(sys.path)
    sys.argv = [module.__file__ or ""]
    if path is not None:
        sys.path.insert(0, str(path.resolve().parent))
    if packages is not None:
        sys.path.append(str(packages))
    try:
        yield
    finally:
        sys.path[:] = folders
        sys.argv = arguments
        _forget(module, before, path, packages)


def _forget(module: ModuleType, before: dict[str, ModuleType], path: Path | None, packages: Path | None) -> None:
    """Forget the modules beside a program: another plugin may have some of the same names.

    Who uses one of them uses the program, and what that keeps.
    """
    folder = path.resolve().parent if path is not None else None
    for name, found in list(sys.modules.items()):
        parents = Path(getattr(found, "__file__", None) or "/").parents
        if folder in parents and packages not in parents and name not in before:
            del sys.modules[name]
            vars(found)[_PROGRAM] = vars(module)

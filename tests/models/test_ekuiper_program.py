"""eKuiper's whole plugins: programs, in files, in bodies of streams, and as they are packaged."""

import ast
import gc
import json
import os
import shutil
import sys
import tempfile
import textwrap
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from couatl import _models
from couatl._connectors import Refused, load
from couatl.compat import ekuiper as compat
from couatl.compat.ekuiper import (
    as_function,
    as_source,
    describe,
    is_program,
    offered,
    packaged,
    program,
    run_body,
    started_by,
)
from couatl.testing import Columns, rows, write

ekuiper = pytest.importorskip("ekuiper")
pytest.importorskip("pynng")

TWO = Columns(["name", "value"], ["string", "int64"])
ONE = Columns(["value"], ["int64"])

PROGRAM = """
from __future__ import annotations
import dataclasses, pickle
from ekuiper import Context, Function, PluginConfig, Sink, Source, plugin

@dataclasses.dataclass
class Item:
    n: int

class PyJson(Source):
    def configure(self, datasource: str, conf: dict):
        self.conf = conf

    def open(self, ctx: Context):
        item = pickle.loads(pickle.dumps(Item(5)))
        ctx.emit({"value": item.n, "name": __name__}, {})

    def close(self, ctx: Context):
        pass

class Revert(Function):
    def validate(self, args):
        return ""

    def exec(self, args, ctx):
        return args[0][::-1]

    def is_aggregate(self):
        return False

revertIns = Revert()

if __name__ == '__main__':
    c = PluginConfig("pysam", {"pyjson": lambda: PyJson()}, {}, {"revert": lambda: revertIns})
    plugin.start(c)
    raise AssertionError("it never comes back")
"""


def test_a_program_runs_up_to_its_start():
    main, start = sys.modules["__main__"], ekuiper.plugin.start
    plugin = program(PROGRAM)
    assert (plugin.name, list(plugin.sources), list(plugin.functions)) == ("pysam", ["pyjson"], ["revert"])
    assert (sys.modules["__main__"], ekuiper.plugin.start) == (main, start)
    [(value, name)] = rows(plugin.sources["pyjson"](), columns=Columns(["value", "name"], ["int64", "string"]))
    assert value == 5
    assert name == plugin.module.__name__ != "__main__"
    assert as_source(plugin.sources["pyjson"], {}, ONE) is not None
    assert as_function(plugin.functions["revert"])("ab") == "ba"
    plugin.close()
    assert name not in sys.modules


def test_a_program_runs_without_the_sdk(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ekuiper"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    plugin = program(PROGRAM)
    assert "ekuiper" not in sys.modules
    source = plugin.sources["pyjson"]()
    assert isinstance(source, compat.Source)
    assert rows(source, columns=ONE) == [(5,)]
    plugin.close()


class Absent:
    """Makes the SDK look as if it were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ekuiper":
            raise ModuleNotFoundError(name)


def test_our_classes_need_no_library():
    text = textwrap.dedent(PROGRAM).replace("from ekuiper import", "from couatl.compat.ekuiper import")
    with closing(program(text)) as plugin:
        assert rows(plugin.sources["pyjson"](), columns=ONE) == [(5,)]


def test_a_file_and_its_description(tmp_path):
    (tmp_path / "pysam.py").write_text(PROGRAM.replace("class Revert(", "import revert_part\nclass Revert("))
    (tmp_path / "revert_part.py").write_text("")
    described = {
        "version": "v1.0.0",
        "language": "python",
        "executable": "pysam.py",
        "virtualEnvType": "conda",
        "env": "myenv",
        "sources": ["pyjson"],
        "functions": ["revert"],
    }
    path = tmp_path / "pysam.json"
    path.write_text(json.dumps(described))
    description = describe(path)
    assert (description.environment_type, description.environment) == ("conda", "myenv")
    assert (description.sources, description.sinks, description.functions) == (["pyjson"], [], ["revert"])
    folders = list(sys.path)
    with closing(description.load()) as plugin:
        assert plugin.name == "pysam"
    assert "revert_part" not in sys.modules
    assert sys.path == folders
    path.write_text(json.dumps({**described, "sinks": ["print"]}))
    with pytest.raises(ValueError, match=r"pysam.json: pysam.py has no sink 'print'$"):
        describe(path).load()


MAIN = """
import __main__, pickle, sys, typing
from ekuiper import *

class Outer:
    class Inner:
        def told(self): ...
    inner: "Inner"

class Inner: ...

assert type(pickle.loads(pickle.dumps(Outer.Inner()))) is Outer.Inner
assert typing.get_type_hints(Outer) == {"inner": Inner}
__main__.extra = 3
assert (extra, vars(__main__) is globals(), "extra" in dir(__main__)) == (3, True, True), sys.modules["__main__"]
del __main__.extra

class Nested(Source):
    def open(self, ctx):
        copy = pickle.loads(pickle.dumps(Outer.Inner()))
        told = pickle.loads(pickle.dumps(Outer.Inner.told))
        ctx.emit({"name": f"{type(copy).__module__} {told.__module__}", "value": int(type(copy) is Outer.Inner)})

plugin.start(PluginConfig("nested", {"nested": Nested}, {}, {}))
"""


def test_a_program_is_main_while_it_runs_and_later_what_it_defined_is_found():
    main, seen = sys.modules["__main__"], repr(sys.modules["__main__"])
    with body(MAIN) as module:
        name = module.__name__
        assert rows(offered(started_by(module), "source", "nested"), columns=TWO) == [(f"{name} {name}", 1)]
    with closing(program(MAIN)) as plugin:
        name = plugin.module.__name__
        assert rows(plugin.sources["nested"](), columns=TWO) == [(f"{name} {name}", 1)]
    assert (sys.modules["__main__"], repr(sys.modules["__main__"])) == (main, seen)


def test_an_error_in_a_program_shows_its_line():
    with pytest.raises(ZeroDivisionError) as raised:
        program("x = 1\nx / 0  # here\n")
    assert "# here" in str(raised.getrepr(style="native"))


@pytest.mark.parametrize(
    ("text", "error", "expected"),
    [
        ("x = 1\n", RuntimeError, r"does not call plugin.start\(PluginConfig\(…\)\); it must$"),
        ("raise SystemExit(3)\n", RuntimeError, r"ended with exit\(3\) before it started$"),
        (
            "from ekuiper import plugin\nplugin.start(3)\n",
            TypeError,
            r"plugin.start\(\) got 3 \(int\); expected a PluginConfig$",
        ),
        (
            "from ekuiper import plugin, PluginConfig\nplugin.start(PluginConfig('p', {'a': 3}, {}, {}))\n",
            TypeError,
            r"^plugin 'p': source 'a' is 3 \(int\); expected a function that makes it, such as a lambda$",
        ),
    ],
)
def test_programs_that_are_none(text, error, expected):
    with pytest.raises(error, match=expected):
        program(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", r"p.json: expected JSON, "),
        ("[]", r"p.json: expected a JSON object, got \[\] \(list\)$"),
        ('{"language": "go"}', r"p.json: expected a plugin in python, got 'go'$"),
        ('{"virtualEnvType": "tox"}', r"p.json: expected a virtualEnvType of conda, venv or uv, got 'tox'$"),
        ("{}", r"p.json: expected text at 'executable', got None$"),
        ('{"executable": "a.py", "sinks": "x"}', r"p.json: expected a list of names at 'sinks', got 'x' \(str\)$"),
    ],
)
def test_descriptions_that_are_none(tmp_path, text, expected):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=expected):
        describe(tmp_path / "p.json")


def test_start_outside_of_a_program():
    with pytest.raises(RuntimeError, match=r"run the program with couatl.compat.ekuiper.program$"):
        compat.plugin.start(compat.PluginConfig("p", {}, {}, {}))


# Programs in the body of a stream

BODY = """
import dataclasses, pickle, random
from SDK import Context, Function, PluginConfig, Sink, Source, plugin

@dataclasses.dataclass
class Item:
    n: int

def seed():
    return 7

class Random(Source):
    def configure(self, datasource: str, conf: dict):
        self.count = conf.get("count", 2)

    def open(self, ctx: Context):
        numbers = random.Random(pickle.loads(pickle.dumps(seed))())
        for _ in range(self.count):
            ctx.emit({"value": pickle.loads(pickle.dumps(Item(numbers.randrange(9)))).n}, {})

    def close(self, ctx: Context):
        pass

class Keep(Sink):
    kept = []

    def configure(self, conf: dict):
        self.kept.append(conf)

    def open(self, ctx: Context):
        pass

    def collect(self, ctx: Context, data):
        self.kept.append(data)

    def close(self, ctx: Context):
        self.kept.append("closed")

class Longest(Function):
    def validate(self, args):
        return ""

    def exec(self, args, ctx):
        return max(args[0], key=len)

    def is_aggregate(self):
        return True

if __name__ == '__main__':
    plugin.start(PluginConfig("lots", {"random": lambda: Random()}, {"keep": Keep}, {"longest": Longest}))
    raise AssertionError("it never comes back")
"""
SDKS = ["ekuiper", "couatl.compat.ekuiper"]


@contextmanager
def body(text, name="couatl_stream_random_1"):
    """The module of a body that is a program, as the engine makes one."""
    module = types.ModuleType(name)
    module.__file__ = "<stream random>"
    sys.modules[name] = module
    try:
        run_body(compile(textwrap.dedent(text), module.__file__, "exec"), module)
        yield module
    finally:
        del sys.modules[name]


@pytest.mark.parametrize("sdk", SDKS)
def test_a_body_offers_what_its_program_starts(sdk):
    main, start = sys.modules["__main__"], ekuiper.plugin.start
    with body(BODY.replace("SDK", sdk)) as module:
        assert (sys.modules["__main__"], ekuiper.plugin.start) == (main, start)
        assert (module.__name__, module.Item.__module__) == ("couatl_stream_random_1",) * 2
        plugin = started_by(module)
        assert plugin.name == "lots"
        # The module of that name is no source of it.
        source = offered(plugin, "source", "random")
        assert _models.is_connector(source, "source")
        assert rows(source, columns=ONE) == [(5,), (2,)]
        assert rows(source, columns=ONE, count=3) == [(5,), (2,), (6,)]
        sink = offered(plugin, "sink", "keep")
        assert _models.is_connector(sink, "sink")
        write(sink, [(1,)], columns=ONE, topic="t")
        assert module.Keep.kept == [{"topic": "t"}, b'{"value":1}', "closed"]
        function = offered(plugin, "function", "longest")
        assert _models.is_connector(function, "function")
        assert as_function(function).is_aggregate
        assert as_function(function)(["a", "abc", "ab"]) == "abc"


@pytest.mark.parametrize(
    ("role", "name", "expected"),
    [
        ("source", "randm", r"^plugin 'lots' has no source 'randm'; did you mean 'random'\?$"),
        ("source", "keep", r"^plugin 'lots' has no source 'keep'; its sources are 'random'$"),
        ("sink", "random", r"^plugin 'lots' has no sink 'random'; its sinks are 'keep'$"),
    ],
)
def test_names_that_a_program_does_not_offer(role, name, expected):
    with body(BODY.replace("SDK", "ekuiper")) as module, pytest.raises(LookupError, match=expected):
        offered(started_by(module), role, name)


NOTHING = "^plugin 'p' has no sinks, so that 'x' cannot be written to; it has nothing at all$"


def test_a_program_that_offers_nothing():
    text = "from ekuiper import plugin, PluginConfig\nplugin.start(PluginConfig('p', {}, {}, {}))"
    with body(text) as module, pytest.raises(LookupError, match=NOTHING):
        offered(started_by(module), "sink", "x")


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("source", "plugin 'p' has no sources, so that 'x' cannot be read; it has the sink 'a' and the sink 'b'"),
        ("function", "plugin 'p' has no functions, so that 'x' cannot be called; it has the sink 'a' and the sink 'b'"),
    ],
)
def test_a_program_that_offers_something_else(role, expected):
    text = "from ekuiper import plugin, PluginConfig\nplugin.start(PluginConfig('p', {}, {'a': int, 'b': str}, {}))"
    with body(text) as module, pytest.raises(LookupError) as caught:
        offered(started_by(module), role, "x")
    assert str(caught.value) == expected


def test_a_body_that_starts_nothing():
    expected = r"^plugin program <stream random> does not call plugin.start\(PluginConfig\(…\)\); it must$"
    with pytest.raises(RuntimeError, match=expected), body("import ekuiper"):
        pass
    assert started_by(types.ModuleType("other")) is None


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ("3", r"what makes the source 'x' returned 3 \(int\); expected an object that is an eKuiper source"),
        (
            "X",
            r"what makes the source 'x' returned <class '.*X'> \(type\); expected an object that is an eKuiper source",
        ),
        ("Source()", r"Source has no open\(ctx\); an eKuiper source must"),
    ],
)
def test_what_a_wrong_factory_makes_is_said(made, expected):
    text = f"""
    from ekuiper import *
    class X(Source):
        def open(self, ctx): ...
    plugin.start(PluginConfig('p', {{'x': lambda: {made}}}, {{}}, {{}}))
    """
    with body(text) as module:
        source = offered(started_by(module), "source", "x")
        with pytest.raises(TypeError, match=f"^{expected}$"):
            rows(source, columns=ONE)


def test_a_body_without_the_sdk(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ekuiper"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with body(BODY.replace("SDK", "ekuiper")) as module:
        assert "ekuiper" not in sys.modules
        assert issubclass(module.Random, compat.Source)
        assert rows(offered(started_by(module), "source", "random"), columns=ONE) == [(5,), (2,)]


def test_programs_run_at_once_and_nobody_else_is_intercepted(monkeypatch):
    main, started = sys.modules["__main__"], []
    monkeypatch.setattr(ekuiper.plugin, "start", started.append)
    together = threading.Barrier(3, timeout=10)
    monkeypatch.setattr(ekuiper, "together", together, raising=False)
    text = """
    import ekuiper, __main__
    ekuiper.together.wait()
    assert vars(__main__) is globals()
    ekuiper.together.wait()
    ekuiper.plugin.start(ekuiper.PluginConfig(__name__, {}, {}, {}))
    """

    def name(number):
        with body(text, f"couatl_stream_{number}") as module:
            return started_by(module).name, module.__name__

    with ThreadPoolExecutor(2) as pool:
        names = [pool.submit(name, number) for number in range(2)]
        together.wait()
        ekuiper.plugin.start("from elsewhere")
        assert vars(sys.modules["__main__"]) is vars(main)
        together.wait()
        assert [each.result(10) for each in names] == [("__main__", f"couatl_stream_{number}") for number in range(2)]
    assert started == ["from elsewhere"]
    ekuiper.plugin.start("after")
    assert started == ["from elsewhere", "after"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROGRAM, True),
        (BODY.replace("SDK", "couatl.compat.ekuiper"), True),
        ("import ekuiper\ndef main():\n    ekuiper.plugin.start(1)\nif '__main__' == __name__: main()", True),
        ("from ekuiper.runtime.plugin import start\nif __name__ == '__main__': start(1)", True),
        ("from couatl.compat import ekuiper\nif __name__ == '__main__': ekuiper.plugin.start(1)", True),
        ("from ekuiper import Source\nif __name__ == '__main__': print(Source)", False),
        ("import threading\nif __name__ == '__main__': threading.Thread().start()", False),
        ("import ekuiper\nekuiper.plugin.start(1)", True),
        ("def f(): pass", False),
    ],
)
def test_which_bodies_are_programs(text, expected):
    assert is_program(ast.parse(text)) is expected


# Plugins as they are packaged

PACKAGED = """
import json
from pathlib import Path
from ekuiper import PluginConfig, Sink, Source, plugin

class Table(Source):
    def configure(self, datasource, conf):
        self.path = Path(__file__).parent / datasource

    def open(self, ctx):
        for row in json.loads(self.path.read_text()):
            ctx.emit(row, {})

class Print(Sink):
    def collect(self, ctx, data):
        print(data)

if __name__ == "__main__":
    plugin.start(PluginConfig("tables", {"table": lambda: Table()}, {"print": lambda: Print()}, {}))
"""
DESCRIBED = {"version": "v1.0.0", "language": "python", "executable": "tables.py", "sources": ["table"]}


@pytest.fixture
def package(tmp_path):
    """The files of a plugin, in a folder of its name."""
    folder = tmp_path / "tables"
    (folder / "rows").mkdir(parents=True)
    (folder / "tables.py").write_text(PACKAGED)
    (folder / "tables.json").write_text(json.dumps(DESCRIBED))
    (folder / "requirements.txt").write_text("ekuiper\n")
    (folder / "install.sh").write_text("exit 1\n")
    (folder / "rows" / "few.json").write_text('[{"name": "a", "value": 1}]')
    return folder


def zipped(folder):
    return Path(shutil.make_archive(str(folder), "zip", folder))


@pytest.mark.parametrize("form", [lambda folder: folder, lambda folder: folder / "tables.json", zipped])
def test_a_package_offers_its_parts_and_is_loaded_once(package, form):
    path = form(package)
    source = packaged(str(path), "source", "table")
    assert rows(source, columns=TWO, datasource="rows/few.json") == [("a", 1)]
    assert packaged(str(path), "source", "table").__module__ == source.__module__
    with pytest.raises(LookupError, match=r"^plugin 'tables' has no source 'tabel'; did you mean 'table'\?$"):
        packaged(str(path), "source", "tabel")
    other = packaged(str(path), "source", "print")
    with pytest.raises(TypeError, match=r"^expected a source, and class print is an ekuiper sink$"):
        rows(other, columns=TWO)


def test_a_package_that_is_not_there(tmp_path):
    expected = r"^there is no .*/tables.zip; expected the JSON file of a plugin, or the folder or zip with it$"
    with pytest.raises(LookupError, match=expected):
        packaged(str(tmp_path / "tables.zip"), "source", "table")


@pytest.mark.parametrize("error", [ValueError, KeyError, OSError])
def test_what_a_program_raises_is_raised_as_it_is(package, error):
    (package / "tables.py").write_text(f"raise {error.__name__}('mine')")
    with pytest.raises(error, match="mine"):
        load(f"{package}:table", "source")
    (package / "tables.json").write_text("{")
    with pytest.raises(Refused, match="expected JSON"):
        load(f"{package}:table", "source")


def test_what_was_unpacked_is_there_as_long_as_its_description(package):
    description = describe(zipped(package))
    unpacked = description.path.parent
    assert (unpacked / "rows" / "few.json").exists()
    del description
    assert not unpacked.exists()


BESIDE = """
from ekuiper import PluginConfig, plugin
from parts import Print, Table
plugin.start(PluginConfig("tables", {"table": Table}, {"print": Print}, {}))
"""


@pytest.mark.parametrize("is_beside", [False, True])
def test_what_a_rewrite_replaces_is_deleted_when_nothing_of_it_is_used_any_more(package, monkeypatch, is_beside):
    if is_beside:
        (package / "tables.py").rename(package / "parts.py")
        (package / "tables.py").write_text(BESIDE)
    monkeypatch.setattr(tempfile, "tempdir", str(package.parent))
    before, path = set(sys.modules), zipped(package)
    made = []
    for number in range(3):
        os.utime(path, ns=(number, number))
        made.append(packaged(str(path), "source", "table"))
    assert [rows(source, columns=TWO, datasource="rows/few.json") for source in made] == [[("a", 1)]] * 3
    assert len([name for name in set(sys.modules) - before if name.startswith("couatl_ekuiper_plugin_")]) == 1
    used = [source.factory() for source in made]
    made.clear()
    for unpacked in [3, 2, 1, 1]:
        gc.collect()
        assert len(list(package.parent.glob("couatl-plugin-*"))) == unpacked
        del used[:1]


def test_a_package_without_its_executable(package):
    (package / "tables.py").unlink()
    path = zipped(package)
    with pytest.raises(ValueError, match=rf"^{path}/tables.json: there is no executable 'tables.py' beside it$"):
        describe(path).load()
    (package / "tables.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"^{zipped(package)}/tables.json: expected text at 'executable', got None$"):
        describe(path)


def test_packages_that_are_none(package):
    (package / "second.json").write_text("{}")
    assert describe(package).executable == "tables.py"
    (package / "tables.json").rename(package / "first.json")
    expected = r"^package 'tables': expected one JSON file that describes a plugin, found first.json, second.json$"
    with pytest.raises(ValueError, match=expected):
        describe(package)
    (package / "no.zip").write_text("no")
    with pytest.raises(ValueError, match=r"no.zip: expected a zip file, "):
        describe(package / "no.zip")


def test_what_a_plugin_needs_and_is_not_there(package):
    (package / "tables.py").write_text("import not_installed\n")
    expected = (
        r"^tables.json: tables.py imports 'not_installed', which is not in .*; install there what the plugin needs$"
    )
    with pytest.raises(ModuleNotFoundError, match=expected):
        describe(package).load()


@pytest.mark.parametrize("kind", ["conda", "venv", "uv"])
def test_the_packages_of_an_environment_are_there(package, monkeypatch, kind):
    packages = package / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    name = f"only_there_{kind}"
    (packages / f"{name}.py").write_text("")
    # What is installed here counts.
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (packages / "colorsys.py").write_text("raise AssertionError")
    (package / "tables.py").write_text(f"import colorsys, {name}\n{PACKAGED}")
    (package / "tables.json").write_text(json.dumps({**DESCRIBED, "virtualEnvType": kind, "env": "env"}))
    folders = list(sys.path)
    with closing(describe(package).load()) as plugin:
        assert list(plugin.sources) == ["table"]
    assert sys.path == folders
    # It may be a large library, which is loaded once.
    assert sys.modules.pop(name).__file__.startswith(str(packages))
    packages.rename(packages.with_name("elsewhere"))
    with pytest.raises(
        ValueError, match=r"tables.json: environment .*/env is of another Python: there is no .*/site-pa"
    ):
        describe(package).load()

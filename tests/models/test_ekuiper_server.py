"""Whole eKuiper plugins over Flight SQL: programs in the bodies of statements, and packages on the server."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from adbc_driver_flightsql import dbapi
from harness import Server, error, queries, rows, run, value, wait_until, watched

pytest.importorskip("ekuiper")

PROGRAM = """
import json, random
from {sdk} import Function, PluginConfig, Sink, Source, plugin

class Random(Source):
    def configure(self, datasource, conf):
        self.datasource, self.count = datasource, conf.get("count", 3)

    def open(self, ctx):
        for n in range(self.count):
            ctx.emit({{"name": self.datasource, "value": n}}, {{}})

    def close(self, ctx):
        pass

class Keep(Sink):
    def configure(self, conf):
        self.path = conf["path"]

    def open(self, ctx):
        pass

    def collect(self, ctx, data):
        with open(self.path, "ab") as file:
            file.write(data + b"\\n")
        ctx.ack_ok()

    def close(self, ctx):
        pass

class Revert(Function):
    def validate(self, args):
        return ""

    def exec(self, args, ctx):
        return args[0][::-1]

    def is_aggregate(self):
        return False

class Longest(Revert):
    def exec(self, args, ctx):
        return max(args[0], key=len)

    def is_aggregate(self):
        return True

if __name__ == "__main__":
    functions = {{"revert": lambda: Revert(), "longest": Longest}}
    plugin.start(PluginConfig("lots", {{"random": lambda: Random()}}, {{"keep": lambda: Keep()}}, functions))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    with watched(server, 60):
        yield server
        with server.connect() as connection:
            wait_until(lambda: not queries(connection), "the end of all queries")
    server.kill()


@pytest.mark.parametrize("sdk", ["ekuiper", "couatl.compat.ekuiper"])
def test_a_program_is_read_and_written(server, tmp_path, sdk):
    program, path = PROGRAM.format(sdk=sdk), tmp_path / "kept"
    columns = "(name string, value int64)"
    made = f"CREATE OR REPLACE EXTERNAL STREAM lots {columns} AS $${program}$$ SETTINGS type = 'python', "
    with server.connect() as connection:
        run(connection, made + "source = 'random'")
        assert rows(connection, "SELECT value FROM lots ORDER BY value") == [(0,), (1,), (2,)]
        assert "plugin 'lots' has no sink 'random'; its sinks are 'keep'" in error(
            connection, "INSERT INTO lots VALUES ('a', 1)"
        )
        settings = (
            f"source = 'random', sink = 'keep', datasource = 'd', count = 1, path = '{path}', \"requireAck\" = true"
        )
        run(connection, made + settings)
        assert rows(connection, "SELECT name, value FROM lots") == [("d", 0)]
        assert run(connection, "INSERT INTO lots VALUES ('a', 1), ('b', 2)") == 2
        assert [json.loads(line)["name"] for line in Path(path).read_text().splitlines()] == ["a", "b"]
        statement = value(connection, "SHOW CREATE STREAM lots")
        assert "source = 'random', sink = 'keep', datasource = 'd', count = 1" in statement
        run(connection, "DROP STREAM lots")
        run(connection, statement)
        assert rows(connection, "SELECT name, value FROM lots") == [("d", 0)]
        run(connection, made + "source = 'randm'")
        assert "plugin 'lots' has no source 'randm'; did you mean 'random'?" in error(
            connection, "SELECT name FROM lots"
        )


@pytest.mark.parametrize(
    "settings",
    [
        "source = 'random'",
        "source = 'random', mode = 'batch', batch_size = 7, linger_ms = 40",
        "source = 'random', \"Count\" = 2, topic = 'it''s', \"requireAck\" = true",
        "sink = 'keep', path = '/dev/null'",
        "source = 'random', sink = 'keep', path = '${secret:nowhere}', mode = 'streaming'",
    ],
)
def test_a_statement_that_is_shown_makes_the_same_stream(server, settings):
    program = PROGRAM.format(sdk="ekuiper") + "\nMARK = '$$ $body$ it''s'\n"
    body = f"AS $program${program}$program$"
    made = f"CREATE EXTERNAL STREAM same (name string, value int64) {body} SETTINGS type = 'python', "
    with server.connect() as connection:
        run(connection, made + settings)
        shown = value(connection, "SHOW CREATE STREAM same")
        assert program in shown
        run(connection, "DROP STREAM same")
        run(connection, shown)
        assert value(connection, "SHOW CREATE STREAM same") == shown
        run(connection, "DROP STREAM same")


def test_words_of_settings_are_truth_values(server, tmp_path):
    told = """
    def configure(self, datasource, conf):
        self.told = {name: repr(value) for name, value in conf.items()}

    def open(self, ctx):
        ctx.emit(self.told)
"""
    program = PROGRAM.format(sdk="ekuiper").replace("class Keep(", f"class Told(Random):{told}\nclass Keep(")
    program = program.replace("lambda: Random()", "Told").replace("        ctx.ack_ok()", "        answer(self, ctx)")
    program = program.replace("class Random(", "def answer(self, ctx):\n    ctx.ack_error('full')\n\nclass Random(")
    made = "CREATE OR REPLACE EXTERNAL STREAM told (tls string, debug string, word string) "
    parts, path = "source = 'random', sink = 'keep'", f"path = '{tmp_path}/kept'"
    settings = f"{parts}, {path}, tls = true, debug = FALSE, word = 'false', \"requireAck\" = "
    with server.connect() as connection:
        for needs in ["true", "'true'", "false"]:
            run(connection, f"{made} AS $${program}$$ SETTINGS type = 'python', {settings} {needs}")
            assert rows(connection, "SELECT tls, debug, word FROM told") == [("True", "False", "'false'")]
            if needs == "false":
                assert run(connection, "INSERT INTO told VALUES ('a', 'b', 'c')") == 1
            else:
                assert "full; " in error(connection, "INSERT INTO told VALUES ('a', 'b', 'c')")


def test_what_a_program_does_not_offer(server):
    program = PROGRAM.format(sdk="ekuiper")
    made = f"CREATE OR REPLACE EXTERNAL STREAM wrong (value int64) AS $${program}$$ SETTINGS type = 'python', "
    with server.connect() as connection:
        run(connection, made + "sink = 'keep'")
        assert "plugin 'lots' has no source 'wrong'; its sources are 'random'" in error(
            connection, "SELECT * FROM wrong"
        )
        run(connection, made + "source = 'keep'")
        assert "plugin 'lots' has no source 'keep'" in error(connection, "SELECT * FROM wrong")
        for part, function in [("source", "read_function_name"), ("sink", "write_function_name")]:
            refusal = error(connection, f"{made}{part} = 'random', {function} = 'x'")
            assert f"'{part}' names a part of a program, and '{function}' a function" in refusal
        for setting in ["source = ''", "sink = 3"]:
            assert "must be the name of a function" in error(connection, made + setting)
        assert "there is a body: leave out one of them" in error(connection, made + "source = 'random', class = 'a:B'")


FUNCTIONS = [
    ("revert", "FUNCTION", "revert", None),
    ("longest", "AGGREGATE FUNCTION", "longest", None),
    ("longest", "FUNCTION", "longest", "its is_aggregate() says that it is one: say CREATE AGGREGATE FUNCTION"),
    ("revert", "AGGREGATE FUNCTION", "revert", "its is_aggregate() says that it is none: say CREATE FUNCTION"),
    ("revert", "FUNCTION", "rever", "plugin 'lots' has no function 'rever'; did you mean 'revert'?"),
]
ANSWERS = {"revert": [("cba",), ("ed",)], "longest": [("abc",)]}


@pytest.mark.parametrize("packaged", [False, True])
@pytest.mark.parametrize(("name", "kind", "part", "expected"), FUNCTIONS)
def test_functions_of_a_program(server, package, packaged, name, kind, part, expected):
    program, options = PROGRAM.format(sdk="ekuiper"), f"function '{part}'"
    if packaged:
        code, options = "", f"class '{zipped(package)}:{part}'"
    else:
        code = f"AS $${program}$$"
    with server.connect() as connection:
        run(connection, f"DROP FUNCTION IF EXISTS {name}")
        sql = f"SELECT {name}(word) FROM (VALUES ('abc'), ('de')) AS t (word)"
        made = f"CREATE {kind} {name}(word string) RETURNS string LANGUAGE PYTHON OPTIONS ({options}) {code}"
        if expected is None:
            run(connection, made)
            assert rows(connection, sql) == ANSWERS[name]
        else:
            assert expected in refused(connection, made, sql)


def refused(connection, *statements):
    """The first error of statements, the last of which ends with one if none before it does."""
    for statement in statements[:-1]:
        try:
            run(connection, statement)
        except dbapi.Error as refusal:
            return str(refusal)
    return error(connection, statements[-1])


# Packages


@pytest.fixture
def package(tmp_path):
    """The folder of a plugin as it is packaged."""
    folder = tmp_path / "lots"
    folder.mkdir()
    (folder / "lots.py").write_text(PROGRAM.format(sdk="ekuiper"))
    described = {
        "version": "v1.0.0",
        "language": "python",
        "executable": "lots.py",
        "sources": ["random"],
        "sinks": ["keep"],
        "functions": ["revert", "longest"],
    }
    (folder / "lots.json").write_text(json.dumps(described))
    return folder


def zipped(folder):
    return shutil.make_archive(str(folder), "zip", folder)


FORMS = {"zip": zipped, "folder": str, "json": lambda folder: f"{folder}/lots.json"}
MADE = "CREATE OR REPLACE EXTERNAL STREAM packed (name string, value int64) SETTINGS type = 'python', class = "


@pytest.mark.parametrize("form", FORMS)
def test_a_package_is_read_and_written(server, package, tmp_path, form):
    path, location = tmp_path / "kept", FORMS[form](package)
    with server.connect() as connection:
        run(connection, f"{MADE} '{location}:random', datasource = 'd', count = 2")
        assert rows(connection, "SELECT name, value FROM packed ORDER BY value") == [("d", 0), ("d", 1)]
        shown = value(connection, "SHOW CREATE STREAM packed")
        assert f"class = '{location}:random', datasource = 'd', count = 2" in shown
        run(connection, "DROP STREAM packed")
        run(connection, shown)
        assert value(connection, "SELECT count(*) FROM packed") == 2
        assert "expected a sink, and class random is an ekuiper source" in error(
            connection, "INSERT INTO packed VALUES ('a', 1)"
        )
        run(connection, f"{MADE} '{location}:keep', path = '{path}', \"requireAck\" = true")
        assert run(connection, "INSERT INTO packed VALUES ('a', 1), ('b', 2)") == 2
        assert [json.loads(line)["value"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_package_that_is_replaced_is_read_anew(server, package):
    location = zipped(package)
    with server.connect() as connection:
        run(connection, f"{MADE} '{location}:random', count = 1")
        assert rows(connection, "SELECT value FROM packed") == [(0,)]
        program = package / "lots.py"
        program.write_text(program.read_text().replace('"value": n}', '"value": n + 7}'))
        os.utime(zipped(package), ns=(1, 1))
        assert rows(connection, "SELECT value FROM packed") == [(7,)]


def test_what_is_no_package(server, package, tmp_path):
    location = zipped(package)
    with server.connect() as connection:
        for path, expected in {
            f"{location}:randm": "plugin 'lots' has no source 'randm'; did you mean 'random'?",
            f"{tmp_path}/no.zip:random": "no.zip; expected the JSON file of a plugin, or the folder or zip with it",
            location: "must be a class of a package, as in 'package.module:Class'",
        }.items():
            assert expected in error(connection, f"{MADE} '{path}'")
        assert "random leaves its columns to the statement: give them between ( and )" in error(
            connection, f"CREATE EXTERNAL STREAM other SETTINGS type = 'python', class = '{location}:random'"
        )


def test_many_read_and_call_programs_at_once(server, package):
    program, location = PROGRAM.format(sdk="ekuiper"), zipped(package)
    with server.connect() as connection:
        run(
            connection,
            f"CREATE OR REPLACE EXTERNAL STREAM lots (value int64) AS $${program}$$ "
            "SETTINGS type = 'python', source = 'random', count = 50",
        )
        run(connection, f"{MADE} '{location}:random', count = 50")
        run(connection, "DROP FUNCTION IF EXISTS revert")
        run(
            connection,
            "CREATE FUNCTION revert(word string) RETURNS string LANGUAGE PYTHON "
            f"OPTIONS (function 'revert') AS $${program}$$",
        )

    def ask(number):
        stream = ("lots", "packed")[number % 2]
        sql = f"SELECT sum(value), max(revert('ab{number}')) FROM (SELECT value FROM {stream})"
        with server.connect() as connection:
            return rows(connection, sql)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(24)))
    assert found == [[(1225, f"ab{number}"[::-1])] for number in range(24)]

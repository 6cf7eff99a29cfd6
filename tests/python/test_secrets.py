"""`${secret:NAME}`: read when a query starts, told to its Python alone, and shown to nobody."""

import os
import shutil

import pyarrow
import pytest
from harness import create, error, queries, rows, run, value, wait_until
from test_http import ask, refused

TELLING = """
given = []

def init(parameters):
    given.append(parameters)

def read():
    return given

def write(s):
    raise ValueError("cannot write with " + given[0])
"""

RAISING = """
import json

given = []

def init(parameters):
    given.append(parameters)
    {in_init}

def read():
    {in_read}
    return [given[0]]

def deinit():
    {in_deinit}
"""

# Where Python may say a secret, and how: as it is, as repr() or a dict writes it, in a chain of exceptions, in a note.
RAISED = {
    "plain": "raise ValueError('cannot log in with ' + given[0])",
    "twice": "raise ValueError(given[0] + ' and ' + given[0])",
    "key": "{}[given[0]]",
    "repr": "raise ValueError(f'cannot log in with {given[0]!r}')",
    "json": "raise ValueError(json.dumps({'password': given[0]}))",
    "cause": "raise OSError('no connection') from ValueError(given[0])",
    "bytes": "raise ValueError(given[0].encode())",
    "exit": "raise SystemExit(given[0])",
    "type": "raise type(given[0].replace(' ', '_'), (ValueError,), {})('x')",
}
NO_NAMES = ["}", "token", "a b}", "a:b}", "${secret:token}}", "tökén}", "token\n}", "token\x01}", "token} ${secret:"]
NO_NAMES += ["../token}", "..}", ".hidden}", "/etc/passwd}", "a/../token}", "a\\..\\token}"]
ODD = {
    "word": "hunter2hunter2",
    "quotes": 'it\'s "so" $secret',
    "backslash": "do\\main\\user",
    "umlaut": "pässwörd ключ",
    "lines": "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----",
    "long": "eyJhbGciOiJSUzI1NiJ9." + "Q0ZHSEpLTE1OT1A" * 60,
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


@pytest.fixture
def keeper(own_server, folder, monkeypatch):
    """A server with a folder of secrets, and one in its environment."""
    (folder / "token").write_text("hunter2hunter2\n")
    monkeypatch.setenv("COUATL_SECRET_token", "of the environment")
    monkeypatch.setenv("COUATL_SECRET_other", "otherwise")
    return own_server("--secrets", folder)


def telling(connection, parameters, name="telling", body=TELLING, **settings):
    functions = {"read_function_name": "read", "init_function_name": "init", **settings}
    create(connection, name, "s string", body, init_function_parameters=parameters, **functions)


def told(connection, parameters, **settings):
    telling(connection, parameters, write_function_name="write", **settings)
    return value(connection, "SELECT s FROM telling")


def leaked(secret, text):
    """A part of a secret that stands in a text, and is long enough to be no coincidence."""
    lines = [line for line in secret.splitlines() if " KEY" not in line]
    parts = [line[at : at + 12] for line in lines for at in range(0, max(1, len(line) - 11), 4)]
    return next((part for part in [*parts, repr(secret)[1:-1], ascii(secret)[1:-1]] if part in text), None)


def test_secrets_are_of_the_folder_and_then_of_the_environment(keeper, folder):
    with keeper.connect() as connection:
        assert told(connection, "${secret:token}") == "hunter2hunter2"
        assert told(connection, "user=ann password=${secret:token};${secret:other}!") == (
            "user=ann password=hunter2hunter2;otherwise!"
        )
        (folder / "token").unlink()
        assert value(connection, "SELECT s FROM telling") == "user=ann password=of the environment;otherwise!"
        for text in ["$secret:token", "${token}", "$${secret}", "{secret:token}", ""]:
            telling(connection, text or "none")
            assert value(connection, "SELECT s FROM telling") == text or "none"


def test_a_secret_is_what_it_is_when_the_query_starts(keeper, folder):
    with keeper.connect() as connection:
        assert told(connection, "${secret:token}") == "hunter2hunter2"
        with connection.cursor() as cursor:
            cursor.adbc_prepare("SELECT s FROM telling")
            for text, expected in [("new", "new"), ("two\nlines\n", "two\nlines"), ("dos\r\n", "dos"), ("", "")]:
                (folder / "token").write_text(text)
                assert value(connection, "SELECT s FROM telling") == expected
        (folder / "later").symlink_to(folder / "token")
        (folder / "token").write_text("linked")
        assert told(connection, "${secret:later}") == "linked"


def test_without_a_folder_the_environment_is_asked(own_server, monkeypatch):
    monkeypatch.setenv("COUATL_SECRET_TOKEN", "of the environment")
    with own_server().connect() as connection:
        assert told(connection, "${secret:TOKEN}") == "of the environment"
        assert "COUATL_SECRET_token" in error_of(connection, "${secret:token}")


def error_of(connection, parameters):
    telling(connection, parameters)
    return error(connection, "SELECT s FROM telling")


def test_a_secret_that_is_missing_is_said(keeper, folder):
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "folder").mkdir()
    with keeper.connect() as connection:
        message = error_of(connection, "${secret:missing}")
        assert "NOT_FOUND" in message
        assert "there is no secret 'missing'" in message
        assert (
            "a file of that name in the folder of secrets, or into the environment variable COUATL_SECRET_missing"
            in (message)
        )
        code, text = refused(keeper, "SELECT s FROM telling")
        assert (code, "there is no secret 'missing'" in text) == (404, True)
        for name in ["binary", "folder"]:
            assert f"'{name}'" in error_of(connection, f"${{secret:{name}}}")
        telling(connection, "${secret:missing}")
        (folder / "missing").write_text("found")
        assert value(connection, "SELECT s FROM telling") == "found"


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_reference_is_refused_when_a_stream_is_made(server, connection, name):
    with pytest.raises(connection.Error, match="cannot read the reference to a secret"):
        telling(connection, f"${{secret:{name}")
    assert "not found" in error(connection, "SELECT * FROM telling")


def test_a_secret_is_read_in_no_other_setting(keeper):
    with keeper.connect() as connection:
        body = TELLING + "\nTEXT = '${secret:token}'\ndef text():\n    return [TEXT]"
        telling(connection, "none", body=body, read_function_name="text")
        assert value(connection, "SELECT s FROM telling") == "${secret:token}"
        assert value(connection, "SELECT '${secret:token}'") == "${secret:token}"


def test_what_is_shown_is_the_reference(keeper):
    with keeper.connect() as connection:
        body = "import time\n" + TELLING + "\ndef slow():\n    yield 'x'\n    while True:\n        time.sleep(0.01)"
        telling(connection, "user=ann ${secret:token}", body=body, read_function_name="slow", mode="streaming")
        with connection.cursor() as cursor, keeper.connect() as asking:
            cursor.execute("SELECT s FROM telling WHERE s <> '${secret:token}'")
            assert cursor.fetchone() == ("x",)
            shown = value(asking, "SHOW CREATE STREAM telling")
            assert "init_function_parameters = 'user=ann ${secret:token}'" in shown
            for sql in ["SHOW QUERIES", "SELECT * FROM system.queries"]:
                assert "${secret:token}" in str(rows(asking, sql))
            for sql in [
                "SHOW QUERIES",
                "SELECT * FROM system.queries",
                "SHOW CREATE STREAM telling",
                "SHOW ALL",
                "EXPLAIN VERBOSE SELECT s FROM telling",
                "EXPLAIN ANALYZE SELECT s FROM telling LIMIT 1",
                "SELECT * FROM information_schema.tables",
                "SELECT * FROM information_schema.views",
            ]:
                assert "hunter2" not in str(rows(asking, sql)), sql
            assert "hunter2" not in str(asking.adbc_get_objects(depth="all").read_all().to_pylist())
            assert b"hunter2" not in ask(keeper, "SHOW CREATE STREAM telling")[1]
            run(asking, shown.replace("CREATE ", "CREATE OR REPLACE ", 1))
            cursor.adbc_cancel()
        wait_until(lambda: not queries(connection), "no queries")
    assert "hunter2" not in keeper.log.read_text()


@pytest.mark.parametrize("how", RAISED)
def test_an_exception_says_the_reference(keeper, how):
    with keeper.connect() as connection:
        for place in ["in_init", "in_read", "in_deinit"]:
            body = RAISING.format(**{"in_init": "pass", "in_read": "pass", "in_deinit": "pass", place: RAISED[how]})
            telling(connection, "${secret:token}", body=body, deinit_function_name="deinit")
            message = error(connection, "SELECT s FROM telling")
            assert "${secret:token}" in message and "hunter2" not in message
            if place != "in_deinit":
                code, text = refused(keeper, "SELECT s FROM telling")
                assert (code, "${secret:token}" in text, "hunter2" in text) == (500, True, False)
    assert "hunter2" not in keeper.log.read_text()


@pytest.mark.parametrize("kind", ODD)
def test_an_exception_says_nothing_of_a_secret_however_it_is_written(keeper, folder, kind):
    """repr() doubles backslashes and writes line breaks; a long text is shortened; a traceback shows it by lines."""
    secret = ODD[kind]
    (folder / "token").write_text(secret)
    leaks = {}
    with keeper.connect() as connection:
        for how in ["plain", "key", "repr", "cause"]:
            body = RAISING.format(in_init="pass", in_read=RAISED[how], in_deinit="pass")
            telling(connection, "${secret:token}", body=body, deinit_function_name="deinit")
            message = error(connection, "SELECT s FROM telling")
            if leak := leaked(secret, message):
                leaks[how] = leak
        body = RAISING.format(in_init="pass", in_read="return [(given[0],)]", in_deinit="pass")
        create(
            connection,
            "telling",
            "n int64",
            body,
            read_function_name="read",
            init_function_name="init",
            init_function_parameters="${secret:token}",
        )
        message = error(connection, "SELECT n FROM telling")
        assert "cannot store" in message
        if leak := leaked(secret, message):
            leaks["misfit"] = leak
    if leak := leaked(secret, keeper.log.read_text()):
        leaks["log"] = leak
    assert leaks == {}


def test_a_secret_that_begins_like_another_is_hidden_whole(keeper, folder):
    (folder / "longer").write_text("hunter2hunter2-swordfish")
    with keeper.connect() as connection:
        for parameters in ["${secret:token} ${secret:longer}", "${secret:longer} ${secret:token}"]:
            body = RAISING.format(in_init="raise ValueError(parameters)", in_read="pass", in_deinit="pass")
            telling(connection, parameters, body=body)
            message = error(connection, "SELECT s FROM telling")
            assert "swordfish" not in message and f"ValueError: {parameters}" in message


def test_a_sink_has_secrets_and_keeps_them(keeper):
    with keeper.connect() as connection:
        telling(connection, "${secret:token}", write_function_name="write")
        message = error(connection, "INSERT INTO telling VALUES ('x')")
        assert "cannot write with ${secret:token}" in message and "hunter2" not in message
        code, text = refused(keeper, None, body=b"INSERT INTO telling VALUES ('x')")
        assert (code, "cannot write with ${secret:token}" in text, "hunter2" in text) == (500, True, False)
        with connection.cursor() as cursor, pytest.raises(connection.Error) as ingested:
            cursor.adbc_ingest("telling", pyarrow.table({"s": ["x"]}), mode="append")
        assert "hunter2" not in str(ingested.value)
    assert "hunter2" not in keeper.log.read_text()


def test_an_error_after_the_first_rows_says_the_reference(keeper):
    with keeper.connect() as connection:
        body = TELLING + "\ndef two():\n    yield 'x'\n    raise ValueError(given[0])"
        telling(connection, "${secret:token}", body=body, read_function_name="two", mode="streaming")
        for sql in ["SELECT s FROM telling", "CREATE TABLE t AS SELECT s FROM telling LIMIT 5", "EXECUTE kept"]:
            if sql.startswith("EXECUTE"):
                run(connection, "PREPARE kept AS SELECT s FROM telling")
            message = error(connection, sql)
            assert "${secret:token}" in message and "hunter2" not in message
    assert "hunter2" not in keeper.log.read_text()


@pytest.fixture
def external(keeper, folder, tmp_path):
    """Makes an external table of a file whose values are separated by what a secret is."""
    (folder / "separator").write_text(";\n")
    data = tmp_path / "data.csv"
    data.write_text("a;b\n1;2\n")

    def make(connection, **options):
        said = ", ".join(f"'{name.replace('_', '.', 1)}' '{text}'" for name, text in options.items())
        statement = f"CREATE EXTERNAL TABLE files STORED AS CSV LOCATION '{data}' OPTIONS ({said})"
        run(connection, statement)

    return make


def test_an_external_table_has_secrets_in_its_options(keeper, external):
    with keeper.connect() as connection:
        external(connection, format_delimiter="${secret:separator}", format_has_header="true")
        assert rows(connection, "SELECT a, b FROM files") == [(1, 2)]
        shown = str(rows(connection, "SHOW CREATE TABLE files"))
        assert "${secret:separator}" in shown
        run(connection, "DROP TABLE files")


def test_an_external_table_says_nothing_of_its_secrets(keeper, external):
    with keeper.connect() as connection:
        leaks = []
        for option in ["format_has_header", "format_delimiter", "format_compression", "no_such"]:
            with pytest.raises(connection.Error) as refusal:
                external(connection, **{option: "${secret:token}"})
            leaks += [option] if "hunter2" in str(refusal.value) else []
        assert leaks == []
        with pytest.raises(connection.Error, match="there is no secret 'missing'"):
            external(connection, format_delimiter="${secret:missing}")
        for wrong in ["${secret:../secrets/token}", "${secret:", "${secret:}"]:
            with pytest.raises(connection.Error, match="cannot read the reference"):
                external(connection, format_delimiter=wrong)
        assert "not found" in error(connection, "SELECT * FROM files")
    assert "hunter2" not in keeper.log.read_text()


def test_what_only_begins_like_a_reference_is_hidden(keeper, external):
    """A password may begin with `${`, and a reference may be part of a value that has more."""
    with keeper.connect() as connection:
        for text in ["${not a reference", "${secret:token}swordfish"]:
            with pytest.raises(connection.Error) as refusal:
                external(connection, aws_secret_access_key=text)
            assert "swordfish" not in str(refusal.value)


def test_a_folder_that_is_there_no_more_is_a_missing_secret(own_server, folder):
    with own_server("--secrets", folder).connect() as connection:
        shutil.rmtree(folder)
        assert "there is no secret 'token'" in error_of(connection, "${secret:token}")


def test_a_query_that_waits_reads_its_secret_when_its_turn_has_come(own_server, folder, tmp_path):
    (folder / "token").write_text("old secret")
    server = own_server("--secrets", folder, "--max-queries", "1")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with server.connect() as connection, server.connect() as waiting, waiting.cursor() as cursor:
        telling(connection, "${secret:token}")
        create(
            connection, "held", "n int64", f"def held():\n    return [len(open({str(pipe)!r}).read())]", mode="batch"
        )
        with connection.cursor() as holding:
            holding.execute("SELECT n FROM held")
            wait_until(lambda: len(queries_of(server)) == 1, "it holds the turn")
            cursor.execute("SELECT s FROM telling")
            wait_until(lambda: "queued" in queries_of(server), "it waits")
            (folder / "token").write_text("new secret")
            pipe.write_text("go")
            assert holding.fetchone() == (2,)
        assert cursor.fetchone() == ("new secret",)


def queries_of(server):
    return ask(server, "SELECT state FROM system.queries")[1].decode().split()


CLEANING = """
import threading

from couatl.sources import PushSource

given = []

def init(parameters):
    given.append(parameters)

class Cleaning(PushSource):
    def run(self):
        self.ended = threading.Event()
        self.next(("here",))
        self.commit()
        self.ended.wait()
        raise ValueError("cannot log out with " + given[0])

    def on_stop(self):
        self.ended.set()
"""


def test_what_a_cleanup_raises_is_logged_without_its_secrets(keeper):
    with keeper.connect() as connection:
        settings = {"read_function_name": "Cleaning", "mode": "streaming", "body": CLEANING}
        telling(connection, "${secret:token}", name="cleaning", **settings)
        assert value(connection, "SELECT s FROM cleaning LIMIT 1") == "here"
    logged = wait_until(
        lambda: "raised when it was ended" in keeper.log.read_text() and keeper.log.read_text(), "a log"
    )
    assert "cannot log out with ${secret:token}" in logged and "hunter2" not in logged

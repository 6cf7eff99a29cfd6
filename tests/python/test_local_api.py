"""The way back: what a stream's Python may ask of the server that runs it, as whom, and for how long."""

import contextlib
import json
import textwrap
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from adbc_driver_flightsql import dbapi
from harness import create, error, queries, query_running, rows, run, value, wait_for_text, wait_until
from test_http import ask, basic, refused
from test_limits import unread, wait_until_full
from test_users import connect, user, users  # noqa: F401

# What Timeplus' documentation has, with its indentation, and a port to be filled in.
EXAMPLE = """
CREATE EXTERNAL STREAM py_user_count (total int64)
AS $$
import base64, urllib.request

def py_user_count():
    creds = base64.b64encode(
        f"{__timeplus_local_api_user}:{__timeplus_local_api_password}".encode()
    ).decode()
    req = urllib.request.Request(
        "http://localhost:8123/?query=SELECT+count()+FROM+table(users)",
        headers={"Authorization": f"Basic {creds}"},
    )
    with urllib.request.urlopen(req) as r:
        return [(int(r.read().strip()),)]
$$
SETTINGS
    type = 'python',
    mode = 'batch';
"""
USERS = "def users():\n    return [(1, 'ann'), (2, 'bob'), (3, 'cleo')]"

# Functions for bodies that ask their server: over HTTP, and over Flight.
ASKING = """
import base64, json, time, urllib.error, urllib.parse, urllib.request

USER, PASSWORD = __couatl_local_api_user, __couatl_local_api_password

def http(query, method="GET"):
    token = base64.b64encode(f"{{USER}}:{{PASSWORD}}".encode()).decode()
    url = "{http}/?" + urllib.parse.urlencode({{"query": query}})
    request = urllib.request.Request(url, method=method, headers={{"Authorization": f"Basic {{token}}"}})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return f"{{refusal.code}}: {{refusal.read().decode()}}"

def flight(query):
    from adbc_driver_flightsql import dbapi
    login = {{"username": USER, "password": PASSWORD}}
    with dbapi.connect("{uri}", db_kwargs=login, autocommit=True) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(query)
            return json.dumps(cursor.fetchall())
        except dbapi.Error as refusal:
            return str(refusal)

def keep(path):
    with open(path + ".new", "w") as file:
        json.dump([USER, PASSWORD], file)
    import os
    os.rename(path + ".new", path)
"""


def asking(server, connection, name, body, columns="answer string", **settings):
    """Makes a stream whose functions ask the server."""
    text = ASKING.format(http=server.http, uri=server.uri) + textwrap.dedent(body)
    create(connection, name, columns, text, **{"read_function_name": "read", **settings})


def posting(server, connection, name, query):
    """Makes a stream of one row: what the server answers to this statement."""
    asking(server, connection, name, f"def read():\n    return [http({query!r}, 'POST')]", mode="batch")


HOLDING = """
def read():
    keep({path!r})
    yield "kept"
    try:
        while True:
            time.sleep(0.01)
    finally:
        keep({path!r} + ".ended")
"""


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept"


def credentials(path):
    return json.loads(wait_for_text(Path(path), "]"))


def over_flight(server, name, password):
    with dbapi.connect(server.uri, db_kwargs={"username": name, "password": password}, autocommit=True) as connection:
        return value(connection, "SELECT 1")


@pytest.fixture
def guarded(own_server, users):  # noqa: F811
    return own_server("--users", users)


def none_running(connection):
    wait_until(lambda: not queries(connection), "no queries")


def test_the_documented_example(server, connection):
    create(connection, "users", "id int32, name string", USERS, mode="batch")
    run(connection, EXAMPLE.replace("8123", str(urllib.parse.urlsplit(server.http).port)))
    assert rows(connection, "SELECT * FROM py_user_count") == [(3,)]
    assert ask(server, "SELECT total FROM table(py_user_count)")[1] == b"3\n"
    run(connection, "DROP STREAM py_user_count; DROP STREAM users")


def test_the_documented_example_where_one_must_log_in(guarded):
    with connect(guarded, "dora") as dora, connect(guarded, "rita") as rita:
        create(dora, "users", "id int32, name string", USERS, mode="batch")
        run(dora, EXAMPLE.replace("8123", str(urllib.parse.urlsplit(guarded.http).port)))
        assert rows(dora, "SELECT * FROM py_user_count") == [(3,)]
        assert rows(rita, "SELECT * FROM py_user_count") == [(3,)]


def test_the_names_are_there_in_every_function(server, connection, tmp_path):
    written = tmp_path / "written"
    body = """
    told = []

    def names():
        return (__timeplus_local_api_user, __timeplus_local_api_password,
                __couatl_local_api_user, __couatl_local_api_password)

    AT_IMPORT = names()

    def init():
        told.append(names())

    def read():
        told.append(names())
        assert [AT_IMPORT] * 2 == told, "the same ones everywhere"
        user, password, *others = AT_IMPORT
        assert others == [user, password]
        return [(len(user), len(password) >= 16, http("SELECT 6 * 7"), flight("SELECT 6 * 7"))]

    def write(*columns):
        with open({path!r}, "a") as file:
            file.write(http("SELECT 6 * 7"))

    def deinit():
        assert told[0] == names()
        assert http("SELECT 6 * 7") == "42\\n", "while it cleans up, the query is not over"
    """.replace("{path!r}", repr(str(written)))
    functions = {"init_function_name": "init", "deinit_function_name": "deinit", "write_function_name": "write"}
    columns = "n int64, long bool, http string, flight string"
    asking(server, connection, "asking", body, columns, mode="batch", **functions)
    ((length, long, over_http, over_adbc),) = rows(connection, "SELECT * FROM asking")
    assert (length > 0, long, over_http, over_adbc) == (True, True, "42\n", "[[42]]")
    run(connection, "INSERT INTO asking VALUES (1, true, 'a', 'b')")
    assert written.read_text() == "42\n"
    run(connection, "DROP STREAM asking")


def test_they_are_good_for_as_long_as_the_query_runs(guarded, kept):
    with connect(guarded, "dora") as dora, dora.cursor() as cursor:
        asking(guarded, dora, "holding", HOLDING.format(path=str(kept)), mode="streaming")
        cursor.execute("SELECT * FROM holding")
        assert cursor.fetchone() == ("kept",)
        name, password = credentials(kept)
        assert ask(guarded, "SELECT 1", headers=basic(name, password))[1] == b"1\n"
        assert over_flight(guarded, name, password) == 1
        for who, wrong in [(name, password[:-1]), ("nobody", password)]:
            assert refused(guarded, "SELECT 1", headers=basic(who, wrong))[0] == 401
        with dbapi.connect(
            guarded.uri, db_kwargs={"username": name, "password": password}, autocommit=True
        ) as connection:
            assert value(connection, "SELECT 1") == 1
            cursor.adbc_cancel()
            none_running(dora)
            assert "UNAUTHENTICATED" in error(connection, "SELECT 1").upper()
        assert refused(guarded, "SELECT 1", headers=basic(name, password))[0] == 401
        bearer = {"Authorization": f"Bearer {name}.{password}"}
        assert refused(guarded, "SELECT 1", headers=bearer)[0] == 401
        with pytest.raises(Exception, match="wrong user or password"):
            over_flight(guarded, name, password)


def test_each_query_has_its_own(guarded, kept):
    with connect(guarded, "dora") as dora:
        body = f"def read():\n    keep({str(kept)!r})\n    return ['kept']"
        asking(guarded, dora, "keeping", body, mode="batch")
        found = []
        for _ in range(2):
            assert rows(dora, "SELECT * FROM keeping") == [("kept",)]
            found.append(credentials(kept))
        assert found[0][0] != found[1][0] and found[0][1] != found[1][1]


def test_they_end_with_a_query_whose_client_does_not_read(guarded, kept):
    with connect(guarded, "dora") as dora, connect(guarded, "adam") as adam, contextlib.ExitStack() as left:
        body = f"""
        def read():
            keep({str(kept)!r})
            try:
                while True:
                    yield ["x" * 1000] * 1000
            finally:
                keep({str(kept)!r} + ".ended")
        """
        asking(guarded, dora, "gushing", body, mode="streaming")
        left.enter_context(unread(guarded, "SELECT * FROM gushing", basic("dora")))
        name, password = credentials(kept)
        wait_until_full(adam, "SELECT * FROM gushing")
        run(adam, f"KILL QUERY '{query_running(adam, 'FROM gushing')}'")
        wait_for_text(Path(f"{kept}.ended"), "]")
        none_running(adam)
        assert refused(guarded, "SELECT 1", headers=basic(name, password))[0] == 401


# What each asks of the server, as whose stream, for whom; and what stands in the answer, or why it is refused.
MAY = [
    ("adam", "adam", "SELECT count(*) FROM numbers", "3\n"),
    ("dora", "rita", "SELECT count(*) FROM numbers", "3\n"),
    ("dora", "rita", "CREATE TABLE made_by_rita (n bigint)", "user 'rita' (reader) may not create or drop tables"),
    ("dora", "will", "CREATE TABLE made_by_will (n bigint)", ""),
    ("dora", "adam", "GRANT SELECT ON numbers TO rita", "user 'dora' (developer) may not grant or revoke"),
    ("adam", "dora", "GRANT SELECT ON numbers TO rita", "user 'dora' (developer) may not grant or revoke"),
    ("adam", "adam", "GRANT SELECT ON numbers TO rita", ""),
    ("adam", "rita", "SELECT count(*) FROM closed", "user 'rita' (reader) may not SELECT 'closed': it was revoked"),
    ("dora", "adam", "SELECT count(*) FROM closed", "user 'dora' (developer) may not SELECT 'closed': it was revoked"),
    (
        "adam",
        "dora",
        "INSERT INTO closed VALUES (1)",
        "user 'dora' (developer) may not INSERT 'closed': it was revoked",
    ),
    ("adam", "will", "INSERT INTO closed VALUES (1)", ""),
    ("dora", "adam", "SET datafusion.runtime.memory_limit = '1G'", "user 'dora' (developer) may not change settings"),
]


@pytest.fixture
def ruled(guarded):
    """A server with a stream that not everybody may read."""
    with connect(guarded, "adam") as adam:
        create(adam, "numbers", "n int64", "def numbers():\n    return [1, 2, 3]", mode="batch")
        run(adam, "CREATE TABLE closed AS VALUES (1), (2)")
        run(adam, "REVOKE SELECT ON closed FROM rita; REVOKE SELECT, INSERT ON closed FROM dora")
    return guarded


def test_it_may_what_both_may(ruled):
    for number, (creator, caller, statement, expected) in enumerate(MAY):
        with connect(ruled, creator) as creating, connect(ruled, caller) as calling:
            name = f"asking_{number}"
            posting(ruled, creating, name, statement)
            answer = value(calling, f"SELECT answer FROM {name}")
            assert (expected in answer) if expected else (answer == ""), (creator, caller, statement, answer)


def test_what_is_granted_and_revoked_later_counts(ruled):
    with connect(ruled, "dora") as dora, connect(ruled, "adam") as adam, connect(ruled, "rita") as rita:
        posting(ruled, dora, "asking", "SELECT count(*) FROM numbers")
        assert value(rita, "SELECT answer FROM asking") == "3\n"
        run(adam, "REVOKE SELECT ON numbers FROM dora")
        assert "user 'dora' (developer) may not SELECT 'numbers'" in value(rita, "SELECT answer FROM asking")
        run(adam, "GRANT SELECT ON numbers TO dora; REVOKE SELECT ON numbers FROM rita")
        assert "user 'rita' (reader) may not SELECT 'numbers'" in value(rita, "SELECT answer FROM asking")
        assert value(dora, "SELECT answer FROM asking") == "3\n"


def test_a_creator_who_is_gone_lends_nothing(own_server, tmp_path):
    path = tmp_path / "users"

    def add(name, role):
        assert user("add", name, "--role", role, "--users", path, password=name[::-1]).returncode == 0

    add("dora", "developer")
    add("adam", "admin")
    server = own_server("--users", path)
    with connect(server, "dora") as dora, connect(server, "adam") as adam:
        posting(server, dora, "asking", "SELECT 1")
        assert value(adam, "SELECT answer FROM asking") == "1\n"
        add("dora", "reader")
        posting(server, adam, "adams", "CREATE TABLE t (n bigint)")
        assert value(adam, "SELECT answer FROM adams") == ""
        assert user("remove", "dora", "--users", path).returncode == 0
        assert value(adam, "SELECT answer FROM asking").startswith("401: ")


def test_a_stream_lends_its_creator_nothing_of_the_admin_who_reads_it(ruled, kept):
    """What is shown to admins alone, and what they alone may end, is not for the Python of others whom they read."""
    with connect(ruled, "adam") as adam, connect(ruled, "dora") as dora, connect(ruled, "will") as will:
        hidden = "def init(given): pass\ndef read():\n    while True:\n        yield 'hunter2'"
        settings = {"init_function_name": "init", "init_function_parameters": "hunter2", "mode": "streaming"}
        create(adam, "secret", "s string", hidden, read_function_name="read", **settings)
        with will.cursor() as cursor:
            cursor.execute("SELECT s FROM secret")
            cursor.fetchone()
            query = query_running(adam, "FROM secret")
            wrong = {}
            for name, statement, forbidden in [
                ("bodies", "SHOW CREATE STREAM secret", "hunter2"),
                ("texts", "SELECT sql FROM system.queries", "FROM secret"),
                ("shown", "SHOW QUERIES", "FROM secret"),
            ]:
                posting(ruled, dora, name, statement)
                answer = value(adam, f"SELECT answer FROM {name}")
                if forbidden in answer:
                    wrong[statement] = answer
            posting(ruled, dora, "killing", f"KILL QUERY '{query}'")
            answer = value(adam, "SELECT answer FROM killing")
            if "no query" not in answer:
                wrong["KILL QUERY"] = answer
            assert wrong == {}


def test_a_stream_made_by_a_stream_is_its_creators_too(ruled):
    """Else a developer's Python would have an admin who reads it make a stream that may what admins may."""
    with connect(ruled, "adam") as adam, connect(ruled, "dora") as dora, connect(ruled, "rita") as rita:
        run(adam, "REVOKE SELECT ON numbers FROM rita")
        inner = (
            ASKING.format(http=ruled.http, uri=ruled.uri)
            + "def read():\n    return [http('GRANT SELECT ON numbers TO rita', 'POST')]"
        )
        statement = (
            f"CREATE OR REPLACE EXTERNAL STREAM planted (answer string) AS $x$\n{inner}\n$x$ "
            "SETTINGS type = 'python', mode = 'batch', read_function_name = 'read'"
        )
        body = f"def read():\n    return [http({statement!r}, 'POST'), http('SELECT * FROM planted')]"
        asking(ruled, dora, "planting", body, mode="batch")
        answers = [answer for (answer,) in rows(adam, "SELECT answer FROM planting")]
        assert "may not SELECT 'numbers'" in error(rita, "SELECT * FROM numbers"), answers
        rows(adam, "SELECT * FROM planted")
        assert "may not SELECT 'numbers'" in error(rita, "SELECT * FROM numbers"), "the admin has read it later"


def test_who_asks_through_another_stream_is_still_asked_for(ruled):
    """A stream of dora's reads one of adam's: that one's Python may no more than dora, whose stream asks."""
    with connect(ruled, "adam") as adam, connect(ruled, "dora") as dora:
        posting(ruled, adam, "adams", "SELECT count(*) FROM closed")
        posting(ruled, dora, "doras", "SELECT * FROM adams")
        assert value(adam, "SELECT answer FROM adams") == "2\n"
        assert "user 'dora' (developer) may not SELECT 'closed'" in value(adam, "SELECT answer FROM doras")


def test_a_sink_may_what_both_may(ruled, tmp_path):
    written = tmp_path / "written"
    with connect(ruled, "adam") as adam, connect(ruled, "dora") as dora:
        body = f"""
        def read():
            return []

        def write(statement):
            with open({str(written)!r}, "w") as file:
                file.write(http(statement[0], "POST") + "|")
        """
        asking(ruled, dora, "sink", body, "statement string", write_function_name="write")
        run(adam, "INSERT INTO sink VALUES ('GRANT SELECT ON numbers TO rita')")
        assert "user 'dora' (developer) may not grant or revoke" in wait_for_text(written, "|")
        run(adam, "INSERT INTO sink VALUES ('SELECT count(*) FROM numbers')")
        assert written.read_text() == "3\n|"


def test_it_waits_for_no_turn(own_server):
    server = own_server("--max-queries", "1", "--queue-time", "5")
    with server.connect() as connection:
        create(connection, "numbers", "n int64", "def numbers():\n    return [1, 2, 3]", mode="batch")
        body = "def read():\n    return [http('SELECT sum(n) FROM numbers'), flight('SELECT sum(n) FROM numbers')]"
        asking(server, connection, "asking", body, mode="batch")
        assert rows(connection, "SELECT * FROM asking") == [("6\n",), ("[[6]]",)]
        body = "def read():\n    return [http('SELECT answer FROM asking LIMIT 1')]"
        asking(server, connection, "outer_asking", body, mode="batch")
        assert rows(connection, "SELECT * FROM outer_asking") == [("6\\n\n",)]


@pytest.mark.parametrize("way", ["http", "flight"])
def test_a_stream_that_asks_for_itself_comes_to_an_end(own_server, way):
    server = own_server("--max-queries", "1")
    with server.connect() as connection:
        body = f"def read():\n    return [{way}('SELECT answer FROM itself')]"
        asking(server, connection, "itself", body, mode="batch")
        assert "does a stream ask for itself?" in value(connection, "SELECT answer FROM itself")
        none_running(connection)


def test_streams_that_ask_for_each_other_come_to_an_end(own_server):
    server = own_server("--max-queries", "1")
    with server.connect() as connection:
        for name, other in [("one", "two"), ("two", "one")]:
            body = f"def read():\n    got = http('SELECT answer FROM {other}')\n    raise ValueError(got[-200:])"
            asking(server, connection, name, body, mode="batch")
        message = error(connection, "SELECT answer FROM one")
        assert "does a stream ask for itself?" in message or "ValueError" in message
        none_running(connection)


INNER = """
def read():
    keep({path!r})
    {first}
    try:
        while True:
            time.sleep(0.01)
            {each}
    finally:
        keep({path!r} + ".ended")
"""


@pytest.mark.parametrize(
    "first, each", [("yield 'row'", "yield 'row'"), ("yield 'row'", "pass"), ("", "if not time: yield 'row'")]
)
@pytest.mark.parametrize("end", ["kill", "leave"])
def test_the_end_of_the_outer_is_that_of_the_inner(guarded, kept, first, each, end):
    """Whether the inner gives rows, or has given one, or none at all."""
    with connect(guarded, "dora") as dora, connect(guarded, "adam") as adam, contextlib.ExitStack() as clients:
        asking(guarded, dora, "inside", INNER.format(path=str(kept), first=first, each=each), mode="streaming")
        asking(guarded, dora, "outside", "def read():\n    yield http('SELECT answer FROM inside')", mode="streaming")
        pool = clients.enter_context(ThreadPoolExecutor(1))
        client = clients.enter_context(connect(guarded, "dora"))
        cursor = clients.enter_context(client.cursor())
        cursor.execute("SELECT answer FROM outside")
        outer = pool.submit(cursor.fetchone)
        wait_for_text(kept, "]")
        query_running(adam, "SELECT answer FROM inside")
        if end == "kill":
            run(adam, f"KILL QUERY '{query_running(adam, 'SELECT answer FROM outside')}'")
        else:
            cursor.adbc_cancel()
        with pytest.raises(dbapi.Error):
            outer.result(20)
        wait_for_text(Path(f"{kept}.ended"), "]", patience=5)
        none_running(adam)


def test_what_a_thread_of_the_outer_asks_for_ends_with_it(guarded, kept):
    """Nobody waits for it, it has taken no turn, and it is not to run on without one."""
    with connect(guarded, "dora") as dora, connect(guarded, "adam") as adam:
        inner = INNER.format(path=str(kept), first="yield 'row'", each="yield 'row'")
        asking(guarded, dora, "inside", inner, mode="streaming")
        body = f"""
        import os, threading

        def read():
            threading.Thread(target=http, args=("SELECT answer FROM inside",), daemon=True).start()
            while not os.path.exists({str(kept)!r}):
                time.sleep(0.01)
            return ["done"]
        """
        asking(guarded, dora, "outside", body, mode="batch")
        try:
            assert rows(dora, "SELECT answer FROM outside") == [("done",)]
            wait_for_text(Path(f"{kept}.ended"), "]", patience=5)
        finally:
            for query, _, _ in queries(adam):
                run(adam, f"KILL QUERY '{query}'")
        none_running(adam)


def test_they_are_told_to_nobody_else(guarded, kept):
    with connect(guarded, "dora") as dora, connect(guarded, "adam") as adam:
        for raising in ["ValueError(PASSWORD)", "KeyError({'password': PASSWORD})", "OSError(f'{USER}:{PASSWORD}')"]:
            body = f"def read():\n    keep({str(kept)!r})\n    raise {raising}"
            asking(guarded, dora, "telling", body, mode="batch")
            for message in [
                error(dora, "SELECT * FROM telling"),
                refused(guarded, "SELECT * FROM telling", headers=basic("dora"))[1],
            ]:
                _, password = credentials(kept)
                assert "(password)" in message and password not in message
            assert password not in guarded.log.read_text()
        asking(guarded, dora, "holding", HOLDING.format(path=str(kept)), mode="streaming")
        with dora.cursor() as cursor:
            cursor.execute("SELECT * FROM holding")
            cursor.fetchone()
            _, password = credentials(kept)
            for sql in ["SHOW QUERIES", "SELECT * FROM system.queries", "SHOW CREATE STREAM holding", "SHOW ALL"]:
                assert password not in str(rows(adam, sql))
            assert password not in ask(guarded, None, body=b"SHOW QUERIES", headers=basic("adam"))[1].decode()
            cursor.adbc_cancel()
        none_running(adam)


def test_a_misfit_does_not_tell_them(guarded, kept):
    with connect(guarded, "dora") as dora:
        asking(guarded, dora, "telling", f"def read():\n    keep({str(kept)!r})\n    return [PASSWORD]", "n int64")
        message = error(dora, "SELECT * FROM telling")
        assert "cannot store" in message and credentials(kept)[1] not in message

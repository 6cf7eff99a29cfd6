"""Who may do what: passwords and tokens, roles, grants, what is shown to whom, TLS."""

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import adbc_driver_flightsql
import grpc
import pyarrow
import pyarrow.flight
import pytest
import trustme
from adbc_driver_flightsql import dbapi
from harness import COUATL, Network, create, error, queries, query_running, rows, run, value, wait_until

ROLES = {"rita": "reader", "will": "writer", "dora": "developer", "adam": "admin"}
ROOTS = adbc_driver_flightsql.DatabaseOptions.TLS_ROOT_CERTS.value
CERTIFICATE = adbc_driver_flightsql.DatabaseOptions.MTLS_CERT_CHAIN.value
KEY = adbc_driver_flightsql.DatabaseOptions.MTLS_PRIVATE_KEY.value


def user(*arguments, password=None):
    return subprocess.run([COUATL, "user", *arguments], input=password, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """A file of one user for each role, whose passwords are their names backwards."""
    path = tmp_path_factory.mktemp("users") / "users"
    for name, role in ROLES.items():
        added = user("add", name, "--role", role, "--users", path, password=name[::-1] + "\n")
        assert added.returncode == 0, added.stderr
    return path


@pytest.fixture
def guarded(own_server, users):
    return own_server("--users", users)


def connect(server, name, password=None):
    password = name[::-1] if password is None else password
    return dbapi.connect(server.uri, db_kwargs={"username": name, "password": password}, autocommit=True)


def test_the_file_of_users_is_kept(tmp_path):
    path = tmp_path / "users"
    for name, role in [("ann", "reader"), ("bob", "admin"), ("ann", "writer")]:
        assert user("add", name, "--role", role, "--users", path, password="secret\n").returncode == 0
    assert user("list", "--users", path).stdout == "writer    ann\nadmin     bob\n"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert "secret" not in path.read_text()
    assert user("remove", "ann", "--users", path).returncode == 0
    gone = user("remove", "ann", "--users", path)
    assert (gone.returncode, gone.stderr) == (1, f"error: there is no user 'ann' in '{path}'\n")
    refused = user("add", "ann", "--role", "king", "--users", path, password="x")
    assert "'king' is no role; it is reader, writer, developer or admin" in refused.stderr
    assert (
        user("add", "ann", "--role", "reader", "--users", path, password="\n").stderr
        == "error: the password is empty\n"
    )


def test_changes_of_the_file_of_users_wait_for_each_other(tmp_path):
    path = tmp_path / "users"
    names = [f"user{n}" for n in range(8)]
    adding = [
        subprocess.Popen([COUATL, "user", "add", name, "--role", "reader", "--users", path], stdin=subprocess.PIPE)
        for name in names
    ]
    for each in adding:
        each.stdin.write(b"secret\n")
        each.stdin.close()
    assert [each.wait(20) for each in adding] == [0] * len(names)
    assert [line.split()[1] for line in user("list", "--users", path).stdout.splitlines()] == names
    assert os.listdir(tmp_path) == ["users"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals of that kind")
def test_who_is_removed_while_a_password_is_typed_stays_removed(tmp_path):
    path = tmp_path / "users"
    assert user("add", "ann", "--role", "reader", "--users", path, password="secret\n").returncode == 0
    script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    command = [sys.executable, "-c", script, COUATL, "user", "add", "bob", "--role", "reader", "--users", path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as adding:

        def typed(prompt):
            said = b""
            while prompt not in said:
                said += adding.stdout.read(1) or pytest.fail(f"it ended with {said!r}")
            adding.stdin.write(b"secret\n")
            adding.stdin.flush()

        typed(b"password: ")
        assert user("remove", "ann", "--users", path).returncode == 0
        typed(b"once more: ")
        assert adding.wait(20) == 0
    assert user("list", "--users", path).stdout.split() == ["reader", "bob"]


def test_a_link_to_the_file_of_users_stays_one(tmp_path, own_server):
    path, link = tmp_path / "file-of-users", tmp_path / "link"
    assert user("add", "ann", "--role", "reader", "--users", path, password="nna\n").returncode == 0
    link.symlink_to(path)
    server = own_server("--users", path)
    assert user("add", "bob", "--role", "reader", "--users", link, password="bob\n").returncode == 0
    assert link.is_symlink()
    with connect(server, "bob") as connection:
        assert value(connection, "SELECT 1") == 1
    assert user("remove", "ann", "--users", link).returncode == 0
    with pytest.raises(dbapi.Error, match="wrong user or password"):
        connect(server, "ann")


def test_strangers_are_told_nothing(guarded):
    for name, password in [("rita", "wrong"), ("nobody", "nobody"), ("rita", "")]:
        with pytest.raises(Exception, match="wrong user or password") as refused:
            connect(guarded, name, password)
        assert "UNAUTHENTICATED" in str(refused.value).upper()
    with pytest.raises(Exception, match="send a user and a password"):
        dbapi.connect(guarded.uri, autocommit=True).cursor().execute("SELECT 1")
    assert "wrong" not in guarded.log.read_text().replace("wrong user or password", "")


def upload(server, messages, **headers):
    """How an upload ends, as gRPC says it."""
    with grpc.insecure_channel(server.uri.removeprefix("grpc://")) as channel:
        put = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
        call = put(messages, timeout=20, metadata=list(headers.items()))
        return call.code(), call.details()


def test_the_uploads_of_strangers_are_not_taken(guarded):
    """What one stream may have on its way is 8 MiB."""
    wrong = base64.b64encode(b"rita:wrong").decode()
    for said, headers in [
        ("who are you?", {}),
        ("wrong user or password", {"authorization": f"Basic {wrong}"}),
        ("the token is not valid", {"authorization": "Bearer stolen"}),
    ]:
        ended, sent = threading.Event(), []

        def nothing(ended=ended):
            ended.wait()
            yield from ()

        def much(ended=ended, sent=sent):
            while not ended.is_set():
                sent.append(1)
                yield b"\xc2\x3e\x80\x80\x40" + bytes(2**20)

        for messages in [nothing, much]:
            code, details = upload(guarded, messages(), **headers)
            assert code == grpc.StatusCode.UNAUTHENTICATED and said in details
        ended.set()
        assert len(sent) <= 16


def test_a_token_is_what_a_password_gives(guarded):
    with pyarrow.flight.connect(guarded.uri.replace("grpc://", "grpc+tcp://")) as client:
        header, token = client.authenticate_basic_token("rita", "atir")
        assert (header, token[:7]) == (b"authorization", b"Bearer ")
    token = token[7:].decode()
    kwargs = {adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token}"}
    with dbapi.connect(guarded.uri, db_kwargs=kwargs, autocommit=True) as connection:
        assert value(connection, "SELECT 1") == 1
    with connect(guarded, "rita", token) as connection:
        assert value(connection, "SELECT 1") == 1
    kwargs = {adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token[:-1]}"}
    with pytest.raises(Exception, match="the token is not valid"):
        dbapi.connect(guarded.uri, db_kwargs=kwargs, autocommit=True).cursor().execute("SELECT 1")


DENIED = {
    "CREATE TABLE made (n bigint)": ["rita"],
    "INSERT INTO numbers VALUES (1)": ["rita"],
    "CREATE EXTERNAL STREAM mine (n int64) AS $$\ndef mine(): return []\n$$ SETTINGS type = 'python'": ["rita", "will"],
    "DROP STREAM numbers": ["rita", "will"],
    "CREATE EXTERNAL TABLE files (n bigint) STORED AS CSV LOCATION '/tmp/none.csv'": ["rita", "will"],
    "COPY numbers TO '/tmp/none.csv' STORED AS CSV": ["rita", "will"],
    "CREATE SCHEMA other": ["rita", "will"],
    "SET datafusion.runtime.memory_limit = '1G'": ["rita", "will", "dora"],
    "GRANT SELECT ON numbers TO rita": ["rita", "will", "dora"],
    "REVOKE SELECT ON numbers FROM rita": ["rita", "will", "dora"],
}
BODY = """
def read(): return [1, 2, 3]
def write(n): pass
"""


def create_numbers(connection):
    create(connection, "numbers", "n int64", BODY, mode="batch", read_function_name="read", write_function_name="write")


def test_a_refusal_says_the_grant_as_it_is_written(guarded):
    with connect(guarded, "dora") as dora, connect(guarded, "rita") as rita, connect(guarded, "adam") as adam:
        name = '"o\'d""d.t%_"'
        create(
            dora,
            name,
            "n int64",
            "def read(): return []\ndef write(n): pass",
            read_function_name="read",
            write_function_name="write",
        )
        message = error(rita, f"INSERT INTO {name} VALUES (1)")
        grant = f"GRANT INSERT ON {name} TO rita"
        assert grant in message
        run(adam, grant)
        run(rita, f"INSERT INTO {name} VALUES (1)")


def test_a_role_is_what_one_may_do(guarded):
    with connect(guarded, "adam") as connection:
        create_numbers(connection)
    for sql, denied in DENIED.items():
        for name in denied:
            with connect(guarded, name) as connection:
                message = error(connection, sql)
                assert f"user '{name}' ({ROLES[name]}) may not " in message, (sql, message)
    for name in ROLES:
        with connect(guarded, name) as connection:
            assert value(connection, "SELECT sum(n) FROM numbers") == 6
            run(connection, "SET datafusion.execution.batch_size = 100")
    for name in ["will", "dora", "adam"]:
        with connect(guarded, name) as connection:
            run(connection, f"INSERT INTO numbers VALUES (1); CREATE TABLE {name} AS VALUES (1)")
            with connection.cursor() as cursor:
                assert cursor.adbc_ingest("numbers", pyarrow.table({"n": [1, 2]}), mode="append") == 2
    with connect(guarded, "rita") as connection, connection.cursor() as cursor:
        for table, mode in [("numbers", "append"), ("fresh", "create")]:
            with pytest.raises(Exception, match="may not"):
                cursor.adbc_ingest(table, pyarrow.table({"n": [1, 2]}), mode=mode)


def test_grants_say_otherwise_of_one_stream(guarded):
    with connect(guarded, "adam") as admin, connect(guarded, "rita") as rita, connect(guarded, "will") as will:
        create_numbers(admin)
        run(admin, "CREATE VIEW seen AS SELECT n + 1 AS n FROM numbers")
        run(rita, "PREPARE sums AS SELECT sum(n) FROM numbers")
        run(admin, "GRANT INSERT ON numbers TO rita; REVOKE SELECT, INSERT ON public.numbers FROM will")
        run(rita, "INSERT INTO numbers VALUES (1)")
        for sql in ["SELECT * FROM numbers", "SELECT * FROM seen", "EXPLAIN SELECT 1 FROM numbers"]:
            assert "user 'will' (writer) may not SELECT 'numbers': it was revoked" in error(will, sql)
        assert "may not INSERT 'numbers': it was revoked" in error(will, "INSERT INTO numbers VALUES (1)")
        assert value(rita, "EXECUTE sums") == 6
        run(admin, "REVOKE SELECT ON numbers FROM rita; GRANT SELECT ON numbers TO will")
        assert "it was revoked" in error(rita, "EXECUTE sums")
        assert value(will, "SELECT count(*) FROM numbers") == 3
        assert "there is no stream, table or view 'nothing'" in error(admin, "GRANT SELECT ON nothing TO rita")
        for slip in ["GRANT INSERT ON numbers TO ritta", "REVOKE SELECT ON numbers FROM ritta"]:
            assert "there is no user 'ritta'; `couatl user list` shows who there is" in error(admin, slip)
        run(admin, "DROP STREAM numbers")
        create_numbers(admin)
        assert value(rita, "SELECT count(*) FROM numbers") == 3


def test_a_revoke_holds_whatever_names_mean_by_default(guarded):
    with connect(guarded, "adam") as admin, connect(guarded, "rita") as rita, connect(guarded, "will") as will:
        run(admin, "CREATE SCHEMA apart; CREATE TABLE apart.salaries AS SELECT 1 AS n")
        run(admin, "CREATE TABLE salaries AS SELECT 4711 AS n; CREATE VIEW paid AS SELECT * FROM salaries")
        run(rita, "PREPARE seen AS SELECT * FROM salaries")
        run(will, "PREPARE more AS INSERT INTO salaries VALUES (1)")
        run(admin, "REVOKE SELECT ON salaries FROM rita; REVOKE INSERT ON salaries FROM will")
        for schema in ["public", "apart", "nowhere"]:
            run(rita, f"SET datafusion.catalog.default_schema = '{schema}'")
            for sql in ["SELECT * FROM couatl.public.paid", "SELECT * FROM public.salaries"]:
                assert "may not SELECT 'salaries': it was revoked" in error(rita, sql), (schema, sql)
            run(will, f"SET datafusion.catalog.default_schema = '{schema}'")
            # What was prepared means what its names mean now.
            if schema == "public":
                assert "may not SELECT 'salaries': it was revoked" in error(rita, "EXECUTE seen")
                assert "may not INSERT 'salaries': it was revoked" in error(will, "EXECUTE more")
            elif schema == "apart":
                assert rows(rita, "EXECUTE seen") == [(1,)]
            else:
                assert "not found" in error(rita, "EXECUTE seen")
        assert value(rita, "SELECT n FROM apart.salaries") == 1
        assert value(admin, "SELECT count(*) FROM salaries") == 1


def test_a_revoke_outlives_its_table(guarded):
    """What is read of it afterwards, by a view or a statement from before, is nothing."""
    with connect(guarded, "adam") as admin, connect(guarded, "will") as will:
        run(admin, "CREATE TABLE gone AS SELECT 9 AS pay; CREATE VIEW over AS SELECT * FROM gone")
        run(will, "PREPARE early AS SELECT * FROM gone")
        run(admin, "REVOKE SELECT ON gone FROM will")
        run(will, "DROP TABLE gone")
        for sql in ["SELECT * FROM over", "EXECUTE early"]:
            assert "gone" in error(will, sql), sql
        run(admin, "DROP VIEW over")


def test_nobody_is_refused_for_tables_of_the_same_name(guarded):
    with connect(guarded, "adam") as admin, connect(guarded, "rita") as rita:
        run(admin, "CREATE SCHEMA twin; CREATE TABLE twin.nums AS SELECT 1 AS n; REVOKE SELECT ON twin.nums FROM rita")
        counted = (
            "WITH RECURSIVE nums AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM nums WHERE n < 3) SELECT * FROM nums"
        )
        assert len(rows(rita, counted)) == 3
        run(admin, "DROP SCHEMA twin CASCADE")


def test_an_external_table_takes_no_place_that_was_revoked(guarded):
    with connect(guarded, "adam") as admin, connect(guarded, "dora") as dora:
        run(admin, "CREATE TABLE place AS SELECT 1 AS n; REVOKE INSERT ON place FROM dora")
        taking = "CREATE OR REPLACE EXTERNAL TABLE place (n int) STORED AS CSV LOCATION '/tmp/x.csv'"
        assert "may not INSERT 'place': it was revoked" in error(dora, taking)
        run(admin, "DROP TABLE place")


def test_a_schema_goes_with_the_grants_in_it_and_not_past_them(guarded):
    with connect(guarded, "adam") as admin, connect(guarded, "dora") as dora, connect(guarded, "rita") as rita:
        run(dora, "CREATE SCHEMA mine; CREATE TABLE mine.kept AS SELECT 1 AS n")
        run(admin, "REVOKE INSERT ON mine.kept FROM dora; GRANT INSERT ON mine.kept TO rita")
        assert "may not INSERT 'kept': it was revoked" in error(dora, "DROP SCHEMA mine CASCADE")
        run(rita, "INSERT INTO mine.kept VALUES (2)")
        run(admin, "DROP SCHEMA mine CASCADE; CREATE SCHEMA mine; CREATE TABLE mine.kept AS SELECT 1 AS n")
        assert "may not INSERT 'kept'" in error(rita, "INSERT INTO mine.kept VALUES (2)")
        run(dora, "DROP SCHEMA mine CASCADE")


def test_nobody_writes_lines_of_their_own_into_the_log(guarded):
    forged = "chr(10) || '2026-01-01 INFO forged' || chr(27) || '[31m'"
    with connect(guarded, "rita") as rita:
        failing = f"SELECT CAST(CASE WHEN value > 9 THEN {forged} ELSE '1' END AS int) FROM generate_series(1, 10)"
        assert "forged" in error(rita, failing)
    wait_until(lambda: "forged" in guarded.log.read_text(), "a line of the log")
    assert not [line for line in guarded.log.read_text().splitlines() if line.startswith("2026-01-01")]
    assert "\x1b" not in guarded.log.read_text()


def test_secrets_are_shown_to_their_owner_and_admins(guarded):
    with connect(guarded, "dora") as dora, connect(guarded, "rita") as rita, connect(guarded, "adam") as admin:
        body = "def init(given): pass\ndef read(): return ['hunter2']"
        settings = {"init_function_name": "init", "init_function_parameters": "password=hunter2"}
        create(dora, "secret", "s string", body, read_function_name="read", **settings)
        for connection in [dora, admin]:
            assert value(connection, "SHOW CREATE STREAM secret").count("hunter2") == 2
        shown = value(rita, "SHOW CREATE STREAM secret")
        assert "hunter2" not in shown
        assert "init_function_parameters = 'hidden'" in shown
    assert "hunter2" not in guarded.log.read_text()


def test_definitions_are_shown_to_nobody_else_by_any_way(guarded):
    with connect(guarded, "dora") as dora, connect(guarded, "rita") as rita:
        body = "TOLD = 'hunter2'\ndef init(given): pass\ndef read(): return [TOLD]"
        settings = {"init_function_name": "init", "init_function_parameters": "swordfish"}
        create(dora, "told", "word string", body, mode="batch", read_function_name="read", **settings)
        for sql in [
            "SHOW CREATE STREAM told",
            "SHOW CREATE TABLE told",
            "SELECT definition FROM information_schema.views WHERE table_name = 'told'",
        ]:
            shown = str(rows(rita, sql))
            assert "told" in shown and "hunter2" not in shown and "swordfish" not in shown, sql
        assert "hunter2" in value(dora, "SHOW CREATE STREAM told")
        copy = "COPY (SELECT 1) TO '/tmp/never.csv' OPTIONS ('aws.secret_access_key' 'hunter2')"
        assert "would show the secrets" in str(error(dora, f"EXPLAIN {copy}"))
        location = "https://ann:hunter2@127.0.0.1:1/x.csv"
        for sql in [
            f"CREATE EXTERNAL TABLE apart (n int) STORED AS CSV LOCATION '{location}'",
            f"COPY (SELECT 1) TO '{location}'",
            f"EXPLAIN COPY (SELECT 1) TO '{location}'",
        ]:
            refusal = str(error(dora, sql))
            assert "give the login with OPTIONS" in refusal and "hunter2" not in refusal, sql
        for written in ["'hunter2'", '"hunter2"', "hunter2", "E'hunter2'"]:
            options = f"OPTIONS ('format.metadata::password' {written})"
            run(dora, f"CREATE OR REPLACE EXTERNAL TABLE apart (n int) STORED AS PARQUET LOCATION '/tmp/x/' {options}")
            for sql in ["SHOW CREATE TABLE apart", "SELECT definition FROM information_schema.views"]:
                shown = str(rows(rita, sql))
                assert "hidden" in shown and "hunter2" not in shown, written
    assert "hunter2" not in guarded.log.read_text()


def test_tracebacks_are_shown_to_those_who_see_the_body(guarded):
    with connect(guarded, "dora") as dora, connect(guarded, "rita") as rita:
        body = "def connect(url):\n    raise OSError('no way')\n\ndef telling():\n    connect('hunter2')\n"
        create(dora, "telling", "n int64", body, mode="batch")
        assert "OSError: no way" in error(rita, "SELECT * FROM telling")
        assert "hunter2" not in error(rita, "SELECT * FROM telling")
        assert "connect('hunter2')" in error(dora, "SELECT * FROM telling")
        create(dora, "taking", "n int64", body.replace("telling():", "taking(n):"), mode="batch")
        with connect(guarded, "will") as will:
            message = error(will, "INSERT INTO taking VALUES (1)")
            assert "OSError: no way" in message and "hunter2" not in message


def test_the_log_of_a_traceback_has_no_secrets(own_server, users, tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "token").write_text("hunter2hunter2")
    server = own_server("--users", users, "--secrets", folder)
    body = "def init(parameters):\n    raise OSError('no way with ' + parameters)\n\ndef read():\n    return []\n"
    with connect(server, "dora") as dora, connect(server, "rita") as rita:
        settings = {"init_function_name": "init", "init_function_parameters": "${secret:token}"}
        create(dora, "telling", "n int64", body, read_function_name="read", **settings)
        assert "no way with ${secret:token}" in error(rita, "SELECT * FROM telling")
    log = server.log.read_text()
    assert "no way with ${secret:token}" in log and "hunter2" not in log


def test_parameters_of_init_functions_are_shown_to_nobody_else(guarded):
    body = "def init(parameters):\n    raise OSError('no way with ' + parameters)\n\ndef read():\n    return []\n"
    settings = {"init_function_name": "init", "init_function_parameters": "host=db password=hunter2"}
    with connect(guarded, "dora") as dora, connect(guarded, "rita") as rita:
        create(dora, "telling", "n int64", body, read_function_name="read", **settings)
        assert "no way with (init_function_parameters)" in error(rita, "SELECT * FROM telling")
        assert "no way with host=db password=hunter2" in error(dora, "SELECT * FROM telling")
    log = guarded.log.read_text()
    assert "no way with (init_function_parameters)" in log and "hunter2" not in log


def test_grants_end_with_their_users(own_server, tmp_path):
    path = tmp_path / "users"
    for name, role in [("adam", "admin"), ("rita", "reader")]:
        assert user("add", name, "--role", role, "--users", path, password=name[::-1]).returncode == 0
    server = own_server("--users", path)
    with connect(server, "adam") as adam:
        run(adam, "CREATE TABLE t AS SELECT 1 AS n; GRANT INSERT ON t TO rita")
        with connect(server, "rita") as rita:
            assert run(rita, "INSERT INTO t VALUES (2)") == 1
        assert user("remove", "rita", "--users", path).returncode == 0
        with pytest.raises(dbapi.Error, match="wrong user or password"):
            connect(server, "rita")
        assert user("add", "rita", "--role", "reader", "--users", path, password="atir").returncode == 0
        with connect(server, "rita") as another:
            assert "may not INSERT 't', which takes the role writer" in error(another, "INSERT INTO t VALUES (3)")
            run(adam, "GRANT INSERT ON t TO rita")
            assert run(another, "INSERT INTO t VALUES (3)") == 1


def test_a_default_reads_nothing(guarded):
    with connect(guarded, "will") as will:
        sql = "CREATE TABLE log (m INT, who VARCHAR DEFAULT (SELECT max(sql) FROM system.queries))"
        assert "the DEFAULT of column 'who' reads rows" in error(will, sql)
        run(will, "CREATE TABLE log (m INT, who VARCHAR DEFAULT upper('a'))")


def test_settings_of_the_server_are_its_admins(guarded):
    with connect(guarded, "will") as will, connect(guarded, "adam") as adam:
        for sql in ["SET datafusion.runtime.memory_limit = '1G'", "RESET datafusion.runtime.memory_limit"]:
            assert "change settings of the whole server" in str(error(will, sql)), sql
        run(adam, "SET datafusion.runtime.memory_limit = '1G'")
        for name, most in [("target_partitions", 256), ("batch_size", 1048576)]:
            refusal = str(error(adam, f"SET datafusion.execution.{name} = {most + 1}"))
            assert f"'datafusion.execution.{name}' is {most} at most" in refusal
            run(adam, f"SET datafusion.execution.{name} = {most}")


def test_who_may_not_write_into_a_table_may_not_replace_it(guarded):
    with connect(guarded, "adam") as adam, connect(guarded, "will") as will, connect(guarded, "rita") as rita:
        run(adam, "CREATE TABLE kept AS SELECT 1 AS n; REVOKE INSERT ON kept FROM will")
        for sql in [
            "INSERT INTO kept VALUES (2)",
            "CREATE OR REPLACE TABLE kept AS SELECT 2 AS n",
            "CREATE OR REPLACE VIEW kept AS SELECT 2 AS n",
            "DROP TABLE kept",
        ]:
            assert "it was revoked" in str(error(will, sql)), sql
        with will.cursor() as cursor, pytest.raises(dbapi.Error, match="it was revoked"):
            cursor.adbc_ingest("kept", pyarrow.table({"n": [3]}), mode="replace")
        assert rows(adam, "SELECT n FROM kept") == [(1,)]
        run(adam, "GRANT INSERT ON kept TO rita; DROP TABLE kept; CREATE TABLE kept AS SELECT 1 AS n")
        assert "may not INSERT" in str(error(rita, "INSERT INTO kept VALUES (2)")), (
            "another table of that name is another"
        )
        run(will, "INSERT INTO kept VALUES (2)")
        run(adam, "CREATE VIEW seen AS SELECT * FROM kept")
        assert "is a view, which is its query" in str(error(adam, "REVOKE SELECT ON seen FROM rita"))


def test_who_hangs_up_guesses_no_faster(guarded):
    def guess(password, patience):
        header = base64.b64encode(f"dora:{password}".encode()).decode()
        request = urllib.request.Request(
            f"{guarded.http}/?query=SELECT+1", headers={"Authorization": f"Basic {header}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:
                return answer.status
        except urllib.error.HTTPError as refusal:
            return refusal.code
        except OSError:
            return None

    assert guess("wrong", 20) == 401
    began = time.monotonic()
    assert guess("wrong", 20) == 401
    assert time.monotonic() - began >= 1
    assert guess("arod", 0.3) is None, "a right password has to wait after wrong ones, too"
    assert guess("arod", 20) == 200


def asked(server, name, password):
    """How a query over HTTP is answered."""
    header = base64.b64encode(f"{name}:{password}".encode()).decode()
    request = urllib.request.Request(f"{server.http}/?query=SELECT+1", headers={"Authorization": f"Basic {header}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_a_password_is_guessed_no_faster_where_its_user_is_known(guarded):
    assert [asked(guarded, "dora", password) for password in ["arod", "wrong"]] == [200, 401]
    began = time.monotonic()
    assert asked(guarded, "dora", "arod") == 200
    assert time.monotonic() - began >= 1


class Elsewhere(Network):
    """What clients come through whom the server sees at another address."""

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.server, source_address=("127.0.0.2", 0))
                self.sockets += [near, far]
                self.start(self.carry, near, far)
                self.start(self.carry, far, near)


@pytest.mark.skipif(sys.platform != "linux", reason="this machine has one address")
def test_who_guesses_keeps_nobody_out_elsewhere(guarded):
    wrong = [("authorization", "Basic " + base64.b64encode(b"dora:wrong").decode())]
    with Elsewhere(guarded) as elsewhere, grpc.insecure_channel(elsewhere.uri.removeprefix("grpc://")) as channel:
        put = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
        guesses = [put(iter(()), timeout=60, metadata=wrong) for _ in range(12)]
        wait_until(lambda: any(guess.done() and "too many" in guess.details() for guess in guesses), "a full queue")
        with connect(guarded, "dora") as dora:
            assert value(dora, "SELECT 1") == 1
        assert sum(not guess.done() for guess in guesses) > 1, "the others still wait"
        for guess in guesses:
            guess.cancel()
    line = next(line for line in guarded.log.read_text().splitlines() if "a login failed" in line)
    assert 'user="dora"' in line and "peer=127.0.0.2" in line


def test_failed_logins_are_logged_once(guarded):
    with pytest.raises(dbapi.Error, match="wrong user or password"):
        connect(guarded, "rita", "wrong")
    assert asked(guarded, "ev\nil" + "x" * 1000, "wrong") == 401
    assert asked(guarded, "rita", "atir") == 200
    first, second = [line for line in guarded.log.read_text().splitlines() if " WARN " in line]
    assert all(word in first for word in ["a login failed", 'user="rita"', "peer=127.0.0.1", "wrong user or password"])
    assert "a login failed" in second and r'user="ev\nilxxx' in second and "x" * 64 not in second


def test_a_broken_file_of_users_is_told_of_once(own_server, tmp_path):
    path = tmp_path / "file-of-users"
    assert user("add", "ann", "--role", "reader", "--users", path, password="nna\n").returncode == 0
    server = own_server("--users", path)
    whole = path.read_text()

    def told():
        return server.log.read_text().count("the users are those of before")

    for broken, expected in [("garbage", 1), ("other garbage", 2)]:
        path.write_text(broken)
        with connect(server, "ann") as connection:
            assert [value(connection, "SELECT 1") for _ in range(3)] == [1, 1, 1]
        assert told() == expected
    path.write_text(whole)
    with connect(server, "ann") as connection:
        assert value(connection, "SELECT 1") == 1
    assert told() == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_strangers_who_say_nothing_do_not_keep_the_server_from_ending(own_server):
    server = own_server("--grace", "60")
    address, http = [uri.split("://")[1].rsplit(":", 1) for uri in [server.uri, server.http]]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for (host, port), said in [(address, b""), (address, preface), (address, preface + bytes(8)), (http, b"GET")]:
            stranger = stack.enter_context(socket.create_connection((host, int(port))))
            stranger.sendall(said)
            if (host, port) == tuple(address):
                assert stranger.recv(9), "the server's settings, once it has taken the connection"
        server.process.terminate()
        assert server.process.wait(20) == 0


def test_a_file_of_users_stays_readable_to_those_who_could_read_it(tmp_path):
    path = tmp_path / "users"
    assert user("add", "ann", "--role", "reader", "--users", path, password="secret\n").returncode == 0
    path.chmod(0o640)
    os.chown(path, -1, os.getgroups()[-1] if os.getgroups() else os.getgid())
    group = path.stat().st_gid
    assert user("add", "bob", "--role", "reader", "--users", path, password="secret\n").returncode == 0
    assert (oct(path.stat().st_mode & 0o777), path.stat().st_gid) == ("0o640", group)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_hangup_ends_nothing_where_there_are_no_certificates(own_server):
    server = own_server()
    os.kill(server.process.pid, signal.SIGHUP)
    wait_until(lambda: "there are no certificates to be read again" in server.log.read_text(), "a line of the log")
    with server.connect() as connection:
        assert value(connection, "SELECT 1") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_hangup_is_heard_as_soon_as_the_address_is_known():
    """Else it ends the server. It is tried again and again, since it is a race."""
    for _ in range(20):
        command = [COUATL, "serve", "--listen", "127.0.0.1:0", "--http", "off"]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        ) as server:
            assert server.stdout.readline().startswith(b"listening on ")
            server.send_signal(signal.SIGHUP)
            server.terminate()
            assert server.wait(20) == 0


def test_queries_are_seen_and_killed_by_their_own_user_and_admins(guarded):
    with connect(guarded, "dora") as dora, connect(guarded, "rita") as rita, connect(guarded, "adam") as admin:
        body = "import itertools\ndef read(): yield from itertools.count()"
        create(dora, "endless", "n int64", body, mode="streaming", read_function_name="read")
        with dora.cursor() as cursor:
            cursor.execute("SELECT n FROM endless")
            batches = cursor.fetch_record_batch()
            batches.read_next_batch()
            wait_until(lambda: query_running(admin, "SELECT n FROM endless"), "the query runs")
            [(query, owner)] = rows(admin, 'SELECT query_id, "user" FROM system.queries')
            assert owner == "dora"
            assert rows(rita, "SELECT * FROM system.queries") == []
            assert rows(rita, "SHOW QUERIES") == []
            assert "no query" in error(rita, f"KILL QUERY '{query}'")
            run(admin, f"KILL QUERY '{query}'")
            with pytest.raises(Exception, match="cancelled"):
                while True:
                    batches.read_next_batch()
        wait_until(lambda: not queries(admin), "system.queries empty")


def test_who_is_removed_is_gone_at_once(own_server, tmp_path):
    path = tmp_path / "file-of-users"
    for name in ["ann", "bob"]:
        assert user("add", name, "--role", "reader", "--users", path, password=name).returncode == 0
    server = own_server("--users", path)
    with connect(server, "ann", "ann") as connection:
        assert value(connection, "SELECT 1") == 1
        assert user("remove", "ann", "--users", path).returncode == 0
        assert "the token is not valid" in error(connection, "SELECT 1")


def test_settings_are_a_clients_own(guarded):
    with connect(guarded, "rita") as one, connect(guarded, "rita") as other:
        run(one, "SET datafusion.execution.batch_size = 77")
        shown = "SELECT value FROM information_schema.df_settings WHERE name = 'datafusion.execution.batch_size'"
        assert (value(one, shown), value(other, shown)) == ("77", "8192")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_tls_with_certificates_that_change(own_server, tmp_path, users):
    authority, other = trustme.CA(), trustme.CA()

    def write(issuer):
        certificate = issuer.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))

    def answers(roots):
        kwargs = {"username": "rita", "password": "atir", ROOTS: roots.cert_pem.bytes().decode()}
        try:
            with dbapi.connect(server.uri, db_kwargs=kwargs, autocommit=True) as connection:
                return value(connection, "SELECT 1") == 1
        except dbapi.Error:
            return False

    write(authority)
    server = own_server("--users", users, "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    assert server.uri.startswith("grpc+tls://")
    assert answers(authority)
    assert not answers(other)
    write(other)
    os.kill(server.process.pid, signal.SIGHUP)
    wait_until(lambda: "the certificates have been read again" in server.log.read_text(), "a reload")
    assert answers(other)
    assert not answers(authority)
    (tmp_path / "cert.pem").write_text("garbage")
    os.kill(server.process.pid, signal.SIGHUP)
    wait_until(lambda: "the certificates are those of before" in server.log.read_text(), "a refusal")
    assert answers(other)


def test_clients_show_their_certificates(own_server, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    server = own_server(*files, "--tls-client-ca", tmp_path / "ca.pem")

    def kwargs(issuer):
        client = issuer.issue_cert("client@example.org")
        chain = b"".join(pem.bytes() for pem in client.cert_chain_pems).decode()
        key = client.private_key_pem.bytes().decode()
        return {ROOTS: authority.cert_pem.bytes().decode(), CERTIFICATE: chain, KEY: key}

    with dbapi.connect(server.uri, db_kwargs=kwargs(authority), autocommit=True) as connection:
        assert value(connection, "SELECT 1") == 1
    with pytest.raises(dbapi.Error):
        dbapi.connect(server.uri, db_kwargs=kwargs(trustme.CA()), autocommit=True).cursor().execute("SELECT 1")


def sql(*arguments, password=None):
    """The command, run by somebody with this password."""
    environment = {**os.environ, **({"COUATL_PASSWORD": password} if password else {})}
    command = [COUATL, "sql", "--format", "csv", *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, env=environment
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_the_command_logs_in_over_tls(own_server, tmp_path, users):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    server = own_server("--users", users, *files, "--tls-client-ca", tmp_path / "ca.pem")
    connect = ["--connect", server.uri, "--tls-ca", tmp_path / "ca.pem", *files]

    assert sql(*connect, "--user", "rita", "SELECT 1 AS n; SELECT 2 AS n", password="atir") == (0, "n\n1\n\nn\n2\n", "")
    code, _, said = sql(*connect, "--user", "rita", "SELECT 1", password="wrong")
    assert (code, said) == (1, "error: wrong user or password\n")
    code, _, said = sql(*connect, "SELECT 1")
    assert code == 1 and "who are you?" in said
    code, _, said = sql("--connect", server.uri, "--user", "rita", "SELECT 1", password="atir")
    assert code == 1 and said.startswith(f"error: cannot connect to {server.uri}: ")
    code, _, said = sql(*connect[:2], "--tls-ca", tmp_path / "nowhere.pem", "SELECT 1")
    assert code == 1 and "nowhere.pem" in said


def refusal(*arguments):
    served = subprocess.run([COUATL, "serve", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert served.returncode == 1
    return served.stderr


def test_other_machines_are_served_with_users_and_tls_alone(users, own_server):
    assert "let users log in with --users" in refusal("--listen", "0.0.0.0:0")
    assert "give a certificate with --tls-cert" in refusal("--listen", "0.0.0.0:0", "--users", users)
    assert "cannot read 'none.pem'" in refusal("--tls-cert", "none.pem", "--tls-key", "none.key")


def test_an_idle_stream_beats(own_server):
    server = own_server("--heartbeat", "0.05")
    with server.connect() as connection:
        body = "import threading\ndef read():\n    yield 1\n    threading.Event().wait()"
        create(connection, "idle", "n int64", body, mode="streaming", read_function_name="read")
        with connection.cursor() as cursor:
            cursor.execute("SELECT n FROM idle")
            batches = cursor.fetch_record_batch()
            started = time.monotonic()
            assert [batches.read_next_batch().num_rows for _ in range(4)] == [1, 0, 0, 0]
            assert time.monotonic() - started > 0.1
            cursor.adbc_cancel()

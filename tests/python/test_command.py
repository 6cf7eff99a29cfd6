"""The `couatl` command."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest
from harness import COUATL, PATIENCE, kill_group, queries, wait_until

NUMBERS = """
CREATE EXTERNAL STREAM numbers (n int32, s string) AS $$
def numbers():
    return [(1, "one"), (2, 'a "quoted", text'), (None, None)]
$$ SETTINGS type = 'python', mode = 'batch';
SELECT * FROM numbers;
"""

ENDLESS = """
CREATE OR REPLACE EXTERNAL STREAM endless (n int64) AS $$
import time
def endless():
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(0.01)
$$ SETTINGS type = 'python', mode = 'streaming';
SELECT n FROM endless;
"""


def couatl(*arguments, stdin=""):
    return subprocess.run(
        [COUATL, *arguments], input=stdin, capture_output=True, text=True, timeout=30, start_new_session=True
    )


@pytest.fixture(params=["in process", "connected"])
def sql(request):
    """Runs `couatl sql` in process and on a server."""
    place = ["--connect", request.getfixturevalue("own_server")().uri] if request.param == "connected" else []

    def run(*arguments, **options):
        return couatl("sql", *place, *arguments, **options)

    return run


def test_table(sql):
    done = sql("SELECT 1 AS n, 'x' AS s")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["n", "|", "s"]
    assert lines[2].split() == ["1", "|", "x"]
    assert lines[-1] == "1 row"


def test_csv(sql):
    done = sql("--format", "csv", NUMBERS)
    assert done.returncode == 0, done.stderr
    assert list(csv.reader(io.StringIO(done.stdout))) == [["n", "s"], ["1", "one"], ["2", 'a "quoted", text'], ["", ""]]


def test_json(sql):
    done = sql("--format", "json", NUMBERS)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"n": 1, "s": "one"},
        {"n": 2, "s": 'a "quoted", text'},
        {"n": None, "s": None},
    ]


def test_a_file(sql, tmp_path):
    path = tmp_path / "numbers.sql"
    path.write_text(NUMBERS)
    assert "3 rows" in sql("--file", str(path)).stdout


@pytest.mark.parametrize("arguments", [(), ("-",), ("--file", "-")])
def test_standard_input(sql, arguments):
    assert "3 rows" in sql(*arguments, stdin=NUMBERS).stdout


def test_a_byte_order_mark_is_no_part_of_a_statement(sql, tmp_path):
    path = tmp_path / "statements.sql"
    path.write_text("\ufeffSELECT 1 AS n", encoding="utf-8")
    assert sql("--format", "csv", "--file", str(path)).stdout == "n\n1\n"
    assert sql("--format", "csv", stdin="\ufeffSELECT 1 AS n").stdout == "n\n1\n"


def test_an_insert_says_its_count(sql):
    create = "CREATE EXTERNAL STREAM s (n int64) AS $$def s(n): pass$$ SETTINGS type = 'python'"
    done = sql(f"{create}; INSERT INTO s VALUES (1), (2)")
    assert "2 rows written" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("CREATE EXTERNAL STREAM s (n int) AS $$\ndef s(:\n$$ SETTINGS type = 'python'", "def s(:"),
        (
            "CREATE EXTERNAL STREAM s (n int) AS $$\ndef s():\n  1 / 0\n$$ SETTINGS type = 'python'; SELECT * FROM s",
            "ZeroDivisionError",
        ),
        ("SELECT 'open", "is not closed"),
    ],
)
def test_errors(sql, text, said):
    done = sql(text)
    assert done.returncode == 1
    assert said in done.stderr
    assert "panicked" not in done.stderr


def test_the_failing_statement_is_counted_and_is_the_last(sql):
    done = sql("--format", "csv", "SELECT 1 AS a; SELECT nothing; SELECT 2 AS b")
    assert done.returncode == 1
    assert done.stdout.split() == ["a", "1"]
    assert "statement 2 of 3" in done.stderr


def test_nothing_runs_where_a_statement_is_malformed(sql):
    for malformed in ["selec 2", "SELECT 2 FROM", "CREATE EXTERNAL STREAM s (n intt) AS $$ $$", "SELECT 'open"]:
        done = sql(f"SELECT 1 AS a;\n\n\n{malformed}")
        assert done.returncode == 1
        assert done.stdout == ""
        assert "statement 2" in done.stderr


def test_misuse():
    assert couatl().returncode == 2
    assert couatl("nothing").returncode == 2
    assert couatl("sql", "--format", "xml", "SELECT 1").returncode == 2
    missing = couatl("sql", "--file", "/nowhere.sql")
    assert missing.returncode != 0 and "/nowhere.sql" in missing.stderr
    away = couatl("sql", "--connect", "grpc://127.0.0.1:1", "SELECT 1")
    assert away.returncode == 1 and "127.0.0.1:1" in away.stderr
    assert couatl("--version").stdout.startswith("couatl ")
    assert "serve" in couatl("--help").stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("place", ["in process", "connected"])
def test_a_signal_cancels_and_keeps_the_rows_so_far(server, connection, place, name):
    where = ["--connect", server.uri] if place == "connected" else []
    process = subprocess.Popen(
        [COUATL, "sql", *where, "--format", "csv", ENDLESS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert [process.stdout.readline() for _ in range(3)] == ["n\n", "0\n", "1\n"]
        process.send_signal(getattr(signal, name))
        rest, said = process.communicate(timeout=PATIENCE)
    finally:
        kill_group(process)
    assert process.returncode == 128 + getattr(signal, name)
    assert said == "ok\ncancelled\n"
    assert rest == "" or rest.endswith("\n")
    wait_until(lambda: not queries(connection), "the query's end")


def test_a_reader_that_has_seen_enough():
    process = subprocess.Popen(
        [COUATL, "sql", "--format", "csv", ENDLESS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == b"n\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b"ok\n"
    finally:
        kill_group(process)
        process.stderr.close()


def test_ctrl_c_in_a_busy_loop():
    busy = ENDLESS.replace("time.sleep(0.01)", "while True: n += 1")
    process = subprocess.Popen(
        [COUATL, "sql", "--format", "csv", busy],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert [process.stdout.readline() for _ in range(2)] == [b"n\n", b"0\n"]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        kill_group(process)
    assert (process.returncode, said) == (130, b"ok\ncancelled\n")


def test_serve_says_where_it_listens(server):
    assert server.first_line == f"listening on {server.uri}\n"
    assert not server.uri.endswith(":0")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_serve_refuses_what_others_reach(address):
    done = couatl("serve", "--listen", address)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "other machines" in done.stderr


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:99999"])
def test_serve_refuses_what_is_no_address(address):
    done = couatl("serve", "--listen", address)
    assert done.returncode != 0
    assert address in done.stderr


def test_serve_refuses_a_port_in_use(server):
    done = couatl("serve", "--listen", server.uri.removeprefix("grpc://"))
    assert done.returncode == 1
    assert "another process listens there" in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_serve_ends_on_a_signal(own_server, name):
    server = own_server()
    server.process.send_signal(getattr(signal, name))
    assert server.process.wait(PATIENCE) == 0


def test_what_a_body_prints_stays_out_of_the_rows():
    body = "import os\ndef noisy():\n    print('hello')\n    os.write(2, b'error')\n    return [1]"
    statement = f"CREATE EXTERNAL STREAM noisy (n int64) AS $$\n{body}\n$$ SETTINGS type = 'python'"
    done = couatl("sql", "--format", "csv", f"{statement}; SELECT n FROM noisy")
    assert done.stdout == "n\n1\n"
    assert "hello" in done.stderr


def test_what_a_process_of_a_body_prints_stays_out_of_the_rows():
    body = "import os\ndef noisy():\n    os.system('echo hello')\n    os.write(1, b'there\\n')\n    return [1]"
    statement = f"CREATE EXTERNAL STREAM noisy (n int64) AS $$\n{body}\n$$ SETTINGS type = 'python'"
    done = couatl("sql", "--format", "csv", f"{statement}; SELECT n FROM noisy")
    assert done.stdout == "n\n1\n"
    assert "hello" in done.stderr
    assert "there" in done.stderr


def test_help_and_version_are_output():
    for arguments in (["--help"], ["sql", "--help"], ["--version"]):
        done = couatl(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "couatl" in done.stdout


def test_rows_do_not_need_standard_error():
    command = ["sh", "-c", f"'{COUATL}' sql --format csv 'SELECT 1 AS n' 2>&-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "n\n1\n")


def test_new_connector(tmp_path):
    done = subprocess.run([COUATL, "new", "connector", "tide-gauge"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "couatl-tide-gauge has a source and a sink; next: cd couatl-tide-gauge && pip install"
    )
    folder = tmp_path / "couatl-tide-gauge"
    again = couatl("new", "connector", "tide-gauge", "--folder", str(folder))
    assert again.returncode == 1 and "is there already: give another --folder" in again.stderr
    for name in ["Tide", "tide gauge", "", "9", "tide-"]:
        refused = couatl("new", "connector", name, "--folder", str(tmp_path / "never"))
        assert refused.returncode == 1 and "expected a name of lower-case letters" in refused.stderr
    taken = {"python": "is a type of the engine's own", "none": "would make a class None", "path": "a class Path"}
    for name, said in taken.items():
        refused = couatl("new", "connector", name, "--folder", str(tmp_path / "never"))
        assert refused.returncode == 1 and said in refused.stderr
    assert not (tmp_path / "never").exists()

    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages, folder]
    subprocess.run(install, check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder / "tests"]
    tested = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert tested.returncode == 0 and "3 passed" in tested.stdout, tested.stdout + tested.stderr
    listed = subprocess.run([COUATL, "sql", "SHOW CONNECTORS"], env=environment, capture_output=True, text=True)
    assert "tide-gauge" in listed.stdout and "couatl-tide-gauge" in listed.stdout

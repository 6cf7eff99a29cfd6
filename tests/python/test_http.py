"""Queries over HTTP: formats, statuses, who may ask, and what is seen of an error after rows."""

import base64
import contextlib
import http.client
import io
import json
import socket
import struct
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest
from harness import PATIENCE, create, rows, run, wait_until
from test_users import ROLES, connect, users  # noqa: F401

ROWS = "SELECT * FROM (VALUES (1, 'a\tb'), (2, NULL)) AS t (n, s) ORDER BY n"


def ask(server, query, *, body=None, method=None, headers=(), **parameters):
    if query is not None:
        parameters["query"] = query
    url = f"{server.http}/?{urllib.parse.urlencode(parameters)}"
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.headers, response.read()


def refused(server, query, **arguments):
    error, text = refusal(server, query, **arguments)
    return error.code, text


def refusal(server, query, **arguments):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(server, query, **arguments)
    with refusal.value as error:
        return error, error.read().decode()


def basic(name, password=None):
    password = name[::-1] if password is None else password
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_rows_in_every_format(server):
    def get(name):
        headers, body = ask(server, ROWS, format=name)
        return headers["content-type"], body

    expected = {"n": [1, 2], "s": ["a\tb", None]}
    assert ask(server, ROWS)[1] == b"1\ta\\tb\n2\t\\N\n"
    assert get("TabSeparated") == ("text/tab-separated-values; charset=utf-8", b"1\ta\\tb\n2\t\\N\n")
    kind, body = get("JSON")
    answer = json.loads(body)
    assert (kind, answer["rows"]) == ("application/json", 2)
    assert answer["data"] == [{"n": 1, "s": "a\tb"}, {"n": 2, "s": None}]
    assert answer["meta"] == [{"name": "n", "type": "int64"}, {"name": "s", "type": "string"}]
    assert [json.loads(line) for line in get("JSONEachRow")[1].splitlines()] == answer["data"]
    assert pyarrow.csv.read_csv(io.BytesIO(get("CSV")[1])).to_pydict() == {"n": [1, 2], "s": ["a\tb", ""]}
    assert pyarrow.ipc.open_stream(get("ArrowStream")[1]).read_all().to_pydict() == expected
    assert pyarrow.parquet.read_table(io.BytesIO(get("Parquet")[1])).to_pydict() == expected
    for name, nothing in [("TabSeparated", b""), ("CSV", b"n\n"), ("JSONEachRow", b"")]:
        assert ask(server, "SELECT 1 AS n WHERE false", format=name)[1] == nothing
    assert json.loads(ask(server, "SELECT 1 AS n WHERE false", format="JSON")[1])["data"] == []
    assert (
        pyarrow.parquet.read_table(io.BytesIO(ask(server, "SELECT 1 AS n WHERE false", format="Parquet")[1])).num_rows
        == 0
    )


def test_statements_are_posted(server, connection):
    statement = "CREATE TABLE posted AS VALUES (1), (2)"
    code, text = refused(server, statement)
    assert (code, text) == (400, "a GET changes nothing: send this statement with POST\n")
    for several in ["SET datafusion.execution.batch_size = 1; SELECT 1", "SELECT 1; SELECT 2"]:
        assert refused(server, several) == (400, "a GET takes one statement: send several with POST\n")
    assert ask(server, None, body=b"SELECT 1; SELECT 2")[1] == b"2\n"
    assert ask(server, statement, method="POST")[1] == b""
    headers, body = ask(server, None, body=b"INSERT INTO posted VALUES (3), (4), (5)")
    assert (headers["x-couatl-rows"], body) == ("3", b"")
    assert ask(server, None, body=b"SELECT count() FROM table(posted)")[1] == b"5\n"
    assert ask(server, "SELECT count() FROM table(posted)")[1] == b"5\n"
    run(connection, "DROP TABLE posted")


def test_what_is_wrong_is_a_status_and_its_text(server, connection):
    assert refused(server, "SELECT * FROM nowhere")[0] == 404
    assert refused(server, "SELEC 1")[0] == 400
    assert refused(server, None)[0] == 400
    assert refused(server, "SELECT 1", format="xml")[0] == 400
    assert refused(server, "SELECT 1", body=b"SELECT 2")[0] == 400
    create(connection, "broken", "n int64", "def read():\n    raise ValueError('no luck')", read_function_name="read")
    code, text = refused(server, "SELECT * FROM broken")
    assert code == 500
    assert "ValueError: no luck" in text
    run(connection, "DROP STREAM broken")


def test_an_error_after_rows_is_never_a_silent_end(server, connection):
    body = "def read():\n    yield [(n,) for n in range(50000)]\n    raise ValueError('no luck')"
    create(connection, "broken", "n int64", body, mode="streaming", read_function_name="read")
    address = urllib.parse.urlsplit(server.http).netloc
    for name, count in [
        ("TabSeparated", lambda body: body.count(b"\n")),
        ("JSON", lambda body: body.count(b'{"n":')),
        ("ArrowStream", arrow_rows),
    ] * 5:
        client = http.client.HTTPConnection(address, timeout=20)
        client.request("GET", f"/?query=SELECT+n+FROM+broken&format={name}")
        response = client.getresponse()
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
        client.close()
        assert (response.status, count(broken.value.partial)) == (200, 50000), name
    run(connection, "DROP STREAM broken")


def arrow_rows(body):
    """How many rows a stream has that breaks off."""
    batches, count = pyarrow.ipc.open_stream(body), 0
    with contextlib.suppress(StopIteration, pyarrow.ArrowInvalid, OSError):
        while True:
            count += batches.read_next_batch().num_rows
    return count


def test_rows_are_sent_as_they_come_and_a_client_that_leaves_ends_its_query(server, connection):
    with socket.create_server(("127.0.0.1", 0)) as gate:
        gate.settimeout(20)
        body = f"""
        import socket

        def read():
            with socket.create_connection(("127.0.0.1", {gate.getsockname()[1]})) as source:
                while source.recv(1):
                    yield 1
        """
        create(connection, "slow", "n int64", body, mode="streaming", read_function_name="read")
        address = urllib.parse.urlsplit(server.http).netloc
        client = http.client.HTTPConnection(address, timeout=20)
        client.request("GET", "/?query=SELECT+n+FROM+slow")
        source, _ = gate.accept()
        with source:
            source.sendall(b".")
            response = client.getresponse()
            assert response.readline() == b"1\n"
            source.sendall(b".")
            assert response.readline() == b"1\n"
            response.close()
            client.close()
            wait_until(lambda: [row[1] for row in rows(connection, "SHOW QUERIES")] == ["cancelling"], "it ends")
            source.sendall(b".")
            source.settimeout(20)
            assert source.recv(1) == b""
    run(connection, "DROP STREAM slow")


def test_a_body_that_is_too_large_is_not_to_be_sent_again(server):
    error, text = refusal(server, None, body=b" " * (16 * 1024 * 1024 + 1))
    assert (error.code, error.headers["x-couatl-error-kind"]) == (413, "resources-exhausted")
    assert error.headers["retry-after"] is None
    assert text == "the body has more than 16777216 bytes, which is the most that is taken\n"


def test_the_limits_of_a_query_are_not_worth_another_try(own_server):
    error, text = refusal(own_server("--max-query-rows", "10"), "SELECT * FROM range(11)")
    assert (error.code, "more than 10 rows" in text) == (503, True)
    assert error.headers["retry-after"] is None


def test_what_is_said_twice_is_refused_after_the_login(own_server, users):  # noqa: F811
    server = own_server("--users", users)
    for twice in ["query=SELECT+1&query=SELECT+2", "query=SELECT+1&format=CSV&format=JSON"]:

        def get(headers, twice=twice):
            request = urllib.request.Request(f"{server.http}/?{twice}", headers=headers)
            with pytest.raises(urllib.error.HTTPError) as refusal:
                urllib.request.urlopen(request, timeout=20)
            with refusal.value as error:
                return error.code, error.headers["x-couatl-error-kind"], error.read()

        assert get({})[:2] == (401, "unauthenticated")
        said = b"the address says `query` or `format` twice: say each of them once\n"
        assert get(basic("rita")) == (400, "invalid-argument", said)


def test_uuids_are_texts_of_uuids(server, connection):
    create(connection, "ids", "u uuid", "import uuid\ndef ids(): return [uuid.UUID(int=1), None]", mode="batch")
    text = "00000000-0000-0000-0000-000000000001"
    assert ask(server, "SELECT u FROM ids")[1] == f"{text}\n\\N\n".encode()
    found = ask(server, "SELECT u FROM ids", format="JSONEachRow")[1]
    assert [json.loads(line) for line in found.splitlines()] == [{"u": text}, {"u": None}]
    document = json.loads(ask(server, "SELECT u FROM ids", format="JSON")[1])
    assert document["meta"] == [{"name": "u", "type": "uuid"}] and document["data"][0] == {"u": text}
    assert text.encode() in ask(server, "SELECT u FROM ids", format="CSV")[1]


def test_json_has_one_place_for_each_name(server):
    sql = "SELECT a.n, b.n FROM (SELECT 1 AS n) a, (SELECT 2 AS n) b"
    assert ask(server, sql)[1] == b"1\t2\n"
    for format in ["JSON", "JSONEachRow"]:
        code, text = refused(server, sql, format=format)
        assert code == 400 and "two columns are named 'n'" in text


def test_nested_values_and_nulls_as_text(server):
    query = "SELECT NULL AS a, make_array('a, b', NULL, 'it''s') AS b, make_array(NULL) AS c, struct(1, 'x') AS d"
    assert ask(server, query)[1] == b"\\N\t['a, b',NULL,'it\\'s']\t[NULL]\t(1,'x')\n"
    assert ask(server, "SELECT make_array('a', 'b') AS a", format="CSV")[1] == b"a\n\"['a','b']\"\n"


def test_types_are_named_in_one_manner(server):
    query = """SELECT NULL AS a, make_array(NULL) AS b, arrow_cast('12:00:00', 'Time64(Nanosecond)') AS c,
                      arrow_cast(1, 'Duration(Millisecond)') AS d"""
    answer = json.loads(ask(server, query, format="JSON")[1])
    assert [column["type"] for column in answer["meta"]] == ["null", "array(null)", "time(9)", "duration"]


def over_http2(server, path, authority):
    """The header block and the body of an answer. What is asked is written without compression."""

    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def field(index, text):
        return bytes([index, len(text)]) + text.encode()

    data, headers, settings, end_headers, end_stream = 0, 1, 4, 4, 1
    # `:method: GET` and `:scheme: http` are in HPACK's table; `:path` and `:authority` are names there.
    asked = b"\x82\x86" + field(0x04, path) + field(0x01, authority)
    address = urllib.parse.urlsplit(server.http)
    with socket.create_connection((address.hostname, address.port), 20) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0))
        client.sendall(frame(headers, end_headers | end_stream, 1, asked))
        head, body, answers = b"", b"", client.makefile("rb")
        while True:
            length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + answers.read(9))
            payload = answers.read(length)
            if stream == 1:
                head += payload if kind == headers else b""
                body += payload if kind == data else b""
                if flags & end_stream:
                    return head, body


def test_http2_is_for_this_machine_too(server):
    # 0x88 is `:status: 200` in HPACK's table.
    head, body = over_http2(server, "/?query=SELECT+1", urllib.parse.urlsplit(server.http).netloc)
    assert (head[:1], body) == (b"\x88", b"1\n")
    head, body = over_http2(server, "/metrics", "localhost:8123")
    assert (head[:1], b"# EOF" in body) == (b"\x88", True)
    head, body = over_http2(server, "/?query=SELECT+1", "example.org")
    assert (head[:1] == b"\x88", body) == (False, b"requests of other pages, and for other names, are refused\n")


def test_health_is_for_everybody(own_server, users):  # noqa: F811
    server = own_server("--users", users)
    for path, expected in [("healthz", b"ok\n"), ("readyz", b"ready\n")]:
        with urllib.request.urlopen(f"{server.http}/{path}", timeout=20) as response:
            assert response.read() == expected


def test_users_are_asked_for(own_server, users):  # noqa: F811
    server = own_server("--users", users)
    code, text = refused(server, "SELECT 1")
    assert (code, text) == (401, "who are you? send a user and a password, or a token\n")
    assert refused(server, "SELECT 1", headers=basic("rita", "wrong")) == (401, "wrong user or password\n")
    for name in ROLES:
        assert ask(server, "SELECT 1", headers=basic(name))[1] == b"1\n"
    code, text = refused(server, "CREATE TABLE t AS VALUES (1)", method="POST", headers=basic("rita"))
    assert (code, "user 'rita' (reader) may not" in text) == (403, True)
    with connect(server, "adam") as connection:
        run(connection, "CREATE TABLE t AS VALUES (1)")
    assert ask(server, "SELECT count() FROM table(t)", headers=basic("rita"))[1] == b"1\n"


@pytest.mark.parametrize("more", [{}, {"Expect": "100-continue"}], ids=["", "expect"])
@pytest.mark.parametrize(
    ("who", "said"),
    [
        ({}, b"who are you?"),
        (basic("rita", "wrong"), b"wrong user or password"),
        ({"Authorization": "Bearer stolen"}, b"the token is not valid"),
    ],
    ids=["nobody", "password", "token"],
)
def test_the_body_of_a_stranger_is_not_waited_for(own_server, users, who, said, more):  # noqa: F811
    server = own_server("--users", users)
    address = urllib.parse.urlsplit(server.http)
    headers = {"Host": address.netloc, "Content-Length": "10000000000", **who, **more}
    with socket.create_connection((address.hostname, address.port), 20) as client:
        lines = ["POST / HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401 ") and said in answer


def test_pages_of_others_are_refused(server):
    for headers in [{"Origin": "https://example.org"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "example.org:80"}]:
        assert refused(server, "SELECT 1", headers=headers)[0] == 403
        assert refused(server, None, body=b"CREATE TABLE t AS VALUES (1)", headers=headers)[0] == 403


def test_pages_of_others_are_refused_where_users_log_in_too(own_server, users):  # noqa: F811
    server = own_server("--users", users)
    for headers in [{"Origin": "https://example.org"}, {"Sec-Fetch-Site": "cross-site"}]:
        code, _ = refused(server, None, body=b"CREATE TABLE planted AS SELECT 1", headers={**basic("adam"), **headers})
        assert code == 403
    assert ask(server, "SELECT 1", headers={**basic("adam"), "Host": "db.example.org"})[1] == b"1\n"


def test_a_login_is_answered_with_a_token(own_server, users):  # noqa: F811
    server = own_server("--users", users)
    headers, _ = ask(server, "SELECT 1", headers=basic("rita"))
    assert ask(server, "SELECT 2", headers={"Authorization": headers["Authorization"]})[1] == b"2\n"


def test_looking_how_long_an_update_takes_is_an_update(server, connection):
    run(connection, "CREATE TABLE timed (n int)")
    code, said = refused(server, "EXPLAIN ANALYZE INSERT INTO timed VALUES (1)")
    assert (code, said) == (400, "a GET changes nothing: send this statement with POST\n")
    ask(server, None, body=b"EXPLAIN ANALYZE INSERT INTO timed VALUES (1)")
    assert rows(connection, "SELECT count(*) FROM timed") == [(1,)]
    run(connection, "DROP TABLE timed")


def test_an_answer_without_chunks_is_whole_or_none(server, connection):
    body = "def breaks():\n    yield 1\n    yield None\n    raise ValueError('no')"
    create(connection, "breaks", "n int64", body, mode="streaming")
    host, port = server.http.removeprefix("http://").rsplit(":", 1)

    def get(query, more=f"Host: {host}\r\n"):
        with socket.create_connection((host, int(port)), 20) as client:
            client.sendall(f"GET /?query={urllib.parse.quote(query)} HTTP/1.0\r\n{more}\r\n".encode())
            return client.makefile("rb").read()

    whole = get("SELECT 1")
    assert whole.startswith(b"HTTP/1.0 200") and whole.endswith(b"1\n") and b"content-length: 2" in whole.lower()
    assert get("SELECT 1", "").startswith(b"HTTP/1.0 200"), "HTTP/1.0 needs no Host"
    assert get("SELECT 1", "Host: example.org\r\n").startswith(b"HTTP/1.0 403")
    broken = get("SELECT n FROM breaks")
    assert broken.startswith(b"HTTP/1.0 500") and b"x-couatl-error-kind: python-exception\r\n" in broken
    assert b"ValueError: no" in broken


def wait_until_ending(server):
    def is_ending():
        try:
            urllib.request.urlopen(f"{server.http}/readyz", timeout=20).close()
        except urllib.error.HTTPError as error:
            return error.code == 503
        return False

    wait_until(is_ending, "readyz says that the server ends")


def test_the_end_is_told(own_server):
    server = own_server("--grace", "10")
    with server.connect() as connection:
        body = "import threading\ndef read():\n    yield 1\n    threading.Event().wait()"
        create(connection, "held", "n int64", body, mode="streaming", read_function_name="read")
        with connection.cursor() as cursor:
            cursor.execute("SELECT n FROM held")
            batches = cursor.fetch_record_batch()
            batches.read_next_batch()
            server.process.terminate()
            wait_until_ending(server)
            error, _ = refusal(server, "SELECT 1")
            assert (error.code, error.headers["retry-after"]) == (503, "1")
            cursor.adbc_cancel()
    assert server.process.wait(20) == 0


def test_who_keeps_a_connection_and_asks_nothing_is_not_waited_for(own_server):
    """Its end says nothing of clients that do not read."""
    server = own_server("--grace", "10")
    host, port = server.http.removeprefix("http://").split(":")
    kept = http.client.HTTPConnection(host, int(port), timeout=20)
    kept.request("GET", "/healthz")
    assert kept.getresponse().read() == b"ok\n"
    server.process.terminate()
    assert server.process.wait(20) == 0
    kept.close()
    assert "do not read" not in server.log.read_text()


def test_what_is_asked_over_http_alone_is_answered_before_the_end(own_server, tmp_path):
    """No other client keeps the server."""
    server = own_server("--grace", "10")
    go = tmp_path / "go"
    body = f"""
    import os, time

    def held():
        yield 1
        while not os.path.exists({str(go)!r}):
            time.sleep(0.001)
        yield 2

    def taken(n):
        while not os.path.exists({str(go)!r}):
            time.sleep(0.001)
    """
    with server.connect() as connection:
        create(connection, "held", "n int64", body, mode="auto")
        create(connection, "taken", "n int64", body, mode="auto")
    asked = ["SELECT n FROM held", "INSERT INTO taken VALUES (1)", "SELECT count(n) AS n FROM held"]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = [pool.submit(ask, server, sql, body=b"") for sql in asked]

        def running():
            listed = ask(server, "SELECT count(*) FROM system.queries")
            return int(listed[1]) >= len(asked)

        wait_until(running, "the queries run")
        server.process.terminate()
        wait_until_ending(server)
        go.touch()
        selected, inserted, counted = [answer.result(PATIENCE) for answer in answers]
    assert selected[1] == b"1\n2\n" and counted[1] == b"2\n"
    assert inserted[0]["x-couatl-rows"] == "1"
    assert server.process.wait(PATIENCE) == 0

"""`/metrics`: what queries and streams have done, in the text that Prometheus reads."""

import itertools
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import create, error, queries, rows, run, value, wait_for_text, wait_until
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from test_http import ask, basic, refused
from test_limits import holding, id_of, limited, notes, queued, unread, wait_until_full  # noqa: F401
from test_users import ROLES, connect, users  # noqa: F401

NUMBERS = "def read():\n    return [(n,) for n in range(100)]\n\ndef write(n):\n    pass"


def scraped(server, headers=()):
    request = urllib.request.Request(f"{server.http}/metrics", headers=dict(headers))
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.headers, response.read().decode()


def metrics(server, headers=()):
    """Every number, by its name and its labels."""
    found = {}
    for family in text_string_to_metric_families(scraped(server, headers)[1]):
        for sample in family.samples:
            key = (sample.name.removeprefix("couatl_"), *sorted(sample.labels.values()))
            assert key not in found, "each is said once"
            found[key] = sample.value
    return found


class Since:
    """How much numbers have grown since this was made."""

    def __init__(self, server):
        self.server, self.before = server, metrics(server)

    def __call__(self, *key):
        return metrics(self.server).get(key, 0) - self.before.get(key, 0)

    def outcomes(self):
        """How many queries have ended, by how; this asks for none."""
        now = metrics(self.server)
        ended = {key[1]: now[key] - self.before.get(key, 0) for key in now if key[0] == "queries_ended_total"}
        return {how: count for how, count in ended.items() if count}


@pytest.fixture
def since(server):
    return Since(server)


@pytest.fixture
def numbers(connection):
    create(
        connection, "numbers", "n int64", NUMBERS, mode="batch", read_function_name="read", write_function_name="write"
    )
    yield
    run(connection, "DROP STREAM numbers")


def test_the_text_is_what_it_says(server, connection, numbers):
    assert value(connection, "SELECT count(*) FROM numbers") == 100
    headers, text = scraped(server)
    assert headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith("# EOF\n")
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"counter", "gauge"}
    assert all(family.name.startswith("couatl_") and family.documentation for family in families)


def test_queries_are_counted_by_how_they_end(server, connection):
    create(connection, "broken", "n int64", "def broken():\n    raise ValueError('no luck')", mode="batch")
    since = Since(server)
    rows(connection, "SELECT 1")
    rows(connection, "SELECT * FROM range(10)")
    error(connection, "SELECT * FROM broken")
    assert since.outcomes() == {"ok": 2, "python-exception": 1}
    ask(server, "SELECT 1")
    assert refused(server, "SELECT * FROM broken")[0] == 500
    assert since.outcomes() == {"ok": 3, "python-exception": 2}
    assert since("queries_started_total") == 5
    for sql in ["SELECT * FROM nowhere", "SELEC 1"]:
        refused(server, sql)
    ask(server, "EXPLAIN SELECT 1")
    assert since("queries_started_total") == 5, "what is not run is no query"
    run(connection, "DROP STREAM broken")


def test_rows_and_bytes_of_results_are_counted(server, connection, since):
    rows(connection, "SELECT value FROM range(1000)")
    assert (since("result_rows_total"), since("result_bytes_total")) == (1000, 8000)
    ask(server, "SELECT arrow_cast(value, 'Int32') FROM range(500)")
    assert (since("result_rows_total"), since("result_bytes_total")) == (1500, 10000)
    rows(connection, "SELECT value FROM range(100000) LIMIT 1")
    assert since("result_rows_total") == 1501
    assert since("result_bytes_total") == 10008, "a slice has the bytes of its own rows"


def test_streams_are_counted(server, connection, numbers, since):
    assert value(connection, "SELECT count(n) FROM numbers") == 100
    assert len(rows(connection, "SELECT n FROM numbers")) == 100
    assert run(connection, "INSERT INTO numbers VALUES (1), (2)") == 2
    wait_until(lambda: not queries(connection), "no queries")
    for name, access, opened, counted in [("numbers", "read", 2, 200), ("numbers", "write", 1, 2)]:
        assert since("stream_opened_total", name, access) == opened
        assert since("stream_rows_total", name, access) == counted
        assert since("stream_batches_total", name, access) == opened
        assert since("stream_python_seconds_total", name, access) > 0
        assert since("stream_gil_wait_seconds_total", name, access) >= 0
        assert metrics(server)["stream_open", name, access] == 0
    assert ("stream_gil_wait_seconds_total", "numbers", "read") in metrics(server)
    assert ("stream_errors_total", "numbers", "python-exception", "read") not in metrics(server)


def test_time_in_python_is_time_in_python(server, connection, since):
    create(connection, "slow", "n int64", "import time\ndef slow():\n    time.sleep(0.3)\n    return [1]", mode="batch")
    assert value(connection, "SELECT n FROM slow") == 1
    assert 0.25 < since("stream_python_seconds_total", "read", "slow") < 5
    run(connection, "DROP STREAM slow")


ERRORS = {
    "raises": ("raise ValueError('no luck')", "python-exception"),
    "misfits": ("return ['x']", "type-mismatch"),
    "yields": ("yield 1\n    raise ValueError('no luck')", "python-exception"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_streams_are_counted_once_by_their_kind(server, connection, name):
    body, kind = ERRORS[name]
    create(connection, name, "n int64", f"def {name}():\n    {body}")
    since = Since(server)
    for count in [1, 2]:
        error(connection, f"SELECT n FROM {name}")
        assert since("stream_errors_total", *sorted([name, "read", kind])) == count
    assert sum(since.outcomes().values()) == 2
    run(connection, f"DROP STREAM {name}")


def test_errors_of_sinks_and_cleanups_are_counted_once(server, connection, since):
    body = "def read():\n    return [1]\n\ndef write(n):\n    raise ValueError('no luck')\n\ndef deinit():\n    1 / 0"
    functions = {"read_function_name": "read", "write_function_name": "write"}
    create(connection, "sink", "n int64", body, **functions)
    error(connection, "INSERT INTO sink VALUES (1)")
    assert since("stream_errors_total", "python-exception", "sink", "write") == 1
    create(connection, "sink", "n int64", body, deinit_function_name="deinit", **functions)
    error(connection, "SELECT n FROM sink")
    wait_until(lambda: not queries(connection), "no queries")
    assert since("stream_errors_total", "python-exception", "read", "sink") == 1
    run(connection, "DROP STREAM sink")


def test_a_cancel_is_no_error_of_the_stream(limited):  # noqa: F811
    server = limited()
    with server.connect() as connection:
        since = Since(server)
        with holding(server):
            pass
        wait_until(lambda: not queries(connection), "no queries")
        rows(connection, "SELECT n FROM held LIMIT 1")
        wait_until(lambda: since("stream_open", "held", "read") == 0, "it is closed")
        assert since("stream_opened_total", "held", "read") == 2
        assert not [key for key in metrics(server) if key[0] == "stream_errors_total"]
        assert wait_until(lambda: since.outcomes().get("cancelled"), "a cancel") == 1


def test_names_may_have_quotes(server, connection):
    for name in ['say "hello"', "back\\slash", "new\nline", "it's", "größe", "{a='b',c}", "# HELP", "x} 1\ncouatl_y 2"]:
        quoted = '"' + name.replace('"', '""') + '"'
        create(connection, quoted, "n int64", NUMBERS, mode="batch", read_function_name="read")
        assert value(connection, f"SELECT count(n) FROM {quoted}") == 100
        run(connection, f"DROP STREAM {quoted}")
        found = metrics(server)
        assert found[("stream_rows_total", *sorted([name, "read"]))] == 100
        assert ("y",) not in found


def test_what_runs_and_what_waits_is_told(limited):  # noqa: F811
    server = limited("--max-queries", "2")
    with server.connect() as admin, holding(server), holding(server):
        now = metrics(server)
        assert (now["queries_running",], now["queries_queued",]) == (2, 0)
        assert now["stream_open", "held", "read"] == 2
        sql = "SELECT n AS waiting FROM held LIMIT 1"
        with queued(server, admin, sql):
            now = metrics(server)
            assert (now["queries_running",], now["queries_queued",]) == (2, 1)
            assert now["stream_open", "held", "read"] == 2, "what waits has opened nothing"
            before = now["queries_queue_seconds_total",]
            run(admin, f"KILL QUERY '{id_of(admin, sql)}'")
            wait_until(lambda: metrics(server)["queries_queued",] == 0, "none waits")
        assert metrics(server)["queries_queue_seconds_total",] > before
    with server.connect() as admin:
        wait_until(lambda: not queries(admin), "no queries")
        now = metrics(server)
        assert (now["queries_running",], now["queries_queued",], now["stream_open", "held", "read"]) == (0, 0, 0)


def test_limits_are_outcomes(limited):  # noqa: F811
    server = limited("--max-queries", "1", "--queue-time", "0.1", "--max-query-time", "1", "--max-query-rows", "10")
    with server.connect() as connection:
        since = Since(server)
        with holding(server):
            error(connection, "SELECT n FROM held")
            assert since.outcomes() == {"resources-exhausted": 1}
            wait_until(lambda: since.outcomes().get("timeout"), "the time of the first is over")
        error(connection, "SELECT value FROM range(11)")
        assert since.outcomes() == {"resources-exhausted": 2, "timeout": 1}


def test_what_has_ended_is_counted_though_its_client_does_not_read(limited, notes):  # noqa: F811
    server = limited()
    sql = "SELECT s FROM gushing"
    with server.connect() as admin, unread(server, sql):
        wait_until_full(admin, sql)
        run(admin, f"KILL QUERY '{id_of(admin, sql)}'")
        wait_for_text(notes, "finally")
        wait_until(lambda: metrics(server)["queries_running",] == 0, "none runs")
        now = metrics(server)
        ended = sum(count for key, count in now.items() if key[0] == "queries_ended_total")
        assert now["queries_started_total",] == ended


def test_counters_never_go_down(server, connection, numbers):
    """While queries run, end, fail and leave, and streams are replaced and dropped."""
    create(connection, "broken", "n int64", "def broken():\n    yield 1\n    raise ValueError('no luck')")
    stop = []

    def busy(number):
        with server.connect() as own:
            for turn in itertools.count():
                if stop:
                    return turn
                rows(own, "SELECT n FROM numbers LIMIT 3")
                error(own, "SELECT n FROM broken")
                run(own, f"INSERT INTO numbers VALUES ({turn})")
                create(own, f"fleeting_{number}", "n int64", NUMBERS, mode="batch", read_function_name="read")
                rows(own, f"SELECT n FROM fleeting_{number}")
                run(own, f"DROP STREAM fleeting_{number}")

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(busy, number) for number in range(3)]
        before = {}
        try:
            for _ in range(100):
                now = metrics(server)
                gone = {key: (number, now.get(key)) for key, number in before.items() if now.get(key, -1) < number}
                assert not gone
                before = {key: number for key, number in now.items() if key[0].endswith("_total")}
        finally:
            stop.append(True)
        assert all(worker.result() > 0 for worker in workers)
    run(connection, "DROP STREAM broken")
    wait_until(lambda: not queries(connection), "no queries")
    now = metrics(server)
    ended = sum(count for key, count in now.items() if key[0] == "queries_ended_total")
    wait_until(lambda: metrics(server)["queries_started_total",] == ended, "each that has begun has ended")


def test_users_alone_see_them(own_server, users):  # noqa: F811
    server = own_server("--users", users)
    for headers in [{}, basic("rita", "wrong"), {"Authorization": "Bearer x.y"}]:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            scraped(server, headers)
        with refusal.value as problem:
            assert problem.code == 401
            assert "couatl_queries" not in problem.read().decode()
    for name in ROLES:
        assert "couatl_queries_started" in scraped(server, basic(name))[1]


def test_pages_of_others_do_not_see_them(server):
    for headers in [{"Origin": "https://example.org"}, {"Host": "example.org"}]:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            scraped(server, headers)
        refusal.value.close()
        assert refusal.value.code == 403


def test_a_scrape_is_no_query_and_tells_no_statement(server, connection, since):
    rows(connection, "SELECT 'hunter2'")
    for _ in range(5):
        assert "hunter2" not in scraped(server)[1]
    assert since("queries_started_total") == 1
    assert not re.search("[0-9a-f]{8}-[0-9a-f]{4}", scraped(server)[1]), "no ids, of which there are ever more"

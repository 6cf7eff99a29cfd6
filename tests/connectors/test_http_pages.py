"""Pages of an HTTP API, against a server of the test's own."""

import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import services
from couatl.testing import check_resume, check_source, clock, rows_and_state
from couatl.testing import rows as rows_of
from harness import error, rows, wait_until
from http_pages import Pages


class Api:
    """Answers that are set by path; an answer that is a list is given one after the other, the last one for ever."""

    def __init__(self):
        self.answers, self.asked, self.silence = {}, [], threading.Event()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                api.asked.append((self.path, dict(self.headers)))
                answers = api.answers[urlsplit(self.path).path]
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                if body is None:
                    api.silence.wait()
                    self.close_connection = True
                    return
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(data)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def page(self, path, body, status=200, **headers):
        self.answers.setdefault(path, []).append(
            (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        )

    def paths(self):
        return [path for path, _ in self.asked]

    def stop(self):
        self.silence.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def api():
    api = Api()
    yield api
    api.stop()


@pytest.fixture
def source(api, stream):
    def make(path="/1", **settings):
        stream("pages", "http_pages:Pages", url=api.url + path, **settings)

    return make


@pytest.fixture
def three(api):
    api.page("/1", {"results": [1, 2], "next": "/2?of=3"})
    api.page("/2", {"results": [], "next": f"{api.url}/3"})
    api.page("/3", {"results": [{"a": "b"}, "x", None], "next": None})


ITEMS = "SELECT item FROM pages"


def items(*values):
    return [(json.dumps(value),) for value in values]


def test_links_are_followed(api, three, source, connection):
    source(items="results", mode="batch")
    assert rows(connection, ITEMS) == items(1, 2, {"a": "b"}, "x", None)
    assert api.paths() == ["/1", "/2?of=3", "/3"]
    assert {page for (page,) in rows(connection, "SELECT page FROM pages")} == {f"{api.url}/1", f"{api.url}/3"}


def test_links_may_be_in_the_header(api, source, connection):
    api.page("/1", [1, 2], Link='<?page=2>; rel="prev", </2>; rel="next"')
    api.page("/2", [3])
    source()
    assert rows(connection, ITEMS) == items(1, 2, 3)


def test_headers_may_hold_secrets(api, source, connection):
    api.page("/1", [1])
    source(headers='{"Authorization": "Bearer ${secret:token}"}')
    assert rows(connection, ITEMS) == items(1)
    assert api.asked[0][1]["Authorization"] == "Bearer hush-hush"
    assert "hush" not in str(rows(connection, "SHOW CREATE STREAM pages"))


def test_headers_are_for_one_server(api, source, connection):
    other = Api()
    try:
        api.page("/1", {"items": [1], "next": f"{other.url}/2"})
        other.page("/2", {"items": [2]})
        source(items="items", headers='{"X-Key": "hush"}')
        assert rows(connection, ITEMS) == items(1, 2)
        assert "X-Key" in api.asked[0][1] and "X-Key" not in other.asked[0][1]
    finally:
        other.stop()


@pytest.mark.parametrize("page", [{"results": [1]}, {"items": 1}, {}, "x", 1])
def test_a_page_without_items_is_an_error(api, source, connection, page):
    api.page("/1", page)
    source(items="items")
    assert f"{api.url}/1: expected a JSON array, got" in error(connection, ITEMS)


@pytest.mark.parametrize("when", [lambda: "0", lambda: formatdate(time.time() - 5, usegmt=True)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_wants_a_pause_is_asked_again(api, source, connection, status, when):
    api.page("/1", "later", status, Retry_After=when())
    api.page("/1", "later", status, Retry_After=when())
    api.page("/1", [1])
    source()
    assert rows(connection, ITEMS) == items(1)
    assert api.paths() == ["/1"] * 3


@pytest.mark.parametrize("after", ["0.001", "-1", "soon", "nan", "9" * 30])
def test_any_pause_is_one(api, source, connection, after):
    """Of at most a second."""
    api.page("/1", "later", 429, Retry_After=after)
    api.page("/1", [1])
    source()
    assert rows(connection, ITEMS) == items(1)


def test_the_pause_is_as_long_as_the_server_says(api, source, connection):
    api.page("/1", "later", 429, Retry_After="1")
    api.page("/1", [1])
    source()
    began = time.monotonic()
    assert rows(connection, ITEMS) == items(1)
    assert 1 <= time.monotonic() - began < 3


def kill_at_the_second_page(api, source, reading):
    api.page("/1", {"items": [1], "next": "/2"})
    source(items="items", mode="streaming")
    reader = reading(ITEMS)
    assert reader.take(1) == items(1)
    wait_until(lambda: "/2" in api.paths(), "the second page")
    reader.kill()


def test_a_pause_can_be_killed(api, source, reading):
    api.page("/2", "later", 429, Retry_After="3600")
    kill_at_the_second_page(api, source, reading)


def test_a_server_that_always_wants_a_pause_is_an_error(api, source, connection):
    api.page("/1", "later", 503, Retry_After="0")
    source(retries=3)
    assert "503 Service Unavailable" in error(connection, ITEMS)
    assert len(api.asked) == 4


def test_other_errors_come_after_the_rows_before(api, source, reading):
    api.page("/1", {"items": [1], "next": "/2"})
    api.page("/2", "no", 404)
    source(items="items")
    reader = reading(ITEMS)
    assert reader.take(1) == items(1)
    assert "httpx.HTTPStatusError: Client error '404 Not Found'" in reader.error()


def test_without_a_server_it_says_so(stream, connection):
    stream("pages", "http_pages:Pages", url=f"http://127.0.0.1:{services.free_port()}/")
    assert "httpx.ConnectError" in error(connection, ITEMS)


def test_a_server_that_is_silent_can_be_killed(api, source, reading):
    api.page("/2", None)
    kill_at_the_second_page(api, source, reading)


def test_a_limit_ends_it(api, source, connection):
    api.page("/1", {"items": [1], "next": "/1"})
    source(items="items", mode="streaming")
    assert rows(connection, f"{ITEMS} LIMIT 3") == items(1, 1, 1)


def test_new_items_follow(api, source, reading):
    api.page("/1", {"items": [1, 2], "next": "/2"})
    api.page("/2", {"items": [3]})
    source(items="items", interval="10ms", mode="streaming")
    reader = reading(ITEMS)
    assert reader.take(3) == items(1, 2, 3)
    api.answers["/2"] = [(200, {}, {"items": [3, 4, 5]})]
    assert reader.take(2) == items(4, 5)
    api.page("/3", {"items": [7]})
    api.answers["/2"] = [(200, {}, {"items": [3, 4, 5, 6], "next": "/3"})]
    assert reader.take(2) == items(6, 7)
    assert api.paths().count("/1") == 1


def test_reading_goes_on_after_the_last_item(api):
    api.page("/1", {"items": [1, 2], "next": "/2"})
    api.page("/2", {"items": [3]})
    options = {"url": f"{api.url}/1", "items": "items"}
    found, state = rows_and_state(Pages, limit=2, **options)
    assert ([json.loads(item) for _, item in found], state) == ([1, 2], (f"{api.url}/2", 0))
    found, state = rows_and_state(Pages, limit=3, **options)
    assert state == (f"{api.url}/2", 1)
    api.answers["/2"] = [(200, {}, {"items": [3, 4]})]
    assert [json.loads(item) for _, item in rows_of(Pages, state=state, **options)] == [4]


def test_it_keeps_to_the_contract(api, three):
    options = {"url": f"{api.url}/1", "items": "results"}
    check_source(Pages, **options)
    check_resume(Pages, **options)
    with clock():
        check_source(Pages, interval="1h", **options)

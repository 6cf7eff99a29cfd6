"""Connectors that others have published, as they are: PySpark data sources of PyPI, and what the libraries bring along.

Each is made by a statement on a server, and read and written over Flight SQL. What they ask the internet for is
answered by a server of the test, to which they get as any program does that is behind a proxy.
"""

import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from urllib.parse import parse_qsl, urlsplit

import pyarrow
import pytest
from harness import Server, error, queries, rows, run, table, value, wait_until, watched

trustme = pytest.importorskip("trustme")

TEST_LIMIT = 60.0


@dataclass
class Asked:
    """A request."""

    method: str
    url: str
    query: dict
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def form(self):
        return dict(parse_qsl(self.body.decode()))


class Web(ThreadingHTTPServer):
    """The pages of a test by their URLs, here and everywhere: it is a proxy too, and speaks for all hosts.

    A page is text, bytes, what becomes JSON, or a function that makes one of a request. What is no page is not found.
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Visit)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.authority = trustme.CA()
        self.trusted = folder / "authority.pem"
        self.authority.cert_pem.write_to_path(self.trusted)
        self.pages, self.asked = {}, []
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def environment(self):
        """What has programs ask here."""
        trusted = str(self.trusted)
        proxies = {"HTTP_PROXY": self.url, "HTTPS_PROXY": self.url, "NO_PROXY": "127.0.0.1"}
        proxies |= {name.lower(): address for name, address in proxies.items()}
        return {**proxies, "REQUESTS_CA_BUNDLE": trusted, "SSL_CERT_FILE": trusted}

    def clear(self):
        self.pages.clear()
        self.asked.clear()

    def close(self):
        self.shutdown()
        self.server_close()
        self.thread.join()


class Visit(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin = None

    def do_CONNECT(self):
        host = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.authority.issue_cert(host).configure_cert(context)
        self.request = context.wrap_socket(self.connection, server_side=True)
        self.origin = f"https://{host}"
        self.setup()
        self.close_connection = False

    def finish(self):
        super().finish()
        self.connection.close()

    def answer(self):
        address = self.path if "://" in self.path else f"{self.origin or self.server.url}{self.path}"
        parts = urlsplit(address)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = f"{parts.scheme}://{parts.netloc}{parts.path}"
        asked = Asked(self.command, url, dict(parse_qsl(parts.query)), dict(self.headers), body)
        self.server.asked.append(asked)
        page = self.server.pages.get(url)
        if page is None:
            return self.send(404, b"")
        found = page(asked) if callable(page) else page
        found = found if isinstance(found, (str, bytes)) else json.dumps(found)
        self.send(200, found.encode() if isinstance(found, str) else found)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def send(self, status, content):
        if "Range" in self.headers:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture(scope="module")
def whole_web(tmp_path_factory):
    web = Web(tmp_path_factory.mktemp("web"))
    yield web
    web.close()


@pytest.fixture
def web(whole_web):
    yield whole_web
    whole_web.clear()


@pytest.fixture(scope="module")
def shared(whole_web, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name, text in {**whole_web.environment(), "COUATL_SECRET_hec": "hush-hush"}.items():
            patch.setenv(name, text)
        patch.chdir(folder)
        server = Server(folder)
    yield server
    server.kill()


@pytest.fixture
def server(shared):
    """The server of all tests: after each, it runs nothing."""
    with watched(shared, TEST_LIMIT):
        yield shared
        assert shared.alive(), f"the server died: {shared.log.read_text()[-4000:]}"
        with shared.connect() as connection:
            wait_until(lambda: not queries(connection), f"an end of {queries(connection)}")
        assert "is left behind" not in shared.log.read_text()


@pytest.fixture
def connection(server):
    with server.connect() as connection:
        yield connection


@pytest.fixture
def stream(connection):
    """Makes a stream of a class, where its package is installed. Settings are quoted, so that they stay as they are."""

    def make(name, path, columns="", /, **settings):
        package = re.match(r"\w+", path)[0]
        if find_spec(package) is None:
            pytest.skip(f"{package} is missing")
        settings = {"type": "python", "class": path, **settings}
        written = ", ".join(f'"{key}" = {setting(text)}' for key, text in settings.items())
        run(connection, f"CREATE OR REPLACE EXTERNAL STREAM {name} {columns} SETTINGS {written}")

    return make


def setting(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
    return "'" + text.replace("'", "''") + "'"


def described(connection, name):
    """The columns of a stream."""
    schema = table(connection, f"SELECT * FROM {name} LIMIT 0").schema
    return {field.name: str(field.type) for field in schema}


# pyspark-data-sources

DATASOURCES = "pyspark_datasources"


def test_fake_people_have_the_columns_of_the_source_or_of_the_statement(connection, stream):
    stream("people", f"{DATASOURCES}:FakeDataSource", numRows=7)
    assert list(described(connection, "people")) == ["name", "date", "zipcode", "state"]
    assert value(connection, "SELECT count(*) FROM people WHERE char_length(zipcode) = 5") == 7
    stream("workers", f"{DATASOURCES}:FakeDataSource", "(name string, company string)", mode="batch")
    found = rows(connection, "SELECT company, name FROM workers")
    assert len(found) == 3
    assert all(company and name for company, name in found)
    stream("nobody", f"{DATASOURCES}:FakeDataSource", "(nonsense string)")
    assert "Unable to find a method called `nonsense` in faker" in error(connection, "SELECT nonsense FROM nobody")


def test_fake_people_never_end_in_a_stream(connection, stream):
    stream("people", f"{DATASOURCES}:FakeDataSource", mode="streaming", numRows=2)
    assert len(rows(connection, "SELECT name, state FROM people LIMIT 5")) == 5


def test_arrow_files_are_partitions(connection, stream, tmp_path):
    for part in range(3):
        found = pyarrow.table({"part": [part] * 4, "n": range(4), "list": [[n, None] for n in range(4)]})
        with pyarrow.ipc.new_file(tmp_path / f"{part}.arrow", found.schema) as file:
            file.write_table(found, max_chunksize=2)
    stream("files", f"{DATASOURCES}:ArrowDataSource", path=tmp_path)
    assert described(connection, "files") == {"part": "int64", "n": "int64", "list": "list<item: int64>"}
    assert rows(connection, "SELECT part, sum(n) FROM files GROUP BY part ORDER BY part") == [(0, 6), (1, 6), (2, 6)]
    assert rows(connection, "SELECT list FROM files WHERE part = 1 AND n = 3") == [([3, None],)]
    stream("narrow", f"{DATASOURCES}:ArrowDataSource", "(part int8, n float64, list array(int16))", path=tmp_path)
    assert rows(connection, "SELECT n, part, list FROM narrow WHERE n > 2 ORDER BY part LIMIT 1") == [
        (3.0, 0, [3, None])
    ]


PULLS = [{"number": 7, "title": "Scales", "user": {"login": "k"}, "created_at": "2026-01-01", "updated_at": None}]
SERIES = {
    "Meta Data": {},
    "Time Series (Daily)": {
        "2026-01-02": {"1. open": "1.5", "2. high": "2", "3. low": "1", "4. close": "1.75", "5. volume": "900"},
    },
}
HOURS = [{"time": f"2026-01-01T0{hour}:00:00Z", "values": {"temperature": hour}} for hour in range(3)]
SKY = {
    "time": 1767225600,
    "states": [
        [
            "4b1815",
            "SWR1",
            "CH",
            1767225590,
            1767225599,
            8.5,
            47.4,
            900,
            False,
            80.5,
            270,
            None,
            [1, 2],
            910,
            "7",
            0,
            3,
        ],
        ["unknown"],
    ],
}


@pytest.mark.parametrize(
    ("name", "settings", "pages", "query", "expected"),
    [
        (
            ":GithubDataSource",
            {"path": "feathered/serpent"},
            {"https://api.github.com/repos/feathered/serpent/pulls": PULLS},
            "SELECT id, author, title, updated_at FROM found",
            [(7, "k", "Scales", None)],
        ),
        (
            ":StockDataSource",
            {"path": "SPY, QQQ", "api_key": "key"},
            {"https://www.alphavantage.co/query": SERIES},
            "SELECT symbol, date, close FROM found ORDER BY symbol",
            [("QQQ", "2026-01-02", 1.75), ("SPY", "2026-01-02", 1.75)],
        ),
        (
            ":JSONPlaceholderDataSource",
            {"endpoint": "todos", "limit": 2},
            {
                "https://jsonplaceholder.typicode.com/todos": lambda asked: [
                    {"userId": 1, "id": n, "title": f"to do {n}", "completed": n == 1}
                    for n in range(int(asked.query["_limit"]))
                ]
            },
            'SELECT id, "userId", title, completed FROM found ORDER BY id',
            [(0, 1, "to do 0", False), (1, 1, "to do 1", True)],
        ),
        (
            ":GoogleSheetsDataSource",
            {"path": "sheet"},
            {"https://docs.google.com/spreadsheets/d/sheet/gviz/tq": "country,name\nAD,Andorra\nCH,Schweiz\n"},
            "SELECT country, name FROM found ORDER BY country DESC",
            [("CH", "Schweiz"), ("AD", "Andorra")],
        ),
        (
            ".weather:WeatherDataSource",
            {"locations": "[(47.4, 8.5)]", "frequency": "hourly"},
            {"https://api.tomorrow.io/v4/weather/forecast": {"timelines": {"hourly": HOURS}}},
            "SELECT latitude, timestamp, weather FROM found LIMIT 2",
            [
                (47.4, "2026-01-01T00:00:00Z", '{"temperature": 0}'),
                (47.4, "2026-01-01T01:00:00Z", '{"temperature": 1}'),
            ],
        ),
        (
            ":OpenSkyDataSource",
            {"region": "EUROPE"},
            {"https://opensky-network.org/api/states/all": SKY},
            "SELECT callsign, last_contact, on_ground, sensors, category FROM found LIMIT 1",
            [("SWR1", datetime(2025, 12, 31, 23, 59, 59, tzinfo=timezone.utc), False, [1, 2], 3)],
        ),
    ],
)
def test_what_they_read_of_the_internet(web, connection, stream, name, settings, pages, query, expected):
    web.pages |= pages
    stream("found", f"{DATASOURCES}{name}", **settings)
    assert rows(connection, query) == expected


def test_events_for_meta_have_structs(web, connection, stream):
    web.pages["https://graph.facebook.com/v19.0/17/events"] = {"events_received": 1}
    stream(
        "events",
        f"{DATASOURCES}:MetaCapiDataSource",
        "(event_name string, event_time timestamptz, user_data tuple(em string, tags array(string)), value float64)",
        access_token="${secret:hec}",
        pixel_id=17,
    )
    select = "SELECT 'Buy', TIMESTAMP '2026-01-01T00:00:00Z', named_struct('em', 'x', 'tags', ['a', 'b']), 9.5"
    assert run(connection, f"INSERT INTO events {select}") == 1
    [asked] = web.asked
    assert asked.json == {
        "access_token": "hush-hush",
        "data": [
            {
                "event_name": "Buy",
                "event_time": 1767225600,
                "action_source": "website",
                "user_data": {"em": "x", "tags": ["a", "b"]},
                "custom_data": {"value": 9.5},
            }
        ],
    }


# pysparkformat


def test_a_csv_is_read_in_parts_over_http(web, connection, stream):
    lines = [f'{n},"line, {n}"' for n in range(200)]
    web.pages[f"{web.url}/lines.csv"] = "\n".join(["n,text", *lines, ""])
    settings = {"path": f"{web.url}/lines.csv", "header": True, "partitionSize": 500, "maxLineSize": 100}
    stream("lines", "pysparkformat.http.csv:HTTPCSVDataSource", **settings)
    assert described(connection, "lines") == {"n": "string", "text": "string"}
    asked = len(web.asked)
    assert rows(connection, "SELECT count(*), count(DISTINCT n), max(text) FROM lines") == [(200, 200, "line, 99")]
    assert sum("Range" in each.headers for each in web.asked[asked:]) > 4


def test_lines_of_json_leave_the_columns_to_the_statement(web, connection, stream):
    web.pages[f"{web.url}/lines"] = '{"id": 1, "tags": ["a"]}\n{"id": 2, "tags": []}\n'
    path = "pysparkformat.http.json:HTTPJSONDataSource"
    stream("lines", path, "(id int64, tags array(string))", path=f"{web.url}/lines")
    assert rows(connection, "SELECT tags, id FROM lines ORDER BY id") == [(["a"], 1), ([], 2)]
    with pytest.raises(Exception, match="leaves its columns to the statement"):
        stream("none", path, path=f"{web.url}/lines")


def test_the_links_of_a_page_are_partitions(web, connection, stream):
    links = [f"http://93.184.216.{n}/there" for n in (1, 2)]
    web.pages[f"{web.url}/page"] = " ".join(f'<a href="{link}">it</a>' for link in [*links, *links])
    web.pages[links[0]] = "there"
    stream("links", "pysparkformat.http.page:HTTPPageDataSource", path=f"{web.url}/page")
    found = rows(
        connection,
        "SELECT page_request_url, page_response_http_status, page_response_headers, page_request_datetime "
        "FROM links ORDER BY 1",
    )
    assert [(link, status) for link, status, *_ in found] == [(links[0], 200), (links[1], 404)]
    assert "Content-Length: 5" in found[0][2]
    assert found[0][3].tzinfo is not None


# spark-fuse

FUSE = "spark_fuse.io"


def test_pages_of_an_api_have_the_schema_that_is_found_there(web, connection, stream):
    def page(asked):
        n = int(asked.query["page"])
        return {"items": [{"id": n, "score": n / 2, "at": {"x": n}, "names": ["a"]}], "unused": 1}

    web.pages[f"{web.url}/items"] = page
    config = {
        "sources": [f"{web.url}/items"],
        "pagination": {"mode": "query", "param": "page", "stop": 4},
        "parallelism": 2,
    }
    stream("items", f"{FUSE}.rest_api:RestAPIDataSource", **{"spark.fuse.rest.config": config})
    assert rows(connection, 'SELECT id, score, at, "names" FROM items WHERE id > 2 ORDER BY id') == [
        (3, 1.5, {"x": 3}, ["a"]),
        (4, 2.0, {"x": 4}, ["a"]),
    ]
    stream("ids", f"{FUSE}.rest_api:RestAPIDataSource", "(score float32)", **{"spark.fuse.rest.config": config})
    assert rows(connection, "SELECT sum(score) FROM ids") == [(5.0,)]


def test_sparql(web, connection, stream):
    integer = "http://www.w3.org/2001/XMLSchema#integer"
    binding = {"name": {"type": "literal", "value": "lynx"}, "n": {"value": "3", "datatype": integer}}
    web.pages[f"{web.url}/sparql"] = {"head": {"vars": ["name", "n"]}, "results": {"bindings": [binding]}}
    config = {"endpoint": f"{web.url}/sparql", "queries": ["SELECT ?name ?n WHERE { ?name :n ?n }"]}
    stream("cats", f"{FUSE}.sparql:SPARQLDataSource", **{"spark.fuse.sparql.config": config})
    assert rows(connection, "SELECT n, name FROM cats") == [(3, "lynx")]
    assert {asked.form["query"] for asked in web.asked} == set(config["queries"])


def test_points_are_written_to_qdrant_and_scrolled_through(web, connection, stream):
    points = []

    def put(asked):
        points.extend(asked.json["points"])
        return {"status": "ok", "result": {}}

    def scroll(asked):
        first, limit = asked.json.get("offset", 0), asked.json["limit"]
        following = first + limit if first + limit < len(points) else None
        return {"status": "ok", "result": {"points": points[first : first + limit], "next_page_offset": following}}

    web.pages[f"{web.url}/collections/cats/points"] = put
    web.pages[f"{web.url}/collections/cats/points/scroll"] = scroll
    config = {"endpoint": web.url, "collection": "cats", "page_size": 2, "with_vectors": True, "batch_size": 2}
    path, settings = f"{FUSE}.qdrant:QdrantDataSource", {"spark.fuse.qdrant.config": config}
    stream("put", path, "(id int64, vector array(float64), genus string, age int8)", **settings)
    values = ", ".join(f"({n}, [{n}.5, 0], 'genus {n}', {n})" for n in range(5))
    assert run(connection, f"INSERT INTO put VALUES {values}") == 5
    assert points[1] == {"id": 1, "vector": [1.5, 0.0], "payload": {"genus": "genus 1", "age": 1}}
    stream("cats", path, **settings)
    found = rows(connection, "SELECT vector, payload FROM cats WHERE id = 4")
    assert found == [([4.5, 0.0], {"age": 4, "genus": "genus 4"})]


# cyber-spark-data-connectors


def test_rows_are_sent_to_an_api_one_by_one(web, connection, stream):
    web.pages[f"{web.url}/alerts"] = "taken"
    settings = {"url": f"{web.url}/alerts", "url_query_params": "id", "http_header_X-Key": "${secret:hec}"}
    for mode in ["batch", "streaming"]:
        stream("alerts", "cyber_connectors:RestApiDataSource", "(id int64, at date, n float64)", mode=mode, **settings)
        assert run(connection, "INSERT INTO alerts VALUES (1, DATE '2026-01-01', 0.5), (2, NULL, NULL)") == 2
        assert [(asked.method, asked.query, asked.json) for asked in web.asked] == [
            ("POST", {"id": "1"}, {"at": "2026-01-01", "n": 0.5}),
            ("POST", {"id": "2"}, {"at": None, "n": None}),
        ]
        assert {name.lower(): text for name, text in web.asked[0].headers.items()}["x-key"] == "hush-hush"
        web.asked.clear()


def test_an_insert_that_cannot_be_sent_fails(web, connection, stream):
    settings = {"url": f"{web.url}/alerts", "http_method": "get"}
    stream("alerts", "cyber_connectors:RestApiDataSource", "(id int64)", **settings)
    expected = "HTTP GET requires all row columns to be sent as URL query parameters"
    assert expected in error(connection, "INSERT INTO alerts VALUES (1)")
    assert not web.asked


def test_splunk_is_written_to(web, connection, stream):
    web.pages[f"{web.url}/hec"] = {"text": "Success"}
    settings = {"url": f"{web.url}/hec", "token": "${secret:hec}", "time_column": "at", "indexed_fields": "level"}
    columns = "(at timestamptz, level string, line string)"
    stream("log", "cyber_connectors:SplunkDataSource", columns, index="main", **settings)
    assert run(connection, "INSERT INTO log VALUES ('2026-01-01T00:00:00Z', 'warn', 'it snows')") == 1
    [asked] = web.asked
    assert asked.headers["Authorization"] == "Splunk hush-hush"
    assert (asked.json["time"], asked.json["fields"], asked.json["index"]) == (1767225600, {"level": "warn"}, "main")
    assert (asked.json["event"]["line"], asked.json["event"]["level"]) == ("it snows", "warn")


def exported(asked):
    """What Splunk answers: an event in each second of the time that is asked for, as lines of JSON."""
    first, last = (int(float(asked.form[name])) for name in ("earliest_time", "latest_time"))
    events = [{"_time": f"{second}.5", "host": "h", "unused": "?"} for second in range(first, last)][:10]
    lines = [{"preview": False}, *({"result": event} for event in events)]
    return "\n".join(map(json.dumps, lines)) + "\n"


def test_splunk_is_read_in_spans_of_time(web, connection, stream):
    web.pages[f"{web.url}/services/search/jobs/export"] = exported
    settings = {"splunkd_url": web.url, "splunkd_token": "${secret:hec}", "query": "search index=main"}
    span = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:06Z", "num_partitions": 3}
    stream("events", "cyber_connectors:SplunkDataSource", **settings, **span)
    assert list(described(connection, "events"))[:3] == ["_time", "_indextime", "_raw"]
    found = rows(connection, 'SELECT _time, host, _raw FROM "events" ORDER BY _time')
    assert [at.timestamp() for at, *_ in found] == [1767225600.5 + second for second in range(6)]
    assert {rest for _, *rest in map(tuple, found) for rest in [tuple(rest)]} == {("h", None)}
    assert len({asked.form["earliest_time"] for asked in web.asked}) == 3


def test_the_offsets_of_splunk_are_text(web, connection, stream):
    web.pages[f"{web.url}/services/search/jobs/export"] = exported
    settings = {"splunkd_url": web.url, "splunkd_token": "t", "index": "main", "start_time": "2026-01-01T00:00:00Z"}
    columns = "(_time timestamptz, host string)"
    stream("events", "cyber_connectors:SplunkDataSource", columns, mode="streaming", **settings)
    found = rows(connection, "SELECT _time, host FROM events LIMIT 12")
    # Ten events an hour, as the parts of its first microbatch are.
    assert [int(at.timestamp()) - 1767225600 for at, _ in found] == [*range(10), 3600, 3601]


# spark-rest-api-reader

READER = "spark_rest_api_reader:RestApiDataSource"


def test_parts_of_an_api_have_the_types_of_a_sample(web, connection, stream):
    def page(asked):
        n = int(asked.query.get("cursor", 0))
        data = [{"region": asked.query.get("region"), "n": n, "at": "2026-01-01T00:00:00Z", "in": {"x": 0.5}}]
        return {"data": data, "next": n + 1 if n < 2 else None}

    web.pages[f"{web.url}/regions"] = page
    settings = {
        "url": f"{web.url}/regions",
        "headers": {"X-Key": "k"},
        "partitions": [{"region": "north"}, {"region": "south"}],
        "pagination_type": "cursor",
        "next_cursor_path": "next",
    }
    stream("regions", READER, '(region string, n int64, "in" tuple(x float64), at timestamptz)', **settings)
    found = rows(connection, 'SELECT region, n, "in" FROM regions WHERE n > 0 ORDER BY region, n')
    assert found == [(region, n, {"x": 0.5}) for region in ("north", "south") for n in (1, 2)]
    assert rows(connection, "SELECT min(at) FROM regions") == [(datetime(2026, 1, 1, tzinfo=timezone.utc),)]
    stream("inferred", READER, infer_schema=True, **settings)
    assert described(connection, "inferred")["n"] == "int64"
    assert value(connection, "SELECT sum(n) FROM inferred") == 6


def test_an_api_that_grows_is_a_stream(web, connection, stream):
    web.pages[f"{web.url}/changes"] = lambda asked: [
        {"id": n, "by": f"user {n}"} for n in range(int(asked.query["since"]) + 1, int(asked.query["since"]) + 3)
    ]
    settings = {"stream_cursor_field": "id", "stream_cursor_param": "since", "stream_initial_value": 0}
    settings |= {"url": f"{web.url}/changes", "stream_cursor_is_numeric": True}
    stream("changes", READER, "(id int64, by string)", mode="streaming", **settings)
    assert rows(connection, "SELECT id, by FROM changes LIMIT 5") == [(n, f"user {n}") for n in range(1, 6)]


# What the libraries bring along


def test_metrics_of_bytewax(connection, stream):
    settings = {"metric_name": "load", "interval": "1ms", "count": 4}
    stream("metrics", "bytewax.connectors.demo:RandomMetricSource", "(name string, value float64)", **settings)
    found = rows(connection, "SELECT name, value FROM metrics")
    assert [name for name, _ in found] == ["load"] * 4
    assert all(0 <= value < 10 for _, value in found)


def test_folders_of_bytewax(connection, stream, tmp_path):
    stream(
        "put",
        "bytewax.connectors.files:DirSink",
        "(key string, line string)",
        dir_path=tmp_path,
        file_count=2,
        end="\n",
    )
    assert run(connection, "INSERT INTO put VALUES ('0', 'sun'), ('1', 'moon'), ('0', 'star')") == 3
    assert len(list(tmp_path.iterdir())) == 2
    stream("lines", "bytewax.connectors.files:DirSource", "(line string)", dir_path=tmp_path)
    assert rows(connection, "SELECT line FROM lines ORDER BY line") == [("moon",), ("star",), ("sun",)]


def test_tables_of_bytewax(connection, stream, tmp_path):
    path = tmp_path / "cats.csv"
    path.write_text("genus;n\nlynx;1\nfelis;2\n")
    stream("cats", "bytewax.connectors.files:CSVSource", "(genus string, n string)", path=path, delimiter=";")
    assert rows(connection, "SELECT n, genus FROM cats ORDER BY n") == [("1", "lynx"), ("2", "felis")]


def test_sources_of_streamz(connection, stream, tmp_path):
    stream("letters", "streamz.sources:from_iterable", "(letter string)", iterable="abc")
    assert rows(connection, "SELECT letter FROM letters") == [("a",), ("b",), ("c",)]
    for name in ["b", "a"]:
        (tmp_path / name).touch()
    stream("found", "streamz.sources:filenames", "(path string)", mode="streaming", path=tmp_path, poll_interval=1)
    assert rows(connection, "SELECT path FROM found LIMIT 2") == [(f"{tmp_path}/a",), (f"{tmp_path}/b",)]
    # It closes its output and stays: where a process has ended already, streamz fails to terminate it.
    script = tmp_path / "output"
    script.write_text("echo sun; exec >&-; exec sleep 60")
    stream("output", "streamz.sources:from_process", "(line binary)", cmd=f"sh {script}")
    assert rows(connection, "SELECT line FROM output") == [(b"sun\n",)]


def test_a_port_of_streamz(server, connection, stream):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    stream("lines", "streamz.sources:from_tcp", "(line binary)", mode="streaming", port=port)
    found = []

    def read():
        with server.connect() as other:
            found.extend(rows(other, "SELECT line FROM lines LIMIT 2"))

    reader = threading.Thread(target=read)
    reader.start()

    def connected():
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            return None

    with wait_until(connected, "a port that is open") as client:
        client.sendall(b"sun\nmoon\n")
        reader.join()
    assert found == [(b"sun\n",), (b"moon\n",)]


def test_the_clock_of_pathway(connection, stream):
    path = "pathway.stdlib.temporal.time_utils:TimestampSubject"
    settings = {"refresh_rate": "1ms", "initial_delay": "0s", "schema": "TimestampSchema"}
    stream("ticks", path, mode="streaming", **settings)
    before = datetime.now(timezone.utc)
    found = [at for (at,) in rows(connection, "SELECT timestamp_utc FROM ticks LIMIT 3")]
    assert found == sorted(found)
    assert found[0] >= before

"""What the JDBC driver of Flight SQL calls, in its order and with its messages, and what it wants to be answered.

The driver needs a JVM, and so it is played here: `Driver` makes the calls that it makes, and each test is a group of
its methods. An assertion is what the driver itself would fail at, or would tell its user wrongly. Read from, in
apache/arrow-java (flight/):

- connecting, sessions, statements' calls, endpoints:
  flight-sql-jdbc-core/src/main/java/org/apache/arrow/driver/jdbc/client/ArrowFlightSqlClientHandler.java
- the messages: flight-sql/src/main/java/org/apache/arrow/flight/sql/FlightSqlClient.java
- which statement is an update: …/driver/jdbc/ArrowFlightMetaImpl.java, ArrowFlightStatement.java
- metadata and SqlInfo: …/driver/jdbc/ArrowDatabaseMetadata.java, utils/VectorSchemaRootTransformer.java
- types: …/driver/jdbc/utils/SqlTypes.java, utils/AvaticaParameterBinder.java, converter/impl
- cookies and authentication: flight-core/src/main/java/org/apache/arrow/flight/client/ClientCookieMiddleware.java,
  flight-core/src/main/java/org/apache/arrow/flight/auth2

and, in apache/calcite-avatica, its superclasses: core/src/main/java/org/apache/calcite/avatica/AvaticaConnection.java.

There is no test where the driver calls nothing: Connection.setSchema, commit, rollback and isValid,
DatabaseMetaData.getTypeInfo, getProcedures, getFunctions and getIndexInfo.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import dataclass

import pyarrow as pa
import pytest
from harness import PATIENCE, create, queries, run, value, wait_until
from pyarrow import flight

USERS = "def users(): return [(1, 'ann'), (2, 'bob')]"


# --- protobuf -----------------------------------------------------------------------------------------------------


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def message(*fields):
    """A message of numbered fields: numbers, text, bytes. None is a field that is not there."""
    encoded = b""
    for number, content in fields:
        if content is None:
            continue
        if isinstance(content, int):
            encoded += varint(number << 3) + varint(content)
        else:
            content = content.encode() if isinstance(content, str) else content
            encoded += varint(number << 3 | 2) + varint(len(content)) + content
    return encoded


def packed(name, *fields):
    """A message of Flight SQL, in the envelope that says which it is. One without content has no value, as in Java."""
    return message((1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}"), (2, message(*fields) or None))


def unpacked(name, envelope):
    fields = dict(parsed(envelope))
    assert fields[1] == f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()
    return fields.get(2, b"")


def parsed(encoded):
    """The fields of a message, as pairs: repeated ones occur repeatedly."""
    encoded, fields = bytes(encoded), []
    position = 0

    def number():
        nonlocal position
        shift = result = 0
        while True:
            byte = encoded[position]
            position += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while position < len(encoded):
        tag = number()
        if tag & 7 == 0:
            fields.append((tag >> 3, number()))
            continue
        length = {1: 8, 5: 4}.get(tag & 7) or number()
        fields.append((tag >> 3, encoded[position : position + length]))
        position += length
    assert position == len(encoded)
    return fields


def signed(number):
    return number - (1 << 64) if number >= 1 << 63 else number


def schema_of(encoded):
    """Empty bytes are a schema without fields."""
    return pa.ipc.read_schema(pa.py_buffer(encoded)) if encoded else pa.schema([])


# --- the driver ---------------------------------------------------------------------------------------------------


class Refused(Exception):
    """The driver throws an SQLException of its own."""


FAILURES = (Refused, flight.FlightError, pa.ArrowException)


class Calls(flight.ClientMiddlewareFactory):
    """The cookies of a connection, and the bearer token of its last response.

    Only what comes before the response's messages is looked at: grpc-java gives a middleware the trailers where nothing
    else came. A cookie with Max-Age and without Expires, of version 1 to java.net.HttpCookie, goes back quoted.
    """

    def __init__(self):
        self.cookies = {}
        self.bearer = None

    def start_call(self, info):
        return Call(self)


class Call(flight.ClientMiddleware):
    def __init__(self, calls):
        self.calls = calls
        self.seen = False

    def sending_headers(self):
        return {"cookie": "; ".join(self.calls.cookies.values())} if self.calls.cookies else {}

    def received_headers(self, headers):
        if self.seen:
            return
        self.seen = True
        headers = {name.lower(): values for name, values in headers.items()}
        self.calls.bearer = None
        for authorization in headers.get("authorization", []):
            if authorization.lower().startswith("bearer "):
                self.calls.bearer = authorization[len("bearer ") :]
        for cookie in headers.get("set-cookie", []):
            pair, *rest = (part.strip() for part in cookie.split(";"))
            name, value = pair.split("=", 1)
            attributes = {key.lower(): value for key, _, value in (part.partition("=") for part in rest)}
            if attributes.get("max-age") == "0":
                self.calls.cookies.pop(name.lower(), None)
            elif "max-age" in attributes and "expires" not in attributes:
                self.calls.cookies[name.lower()] = f'{name}="{value}"'
            else:
                self.calls.cookies[name.lower()] = f"{name}={value}"


class Greeting(flight.ClientAuthHandler):
    """Nothing to say: what counts is in the headers, both ways, and in the status. The driver's one empty request is
    another test's, see GREETINGS.
    """

    def authenticate(self, outgoing, incoming):
        pass

    def get_token(self):
        return b""


@dataclass
class Prepared:
    handle: bytes
    columns: pa.Schema
    parameters: pa.Schema
    is_update: bool


class Driver:
    """A connection. Properties that the driver does not know become headers."""

    def __init__(self, uri, user=None, password=None, token=None, catalog=None, **properties):
        self.calls = Calls()
        self.client = flight.connect(uri, middleware=[self.calls])
        self.headers = [(name.lower().encode(), content.encode()) for name, content in properties.items()]
        self.catalog = catalog
        try:
            if user is not None and token is None:
                pair = base64.b64encode(f"{user}:{password}".encode()).decode()
                self.handshake(f"Basic {pair}")
                # A server that has nothing to say leaves the driver without a token, which is no error.
                if self.calls.bearer is not None:
                    self.headers.append((b"authorization", f"Bearer {self.calls.bearer}".encode()))
            elif token is not None:
                self.handshake(f"Bearer {token}")
                self.headers.append((b"authorization", f"Bearer {token}".encode()))
            if catalog is not None:
                self.set_catalog(catalog)
        except BaseException:
            self.client.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def options(self, *headers):
        return flight.FlightCallOptions(timeout=PATIENCE, headers=[*self.headers, *headers])

    def handshake(self, authorization):
        self.client.authenticate(Greeting(), self.options((b"authorization", authorization.encode())))

    def action(self, name, body):
        return [answer.body.to_pybytes() for answer in self.client.do_action(flight.Action(name, body), self.options())]

    def set_catalog(self, catalog):
        """Connection.setCatalog: a bare message, whose answer must not have errors in it."""
        option = message((1, "catalog"), (2, message((1, catalog))))
        answer, *_ = self.action("SetSessionOptions", message((1, option)))
        if parsed(answer):
            raise Refused(f"cannot set session option for catalog = {catalog}: {parsed(answer)}")

    def close(self):
        """Connection.close. A session is closed where the address had a catalog, and an error is thrown."""
        try:
            if self.catalog is not None:
                answer, *_ = self.action("CloseSession", b"")
                assert dict(parsed(answer)).get(1, 0) in range(4)
        finally:
            self.client.close()

    def info(self, command):
        return self.client.get_flight_info(flight.FlightDescriptor.for_command(command), self.options())

    def streams(self, info):
        """All endpoints are opened at once. Those of other places would be new connections, without the session."""
        for endpoint in info.endpoints:
            schemes = [location.uri.decode().split(":")[0] for location in endpoint.locations]
            assert not schemes or schemes[0] == "arrow-flight-reuse-connection"
        return [self.client.do_get(endpoint.ticket, self.options()) for endpoint in info.endpoints]

    def fetch(self, command):
        """A ResultSet, read to its end. Its columns are the info's, and its values the stream's."""
        info = self.info(command)
        tables = [stream.read_all() for stream in self.streams(info)]
        for table in tables:
            assert table.schema.equals(info.schema)
        return pa.concat_tables(tables) if tables else info.schema.empty_table()

    def prepare(self, sql):
        request = packed("ActionCreatePreparedStatementRequest", (1, sql))
        answer, *_ = self.action("CreatePreparedStatement", request)
        fields = dict(parsed(unpacked("ActionCreatePreparedStatementResult", answer)))
        columns, parameters = schema_of(fields.get(2)), schema_of(fields.get(3))
        for field in [*columns, *parameters]:
            assert representable(field.type), f"the driver throws: unsupported type {field.type}"
        is_update = bool(fields[4]) if 4 in fields else not columns.names
        return Prepared(fields[1], columns, parameters, is_update)

    def put(self, command, schema, batch):
        """The messages that were answered. The driver waits for the end, and then reads the first."""
        descriptor = flight.FlightDescriptor.for_command(command)
        writer, reader = self.client.do_put(descriptor, schema, self.options())
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            answers = []
            while (answer := reader.read()) is not None:
                answers.append(answer.to_pybytes())
        return answers

    def rows(self, prepared, values):
        """The parameters, in vectors of the schema that the server gave."""
        for row in values:
            assert len(row) == len(prepared.parameters)
        columns = [
            pa.array([row[index] for row in values], field.type) for index, field in enumerate(prepared.parameters)
        ]
        return pa.record_batch(columns, schema=prepared.parameters)

    def execute_update(self, prepared, values=()):
        """PreparedStatement.executeUpdate, executeBatch. Without parameters, a batch without columns is sent."""
        batch = self.rows(prepared, values) if values else pa.record_batch([], schema=pa.schema([]))
        command = packed("CommandPreparedStatementUpdate", (1, prepared.handle))
        first, *_ = self.put(command, batch.schema, batch)
        return signed(dict(parsed(first)).get(1, 0))

    def bind(self, prepared, row):
        """The handle to execute: that of the answer, where there is one, even if it is empty."""
        batch = self.rows(prepared, [row])
        command = packed("CommandPreparedStatementQuery", (1, prepared.handle))
        answers = self.put(command, batch.schema, batch)
        return dict(parsed(answers[0])).get(1, b"") if answers else prepared.handle

    def execute_query(self, prepared, row=None):
        handle = prepared.handle if row is None else self.bind(prepared, row)
        return self.fetch(packed("CommandPreparedStatementQuery", (1, handle)))

    def open_query(self, prepared):
        """A ResultSet that is not read yet."""
        return self.streams(self.info(packed("CommandPreparedStatementQuery", (1, prepared.handle))))

    def close_statement(self, prepared):
        self.action("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", (1, prepared.handle)))

    def statement(self, sql):
        """Statement.execute: rows, or a count. A count that is not known makes the driver run it as a query, too."""
        prepared = self.prepare(sql)
        try:
            if not prepared.is_update:
                return self.execute_query(prepared)
            count = self.execute_update(prepared)
            return self.execute_query(prepared) if count == -1 else count
        finally:
            self.close_statement(prepared)


def representable(kind):
    """Whether the driver has a type of java.sql.Types for it. It looks at all columns before it gives any."""
    if isinstance(kind, pa.BaseExtensionType):
        return representable(kind.storage_type)
    if pa.types.is_decimal(kind):
        return kind.bit_width >= 128
    unsupported = [pa.types.is_float16, pa.types.is_run_end_encoded, pa.types.is_list_view, pa.types.is_large_list_view]
    return not any(is_unsupported(kind) for is_unsupported in unsupported)


@pytest.fixture
def driver(server):
    with Driver(server.uri) as driver:
        yield driver


@pytest.fixture
def users(connection):
    create(connection, "users", "id int32 NOT NULL, name string", USERS, mode="batch")


# --- Driver.connect, Connection.close -------------------------------------------------------------------------------


def works(driver):
    return driver.statement("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_connecting(server):
    with Driver(server.uri) as driver:
        assert works(driver)


def test_unknown_properties_are_headers(server):
    with Driver(server.uri, schema="public", **{"avatica.statement.retries": "5"}) as driver:
        assert works(driver)


@pytest.mark.parametrize(("user", "password"), [("ann", "secret"), ("ann", ""), ("änn", "a:b=ü")])
def test_connecting_with_a_password(server, user, password):
    """The token of the Handshake is that of all further calls, and of further connections to the same server."""
    with Driver(server.uri, user=user, password=password) as driver:
        headers = dict(driver.headers)
        assert headers.get(b"authorization", b"").startswith(b"Bearer ")
        assert works(driver)
        with Driver(server.uri, token=headers[b"authorization"].decode().removeprefix("Bearer ")) as other:
            assert works(other)


def test_a_password_without_padding(server):
    """Other drivers leave the padding away, or send no request with it, and take nothing but a token for an answer."""
    client = flight.connect(server.uri)
    name, token = client.authenticate_basic_token("ann", "secret", flight.FlightCallOptions(timeout=PATIENCE))
    assert (name, token[:7]) == (b"authorization", b"Bearer ")
    client.close()
    for pair in [b"YW5uOnNlY3JldHM", b"YW5uOnNlY3JldHM="]:
        calls = Calls()
        with flight.connect(server.uri, middleware=[calls]) as client:
            options = flight.FlightCallOptions(timeout=PATIENCE, headers=[(b"authorization", b"Basic " + pair)])
            client.authenticate(Greeting(), options)
        assert calls.bearer


# Java's client writes one empty request, and ends. A server that ends without having read it resets the stream under a
# client that is writing, which gRPC's C++ takes badly: it waits for its deadline, or ends the process.
GREETINGS = """
import sys
from pyarrow import flight

class Greeting(flight.ClientAuthHandler):
    def authenticate(self, outgoing, incoming):
        outgoing.write(b"")

    def get_token(self):
        return b""

for _ in range(30):
    with flight.connect(sys.argv[1]) as client:
        headers = [(b"authorization", b"Basic YW5uOnNlY3JldA==")]
        client.authenticate(Greeting(), flight.FlightCallOptions(timeout=2, headers=headers))
"""


def test_a_handshake_with_an_empty_request(server):
    greetings = [sys.executable, "-c", GREETINGS, server.uri]
    ended = subprocess.run(greetings, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr


def test_connecting_with_a_token(server):
    """A server that asks for none accepts any."""
    with Driver(server.uri, token="dG9rZW4") as driver:
        assert works(driver)


def test_connecting_with_user_and_token_uses_the_token(server):
    with Driver(server.uri, user="ann", password="secret", token="dG9rZW4") as driver:
        assert dict(driver.headers)[b"authorization"] == b"Bearer dG9rZW4"
        assert works(driver)


# --- sessions: the catalog ------------------------------------------------------------------------------------------


@pytest.fixture
def catalog(driver):
    return driver.fetch(packed("CommandGetCatalogs"))["catalog_name"][0].as_py()


def test_connecting_with_a_catalog(server, catalog):
    driver = Driver(server.uri, catalog=catalog)
    assert driver.calls.cookies, "a session without a cookie is lost with the call"
    cookies = dict(driver.calls.cookies)
    assert works(driver)
    assert driver.calls.cookies == cookies, "the session changed"
    driver.close()


def test_connecting_with_a_catalog_that_is_none(server, catalog):
    Driver(server.uri, catalog=catalog).close()
    with pytest.raises(FAILURES):
        Driver(server.uri, catalog="nowhere")


def test_connecting_with_a_password_and_a_catalog(server, catalog):
    with Driver(server.uri, user="ann", password="secret", catalog=catalog) as driver:
        assert works(driver)


def test_set_catalog(driver, catalog):
    """Once it was set, the driver sets it again at each getCatalog, getSchema, getAutoCommit and isReadOnly."""
    driver.set_catalog(catalog)
    cookies = dict(driver.calls.cookies)
    assert cookies
    for _ in range(3):
        driver.set_catalog(catalog)
        assert works(driver)
    assert driver.calls.cookies == cookies
    with pytest.raises(FAILURES):
        driver.set_catalog("nowhere")
    assert works(driver)


def test_cookies_are_found_among_others(server, catalog):
    """Other cookies beside, and the ways to write the same: a space or none, quotes of version 1."""
    driver = Driver(server.uri, catalog=catalog)
    (pair,) = driver.calls.cookies.values()
    name, _, token = pair.replace('"', "").partition("=")
    for cookie in [
        f"a=1; {name}={token}; b=2",
        f"a=1;{name}={token}",
        f'{name}="{token}"',
        f'a=1; {name}="{token}";$Path="/"',
    ]:
        client = flight.connect(server.uri)
        headers = [(b"cookie", cookie.encode())]
        options = flight.FlightCallOptions(timeout=PATIENCE, headers=headers)
        (answer,) = client.do_action(flight.Action("GetSessionOptions", b""), options)
        found = {}
        for _, entry in parsed(answer.body.to_pybytes()):
            fields = dict(parsed(entry))
            found[fields[1]] = dict(parsed(fields.get(2, b"")))
        assert found[b"catalog"] == {1: catalog.encode()}, cookie
        client.close()
    driver.close()


def test_sessions_are_apart(server, catalog):
    with Driver(server.uri, catalog=catalog) as one, Driver(server.uri, catalog=catalog) as other:
        assert one.calls.cookies != other.calls.cookies


BATCH_SIZE = "SELECT value FROM information_schema.df_settings WHERE name = 'datafusion.execution.batch_size'"


def batch_size(driver):
    return driver.statement(BATCH_SIZE)["value"].to_pylist()


def test_a_session_that_is_closed_is_closed_for_all_that_share_it(server, connection):
    """Its settings are forgotten, which the others are told: they connect again."""
    create(connection, "endless", "n int64", ENDLESS, mode="streaming")
    with Driver(server.uri) as one, Driver(server.uri) as other:
        one.statement("SET datafusion.execution.batch_size = 77")
        shared = dict(one.calls.cookies)
        other.calls.cookies = dict(shared)
        prepared = other.prepare("SELECT 1 AS one")
        (stream,) = other.open_query(other.prepare("SELECT n FROM endless"))
        assert (batch_size(other), other.calls.cookies) == (["77"], shared)
        (answer,) = one.action("CloseSession", b"")
        assert parsed(answer) == [(1, 1)], "closed"
        with pytest.raises(FAILURES, match=r"the session has ended, .*: a client has closed it"):
            batch_size(other)
        other.calls.cookies.clear()
        assert batch_size(other) == batch_size(one) == ["8192"]
        assert len({str(cookies) for cookies in [shared, one.calls.cookies, other.calls.cookies]}) == 3
        other.statement("SET datafusion.execution.batch_size = 78")
        assert (batch_size(other), batch_size(one)) == (["78"], ["8192"])
        assert other.execute_query(prepared).to_pylist() == [{"one": 1}]
        assert stream.read_chunk().data.num_rows, "what is being read goes on"
        stream.cancel()
    wait_until(lambda: not queries(connection), "the query's end")
    run(connection, "DROP STREAM endless")


# --- Statement ------------------------------------------------------------------------------------------------------


def test_execute_query(driver, users):
    rows = driver.statement("SELECT id, name FROM users ORDER BY id")
    assert rows.to_pylist() == [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]


def test_execute_query_without_rows(driver, users):
    assert driver.statement("SELECT id, name FROM users WHERE id > 2").num_rows == 0


@pytest.mark.parametrize("sql", ["SHOW STREAMS", "EXPLAIN SELECT 1", "DESCRIBE users", "SHOW TABLES"])
def test_execute_query_that_is_no_select(driver, users, sql):
    """It is not run when it is prepared, and it is not taken for an update: it has columns, and says so."""
    prepared = driver.prepare(sql)
    assert not prepared.is_update and prepared.columns.names
    assert driver.execute_query(prepared).schema.equals(prepared.columns)
    driver.close_statement(prepared)


def test_the_columns_are_known_before_and_after(driver, users):
    """ResultSetMetaData is of the prepared statement's columns first, then of the info's."""
    prepared = driver.prepare("SELECT * FROM users")
    assert prepared.columns.equals(driver.execute_query(prepared).schema)
    driver.close_statement(prepared)


TYPES = """
    SELECT true AS a, CAST(1 AS TINYINT) AS b, CAST(1 AS SMALLINT UNSIGNED) AS c, 1 AS d, CAST(1.5 AS REAL) AS e,
        CAST(1.5 AS DECIMAL(50, 3)) AS f, 'x' AS g, arrow_cast('x', 'Utf8View') AS h, arrow_cast('x', 'LargeUtf8') AS i,
        CAST('x' AS BYTEA) AS j, DATE '2024-01-01' AS k, TIME '10:00:00' AS l, now() AS m,
        arrow_cast(0, 'Timestamp(Millisecond, None)') AS n, INTERVAL '1 day' AS o, NULL AS p, [1, 2] AS q,
        struct(1, 'x') AS r, MAP {'x': 1} AS s, arrow_cast('x', 'Dictionary(Int32, Utf8)') AS t
"""


def test_execute_query_with_every_type(driver):
    """Types that java.sql.Types has no word for are refused by the driver when the statement is prepared."""
    rows = driver.statement(TYPES)
    assert rows.num_rows == 1
    assert rows.num_columns == 20


def test_execute_update_that_creates(driver, connection):
    """Statement.execute and executeUpdate: it is not run by being prepared, and once by being executed."""
    sql = f"CREATE EXTERNAL STREAM made (id int32, name string) AS $$\n{USERS.replace('users', 'made')}\n$$ "
    sql += "SETTINGS type = 'python'"
    prepared = driver.prepare(sql)
    assert prepared.is_update
    driver.close_statement(prepared)
    assert driver.statement(sql) == 0
    assert driver.statement("DROP STREAM made") == 0
    for sql in ["CREATE TABLE made AS SELECT 1 AS n", "CREATE VIEW seen AS SELECT n FROM made", "DROP VIEW seen"]:
        assert driver.statement(sql) in range(2), "a count that is not known (-1) makes the driver run it again"
    assert driver.statement("DROP TABLE made") == 0


def test_execute_update_that_inserts(driver, connection, tmp_path):
    notes = tmp_path / "notes"
    create(connection, "sink", "n int64", f"def sink(n):\n    open({str(notes)!r}, 'a').write(f'{{n}}')")
    assert driver.statement("INSERT INTO sink VALUES (1), (2)") == 2
    assert notes.read_text() == "[1, 2]"


def test_execute_of_a_script(driver):
    """Several statements in one text, of which the last one counts."""
    rows = driver.statement("CREATE TABLE script AS SELECT 7 AS n; SELECT n FROM script; ")
    assert rows.to_pylist() == [{"n": 7}]
    assert driver.statement("DROP TABLE script") == 0


def test_a_statement_that_is_used_again_forgets_its_handle(driver):
    """The driver closes the last one alone. Closing it twice, or after it has expired, is no error."""
    handles = [driver.prepare(f"SELECT {number} AS n") for number in range(20)]
    assert len({prepared.handle for prepared in handles}) == 20
    assert driver.execute_query(handles[0]).to_pylist() == [{"n": 0}]
    driver.close_statement(handles[-1])
    driver.close_statement(handles[-1])


def test_errors_are_the_driver_s_at_once(driver):
    """Those of a text when it is prepared; those of an execution once, since they come without a retry."""
    for sql in ["SELEC 1", "SELECT * FROM nowhere"]:
        with pytest.raises(FAILURES):
            driver.prepare(sql)
    prepared = driver.prepare("DROP TABLE nowhere")
    with pytest.raises(FAILURES):
        driver.execute_update(prepared)
    driver.close_statement(prepared)


# --- PreparedStatement ----------------------------------------------------------------------------------------------


def test_prepared_query(driver, users):
    """It is bound anew for each execution, always with the handle that it was created with."""
    prepared = driver.prepare("SELECT name FROM users WHERE id = ? AND name <> ?")
    assert [field.type for field in prepared.parameters] == [pa.int32(), pa.string()]
    assert not prepared.is_update
    for id, name in [(1, "ann"), (2, "bob"), (1, "ann")]:
        assert driver.execute_query(prepared, (id, "x")).to_pylist() == [{"name": name}]
    driver.close_statement(prepared)


def test_parameters_may_be_null(driver):
    """A parameter takes a null where its field says so, and all of them may."""
    prepared = driver.prepare("SELECT n FROM (VALUES (1), (2)) AS t (n) WHERE n = ?")
    assert all(field.nullable for field in prepared.parameters)
    assert driver.execute_query(prepared, (None,)).num_rows == 0
    driver.close_statement(prepared)


@pytest.mark.parametrize(
    ("sql", "given", "answer"),
    [
        ("SELECT ? AS a", "x", "x"),
        ("SELECT upper(?) AS a", "x", "X"),
        ("SELECT a FROM (VALUES (1), (2)) AS t (a) ORDER BY a LIMIT ?", 1, 1),
        ("SELECT a FROM (VALUES (1), (2)) AS t (a) ORDER BY a OFFSET ?", 1, 2),
    ],
)
def test_every_parameter_has_a_type(driver, sql, given, answer):
    """The driver cannot put a value into a vector of type null."""
    prepared = driver.prepare(sql)
    assert not any(pa.types.is_null(field.type) for field in prepared.parameters)
    assert driver.execute_query(prepared, (given,)).to_pylist() == [{"a": answer}]
    driver.close_statement(prepared)


def test_what_was_bound_is_answered_with_a_handle(driver, users):
    """An answer without a handle is taken for an empty one. No answer at all is for servers that keep the old one."""
    prepared = driver.prepare("SELECT name FROM users WHERE id = ?")
    assert driver.bind(prepared, (1,))
    driver.close_statement(prepared)


def test_prepared_update(driver, connection, tmp_path):
    notes = tmp_path / "notes"
    create(connection, "sink", "n int64", f"def sink(n):\n    open({str(notes)!r}, 'a').write(f'{{n}}')")
    prepared = driver.prepare("INSERT INTO sink VALUES (?)")
    assert prepared.is_update
    assert [field.type for field in prepared.parameters] == [pa.int64()]
    assert driver.execute_update(prepared, [(1,)]) == 1
    assert driver.execute_update(prepared, [(2,)]) == 1
    # addBatch, executeBatch: all rows in one batch, and one count.
    assert driver.execute_update(prepared, [(3,), (4,), (5,)]) == 3
    driver.close_statement(prepared)
    assert notes.read_text().replace("][", ", ") == "[1, 2, 3, 4, 5]"


def test_prepared_update_without_parameters(driver):
    prepared = driver.prepare("CREATE OR REPLACE TABLE bare AS SELECT 1 AS n")
    assert prepared.is_update and not prepared.parameters.names
    for _ in range(2):
        assert driver.execute_update(prepared) >= 0
    driver.close_statement(prepared)
    assert driver.statement("DROP TABLE bare") == 0


# --- ResultSet.close, Statement.cancel ------------------------------------------------------------------------------

ENDLESS = """
import time

def endless():
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(0.001)
"""
SILENT = """
import time

def silent():
    while True:
        time.sleep(0.005)
        yield from ()
        yield None
"""


def test_close_of_a_result_set_ends_its_query(driver, connection):
    """It cancels the call that it reads, and only then closes the statement."""
    create(connection, "endless", "n int64", ENDLESS, mode="streaming")
    prepared = driver.prepare("SELECT n FROM endless")
    (stream,) = driver.open_query(prepared)
    assert stream.read_chunk().data.num_rows
    stream.cancel()
    wait_until(lambda: not queries(connection), "the query's end")
    driver.close_statement(prepared)
    run(connection, "DROP STREAM endless")


def test_cancel_before_the_first_row(driver, connection):
    """executeQuery waits for a batch with rows; what cancels it is another thread, by the same means."""
    create(connection, "silent", "n int64", SILENT, mode="streaming")
    prepared = driver.prepare("SELECT n FROM silent WHERE n IS NOT NULL")
    (stream,) = driver.open_query(prepared)
    wait_until(lambda: queries(connection), "the query")
    stream.cancel()
    wait_until(lambda: not queries(connection), "the query's end")
    driver.close_statement(prepared)
    run(connection, "DROP STREAM silent")


def test_a_prepared_statement_is_closed_before_its_result_set(driver, connection):
    """PreparedStatement.close closes the handle first: what is being read goes on until it is cancelled."""
    create(connection, "endless", "n int64", ENDLESS, mode="streaming")
    prepared = driver.prepare("SELECT n FROM endless")
    (stream,) = driver.open_query(prepared)
    driver.close_statement(prepared)
    for _ in range(3):
        assert stream.read_chunk().data.num_rows
    stream.cancel()
    wait_until(lambda: not queries(connection), "the query's end")
    run(connection, "DROP STREAM endless")


def test_a_connection_that_closes_takes_its_queries_along(server, connection):
    create(connection, "endless", "n int64", ENDLESS, mode="streaming")
    driver = Driver(server.uri)
    (stream,) = driver.open_query(driver.prepare("SELECT n FROM endless"))
    assert stream.read_chunk().data.num_rows
    stream.cancel()
    driver.close()
    wait_until(lambda: not queries(connection), "the query's end")
    run(connection, "DROP STREAM endless")


# --- DatabaseMetaData: objects --------------------------------------------------------------------------------------


def text(name, nullable=False):
    return pa.field(name, pa.string(), nullable)


CATALOGS = pa.schema([text("catalog_name")])
SCHEMAS = pa.schema([text("catalog_name", True), text("db_schema_name")])
TABLE_TYPES = pa.schema([text("table_type")])
TABLES = pa.schema(
    [*[text(f"{of}_name", True) for of in ["catalog", "db_schema"]], text("table_name"), text("table_type")]
)
TABLES_WITH_COLUMNS = TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
PRIMARY_KEYS = pa.schema(
    [
        text("catalog_name", True),
        text("db_schema_name", True),
        text("table_name"),
        text("column_name"),
        pa.field("key_sequence", pa.int32(), nullable=False),
        text("key_name", True),
    ]
)
FOREIGN_KEYS = pa.schema(
    [
        *[
            text(f"{side}_{of}_name", of in ["catalog", "db_schema"])
            for side in ["pk", "fk"]
            for of in ["catalog", "db_schema", "table", "column"]
        ],
        pa.field("key_sequence", pa.int32(), nullable=False),
        text("fk_key_name", True),
        text("pk_key_name", True),
        pa.field("update_rule", pa.uint8(), nullable=False),
        pa.field("delete_rule", pa.uint8(), nullable=False),
    ]
)


def get_tables(driver, catalog=None, schema=None, table=None, types=(), columns=False):
    """With columns for getColumns, without for getTables. False is not sent."""
    command = packed(
        "CommandGetTables",
        (1, catalog),
        (2, schema),
        (3, table),
        *[(4, kind) for kind in types],
        (5, 1 if columns else None),
    )
    return driver.fetch(command)


def names(found):
    return found["table_name"].to_pylist()


def test_get_catalogs(driver):
    found = driver.fetch(packed("CommandGetCatalogs"))
    assert found.schema.equals(CATALOGS)
    assert found.num_rows


def test_get_schemas(driver, catalog):
    def found(of_catalog=None, pattern=None):
        rows = driver.fetch(packed("CommandGetDbSchemas", (1, of_catalog), (2, pattern)))
        assert rows.schema.equals(SCHEMAS)
        return set(zip(rows["catalog_name"].to_pylist(), rows["db_schema_name"].to_pylist()))

    everything = found()
    assert (catalog, "public") in everything
    assert found(None, "%") == everything
    assert found(catalog) == {row for row in everything if row[0] == catalog}
    assert found(catalog, "publi_") == {(catalog, "public")}
    assert found("nowhere") == found(None, "nowhere") == set()
    assert found("") == set(), "an empty name is for schemas without a catalog, and there are none"


def test_get_table_types(driver, users):
    found = driver.fetch(packed("CommandGetTableTypes"))
    assert found.schema.equals(TABLE_TYPES)
    kinds = found["table_type"].to_pylist()
    assert {"TABLE", "VIEW"} <= set(kinds)
    assert set(get_tables(driver)["table_type"].to_pylist()) <= set(kinds)


def test_get_tables(driver, connection, users, catalog):
    run(connection, "CREATE OR REPLACE VIEW user_names AS SELECT name FROM users")
    found = get_tables(driver)
    assert found.schema.equals(TABLES)
    assert {"users", "user_names"} <= set(names(found))
    assert names(get_tables(driver, catalog, "public", "users")) == ["users"]
    assert names(get_tables(driver, None, "%", "user%")) == ["user_names", "users"]
    assert names(get_tables(driver, table="user_names", types=["VIEW"])) == ["user_names"]
    assert names(get_tables(driver, table="user_names", types=["TABLE"])) == []
    assert names(get_tables(driver, table="user_names", types=["TABLE", "VIEW"])) == ["user_names"]
    assert names(get_tables(driver, "nowhere")) == names(get_tables(driver, "")) == []
    run(connection, "DROP VIEW user_names")


def test_the_escape_of_patterns_is_what_the_server_says(driver, connection):
    """getSearchStringEscape: tools put it before a name's own % and _."""
    create(connection, "a_b", "n int8", "def a_b(): return []")
    create(connection, "axb", "n int8", "def axb(): return []")
    escape = sql_info(driver)[513][1]
    assert names(get_tables(driver, table=f"a{escape}_b")) == ["a_b"]
    assert names(get_tables(driver, table="a_b")) == ["a_b", "axb"]
    run(connection, "DROP STREAM a_b; DROP STREAM axb")


def test_get_columns(driver, users):
    """Each table's columns are a schema message. One that the driver has no type for would hide all the others."""
    found = get_tables(driver, columns=True)
    assert found.schema.equals(TABLES_WITH_COLUMNS)
    for encoded in found["table_schema"].to_pylist():
        for field in schema_of(encoded):
            assert representable(field.type)
            readable_metadata(field)
    (encoded,) = get_tables(driver, None, "public", "users", columns=True)["table_schema"].to_pylist()
    id, name = schema_of(encoded)
    assert (id.name, id.type, id.nullable) == ("id", pa.int32(), False)
    assert (name.name, name.type, name.nullable) == ("name", pa.string(), True)
    prepared = driver.prepare("SELECT * FROM users")
    for field in prepared.columns:
        readable_metadata(field)
    driver.close_statement(prepared)


def readable_metadata(field):
    """What columns may say of themselves. The driver throws at a number that is none."""
    prefix = b"ARROW:FLIGHT:SQL:"
    said = {key.removeprefix(prefix): said for key, said in (field.metadata or {}).items() if key.startswith(prefix)}
    for key in [b"PRECISION", b"SCALE"]:
        assert key not in said or int(said[key]) >= 0
    for key in [b"IS_AUTO_INCREMENT", b"IS_CASE_SENSITIVE", b"IS_READ_ONLY", b"IS_SEARCHABLE"]:
        assert said.get(key, b"0") in [b"0", b"1"]


def test_get_primary_keys(driver, users, catalog):
    for of in [(None, None, "users"), (catalog, "public", "users"), (None, None, "nowhere")]:
        command = packed("CommandGetPrimaryKeys", *enumerate(of, 1))
        assert driver.fetch(command).schema.equals(PRIMARY_KEYS)


def test_a_key_that_nobody_enforces_is_listed_and_one_that_is_to_be_enforced_is_refused(driver, catalog):
    driver.statement("CREATE TABLE keyed (b INT, a INT, c INT UNIQUE NOT ENFORCED, PRIMARY KEY (a, b) NOT ENFORCED)")
    command = packed("CommandGetPrimaryKeys", (1, catalog), (2, "public"), (3, "keyed"))
    assert driver.fetch(command).to_pylist() == [
        {
            "catalog_name": catalog,
            "db_schema_name": "public",
            "table_name": "keyed",
            "column_name": column,
            "key_sequence": sequence,
            "key_name": None,
        }
        for sequence, column in enumerate(["a", "b"], 1)
    ]
    for keys in ["a INT PRIMARY KEY", "a INT UNIQUE", "a INT, PRIMARY KEY (a)", "a INT, UNIQUE (a)"]:
        with pytest.raises(Exception, match=r"does not hold its rows to (PRIMARY KEY|UNIQUE): leave it out, or say"):
            driver.statement(f"CREATE TABLE held ({keys})")


@pytest.mark.parametrize("command", ["CommandGetImportedKeys", "CommandGetExportedKeys"])
def test_get_imported_and_exported_keys(driver, users, catalog, command):
    for of in [(None, None, "users"), (catalog, "public", "users"), (None, None, "nowhere")]:
        assert driver.fetch(packed(command, *enumerate(of, 1))).schema.equals(FOREIGN_KEYS)


def test_get_cross_reference(driver, users, catalog):
    for of in [(None, None, "users") * 2, (catalog, "public", "users") * 2]:
        assert driver.fetch(packed("CommandGetCrossReference", *enumerate(of, 1))).schema.equals(FOREIGN_KEYS)


# --- DatabaseMetaData: SqlInfo --------------------------------------------------------------------------------------

# Which class each code is cast to, as the child of the union that has it. Of bitmasks, single bits are looked at.
STRING, BOOLEAN, LONG, BITMASK, LIST, MAP = range(6)
CASTS = {
    **dict.fromkeys([0, 1, 504, 513, 514, 529, 530, 531], STRING),
    **dict.fromkeys([3, 515, 516, 518, 519, 520, 521, 523, 524, 527, 532, 536, 537, 539], BOOLEAN),
    **dict.fromkeys([556, 563, 565, 566, 572, 573, 574, 575, 576], BOOLEAN),
    **dict.fromkeys([*range(541, 556), *range(557, 563)], LONG),
    **dict.fromkeys([522, 525, 526, 528, 533, 534, 535, 538, 540, 564, *range(567, 572)], BITMASK),
    **dict.fromkeys(range(508, 513), LIST),
    517: MAP,
}
# The driver keeps the answer in a map of its enumeration, which throws at a code that is none of it.
KNOWN = {*range(12), 100, 101, *range(500, 577)}


def sql_info(driver):
    """The getters of DatabaseMetaData ask once, for everything."""
    found = driver.fetch(packed("CommandGetSqlInfo"))
    assert found.schema.names == ["info_name", "value"]
    assert found.schema.field("info_name").type == pa.uint32()
    infos = {}
    for chunk in found.to_batches():
        values = chunk.column(1)
        for row, code in enumerate(chunk.column(0).to_pylist()):
            infos[code] = (values.type_codes[row].as_py(), values[row].as_py())
    return infos


def test_sql_info_is_a_dense_union(driver):
    union = driver.fetch(packed("CommandGetSqlInfo")).schema.field("value").type
    assert pa.types.is_union(union) and union.mode == "dense"
    fields = [union.field(index) for index in range(union.num_fields)]
    assert [field.name for field in fields] == [
        "string_value",
        "bool_value",
        "bigint_value",
        "int32_bitmask",
        "string_list",
        "int32_to_int32_list_map",
    ]
    *scalars, strings, pairs = [field.type for field in fields]
    assert scalars == [pa.string(), pa.bool_(), pa.int64(), pa.int32()]
    assert strings.value_type == pa.string()
    assert (pairs.key_field.name, pairs.key_type) == ("key", pa.int32())
    assert (pairs.item_field.name, pairs.item_type.value_type) == ("value", pa.int32())


def test_sql_info_has_no_code_that_the_driver_does_not_know(driver):
    assert set(sql_info(driver)) <= KNOWN


@pytest.mark.parametrize("code", sorted(CASTS))
def test_sql_info_is_of_the_class_that_it_is_cast_to(shared_infos, code):
    """A code that is not there is zero, false or empty to the driver, and no error."""
    if code in shared_infos:
        assert shared_infos[code][0] == CASTS[code]


@pytest.fixture(scope="module")
def shared_infos(shared):
    with Driver(shared.get().uri) as driver:
        return sql_info(driver)


def test_what_the_getters_say(driver):
    infos = {code: content for code, (_, content) in sql_info(driver).items()}

    def bit(code, number):
        return bool(infos[code] >> number & 1)

    assert "couatl" in infos[0].lower(), "getDatabaseProductName"
    assert infos[1], "getDatabaseProductVersion"
    assert infos[3] is False, "isReadOnly"
    assert infos[504] == '"', "getIdentifierQuoteString"
    assert "SELECT" in infos[508], "getSQLKeywords"
    for code in range(509, 513):
        assert infos[code], "getNumericFunctions, getStringFunctions, getSystemFunctions, getTimeDateFunctions"
    assert all(isinstance(source, int) and targets for source, targets in infos[517]), "supportsConvert"
    assert infos[522], "supportsGroupBy"
    assert bit(525, 0), "supportsMinimumSQLGrammar"
    assert infos[528] and bit(528, 1) and bit(528, 2), "supportsOuterJoins, supportsLimited… and supportsFullOuterJoins"
    assert infos[540] and bit(540, 1), "supportsUnion, supportsUnionAll"
    assert bit(567, 1), "supportsResultSetType(TYPE_FORWARD_ONLY)"
    concurrencies = [infos[code] for code in range(568, 572)]
    assert concurrencies == [0, 0b10, 0, 0], "supportsResultSetConcurrency(TYPE_FORWARD_ONLY, CONCUR_READ_ONLY)"
    assert all(bit(538, number) for number in range(4)), "supportsSubqueriesIn…"
    default = infos[562]
    assert bit(564, default), "supportsTransactionIsolationLevel(getDefaultTransactionIsolation())"


def test_what_the_server_says_it_offers_is_offered(driver, connection):
    """The codes that tools ask before they call: SQL, Substrait, transactions, cancelling, ingestion."""
    infos = {code: content for code, (_, content) in sql_info(driver).items()}
    offered = {action.type for action in driver.client.list_actions(driver.options())}
    assert (infos[3], infos[4]) == (False, True)
    driver.statement("CREATE TABLE written AS SELECT 1 AS n")

    assert (infos[5], infos[8], infos[11]) == (False, 0, False), "Substrait, transactions, transactions of ingestion"
    for action in ["CreatePreparedSubstraitPlan", "BeginTransaction", "EndTransaction", "BeginSavepoint"]:
        assert action not in offered
        with pytest.raises(pa.ArrowNotImplementedError):
            driver.action(action, b"")

    assert infos[9] is True, "FLIGHT_SQL_SERVER_CANCEL"
    assert {"CancelFlightInfo", "CancelQuery"} <= offered
    info = driver.info(packed("CommandStatementQuery", (1, "SELECT 1")))
    (answer,) = driver.action("CancelFlightInfo", message((1, info.serialize())))
    assert parsed(answer) == [(1, 1)], "cancelled"
    with pytest.raises(FAILURES):
        driver.client.do_get(info.endpoints[0].ticket, driver.options()).read_all()

    assert infos[10] is True, "FLIGHT_SQL_SERVER_BULK_INGESTION"
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest("written", pa.table({"n": [2, 3]}), mode="append") == 2
    assert driver.statement("SELECT n FROM written ORDER BY n")["n"].to_pylist() == [1, 2, 3]
    assert driver.statement("DROP TABLE written") == 0


def test_the_timeout_of_prepared_statements_is_said(driver):
    """FLIGHT_SQL_SERVER_STATEMENT_TIMEOUT, in milliseconds: their handles end an hour after their last use."""
    assert sql_info(driver)[100][1] == 60 * 60 * 1000


# --- many at once -----------------------------------------------------------------------------------------------------


def test_a_pool_of_connections(server, connection, catalog):
    """Connections of a pool live long and are many: closing one does nothing to another one's session."""
    drivers = [Driver(server.uri, catalog=catalog) for _ in range(10)]
    assert all(works(driver) for driver in drivers)
    for driver in drivers[::2]:
        driver.close()
    assert all(works(driver) for driver in drivers[1::2])
    for driver in drivers[1::2]:
        driver.close()
    assert value(connection, "SELECT 1") == 1

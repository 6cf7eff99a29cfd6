"""The clients of docs/clients.md, whose blocks are run as they stand, and what ADBC's drivers ask of a server."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
from pathlib import Path

import adbc_driver_flightsql
import pandas
import polars
import pyarrow
import pyarrow.flight
import pytest
from adbc_driver_flightsql import dbapi
from adbc_driver_manager import AdbcConnection, AdbcStatement, StatementOptions
from harness import create, error, queries, query_running, rows, run, table, value, wait_until

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "clients.md"
ENVIRONMENTS = CHECKOUT / ".venv-clients"
ADDRESS = "127.0.0.1:50051"
INSTALL_LIMIT = 600
CLIENT_LIMIT = 50

FLIGHTSQL_DBAPI = [
    "flightsql-dbapi==0.2.2",
    "SQLAlchemy==1.4.54",
    "protobuf==6.33.0",
    "pyarrow==22.0.0",
    "pandas==2.3.3",
]
ADBC = [
    "adbc-driver-gizmosql==2.0.15",
    "sqlalchemy-adbc==0.3.0",
    "SQLAlchemy==2.0.44",
    "adbc-driver-flightsql==1.12.0",
    "adbc-driver-manager==1.12.0",
    "pyarrow==22.0.0",
    "pandas==2.3.3",
]
NODE = ["@firetiger-oss/flight-sql-client@1.1.1"]

# The sections of the page: heading, language, how many blocks, and what runs them.
SECTIONS = [
    ("ADBC", "python", 3, "tests"),
    ("ADBC's driver manager", "python", 2, "tests"),
    ("GizmoSQL's ADBC driver", "python", 1, "adbc"),
    ("pandas", "python", 1, "tests"),
    ("polars", "python", 1, "tests"),
    ("SQLAlchemy 2", "python", 1, "adbc"),
    ("SQLAlchemy 1.4", "python", 1, "flightsql-dbapi"),
    ("JavaScript", "js", 1, "node"),
]


def finished(command, given="", limit=INSTALL_LIMIT, **where):
    """What a command prints that ends well."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=limit, check=False, **where)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(name, packages, install):
    """The folder of an environment, which is made once for these packages."""
    folder = ENVIRONMENTS / name
    ready = folder / "ready"
    wanted = "\n".join(packages)
    if not ready.exists() or ready.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder, packages)
        ready.write_text(wanted)
    return folder


def make_venv(folder, packages):
    venv.create(folder, symlinks=True, with_pip=True)
    finished([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages])


def make_node_modules(folder, packages):
    finished([shutil.which("npm"), "install", "--no-audit", "--no-fund", "--prefix", folder, *packages])


@pytest.fixture(scope="session")
def runs(request):
    """Runs programs of a client, and gives what they print. It is made before the limit of a test's time begins."""
    if request.param == "node":
        node = shutil.which("node")
        if node is None or shutil.which("npm") is None:
            pytest.skip("node is missing: the client for JavaScript is not tested")
        folder = environment("node", NODE, make_node_modules)
        return lambda program: finished([node, "--input-type=module"], program, CLIENT_LIMIT, cwd=folder)
    python = sys.executable
    if request.param != "tests":
        packages = {"adbc": ADBC, "flightsql-dbapi": FLIGHTSQL_DBAPI}[request.param]
        python = environment(request.param, packages, make_venv) / "bin" / "python"
    return lambda program: finished([python, "-c", program], limit=CLIENT_LIMIT)


@pytest.fixture
def address(server):
    return server.uri.removeprefix("grpc://")


def sections():
    """The texts below the headings of the page."""
    _, *found = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2]))


def blocks(text, language):
    """The blocks in a language, each with what stands below it as its output."""
    return re.findall(rf"^```{language}\n(.*?)^```\n\n```text\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def at(address, program):
    assert ADDRESS in program
    return program.replace(ADDRESS, address)


@pytest.fixture
def planets(address, connection):
    """What the page's first block makes. All that its blocks make is gone after the test."""
    program, _ = blocks(sections()["ADBC"], "python")[0]
    finished([sys.executable, "-c", at(address, program)], limit=CLIENT_LIMIT)
    yield
    run(connection, "DROP STREAM IF EXISTS planets; DROP STREAM IF EXISTS ticks")
    run(connection, "DROP TABLE IF EXISTS visits; DROP TABLE IF EXISTS planets_seen")


def test_the_page_has_the_blocks_that_are_run():
    found = sections()
    assert [*found] == [*(heading for heading, *_ in SECTIONS), "Rust", "JDBC"]
    for heading, language, count, _ in SECTIONS:
        assert len(blocks(found[heading], language)) == count, heading
        assert found[heading].count("```") == 4 * count, f"{heading}: a block has another language, or no output"
    assert f"\njdbc:arrow-flight-sql://{ADDRESS}?useEncryption=false\n" in found["JDBC"]


@pytest.mark.parametrize(
    ("heading", "language", "number", "runs"),
    [(heading, language, number, runs) for heading, language, count, runs in SECTIONS for number in range(count)],
    indirect=["runs"],
)
def test_a_block_prints_what_stands_below_it(runs, address, planets, heading, language, number):
    program, output = blocks(sections()[heading], language)[number]
    printed = runs(at(address, program))
    assert [line.rstrip() for line in printed.splitlines()] == output.splitlines()


@pytest.mark.skipif("COUATL_EXAMPLES" not in os.environ, reason="`make test` says where the examples are")
def test_the_rust_block_is_an_example_that_prints_what_stands_below_it(address, planets):
    [(program, output)] = blocks(sections()["Rust"], "rust")
    example = (CHECKOUT / "examples" / "rust" / "client.rs").read_text()
    assert example.split("\n\n", 1)[1] == program
    command = [Path(os.environ["COUATL_EXAMPLES"]) / "client", f"http://{address}"]
    assert finished(command, limit=CLIENT_LIMIT) == output


PEOPLE = [(1, "ann"), (2, "bob")]


@pytest.fixture
def people(connection):
    """A stream of rows that are known."""
    create(
        connection,
        "people",
        "id int32 NOT NULL, name string",
        f"def read(): return {PEOPLE}",
        mode="batch",
        read_function_name="read",
    )
    yield PEOPLE
    run(connection, "DROP STREAM people")


@pytest.fixture
def endless(connection):
    """A stream that counts until it is stopped."""
    body = """
    import itertools

    def read():
        yield from itertools.count()
    """
    create(connection, "endless", "n int64", body, mode="streaming", read_function_name="read")
    yield
    run(connection, "DROP STREAM endless")


@pytest.fixture
def notes(connection):
    """A table, empty, which is dropped after the test."""
    run(connection, "CREATE OR REPLACE TABLE notes (id BIGINT, word VARCHAR)")
    yield "notes"
    run(connection, "DROP TABLE IF EXISTS notes")


def noted(connection):
    return rows(connection, "SELECT id, word FROM notes ORDER BY id")


@pytest.fixture
def low_level(server):
    """A connection without DB API around it."""
    with adbc_driver_flightsql.connect(server.uri) as database, AdbcConnection(database) as connection:
        yield connection


def fetched(statement):
    stream, _ = statement.execute_query()
    return pyarrow.table(stream)


def test_a_description_has_the_names_and_types_of_columns(connection, people):
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, name, 1.5 AS half, CAST(NULL AS TIMESTAMP) AS at FROM people")
        assert [column[0] for column in cursor.description] == ["id", "name", "half", "at"]
        types = [column[1] for column in cursor.description]
        assert types[:3] == [pyarrow.int32(), pyarrow.string(), pyarrow.float64()]
        assert pyarrow.types.is_timestamp(types[3])


def test_a_statement_without_rows_has_no_columns(connection, notes):
    with connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE VIEW seen AS SELECT 1 AS n")
        assert not cursor.description
        assert cursor.fetchall() == []
        cursor.execute("INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
        assert not cursor.description
        assert cursor.rowcount == 2
        cursor.execute("DROP VIEW seen")


def test_executemany_runs_once_for_each_row(connection, notes):
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO notes VALUES (?, ?)", [(1, "a"), (2, None), (3, "c")])
        assert cursor.rowcount == 3
        cursor.executemany("INSERT INTO notes VALUES ($1, $2)", pyarrow.record_batch({"1": [4], "2": ["d"]}))
        assert cursor.rowcount == 1
        cursor.executemany("INSERT INTO notes VALUES (?, ?)", [(None, "e"), (5, "f")])
        assert cursor.rowcount == 2
    assert noted(connection) == [(1, "a"), (2, None), (3, "c"), (4, "d"), (5, "f"), (None, "e")]


def test_a_query_of_several_rows_of_parameters_answers_each(connection, people):
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM people WHERE id = ?", pyarrow.record_batch({"0": [2, 3, 1]}))
        assert cursor.fetchall() == [("bob",), ("ann",)]


@pytest.fixture
def numbers(connection, tmp_path):
    """Tables whose integers are smaller than those that drivers send."""
    run(connection, "CREATE OR REPLACE TABLE numbers (n INT)")
    run(connection, f"CREATE EXTERNAL TABLE numbers_in_files (n INT) STORED AS PARQUET LOCATION '{tmp_path}/'")
    yield ["numbers", "numbers_in_files"]
    run(connection, "DROP TABLE numbers; DROP TABLE numbers_in_files")


@pytest.mark.parametrize("values", ["VALUES (?)", "SELECT ?", "SELECT ? + 1 - 1"])
def test_a_table_keeps_its_types_whatever_a_driver_sends(connection, numbers, values):
    for name in numbers:
        for parameter in [1, 2.0, "3"]:
            assert run(connection, f"INSERT INTO {name} {values}", (parameter,)) == 1
        assert rows(connection, f"SELECT n FROM {name} WHERE n > 1 ORDER BY n") == [(2,), (3,)]
        assert rows(connection, f"SELECT sum(n), max(n), count(*) FROM {name}") == [(6, 3, 3)]


@pytest.mark.parametrize("misfit", [2**40, 1.5, "three", b"bytes"])
def test_a_table_refuses_what_does_not_fit(connection, numbers, misfit):
    for name in numbers:
        error(connection, f"INSERT INTO {name} VALUES (?)", (misfit,))
        assert rows(connection, f"SELECT n FROM {name}") == []


def union(value):
    """One value as flightsql-dbapi sends it: whatever its type, its column has the same one."""
    types = {int: "int64", float: "float64", str: "string", bytes: "binary", bool: "bool"}
    members = [pyarrow.array([value] if type(value) is kind else [], name) for kind, name in types.items()]
    place = pyarrow.array([list(types).index(type(value))], "int8")
    return pyarrow.UnionArray.from_dense(place, pyarrow.array([0], "int32"), members)


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("SELECT ?, ?", (1, "x"), [(1, "x")]),
        ("SELECT name FROM people WHERE id = ? AND name = ?", (2, "bob"), [("bob",)]),
        ("SELECT name FROM people ORDER BY id LIMIT ? OFFSET ?", (1, 1), [("bob",)]),
        ("SELECT name FROM people WHERE name LIKE ? AND upper(?) = 'X'", ("b%", "x"), [("bob",)]),
        ("SELECT id + ? FROM people WHERE ?", (0.5, True), [(1.5,), (2.5,)]),
    ],
)
def test_unions_are_the_values_in_them(connection, people, sql, parameters, expected):
    batch = pyarrow.record_batch([union(value) for value in parameters], names=["0", "1"])
    assert rows(connection, sql, batch) == expected
    assert not any(pyarrow.types.is_union(column.type) for column in table(connection, sql, batch).schema)


def test_unions_are_written_as_the_values_in_them(connection, notes):
    batch = pyarrow.record_batch([union(1), union("a")], names=["0", "1"])
    assert run(connection, "INSERT INTO notes VALUES (?, ?)", batch) == 1
    assert rows(connection, "SELECT sum(id), max(word) FROM notes") == [(1, "a")]


def test_the_low_level_executes(low_level, people):
    with AdbcStatement(low_level) as statement:
        statement.set_sql_query("SELECT * FROM people ORDER BY id")
        assert fetched(statement).to_pylist() == [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]
        statement.set_sql_query("SELECT name FROM people WHERE id = ?")
        statement.prepare()
        for id, name in people:
            statement.bind(pyarrow.record_batch({"0": [id]}))
            assert fetched(statement).to_pydict() == {"name": [name]}


def test_the_low_level_writes(low_level, connection, notes):
    with AdbcStatement(low_level) as statement:
        statement.set_sql_query("INSERT INTO notes VALUES (1, 'a')")
        assert statement.execute_update() == 1
        statement.set_sql_query("INSERT INTO notes VALUES (?, ?)")
        statement.prepare()
        batches = [pyarrow.record_batch({"0": [2, 3], "1": ["b", "c"]}), pyarrow.record_batch({"0": [4], "1": ["d"]})]
        statement.bind_stream(pyarrow.RecordBatchReader.from_batches(batches[0].schema, batches))
        assert statement.execute_update() == 3
    assert noted(connection) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


def test_the_low_level_ingests(low_level, connection, notes):
    for mode, expected in [("append", 1), ("create_append", 2), ("replace", 1)]:
        with AdbcStatement(low_level) as statement:
            options = {
                StatementOptions.INGEST_TARGET_TABLE.value: notes,
                StatementOptions.INGEST_MODE.value: f"adbc.ingest.mode.{mode}",
            }
            statement.set_options(**options)
            statement.bind(pyarrow.record_batch({"id": [1], "word": ["a"]}))
            assert statement.execute_update() == 1
        assert noted(connection) == [(1, "a")] * expected


def test_each_mode_of_ingestion(connection, notes):
    data = pyarrow.table({"id": [1], "word": ["a"]})
    with connection.cursor() as cursor:
        with pytest.raises(dbapi.Error, match="exists"):
            cursor.adbc_ingest(notes, data, mode="create")
        for mode, expected in [("append", 1), ("create_append", 2), ("replace", 1)]:
            assert cursor.adbc_ingest(notes, data, mode=mode) == 1
            assert noted(connection) == [(1, "a")] * expected
        cursor.execute("DROP TABLE notes")
        with pytest.raises(dbapi.Error, match="no table"):
            cursor.adbc_ingest(notes, data, mode="append")
        assert cursor.adbc_ingest(notes, data, mode="create") == 1
    assert noted(connection) == [(1, "a")]


@pytest.mark.parametrize(
    "data",
    [
        pyarrow.record_batch({"id": [1], "word": ["a"]}),
        pyarrow.table({"id": [1], "word": ["a"]}).to_reader(),
        pandas.DataFrame({"id": [1], "word": ["a"]}),
        polars.DataFrame({"id": [1], "word": ["a"]}),
    ],
    ids=lambda data: f"{type(data).__module__.split('.')[0]}-{type(data).__name__}",
)
def test_whatever_has_an_arrow_interface_is_ingested(connection, notes, data):
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest(notes, data, mode="append") == 1
    assert noted(connection) == [(1, "a")]


NAMES = ["a_b", "axb", "50%", "500", "it's", "do.ts", 'quo"ted', "back\\slash"]


@pytest.fixture
def named(connection):
    """Views whose names have in them what patterns and quotes are made of."""
    quoted = ['"' + name.replace('"', '""') + '"' for name in NAMES]
    for name in quoted:
        run(connection, f'CREATE VIEW {name} AS SELECT 1 AS n, 2 AS a_b, 3 AS axb, 4 AS "it\'s"')
    yield
    for name in quoted:
        run(connection, f"DROP VIEW {name}")


def objects(connection, **asked):
    return connection.adbc_get_objects(**asked).read_all().to_pylist()


def schemas_of(catalogs):
    return [schema for catalog in catalogs for schema in catalog["catalog_db_schemas"]]


def tables_of(catalogs):
    return [table for schema in schemas_of(catalogs) for table in schema["db_schema_tables"]]


def test_objects_go_as_deep_as_they_are_asked_for(connection, people):
    asked = {"db_schema_filter": "public", "table_name_filter": "people"}
    assert objects(connection, depth="catalogs") == [{"catalog_name": "couatl", "catalog_db_schemas": None}]
    (schema,) = schemas_of(objects(connection, depth="db_schemas", **asked))
    assert schema == {"db_schema_name": "public", "db_schema_tables": None}
    (found,) = tables_of(objects(connection, depth="tables", **asked))
    assert (found["table_name"], found["table_type"], found["table_columns"]) == ("people", "TABLE", None)
    for depth in ["columns", "all"]:
        (found,) = tables_of(objects(connection, depth=depth, **asked))
        columns = [(column["column_name"], column["ordinal_position"]) for column in found["table_columns"]]
        assert columns == [("id", 1), ("name", 2)]
        assert found["table_constraints"] == []


def test_objects_are_filtered_by_their_catalogs_schemas_and_types(connection, people):
    run(connection, "CREATE VIEW seen AS SELECT * FROM people")
    for pattern, expected in [("couatl", 1), ("co%", 1), ("c_uatl", 1), ("other", 0)]:
        assert len(objects(connection, depth="catalogs", catalog_filter=pattern)) == expected, pattern
    for pattern, expected in [("public", ["public"]), ("publ__", ["public"]), ("%c", ["public"]), ("other", [])]:
        found = schemas_of(objects(connection, depth="db_schemas", db_schema_filter=pattern))
        assert [schema["db_schema_name"] for schema in found] == expected, pattern
    for types, expected in [(["VIEW"], ["seen"]), (["TABLE"], ["people"]), (["TABLE", "VIEW"], ["people", "seen"])]:
        found = tables_of(objects(connection, depth="tables", db_schema_filter="public", table_types_filter=types))
        assert [table["table_name"] for table in found] == expected, types
    run(connection, "DROP VIEW seen")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a_b", ["a_b", "axb"]),
        (r"a\_b", ["a_b"]),
        ("50%", ["50%", "500"]),
        (r"50\%", ["50%"]),
        ("it's", ["it's"]),
        ("%'%", ["it's"]),
        ("do.ts", ["do.ts"]),
        ("d%.%", ["do.ts"]),
        ('quo"ted', ['quo"ted']),
        (r"back\\slash", ["back\\slash"]),
        ("A_B", []),
        ("nothing", []),
        ("'; DROP VIEW axb; --", []),
        ("%", sorted(NAMES)),
    ],
)
def test_names_are_patterns(connection, named, pattern, expected):
    found = tables_of(objects(connection, depth="tables", db_schema_filter="public", table_name_filter=pattern))
    assert [table["table_name"] for table in found] == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a_b", ["a_b", "axb"]),
        ("a%", ["a_b", "axb"]),
        ("it's", ["it's"]),
        ("%", ["n", "a_b", "axb", "it's"]),
        ("x", []),
    ],
)
def test_columns_are_filtered_by_patterns_too(connection, named, pattern, expected):
    asked = {"db_schema_filter": "public", "table_name_filter": r"a\_b", "column_name_filter": pattern}
    (found,) = tables_of(objects(connection, depth="columns", **asked))
    assert [column["column_name"] for column in found["table_columns"]] == expected


@pytest.mark.parametrize("name", [name for name in NAMES if "\\" not in name])
def test_a_table_schema_is_that_of_the_very_name(connection, named, name):
    for where in [{}, {"catalog_filter": "couatl", "db_schema_filter": "public"}]:
        assert connection.adbc_get_table_schema(name, **where).names == ["n", "a_b", "axb", "it's"]
    with pytest.raises(dbapi.Error):
        connection.adbc_get_table_schema(name, db_schema_filter="system")


def test_a_pattern_is_no_name_of_a_table(connection, people):
    for pattern in ["peopl_", "%", "PEOPLE", ""]:
        with pytest.raises(dbapi.ProgrammingError, match="NOT_FOUND"):
            connection.adbc_get_table_schema(pattern)


def test_info_has_the_names_and_versions_of_both_sides(connection):
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Couatl"
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["vendor_version"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["vendor_arrow_version"])
    assert "Flight SQL" in info["driver_name"]


def test_partitions_are_read_by_any_connection_and_more_than_once(server, connection, people):
    with connection.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("SELECT * FROM people ORDER BY id")
        assert schema == table(connection, "SELECT * FROM people").schema
    for _ in range(2):
        with server.connect() as other, other.cursor() as cursor:
            read = []
            for partition in partitions:
                cursor.adbc_read_partition(partition)
                read += cursor.fetchall()
            assert read == people


def test_partitions_of_a_statement_without_rows(connection, notes):
    with connection.cursor() as cursor:
        partitions, _ = cursor.adbc_execute_partitions("INSERT INTO notes VALUES (1, 'a')")
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            assert cursor.fetchall() == []
    assert noted(connection) == [(1, "a")]


def test_the_schema_of_a_query_is_known_before_it_runs(connection, people, endless, notes):
    with connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema("SELECT id, upper(name) AS name FROM people")
        assert schema.names == ["id", "name"]
        assert schema.types == [pyarrow.int32(), pyarrow.string()]
        assert cursor.adbc_execute_schema("SELECT n FROM endless").names == ["n"]
        assert len(cursor.adbc_execute_schema("INSERT INTO notes VALUES (1, 'a')")) == 0
        with pytest.raises(dbapi.Error, match="nothing"):
            cursor.adbc_execute_schema("SELECT nothing FROM people")
    assert noted(connection) == []


def test_parameters_have_a_schema(connection, people):
    with connection.cursor() as cursor:
        parameters = cursor.adbc_prepare("SELECT * FROM people WHERE id = ? AND name = ?")
        assert parameters.types == [pyarrow.int32(), pyarrow.string()]


def test_cancel_from_another_thread_ends_a_read_that_has_no_end(server, connection, endless):
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT n FROM endless")
        assert cursor.fetchone() == (0,)
        canceller = threading.Thread(target=cursor.adbc_cancel)
        canceller.start()
        with pytest.raises(dbapi.OperationalError, match="CANCELLED"):
            while cursor.fetchmany(1000):
                pass
        canceller.join()
        wait_until(lambda: not queries(connection), "the query's end")
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]


def test_the_next_statement_of_a_cursor_ends_the_one_before(server, connection, endless):
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT n FROM endless")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT 1")
        wait_until(lambda: not queries(connection), "the query's end")
        assert cursor.fetchall() == [(1,)]


def test_cancel_from_another_thread_ends_a_statement_that_writes(server, connection, endless):
    create(connection, "ignored", "n int64", "def write(n): pass", write_function_name="write")
    with server.connect() as writing, writing.cursor() as cursor:

        def cancel():
            query_running(connection, "INSERT INTO ignored")
            cursor.adbc_cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(dbapi.OperationalError, match="CANCELLED"):
            cursor.execute("INSERT INTO ignored SELECT n FROM endless")
        canceller.join()
    wait_until(lambda: not queries(connection), "the statement's end")
    run(connection, "DROP STREAM ignored")


def test_without_transactions_every_statement_takes_effect(server, connection, notes):
    with pytest.warns(match="Cannot disable autocommit"):
        unaware = dbapi.connect(server.uri)
    with unaware, unaware.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (1, 'a')")
        assert noted(connection) == [(1, "a")]
        unaware.rollback()
        unaware.commit()
    assert noted(connection) == [(1, "a")]


def test_a_transaction_that_is_asked_for_is_refused(low_level):
    with pytest.raises(dbapi.NotSupportedError, match="transaction"):
        low_level.set_autocommit(False)
    with AdbcStatement(low_level) as statement:
        statement.set_sql_query("SELECT 1 AS n")
        assert fetched(statement).to_pydict() == {"n": [1]}


@pytest.mark.parametrize("action", ["BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"])
def test_the_actions_of_transactions_are_not_offered(address, action):
    with pyarrow.flight.connect(f"grpc+tcp://{address}") as client:
        assert action not in [offered.type for offered in client.list_actions()]
        with pytest.raises(pyarrow.ArrowNotImplementedError, match="transactions are not offered"):
            list(client.do_action(pyarrow.flight.Action(action, b"")))


def test_pandas_reads(connection, people):
    frame = pandas.read_sql("SELECT * FROM people ORDER BY id", connection)
    assert list(frame.itertuples(index=False, name=None)) == people
    frame = pandas.read_sql("SELECT * FROM people", connection, dtype_backend="pyarrow")
    assert [column.pyarrow_dtype for column in frame.dtypes] == [pyarrow.int32(), pyarrow.string()]


def test_pandas_reads_a_table_by_its_name(connection, people):
    assert sorted(pandas.read_sql("people", connection).itertuples(index=False, name=None)) == people


@pytest.mark.filterwarnings("ignore:Cannot disable autocommit")
def test_polars_reads(connection, address, people):
    query = "SELECT * FROM people WHERE id >= ? ORDER BY id"
    frame = polars.read_database(query, connection, execute_options={"parameters": [2]})
    assert frame.rows() == people[1:]
    uri = f"flightsql://{address}?transport=tcp"
    frame = polars.read_database_uri("SELECT * FROM people ORDER BY id", uri, engine="adbc")
    assert frame.rows() == people
    assert frame.schema == {"id": polars.Int32, "name": polars.String}


def test_polars_reads_what_has_no_end_batch_by_batch(server, endless):
    with server.connect() as reading:
        frames = polars.read_database("SELECT n FROM endless", reading, iter_batches=True)
        first = next(frame for frame in frames if len(frame) > 0)
        assert first.row(0) == (0,)
        frames.close()


INCREMENTAL = {StatementOptions.INCREMENTAL.value: "true"}


def polled(statement, low_level):
    """The rows of all partitions, until there are no more."""
    found = []
    while True:
        partitions, _, _ = statement.execute_partitions()
        assert 0 <= statement.get_option_float(StatementOptions.PROGRESS.value) <= 1
        if not partitions:
            return found
        for partition in partitions:
            found += pyarrow.table(low_level.read_partition(partition)).to_pylist()


def test_incremental_execution_gives_each_partition_once(low_level, people):
    with AdbcStatement(low_level) as statement:
        statement.set_options(**INCREMENTAL)
        for _ in range(2):
            statement.set_sql_query("SELECT name FROM people ORDER BY id")
            assert polled(statement, low_level) == [{"name": "ann"}, {"name": "bob"}]


def test_incremental_execution_of_what_is_prepared(low_level, people):
    with AdbcStatement(low_level) as statement:
        statement.set_options(**INCREMENTAL)
        statement.set_sql_query("SELECT name FROM people WHERE id = ?")
        statement.prepare()
        for id, name in people:
            statement.bind(pyarrow.record_batch({"0": [id]}))
            assert polled(statement, low_level) == [{"name": name}]


def test_incremental_execution_changes_something_once(low_level, connection, notes):
    with AdbcStatement(low_level) as statement:
        statement.set_options(**INCREMENTAL)
        statement.set_sql_query("INSERT INTO notes VALUES (1, 'a')")
        assert polled(statement, low_level) == []
    assert noted(connection) == [(1, "a")]


def test_incremental_execution_fails_as_any_other(low_level):
    with AdbcStatement(low_level) as statement:
        statement.set_options(**INCREMENTAL)
        statement.set_sql_query("SELECT nothing")
        with pytest.raises(dbapi.ProgrammingError, match="No field named nothing"):
            statement.execute_partitions()
        statement.set_sql_query("SELECT 1 AS n")
        assert polled(statement, low_level) == [{"n": 1}]


def test_a_name_and_a_password_are_taken(server, address):
    given = {"username": "ann", "password": "secret"}
    with dbapi.connect(server.uri, db_kwargs=given, autocommit=True) as connection:
        assert value(connection, "SELECT 1") == 1
    with pyarrow.flight.connect(f"grpc+tcp://{address}") as client:
        name, token = client.authenticate_basic_token("ann", "secret")
    assert name == b"authorization"
    assert token.startswith(b"Bearer ")


# What programs in other environments begin with.
SQLALCHEMY_1 = """
import json
import flightsql.sqlalchemy
import sqlalchemy

options = "insecure=true&feature-sqlalchemy-prepared-statements=on"
engine = sqlalchemy.create_engine("datafusion+flightsql://127.0.0.1:50051?" + options)
inspector = sqlalchemy.inspect(engine)
people = sqlalchemy.Table("people", sqlalchemy.MetaData(), schema="public", autoload_with=engine)
"""

SQLALCHEMY_2 = """
import json
import sqlalchemy

engine = sqlalchemy.create_engine("adbc+flightsql://127.0.0.1:50051?tls=false")
"""


def told(runs, address, beginning, *expressions):
    """The values of expressions in a program, as JSON has them."""
    printing = "".join(f"print(json.dumps({expression}))\n" for expression in expressions)
    return [json.loads(line) for line in runs(at(address, beginning) + printing).splitlines()]


ONLY_SQLALCHEMY_1 = pytest.mark.parametrize("runs", ["flightsql-dbapi"], indirect=True)
ONLY_SQLALCHEMY_2 = pytest.mark.parametrize("runs", ["adbc"], indirect=True)


@ONLY_SQLALCHEMY_1
def test_sqlalchemy_reflects(runs, address, people):
    schemas, tables, all_tables, columns, present = told(
        runs,
        address,
        SQLALCHEMY_1,
        "inspector.get_schema_names()",
        "inspector.get_table_names('public')",
        "inspector.get_table_names()",
        "[(c['name'], str(c['type']), c['nullable']) for c in inspector.get_columns('people', 'public')]",
        "[inspector.has_table('people'), inspector.has_table('people', 'public'), inspector.has_table('peopl_')]",
    )
    assert {"public", "information_schema"} <= set(schemas)
    assert tables == ["people"]
    assert set(all_tables) > {"people", "tables"}
    assert columns == [["id", "INTEGER", False], ["name", "TEXT", True]]
    assert present == [True, True, False]


@ONLY_SQLALCHEMY_1
def test_sqlalchemy_queries(runs, address, people):
    columns, counted, found, texts = told(
        runs,
        address,
        SQLALCHEMY_1,
        "people.columns.keys()",
        "engine.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(people)).scalar()",
        "[list(row) for row in engine.execute(sqlalchemy.select(people).where(people.c.name == 'bob'))]",
        "engine.execute(sqlalchemy.text('SELECT name FROM people WHERE id = :id'), {'id': 1}).scalars().all()",
    )
    assert columns == ["id", "name"]
    assert counted == 2
    assert found == [[2, "bob"]]
    assert texts == ["ann"]


@ONLY_SQLALCHEMY_1
def test_sqlalchemy_limits(runs, address, people):
    second = "sqlalchemy.select(people.c.name).order_by(people.c.id).limit(1).offset(1)"
    assert told(runs, address, SQLALCHEMY_1, f"engine.execute({second}).scalars().all()") == [["bob"]]


@ONLY_SQLALCHEMY_1
def test_sqlalchemy_runs_statements_without_rows(runs, address, connection, people, notes):
    beginning = f"""{SQLALCHEMY_1}
with engine.connect() as connection:
    connection.execute(sqlalchemy.text("INSERT INTO notes VALUES (1, 'a')"))
    connection.execute(sqlalchemy.text("INSERT INTO notes VALUES (:id, :word)"), {{"id": 2, "word": "b"}})
    connection.execute(sqlalchemy.text("CREATE OR REPLACE VIEW seen AS SELECT * FROM notes"))
"""
    try:
        assert told(runs, address, beginning, "inspector.has_table('seen')") == [True]
        assert noted(connection) == [(1, "a"), (2, "b")]
    finally:
        run(connection, "DROP VIEW IF EXISTS seen")


@ONLY_SQLALCHEMY_2
def test_sqlalchemy_over_adbc(runs, address, connection, people, notes):
    beginning = f"""{SQLALCHEMY_2}
with engine.connect() as connection:
    insert = sqlalchemy.text("INSERT INTO notes VALUES (:id, :word)")
    connection.execute(insert, [{{"id": 1, "word": "a"}}, {{"id": 2, "word": "b"}}])
    connection.commit()
    found = connection.execute(sqlalchemy.text("SELECT * FROM people ORDER BY id LIMIT :most"), {{"most": 1}}).all()
inspector = sqlalchemy.inspect(engine)
"""
    found, columns, present = told(
        runs,
        address,
        beginning,
        "[list(row) for row in found]",
        "[column['name'] for column in inspector.get_columns('people', 'public')]",
        "[inspector.has_table('people'), inspector.has_table('nothing')]",
    )
    assert found == [[1, "ann"]]
    assert columns == ["id", "name"]
    assert present == [True, False]
    assert noted(connection) == [(1, "a"), (2, "b")]

"""How results are described and cut: columns for BI tools, dictionaries, and parts that are fetched side by side."""

import threading

import pyarrow
import pyarrow.parquet
import pytest
from harness import create, error, rows, run, table, value

PREFIX = b"ARROW:FLIGHT:SQL:"
WORDS = """
def words():
    return [(n, ("on", "off")[n % 2], "abc"[n % 3]) for n in range(10_000)]
"""


def said(field):
    """What the server says of a column."""
    metadata = field.metadata or {}
    return {
        key.removeprefix(PREFIX).decode(): text.decode() for key, text in metadata.items() if key.startswith(PREFIX)
    }


@pytest.fixture
def words(connection):
    create(connection, "words", "n int32 NOT NULL, state enum8('on' = 1, 'off' = 2), w low_cardinality(string)", WORDS)


def test_columns_say_what_they_are_and_where_they_come_from(connection, words):
    schema = table(connection, "SELECT n, state AS s, n + 1 AS more, CAST(1.5 AS decimal(7, 2)) AS d FROM words").schema
    n, s, more, d = map(said, schema)
    assert (n["CATALOG_NAME"], n["SCHEMA_NAME"], n["DB_SCHEMA_NAME"], n["TABLE_NAME"]) == (
        "couatl",
        "public",
        "public",
        "words",
    )
    assert (n["TYPE_NAME"], n["PRECISION"], n["SCALE"], n["IS_CASE_SENSITIVE"]) == ("int32", "10", "0", "0")
    assert (s["TYPE_NAME"], s["TABLE_NAME"]) == ("enum8('on' = 1, 'off' = 2)", "words")
    assert s["IS_CASE_SENSITIVE"] == "1"
    assert "TABLE_NAME" not in more and more["IS_READ_ONLY"] == "1"
    assert (d["TYPE_NAME"], d["PRECISION"], d["SCALE"]) == ("decimal(7, 2)", "7", "2")


def test_listed_columns_say_the_same(connection, words):
    """All but where they come from, which their row says."""
    places = {"CATALOG_NAME", "DB_SCHEMA_NAME", "SCHEMA_NAME", "TABLE_NAME"}
    listed, sent = connection.adbc_get_table_schema("words"), table(connection, "SELECT * FROM words").schema
    assert listed.equals(sent)
    assert [said(field) for field in listed] == [
        {key: word for key, word in said(field).items() if key not in places} for field in sent
    ]
    create(connection, "words", "other string", "def words(): return []")
    assert said(connection.adbc_get_table_schema("words").field("other"))["TYPE_NAME"] == "string"


def test_what_is_said_of_columns_is_not_kept_by_tables_made_of_them(connection, words):
    with connection.cursor() as cursor:
        assert cursor.adbc_ingest("copy", table(connection, "SELECT n, w FROM words"), mode="create") == 10_000
    assert said(table(connection, "SELECT * FROM copy").schema.field("n"))["TABLE_NAME"] == "copy"
    assert said(table(connection, "SELECT n + 0 AS n FROM copy").schema.field("n")).get("TABLE_NAME") is None


def test_dictionaries_are_sent_to_who_asks(server, words):
    with server.connect() as connection:
        assert table(connection, "SELECT state, w FROM words").schema.types == [pyarrow.string()] * 2
        run(connection, "SET couatl.keep_dictionaries = true")
        kept = table(connection, "SELECT n, state, w FROM words ORDER BY n")
        assert [str(field.type) for field in kept.schema][1:] == [
            "dictionary<values=string, indices=int8, ordered=0>",
            "dictionary<values=string, indices=int32, ordered=0>",
        ]
        expected = [(n, ("on", "off")[n % 2], "abc"[n % 3]) for n in range(10_000)]
        assert list(zip(*(column.to_pylist() for column in kept.columns), strict=True)) == expected
        with connection.cursor() as cursor:
            assert cursor.adbc_prepare("SELECT state FROM words WHERE n = ?") is not None
            assert cursor.adbc_execute_schema("SELECT state, w FROM words").types == kept.schema.types[1:]
    with server.connect() as other:
        assert table(other, "SELECT state FROM words").schema.types == [pyarrow.string()]


# Streams whose first rows have no word, or are none at all.
WITHOUT_WORDS = {
    "[(None,)]": [(None,)],
    "iter([(None,), ('x',)])": [(None,), ("x",)],
    "[]": [],
    "(row for row in [(None,)] * 3 + [('x',), ('y',), ('x',)])": [(None,)] * 3 + [("x",), ("y",), ("x",)],
}


@pytest.mark.parametrize("given", WITHOUT_WORDS)
def test_dictionaries_may_be_empty(server, given):
    with server.connect() as connection:
        run(connection, "SET couatl.keep_dictionaries = true")
        create(connection, "rare", "w low_cardinality(string)", f"def rare(): return {given}", batch_size=1)
        assert rows(connection, "SELECT w FROM rare") == WITHOUT_WORDS[given]
        assert rows(connection, "SELECT [w] AS ws FROM rare WHERE w = 'nobody'") == []
        with connection.cursor() as cursor:
            cursor.execute("SELECT r.w FROM (VALUES ('z')) AS v (w) LEFT JOIN rare r ON v.w = r.w")
            assert cursor.fetchall() == [(None,)]


@pytest.mark.parametrize("name", ["words", "kept_words"])
def test_listed_columns_are_what_the_session_gets(server, connection, words, name):
    run(connection, "CREATE OR REPLACE TABLE kept_words AS SELECT * FROM words")
    with server.connect() as keeping:
        run(keeping, "SET couatl.keep_dictionaries = true")
        for session, is_kept in [(connection, False), (keeping, True), (connection, False)]:
            listed = session.adbc_get_table_schema(name)
            assert [pyarrow.types.is_dictionary(column.type) for column in listed] == [False, is_kept, is_kept]
            assert listed.equals(table(session, f"SELECT * FROM {name}").schema)
        run(keeping, "SET couatl.keep_dictionaries = false")
        assert keeping.adbc_get_table_schema(name).equals(connection.adbc_get_table_schema(name), check_metadata=True)
    run(connection, "DROP TABLE kept_words")


@pytest.mark.parametrize(
    ("sql", "is_read_only", "table_name"),
    [
        ("SELECT n FROM words", "0", "words"),
        ("SELECT query_id FROM system.queries", "1", "queries"),
        ("SELECT table_name FROM information_schema.tables", "1", "tables"),
        ("SELECT value FROM generate_series(1, 3)", "1", None),
    ],
)
def test_columns_say_whether_they_are_written_to(connection, words, sql, is_read_only, table_name):
    column = said(table(connection, sql).schema.field(0))
    assert (column["IS_READ_ONLY"], column.get("TABLE_NAME")) == (is_read_only, table_name)
    assert ("CATALOG_NAME" in column, "SCHEMA_NAME" in column) == (bool(table_name), bool(table_name))


@pytest.fixture
def files(connection, tmp_path):
    for part in range(4):
        numbers = pyarrow.table({"n": list(range(part * 1000, part * 1000 + 1000)), "part": [part] * 1000})
        pyarrow.parquet.write_table(numbers, tmp_path / f"{part}.parquet")
    run(connection, f"CREATE EXTERNAL TABLE files STORED AS PARQUET LOCATION '{tmp_path}/'")
    yield
    run(connection, "DROP TABLE files")


def partitions(connection, sql):
    with connection.cursor() as cursor:
        return cursor.adbc_execute_partitions(sql)


def fetched(connection, partition):
    with connection.cursor() as cursor:
        cursor.adbc_read_partition(partition)
        return cursor.fetch_arrow_table()["n"].to_pylist()


def test_a_result_has_one_part_unless_a_client_asks_for_more(connection, files):
    assert len(partitions(connection, "SELECT n FROM files")[0]) == 1


def test_parts_are_fetched_side_by_side_in_any_order_and_again(server, files):
    with server.connect() as connection:
        run(connection, "SET couatl.result_partitions = 4")
        parts, schema = partitions(connection, "SELECT n FROM files WHERE n % 2 = 0")
        assert len(parts) == 4 and schema.names == ["n"]
        found = {}

        def fetch(index):
            with server.connect() as own:
                found[index] = fetched(own, parts[index])

        threads = [threading.Thread(target=fetch, args=(index,)) for index in (3, 1, 0, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(n for part in found.values() for n in part) == list(range(0, 4000, 2))
        assert sum(bool(part) for part in found.values()) > 1, "more than one part has rows"
        assert fetched(connection, parts[1]) == found[1], "a part is the same again"
        assert sorted(n for (n,) in rows(connection, "SELECT n FROM files")) == list(range(4000))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT n FROM files ORDER BY n",
        "SELECT count(*) AS n FROM files",
        "SELECT n FROM files LIMIT 3",
        "SELECT DISTINCT n FROM files",
        "SELECT a.n FROM files a JOIN files b ON a.n = b.n",
        "SELECT n FROM words",
        "SELECT 1 AS n",
    ],
)
def test_what_brings_rows_together_has_one_part(server, words, files, sql):
    with server.connect() as connection:
        run(connection, "SET couatl.result_partitions = 4")
        parts, _ = partitions(connection, sql)
        assert len(parts) == 1
        with server.connect() as plain:
            assert sorted(fetched(connection, parts[0])) == sorted(
                table(plain, sql)["n"].to_pylist() if "LIMIT" not in sql else fetched(connection, parts[0])
            )


def test_parameters_and_unions_have_parts_too(server, files):
    with server.connect() as connection:
        run(connection, "SET couatl.result_partitions = 2")
        with connection.cursor() as cursor:
            parts, _ = cursor.adbc_execute_partitions("SELECT n FROM files WHERE n < ?", parameters=(10,))
        assert len(parts) == 2
        assert sorted(n for part in parts for n in fetched(connection, part)) == list(range(10))
        parts, _ = partitions(connection, "SELECT n FROM files UNION ALL SELECT n + 4000 AS n FROM files")
        assert sorted(n for part in parts for n in fetched(connection, part)) == list(range(8000))


@pytest.fixture
def batches(connection):
    """A table of thirteen batches."""
    with connection.cursor() as cursor:
        for number in range(13):
            numbers = pyarrow.table({"n": list(range(number * 1000, number * 1000 + 1000))})
            cursor.adbc_ingest("batches", numbers, mode="create_append")
    yield
    run(connection, "DROP TABLE batches")


@pytest.mark.parametrize(
    ("wanted", "sql", "offered"),
    [
        (13, "SELECT n FROM batches", 13),
        (14, "SELECT n FROM batches", 13),
        (256, "SELECT n + 1 AS n FROM batches WHERE n > 3", 13),
        (3, "SELECT n FROM batches UNION ALL SELECT n FROM batches", 3),
        (4, "SELECT n FROM files UNION ALL SELECT n FROM batches", 4),
        (14, " UNION ALL ".join(["SELECT n FROM batches"] * 16), 14),
    ],
)
def test_there_are_as_many_parts_as_are_wanted_and_can_be_had(server, connection, files, batches, wanted, sql, offered):
    with server.connect() as asking:
        run(asking, f"SET couatl.result_partitions = {wanted}")
        parts, _ = partitions(asking, sql)
        assert len(parts) == offered
        found = sorted(n for part in parts for n in fetched(asking, part))
        assert found == sorted(n for (n,) in rows(connection, sql))


def test_settings_are_refused_by_their_names(server):
    with server.connect() as connection:
        run(connection, "SET couatl.result_partitions = 3")
        assert value(connection, "SELECT value FROM information_schema.df_settings WHERE name LIKE 'couatl.r%'") == "3"
        assert "couatl.nosuch" in str(error(connection, "SET couatl.nosuch = 3"))
        assert "result_partitions" in str(error(connection, "SET couatl.result_partitions = 'many'"))


@pytest.mark.parametrize(
    ("setting", "refusal"),
    [
        ("datafusion.execution.objectstore_writer_buffer_size = 0", "1 at least"),
        ("datafusion.execution.parquet.write_batch_size = 0", "1 at least"),
        ("datafusion.execution.parquet.max_row_group_size = 0", "1 at least"),
        ("datafusion.execution.parquet.maximum_parallel_row_group_writers = 0", "1 at least"),
        ("datafusion.execution.parquet.maximum_parallel_row_group_writers = 4611686018427387904", "1024 at most"),
        ("datafusion.execution.minimum_parallel_output_files = 4611686018427387904", "1024 at most"),
        ("datafusion.execution.hash_join_buffering_capacity = 4611686018427387904", "at most"),
        ("datafusion.execution.sort_spill_reservation_bytes = 18446744073709551615", "at most"),
        ("datafusion.optimizer.max_passes = 0", "1 at least"),
        ("datafusion.execution.time_zone = 'Nowhere/Bad'", "is a time zone, such as 'Europe/Berlin'"),
    ],
)
def test_a_setting_that_no_query_survives_is_refused(connection, setting, refusal):
    assert refusal in error(connection, f"SET {setting}")
    name, number = setting.split(" = ")
    with pytest.raises(connection.Error, match="invalid value"):
        connection.adbc_connection.set_options(**{f"adbc.flight.sql.session.option.{name}": number.strip("'")})


def test_every_setting_may_be_set_to_what_it_is(connection):
    for name, number in rows(connection, "SHOW ALL"):
        if number is not None and not name.startswith("datafusion.runtime."):
            run(connection, f"SET {name} = '{number}'")


def test_settings_go_back_to_what_they_were(connection):
    for name, number in [("result_partitions", "8"), ("keep_dictionaries", "true")]:
        before = rows(connection, f"SHOW couatl.{name}")
        run(connection, f"SET couatl.{name} = {number}")
        assert rows(connection, f"SHOW couatl.{name}") != before
        run(connection, f"RESET couatl.{name}")
        assert rows(connection, f"SHOW couatl.{name}") == before


def test_a_setting_that_begins_with_none_goes_back_to_none(connection):
    before = rows(connection, "SHOW datafusion.execution.time_zone")
    run(connection, "SET datafusion.execution.time_zone = '+05:00'")
    run(connection, "RESET datafusion.execution.time_zone")
    assert rows(connection, "SHOW datafusion.execution.time_zone") == before

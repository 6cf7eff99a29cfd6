"""Files that grow, in a folder."""

import json
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from couatl.testing import check_resume, check_source, rows_and_state
from couatl.testing import rows as rows_of
from growing_files import GrowingFiles, Lines
from harness import error, rows

ALL = "SELECT file, position, data FROM lines"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    return folder


@pytest.fixture
def source(folder, stream):
    def make(columns="", **settings):
        settings = {"mode": "streaming", "interval": "10ms", **settings}
        stream("lines", "growing_files:GrowingFiles", columns, folder=folder, **settings)

    return make


def append(path, text):
    with path.open("a", newline="") as file:
        file.write(text)


def test_lines_are_read_and_followed(folder, source, reading):
    append(folder / "a.log", "one\ntwo\n")
    source()
    reader = reading(ALL)
    assert reader.take(2) == [("a.log", 0, "one"), ("a.log", 4, "two")]
    append(folder / "a.log", "three\n")
    assert reader.take(1) == [("a.log", 8, "three")]


def test_half_a_line_is_never_read(folder, source, reading):
    """While one file has half of a line, the other has several."""
    append(folder / "a.log", "half")
    source(parallel=1)
    reader = reading(ALL)
    for n in range(3):
        append(folder / "b.log", f"{n}\n")
        assert reader.take(1) == [("b.log", 2 * n, str(n))]
    append(folder / "a.log", " and")
    append(folder / "b.log", "x\r\n")
    assert reader.take(1) == [("b.log", 6, "x")]
    append(folder / "a.log", " half\nhalf")
    assert reader.take(1) == [("a.log", 0, "half and half")]


def test_new_files_are_found(folder, source, reading):
    source(pattern="**/*.log", parallel=3)
    reader = reading("SELECT file, data FROM lines")
    (folder / "sub").mkdir()
    for n, name in enumerate(["a.log", "sub/a.log", "c.log", "d.log"]):
        append(folder / "other.txt", "not this\n")
        append(folder / name, f"{n}\n")
        assert reader.take(1) == [(name, str(n))]


def test_every_file_is_in_one_partition(folder, source, connection):
    for n in range(30):
        append(folder / f"{n}.log", "".join(f"{line}\n" for line in range(n)))
    source(parallel=4, follow=False, mode="auto")
    found = rows(connection, "SELECT file, data FROM lines")
    assert len(found) == sum(range(30))
    for n in range(30):
        assert [data for file, data in found if file == f"{n}.log"] == [str(line) for line in range(n)]


def test_more_lines_than_a_batch_holds(folder, source, connection):
    append(folder / "a.log", "".join(f"{n}\n" for n in range(5000)))
    source(follow=False, mode="auto")
    assert rows(connection, "SELECT data FROM lines") == [(str(n),) for n in range(5000)]


def test_a_header_names_the_values(folder, source, reading):
    append(folder / "a.csv", 'n,text\n1,"a, b"\n')
    append(folder / "b.csv", "text")
    source(format="csv")
    reader = reading("SELECT file, data['n'], data['text'] FROM lines")
    assert reader.take(1) == [("a.csv", "1", "a, b")]
    append(folder / "b.csv", ",n\r\nc,2\r\n")
    assert reader.take(1) == [("b.csv", "2", "c")]


@pytest.mark.parametrize("line", ["1,2,3", "1", '1,"2'])
def test_a_record_that_does_not_fit_its_header_is_an_error(folder, source, reading, line):
    append(folder / "a.csv", f"a,b\n1,2\n{line}\n")
    source(format="csv")
    said = reading("SELECT data FROM lines").error()
    assert "ValueError: a.csv, at byte 8: " in said
    count = {"1,2,3": "expected 2 values, as in the header, got 3", "1": "got 1"}.get(line, "unexpected end of data")
    assert count in said


@pytest.mark.parametrize(
    ("format", "line", "data"), [("csv", "n\n1\n", {"n": "1"}), ("json", "1\n", "1"), ("text", "1\n", "1")]
)
def test_a_mark_at_the_beginning_of_a_file_is_no_text(folder, format, line, data):
    (folder / "a").write_text(line, encoding="utf-8-sig")
    assert [row[2] for row in rows_of(GrowingFiles, folder=folder, format=format, follow=False)] == [data]


@pytest.mark.parametrize("format", ["csv", "json", "text"])
def test_empty_lines_are_text_alone(folder, format):
    append(folder / "a", "1\n\n \r\n2\n")
    found = [row[1] for row in rows_of(GrowingFiles, folder=folder, format=format, follow=False)]
    assert found == {"csv": [6], "json": [0, 6], "text": [0, 2, 3, 6]}[format]


def test_no_partition_is_an_error(folder):
    with pytest.raises(ValueError, match="expected at least 1 as parallel, got 0"):
        rows_of(GrowingFiles, folder=folder, parallel=0)


def test_json_lines(folder, source, reading):
    append(folder / "a.json", '{"n": 1, "é": [true]}\n7\n')
    source(format="json")
    reader = reading("SELECT data FROM lines")
    assert [json.loads(data) for (data,) in reader.take(2)] == [{"n": 1, "é": [True]}, 7]
    append(folder / "a.json", "{\n")
    assert "column 'data' (json)" in reader.error()


TYPED = "(text string, i int32, d decimal(9, 2), f float64, b bool, day date, at timestamptz, file string)"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
TYPED_ROW = ("a", 1, Decimal("2.50"), 1.5, True, date(2026, 1, 2), AT)


def test_csv_values_have_the_types_that_are_declared(folder, source, reading):
    append(folder / "a.csv", "at,b,day,f,d,i,text\n")
    append(folder / "a.csv", "2026-01-02T04:04:05+01:00,TRUE,2026-01-02,1.5,2.50,1,a\n,,,,,,\n")
    source(columns=TYPED, format="csv")
    reader = reading("SELECT * FROM lines")
    assert reader.take(2) == [(*TYPED_ROW, "a.csv"), ("", None, None, None, None, None, None, "a.csv")]
    append(folder / "a.csv", ",,,,,x,\n")
    assert "ValueError: a.csv, at byte 82: expected int32 in 'i', got 'x'" in reader.error()


def test_json_members_fill_the_columns_that_are_declared(folder, source, reading):
    values = {"text": "a", "i": 1, "d": 2.5, "f": 1.5, "b": True, "day": "2026-01-02", "at": "2026-01-02T03:04:05Z"}
    append(folder / "a.json", json.dumps(values) + "\n{}\n")
    source(columns=TYPED, format="json")
    reader = reading("SELECT * FROM lines")
    assert reader.take(2) == [(*TYPED_ROW, "a.json"), (None, None, None, None, None, None, None, "a.json")]
    append(folder / "a.json", "[1]\n")
    assert "expected a JSON object, for the columns, got [1]" in reader.error()


def test_json_members_stay_json_where_that_is_declared(folder, source, reading):
    append(folder / "a.json", '{"j": "a", "list": [1, 2]}\n{"j": {"b": 1}}\n')
    source(columns="(j json, list array(int32), data json)", format="json")
    found = [(json.loads(j), items) for j, items, _ in reading("SELECT * FROM lines").take(2)]
    assert found == [("a", [1, 2]), ({"b": 1}, None)]


def test_lines_of_text_have_no_other_columns(folder, source, connection):
    source(columns="(data string, level string)")
    assert "lines of text have no column 'level'; expected file, position, data" in error(
        connection, "SELECT * FROM lines"
    )
    append(folder / "a.log", "one\n")
    source(columns="(data string, position int64)")
    assert rows(connection, "SELECT * FROM lines LIMIT 1") == [("one", 0)]


def test_a_file_that_is_shorter_is_read_again(folder, source, reading):
    append(folder / "a.log", "one\ntwo\n")
    source()
    reader = reading("SELECT data FROM lines")
    assert reader.take(2) == [("one",), ("two",)]
    (folder / "a.log").write_text("new\n")
    assert reader.take(1) == [("new",)]


def renewed(path, text):
    """A new file, which does not have the number of the old one."""
    path.with_name("new").write_text(text)
    path.with_name("new").rename(path)


def rewritten(path, text):
    path.write_text(text)


@pytest.mark.parametrize(
    ("replace", "text"),
    [
        (rewritten, "a\n"),
        (rewritten, "three\nfour\nfive\n"),
        (rewritten, "1\n2\n3\n4\n5\n6\n"),
        (renewed, "one\ntwo\nthree\n"),
        (renewed, "one\ntwo\n"),
    ],
)
def test_a_file_that_takes_the_place_of_another_is_read_from_its_beginning(folder, source, reading, replace, text):
    append(folder / "a.log", "one\ntwo\n")
    source(pattern="*.log")
    reader = reading("SELECT data FROM lines")
    assert reader.take(2) == [("one",), ("two",)]
    replace(folder / "a.log", text)
    assert reader.take(text.count("\n")) == [(line,) for line in text.splitlines()]
    append(folder / "a.log", "end\n")
    assert reader.take(1) == [("end",)]


def test_a_file_that_is_removed_after_it_was_listed_is_left_out(folder, monkeypatch):
    for name in ["a.log", "b.log", "c.log"]:
        append(folder / name, f"{name}\n")
    name = Lines.name

    def removing(lines, path):
        (folder / "b.log").unlink(missing_ok=True)
        return name(lines, path)

    monkeypatch.setattr(Lines, "name", removing)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    found = rows_of(GrowingFiles, folder=folder, parallel=1, follow=False)
    assert [row[2] for row in found] == ["a.log", "c.log"]


def test_a_folder_that_is_removed_while_it_is_listed_is_left_out(folder, monkeypatch):
    append(folder / "a.log", "one\n")
    glob, failures = Path.glob, [FileNotFoundError("gone")]

    def failing(path, pattern):
        if failures:
            raise failures.pop()
        return glob(path, pattern)

    monkeypatch.setattr(Path, "glob", failing)
    assert rows_of(GrowingFiles, folder=folder, parallel=1, follow=False) == [("a.log", 0, "one")]


def test_reading_goes_on_after_the_last_line(folder):
    append(folder / "a.log", "one\ntwo\nthr")
    append(folder / "b.log", "eins\n")
    options = {"folder": folder, "parallel": 1, "follow": False}
    found, state = rows_and_state(GrowingFiles, limit=3, **options)
    assert [row[2] for row in found] == ["one", "two", "eins"]
    assert {name: position for name, (_, position, _) in state.items()} == {"a.log": 8, "b.log": 5}
    append(folder / "a.log", "ee\n")
    append(folder / "c.log", "un\n")
    assert rows_of(GrowingFiles, state=state, **options) == [("a.log", 8, "three"), ("c.log", 0, "un")]


def test_a_limit_and_a_kill_end_it(folder, source, connection, reading):
    append(folder / "a.log", "one\ntwo\n")
    source(interval="1h", parallel=4)
    assert rows(connection, "SELECT data FROM lines LIMIT 1") == [("one",)]
    reader = reading("SELECT data FROM lines")
    assert reader.take(2) == [("one",), ("two",)]
    reader.kill()


def test_no_folder_is_an_error(folder, source, connection):
    source()
    folder.rmdir()
    assert f"NotADirectoryError: {folder} is no folder" in error(connection, ALL)
    folder.write_text("")
    assert "NotADirectoryError" in error(connection, ALL)


def test_it_keeps_to_the_contract(folder):
    append(folder / "a.log", "one\ntwo\n")
    append(folder / "b.log", "eins\n")
    check_source(GrowingFiles, folder=folder)
    check_resume(GrowingFiles, folder=folder, parallel=1, follow=False)

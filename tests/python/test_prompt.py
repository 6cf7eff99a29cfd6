"""Every row at the client before the next one exists, through each shape of plan, without a clock."""

import contextlib
import json
import socket

import pytest
from harness import PATIENCE, create, run

BODY = """
import datetime, json, socket
def {name}():
    with socket.create_connection(('127.0.0.1', {port})) as feed, feed.makefile() as lines:
        for line in lines:
            n, k = json.loads(line)
            yield n, k, datetime.datetime.fromtimestamp(n, datetime.timezone.utc)
"""


class Feed:
    """A stream whose rows the test hands out, one when it wants."""

    def __init__(self, connection, name, mode, order_by):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.source = None
        body = BODY.format(name=name, port=self.listener.getsockname()[1])
        create(connection, name, "n int64, k int64, ts timestamp", body, mode=mode, order_by=order_by)

    def give(self, row):
        if self.source is None:
            self.source, _ = self.listener.accept()
        self.source.sendall((json.dumps(row) + "\n").encode())

    def end(self):
        if self.source is None:
            self.source, _ = self.listener.accept()
        self.source.close()

    def close(self):
        if self.source is not None:
            self.source.close()
        self.listener.close()


def only(row):
    (value,) = row.values()
    return value


def arriving(reader):
    """The rows of the batches that come, one after the other."""
    for batch in reader:
        yield from batch.to_pylist()


# What is asked, and then: which stream yields which row (n, k), and which rows the client has before anything else is
# yielded.
SHAPES = {
    "plain": ("SELECT n FROM a", [("a", (1, 1), [1]), ("a", (2, 1), [2])]),
    "projection": ("SELECT n * 10 FROM a", [("a", (1, 1), [10]), ("a", (2, 1), [20])]),
    "filter": ("SELECT n FROM a WHERE n % 2 = 0", [("a", (1, 1), []), ("a", (2, 1), [2]), ("a", (4, 1), [4])]),
    "view": ("SELECT n FROM even", [("a", (1, 1), []), ("a", (2, 1), [2])]),
    "union": (
        "SELECT n FROM a UNION ALL SELECT n FROM b",
        [("a", (1, 1), [1]), ("b", (5, 1), [5]), ("b", (6, 1), [6]), ("a", (2, 1), [2])],
    ),
    "union of filters": (
        "SELECT n FROM a WHERE n > 1 UNION ALL SELECT n FROM b WHERE n > 1",
        [("a", (1, 1), []), ("b", (5, 1), [5]), ("a", (2, 1), [2])],
    ),
    "join": ("SELECT name FROM a JOIN names USING (k)", [("a", (1, 1), ["one"]), ("a", (2, 2), ["two", "zwei"])]),
    "join from the table": ("SELECT name FROM names JOIN a USING (k)", [("a", (1, 3), []), ("a", (2, 1), ["one"])]),
    "join and filter": (
        "SELECT name FROM a JOIN names ON a.k = names.k AND a.n > length(name)",
        [("a", (1, 2), []), ("a", (4, 2), ["two"]), ("a", (5, 1), ["one"])],
    ),
    "left join": (
        "SELECT coalesce(name, 'none') FROM a LEFT JOIN names USING (k)",
        [("a", (1, 3), ["none"]), ("a", (2, 1), ["one"])],
    ),
    "right join": (
        "SELECT coalesce(name, 'none') FROM names RIGHT JOIN a USING (k)",
        [("a", (1, 3), ["none"]), ("a", (2, 1), ["one"])],
    ),
    "exists": (
        "SELECT n FROM a WHERE EXISTS (SELECT 1 FROM names WHERE names.k = a.k)",
        [("a", (1, 3), []), ("a", (2, 2), [2])],
    ),
    "not exists": (
        "SELECT n FROM a WHERE NOT EXISTS (SELECT 1 FROM names WHERE names.k = a.k)",
        [("a", (1, 1), []), ("a", (2, 3), [2])],
    ),
    "in": ("SELECT n FROM a WHERE k IN (SELECT k FROM names)", [("a", (1, 1), [1]), ("a", (2, 2), [2])]),
    "not in": ("SELECT n FROM a WHERE k NOT IN (SELECT k FROM names)", [("a", (1, 1), []), ("a", (2, 3), [2])]),
    "in or": (
        "SELECT n FROM a WHERE k IN (SELECT k FROM names) OR n > 5",
        [("a", (1, 1), [1]), ("a", (2, 3), []), ("a", (6, 3), [6])],
    ),
    "cross join": (
        "SELECT n FROM a, (SELECT name FROM names WHERE k = 1)",
        [("a", (1, 3), [1]), ("a", (2, 3), [2])],
    ),
    "join by comparison": (
        "SELECT name FROM a JOIN names ON a.k < names.k",
        [("a", (1, 1), ["two", "zwei"]), ("a", (2, 2), []), ("a", (3, 1), ["two", "zwei"])],
    ),
    "limit": ("SELECT n FROM a LIMIT 2", [("a", (1, 1), [1]), ("a", (2, 1), [2])]),
    "aggregate of a limit": ("SELECT sum(n) FROM (SELECT n FROM a LIMIT 2)", [("a", (1, 1), []), ("a", (2, 1), [3])]),
    "order by": ("SELECT n FROM a ORDER BY n", [("a", (1, 1), [1]), ("a", (2, 1), [2])]),
    "row number": ("SELECT row_number() OVER (ORDER BY n) FROM a", [("a", (7, 1), [1]), ("a", (8, 1), [2])]),
    "lag": ("SELECT coalesce(lag(n) OVER (ORDER BY n), 0) FROM a", [("a", (7, 1), [0]), ("a", (8, 1), [7])]),
    "running sum": (
        "SELECT sum(n) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING) FROM a",
        [("a", (1, 1), [1]), ("a", (2, 1), [3])],
    ),
    "sum of a partition": (
        "SELECT sum(n) OVER (PARTITION BY k ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM a",
        [("a", (1, 1), [1]), ("a", (2, 2), [2]), ("a", (3, 1), [4]), ("a", (4, 1), [7])],
    ),
    "sum of peers": (
        "SELECT sum(k) OVER (ORDER BY n) FROM a",
        [("a", (1, 1), []), ("a", (1, 1), []), ("a", (2, 1), [2, 2]), ("a", (3, 1), [3])],
    ),
    "group": ("SELECT count(*) FROM a GROUP BY n", [("a", (1, 1), []), ("a", (1, 1), []), ("a", (2, 1), [2])]),
    "group by a bin": (
        "SELECT sum(k) FROM a GROUP BY date_bin(interval '10 seconds', ts)",
        [("a", (1, 1), []), ("a", (9, 1), []), ("a", (10, 1), [2]), ("a", (20, 1), [1])],
    ),
    "distinct": ("SELECT DISTINCT n FROM a", [("a", (1, 1), []), ("a", (1, 1), []), ("a", (2, 1), [1])]),
    "left join and filter": (
        "SELECT coalesce(name, 'none') FROM a LEFT JOIN names ON a.k = names.k AND a.n > length(name)",
        [("a", (1, 2), ["none"]), ("a", (4, 2), ["two"]), ("a", (5, 1), ["one"])],
    ),
    "exists and filter": (
        "SELECT n FROM a WHERE EXISTS (SELECT 1 FROM names WHERE names.k = a.k AND a.n > length(name))",
        [("a", (1, 2), []), ("a", (4, 2), [4])],
    ),
    "not exists and filter": (
        "SELECT n FROM a WHERE NOT EXISTS (SELECT 1 FROM names WHERE names.k = a.k AND a.n > length(name))",
        [("a", (1, 2), [1]), ("a", (4, 2), []), ("a", (5, 3), [5])],
    ),
    "lead": (
        "SELECT coalesce(lead(n) OVER (ORDER BY n), 0) FROM a",
        [("a", (1, 1), []), ("a", (2, 1), [2]), ("a", (5, 1), [5])],
    ),
    "sum of a range": (
        "SELECT sum(n) OVER (ORDER BY n RANGE BETWEEN 2 PRECEDING AND CURRENT ROW) FROM a",
        [("a", (1, 1), []), ("a", (2, 1), [1]), ("a", (5, 1), [3]), ("a", (6, 1), [5])],
    ),
    "rank in a partition": (
        "SELECT rank() OVER (PARTITION BY k ORDER BY n) FROM a",
        [("a", (1, 1), [1]), ("a", (2, 2), [1]), ("a", (3, 1), [2])],
    ),
    "having": (
        "SELECT n FROM a GROUP BY n HAVING count(*) > 1",
        [("a", (1, 1), []), ("a", (1, 1), []), ("a", (2, 1), [1]), ("a", (3, 1), [])],
    ),
    "distinct of two": (
        "SELECT concat(n, k) FROM (SELECT DISTINCT n, k FROM a)",
        [("a", (1, 1), []), ("a", (1, 2), []), ("a", (2, 1), ["11", "12"])],
    ),
    "order by more": (
        "SELECT concat(n, k) FROM a ORDER BY n, k",
        [("a", (1, 2), []), ("a", (1, 1), []), ("a", (2, 1), ["11", "12"]), ("a", (3, 1), ["21"])],
    ),
    "top of more": (
        "SELECT concat(n, k) FROM a ORDER BY n, k LIMIT 3",
        [("a", (1, 2), []), ("a", (1, 1), []), ("a", (2, 1), ["11", "12"]), ("a", (3, 1), ["21"])],
    ),
    "sum of a partition that is the order": (
        "SELECT sum(k) OVER (PARTITION BY n ORDER BY k ROWS UNBOUNDED PRECEDING) FROM a",
        [("a", (1, 2), []), ("a", (1, 1), []), ("a", (2, 1), [1, 3])],
    ),
    "number in a partition": (
        "SELECT row_number() OVER (PARTITION BY k) FROM a",
        [("a", (1, 1), [1]), ("a", (2, 2), [1]), ("a", (3, 1), [2])],
    ),
    "array of a group": (
        "SELECT array_to_string(array_agg(k ORDER BY k), ',') FROM a GROUP BY n",
        [("a", (1, 2), []), ("a", (1, 1), []), ("a", (2, 1), []), ("a", (3, 1), ["1,2"])],
    ),
    "left band": (
        "SELECT a.n FROM a LEFT JOIN b ON a.k = b.k AND b.n BETWEEN a.n - 5 AND a.n + 5",
        [("a", (10, 1), []), ("b", (7, 1), [10]), ("a", (20, 1), []), ("b", (30, 1), [20])],
    ),
    "band exists": (
        "SELECT n FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.n BETWEEN a.n - 5 AND a.n + 5)",
        [("a", (10, 1), []), ("b", (7, 2), []), ("b", (8, 1), [10]), ("a", (12, 1), [12])],
    ),
    "band not exists": (
        "SELECT n FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.n BETWEEN a.n - 5 AND a.n + 5)",
        [("a", (10, 1), []), ("b", (7, 2), []), ("b", (16, 1), [10])],
    ),
    "band": (
        "SELECT b.n FROM a JOIN b ON a.k = b.k AND b.n BETWEEN a.n - 5 AND a.n + 5",
        [("a", (10, 1), []), ("b", (7, 2), []), ("b", (8, 1), [8]), ("b", (12, 1), [12]), ("a", (13, 1), [8, 12])],
    ),
}


@pytest.mark.parametrize("mode", ["streaming", "auto"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_does_not_wait_for_the_next(connection, shape, mode):
    sql, steps = SHAPES[shape]
    order_by = "ts" if " ts)" in sql else "n"
    run(connection, "CREATE OR REPLACE TABLE names (k bigint, name text) AS VALUES (1, 'one'), (2, 'two'), (2, 'zwei')")
    with contextlib.ExitStack() as ends:
        feeds = {name: ends.enter_context(contextlib.closing(Feed(connection, name, mode, order_by))) for name in "ab"}
        run(connection, "CREATE OR REPLACE VIEW even AS SELECT n FROM a WHERE n % 2 = 0")
        cursor = ends.enter_context(connection.cursor())
        cursor.execute(sql)
        answers = arriving(cursor.fetch_record_batch())
        for feed, row, expected in steps:
            feeds[feed].give(row)
            got = [only(next(answers)) for _ in expected]
            assert sorted(got, key=str) == sorted(expected, key=str), (feed, row)
        for name in {feed for feed, _, _ in steps}:
            feeds[name].end()
        for _ in answers:
            pass
        for name in "ab":
            run(connection, f"DROP STREAM {name}")

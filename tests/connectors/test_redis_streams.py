"""Redis streams, against a Redis."""

import pytest
import services
from couatl.testing import check_resume, check_sink, check_source, rows_and_state
from couatl.testing import rows as rows_of
from harness import error, rows, run, wait_until
from redis import Redis
from redis_streams import RedisStreams, RedisStreamSink

NUMBERS = "SELECT fields['n'] FROM numbers"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with services.redis(tmp_path_factory.mktemp("redis")) as service:
        yield service


@pytest.fixture
def url(service):
    return f"redis://127.0.0.1:{service.port}"


@pytest.fixture
def redis(url):
    with Redis.from_url(url, decode_responses=True) as redis:
        redis.flushall()
        yield redis
        wait_until(lambda: len(redis.client_list()) == 1, "an end of all connections", 2)


def add(redis, key, numbers):
    return [redis.xadd(key, {"n": n}) for n in numbers]


def test_entries_are_read_and_followed(redis, url, stream, reading):
    ids = add(redis, "a", range(3))
    stream("numbers", "redis_streams:RedisStreams", mode="streaming", url=url, keys="a")
    reader = reading("SELECT key, id, fields['n'] FROM numbers")
    assert reader.take(3) == [("a", id, str(n)) for n, id in enumerate(ids)]
    for n in range(3, 6):
        (id,) = add(redis, "a", [n])
        assert reader.take(1) == [("a", id, str(n))]


def test_times_are_those_of_the_ids(redis, url, stream, connection):
    redis.xadd("a", {"n": 1}, id="1767225600123-7")
    stream("numbers", "redis_streams:RedisStreams", mode="batch", url=url, keys="a", follow=False)
    ((time,),) = rows(connection, "SELECT time FROM numbers")
    assert time.isoformat() == "2026-01-01T00:00:00.123000+00:00"


def test_values_may_be_bytes(redis, url, stream, connection):
    id = redis.xadd("a", {"n": b"\0\xff"})
    settings = {"mode": "batch", "url": url, "keys": "a", "follow": False}
    stream("numbers", "redis_streams:RedisStreams", **settings)
    said = error(connection, NUMBERS)
    assert f"ValueError: a, entry {id}: 'utf-8' codec can't decode" in said and "values = 'bytes' takes it" in said
    stream("numbers", "redis_streams:RedisStreams", values="bytes", **settings)
    assert rows(connection, "SELECT id, fields['n'] FROM numbers") == [(id, b"\0\xff")]


def test_each_key_is_a_partition_in_its_order(redis, url, stream, connection):
    for key in "abc":
        add(redis, key, range(2500))
    stream("numbers", "redis_streams:RedisStreams", url=url, keys="a, b, c", follow=False)
    found = rows(connection, "SELECT key, CAST(fields['n'] AS INT) FROM numbers")
    assert len(found) == 7500
    for key in "abc":
        assert [n for of, n in found if of == key] == list(range(2500))


def test_a_beginning_may_be_what_comes_next(redis, url, stream, reading):
    add(redis, "a", [1, 2])
    stream("numbers", "redis_streams:RedisStreams", mode="streaming", url=url, keys="a, b", start="$")
    reader = reading(NUMBERS)
    wait_until(lambda: blocked(redis) == 2, "both partitions")
    add(redis, "a", [3])
    assert reader.take(1) == [("3",)]
    add(redis, "b", [4])
    assert reader.take(1) == [("4",)]


def blocked(redis):
    return sum(client["cmd"] == "xread" for client in redis.client_list())


def test_reading_goes_on_after_the_last_entry(redis, url):
    add(redis, "a", range(10))
    options = {"url": url, "keys": "a", "follow": False}
    found, state = rows_and_state(RedisStreams, limit=4, count=4, **options)
    assert [row[3]["n"] for row in found] == ["0", "1", "2", "3"]
    assert [row[3]["n"] for row in rows_of(RedisStreams, state=state, **options)] == [str(n) for n in range(4, 10)]


def test_a_limit_ends_it(redis, url, stream, connection):
    add(redis, "a", range(3))
    stream("numbers", "redis_streams:RedisStreams", mode="streaming", url=url, keys="a, none")
    assert rows(connection, f"{NUMBERS} LIMIT 3") == [("0",), ("1",), ("2",)]


def test_a_kill_ends_it(redis, url, stream, reading):
    add(redis, "a", [1])
    stream("numbers", "redis_streams:RedisStreams", mode="streaming", url=url, keys="a, none")
    reader = reading(NUMBERS)
    assert reader.take(1) == [("1",)]
    reader.kill()
    wait_until(lambda: not blocked(redis), "an end of both connections")


def test_rows_become_entries(redis, url, stream, connection):
    stream(
        "orders", "redis_streams:RedisStreamSink", "(item string, amount int64, sold bool, at date)", url=url, key="o"
    )
    sql = "INSERT INTO orders VALUES ('apples', 3, true, '2026-01-02'), ('kiwis', NULL, false, NULL)"
    assert run(connection, sql) == 2
    assert [fields for _, fields in redis.xrange("o")] == [
        {"item": "apples", "amount": "3", "sold": "true", "at": '"2026-01-02"'},
        {"item": "kiwis", "sold": "false"},
    ]


def test_structs_are_objects_and_what_is_no_number_is_null(redis, url, stream, connection):
    columns = "(at struct(x int32, y float64), levels array(float64))"
    stream("orders", "redis_streams:RedisStreamSink", columns, url=url, key="o")
    run(connection, "INSERT INTO orders VALUES (struct(1, 2.5), [CAST('NaN' AS double), CAST('inf' AS double)])")
    [(_, fields)] = redis.xrange("o")
    assert fields == {"at": '{"x": 1, "y": 2.5}', "levels": "[null, null]"}


def test_the_newest_entries_are_kept(redis, url, stream, connection):
    stream("orders", "redis_streams:RedisStreamSink", "(n int64)", url=url, key="o", length=100)
    assert run(connection, "INSERT INTO orders SELECT value FROM range(2000)") == 2000
    assert redis.xlen("o") < 400
    assert redis.xrevrange("o", count=1)[0][1] == {"n": "1999"}


def test_a_batch_that_fails_adds_nothing(redis, url, stream, connection):
    """An entry without any field is none for Redis."""
    stream("orders", "redis_streams:RedisStreamSink", "(n int64)", url=url, key="o")
    said = error(connection, "INSERT INTO orders VALUES (1), (NULL)")
    assert "ValueError: expected a value for an entry's fields, got a row of NULLs alone" in said
    assert redis.xlen("o") == 0


def test_without_a_server_both_say_so(url, stream, connection):
    nowhere = f"redis://127.0.0.1:{services.free_port()}"
    stream("orders", "redis_streams:RedisStreamSink", "(n int64)", url=nowhere, key="o")
    assert "redis.exceptions.ConnectionError" in error(connection, "INSERT INTO orders VALUES (1)")


def test_a_connection_is_made_again(service, redis, url, stream, reading):
    add(redis, "a", [1, 2])
    stream("numbers", "redis_streams:RedisStreams", mode="streaming", url=url, keys="a")
    reader = reading(NUMBERS)
    assert reader.take(2) == [("1",), ("2",)]
    redis.save()
    service.stop()
    service.start()
    add(redis, "a", [3])
    assert reader.take(1) == [("3",)]


def test_both_keep_to_the_contract(redis, url):
    for key in "ab":
        add(redis, key, range(4))
    options = {"url": url, "keys": "a, b", "count": 2}
    check_source(RedisStreams, **options)
    check_resume(RedisStreams, follow=False, **options)
    columns = {"item": "string", "amount": "int64"}
    check_sink(RedisStreamSink, [("apples", 3), ("kiwis", None)], columns=columns, url=url, key="c")
    assert [fields for _, fields in redis.xrange("c")][-2:] == [{"item": "apples", "amount": "3"}, {"item": "kiwis"}]

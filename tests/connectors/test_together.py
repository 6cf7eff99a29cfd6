"""Connectors in one query: lines of a file, with what a database knows of them, become messages of a broker."""

import threading

import psycopg
import services
from harness import run, wait_until
from redis import Redis


def test_a_stream_is_joined_with_a_table_and_goes_elsewhere(tmp_path, server, connection, stream):
    lines = tmp_path / "lines"
    lines.mkdir()
    with services.PostgreSQL() as database, services.redis(tmp_path) as redis:
        with psycopg.connect(database.url) as names:
            names.execute("CREATE TABLE devices (id bigint, name text); INSERT INTO devices VALUES (1, 'lamp')")
        stream("lines", "growing_files:GrowingFiles", mode="streaming", folder=lines, format="csv", interval="10ms")
        query = "SELECT id, name FROM devices"
        stream("devices", "postgresql:PostgresQuery", mode="batch", url=database.url, query=query)
        url = f"redis://127.0.0.1:{redis.port}"
        stream("states", "redis_streams:RedisStreamSink", "(device string, state string)", url=url, key="states")
        inserted = []

        def insert():
            with server.connect() as other:
                sql = """
                    INSERT INTO states SELECT name, data['state']
                    FROM lines JOIN devices ON id = CAST(data['device'] AS BIGINT) LIMIT 3
                """
                inserted.append(run(other, sql))

        inserting = threading.Thread(target=insert)
        inserting.start()
        with (lines / "a.csv").open("w") as file, Redis.from_url(url, decode_responses=True) as states:
            file.write("device,state\n")
            for count, line in enumerate(["1,on", "1,off", "1,on"], 1):
                file.write(f"{line}\n2,on\n")
                file.flush()
                wait_until(lambda count=count: states.xlen("states") == count, f"{count} states")
            found = [fields for _, fields in states.xrange("states")]
        inserting.join(5)
    assert inserted == [3]
    assert found == [{"device": "lamp", "state": state} for state in ("on", "off", "on")]

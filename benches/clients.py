"""ADBC clients in a process of their own: ``python -m benches.clients URI`` with the queries, as JSON, in its input.

Each has a thread and a connection, and notes how old rows are that carry the time of their yield as `at`. Lines go back
and forth: the process says how many of them run, hears from when to when rows count, and says what it found.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence

from adbc_driver_flightsql import dbapi

FIRST_ROW_SECONDS = 20.0


class Reader(threading.Thread):
    """A client that notes when rows were yielded and how old they are, until one comes that was yielded after `end`."""

    def __init__(self, uri: str, query: str) -> None:
        super().__init__(daemon=True)
        self.uri, self.query = uri, query
        self.rows: list[tuple[int, float]] = []
        self.running = threading.Event()
        self.end = float("inf")
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with dbapi.connect(self.uri, autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute(self.query)
                for batch in cursor.fetch_record_batch():
                    now = time.time_ns()
                    self.rows += [(at, (now - at) / 1e6) for at in batch.column(0).to_pylist()]
                    self.running.set()
                    if self.rows[-1][0] > self.end:
                        break
        except Exception as failure:
            self.failure = failure
        finally:
            self.running.set()


def wait(readers: Sequence[Reader], seconds: float) -> int:
    """How many have a row, or have failed, within a time."""
    deadline = time.monotonic() + seconds
    return sum(reader.running.wait(max(0, deadline - time.monotonic())) for reader in readers)


def main() -> None:
    uri, queries = sys.argv[1], json.loads(sys.stdin.readline())
    readers = [Reader(uri, query) for query in queries]
    for reader in readers:
        reader.start()
    print(wait(readers, FIRST_ROW_SECONDS), flush=True)
    start, end = json.loads(sys.stdin.readline())
    for reader in readers:
        reader.end = end
    before = time.process_time()
    deadline = time.monotonic() + (end - start) / 1e9 + FIRST_ROW_SECONDS
    for reader in readers:
        reader.join(max(0, deadline - time.monotonic()))
    failures = [str(reader.failure) for reader in readers if reader.failure is not None]
    silent = sum(reader.is_alive() for reader in readers)
    found = [late for reader in readers for at, late in reader.rows if start <= at <= end]
    answer = {"late": found, "silent": silent, "failures": failures, "cpu": time.process_time() - before}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

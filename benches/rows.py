"""Rows from a generator to an aggregate, as a ratio to the bare generator drained by C, in the same run.

Usage: python benches/rows.py [rows]
"""

import collections
import subprocess
import sys
import time
from pathlib import Path

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
ROUNDS = 5
COUATL = Path(sys.executable).with_name("couatl")
BODY = f"""
def rows():
    for n in range({ROWS}):
        yield n, n * 0.5, "eight ch"
"""
STREAM = f"CREATE EXTERNAL STREAM rows (a int64, b float64, c string) AS $${BODY}$$ SETTINGS type = 'python';"


def drain() -> float:
    """The seconds that the generator itself takes."""
    names: dict[str, object] = {}
    exec(BODY, names)
    start = time.perf_counter()
    collections.deque(names["rows"](), maxlen=0)  # type: ignore[operator]
    return time.perf_counter() - start


def query(text: str) -> float:
    """The seconds that the command takes for a text, its start included."""
    start = time.perf_counter()
    subprocess.run([COUATL, "sql", text], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print the best of some rounds of each, and their ratio."""
    bare = min(drain() for _ in range(ROUNDS))
    start = min(query(STREAM + "SELECT 1") for _ in range(ROUNDS))
    whole = min(query(STREAM + "SELECT count(*), sum(a), sum(b), max(c) FROM rows") for _ in range(ROUNDS))
    couatl = whole - start
    print(f"bare drain of the generator   {ROWS / bare / 1e6:6.2f} M rows/s")
    print(f"SELECT over its stream        {ROWS / couatl / 1e6:6.2f} M rows/s")
    print(f"ratio of the times            {couatl / bare:6.2f}")


if __name__ == "__main__":
    main()

"""Measures one peer, in its environment: ``python -m benches.peers NAME rows|answers|batches COUNT ROUNDS``.

It prints one line of JSON on standard output, whatever the peer prints there itself.
"""

import importlib
import json
import os
import sys
import time
from importlib.metadata import version

from benches.source import answer


def main() -> None:
    name, shape, count, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    stdout = os.dup(1)
    os.dup2(2, 1)
    peer = importlib.import_module(f"benches.peers.{name}")
    query = getattr(peer, shape)(count)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = query()
        seconds.append(time.perf_counter() - start)
        expected = answer(count)[: len(found)]
        # Batches repeat themselves: of them, only the number of rows is the same.
        expected = expected[:1] if shape == "batches" else expected
        if tuple(found)[: len(expected)] != expected:
            raise SystemExit(f"{name}: expected {expected}, found {found}")
    line = {"version": version(peer.PACKAGE), "rows": count, "seconds": seconds, "documented": peer.DOCUMENTED}
    os.write(stdout, json.dumps(line).encode() + b"\n")
    # Servers and threads of the peers have no say in when this ends.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

"""The same rows in other systems, in an environment that has them, run by run beside Couatl."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.engine import in_process
from benches.groups.rows import source
from benches.measure import Outcome, Result, Scale, Skipped, Target, at_least, best, each
from benches.source import QUERY

TITLE = "Rows from a generator, in other systems"
ABOUT = (
    "The same generator, read the fastest way that each system documents for rows from Python: the links lead to "
    "what was followed. bytewax, pathway and streamz only count or drop rows, unless it is said that they answer; the "
    "others answer the same query."
)
TARGETS: dict[str, Target | None] = {
    "bytewax": at_least(1.2),
    "bytewax, answering": at_least(1.2),
    "chdb": at_least(2.5),
    "pyarrow": None,
    "polars": None,
    "duckdb": None,
    "shillelagh": None,
    "streamz": at_least(15),
    "sail": at_least(15),
    "pathway": at_least(25),
}
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300


class Unavailable(Exception):
    """A peer is not installed, or does not run here."""


@dataclass(frozen=True)
class Peer:
    """What came of a peer: its best time, its version, and the page of its documentation that was followed."""

    seconds: float
    version: str
    documented: str


def run(python: Path, name: str, shape: str, count: int, rounds: int) -> Peer:
    command = [str(python), "-m", "benches.peers", name, shape, str(count), str(rounds)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
    except FileNotFoundError:
        raise Unavailable(f"there is no {python}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"not within {PATIENCE_SECONDS} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(last[:200])
    line = json.loads(done.stdout)
    return Peer(best(line["seconds"]), line["version"], line["documented"])


def measure(scale: Scale) -> Iterator[Outcome]:
    count, rounds = scale.of(1_000_000, 20_000), scale.of(5, 1)
    setup, query = [source("rows", f"generate({count})")], {"query": f"{QUERY} rows"}
    for name, target in TARGETS.items():
        try:
            module, _, answering = name.partition(", ")
            peer = run(scale.peers, module, "answers" if answering else "rows", count, rounds)
        except Unavailable as reason:
            yield Skipped(name, str(reason))
            continue
        # After each of them, so that both meet the same machine.
        ours = best(run.seconds for run in in_process(setup, query, rounds)["query"])
        yield Result(
            f"{module} {peer.version}" + (", answering" if answering else ""),
            peer.seconds / ours,
            "×",
            target,
            each(count, ours),
            each(count, peer.seconds),
            page=peer.documented,
            speeds={name: count / peer.seconds, "couatl": count / ours},
        )

"""Runs the measurements: ``python -m benches [--only NAME] [--quick] [--write]``."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from benches import picture, report
from benches.groups import batches, flight, functions, latency, listing, lists, memory, peers, rows, sinks, startup
from benches.machine import machine
from benches.measure import Outcome, Result, Scale

ROOT = Path(__file__).parents[1]
GROUPS = {
    "rows": rows,
    "lists": lists,
    "batches": batches,
    "peers": peers,
    "sinks": sinks,
    "functions": functions,
    "latency": latency,
    "startup": startup,
    "memory": memory,
    "flight": flight,
    "listing": listing,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Whole queries, measured as ratios.")
    parser.add_argument("--only", action="append", choices=GROUPS, help="one group; may be given several times")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and its picture")
    parser.add_argument("--json", action="store_true", help="print outcomes as JSON, one per line")
    parser.add_argument(
        "--peers",
        type=Path,
        default=ROOT / ".venv-peers/bin/python",
        metavar="PYTHON",
        help="the interpreter whose environment has the peers (default: %(default)s)",
    )
    parser.add_argument("--conversion", type=Path, metavar="TABLE", help="the table of the conversion's benchmark")
    given = parser.parse_args()
    if given.write and (given.only or given.quick):
        parser.error("--write wants everything measured: without --only and --quick")
    return given


def main() -> None:
    given = arguments()
    described = machine()
    scale = Scale(given.quick, given.peers)
    outcomes: dict[ModuleType, list[Outcome]] = {}
    for name in given.only or GROUPS:
        group = GROUPS[name]
        if not given.json:
            print(f"\n{name}: {group.TITLE}", flush=True)
        found = outcomes.setdefault(group, [])
        for outcome in group.measure(scale):
            found.append(outcome)
            if given.json:
                print(json.dumps({"group": name, **asdict(outcome)}), flush=True)
            else:
                print(report.line(outcome), flush=True)
    results = [outcome for found in outcomes.values() for outcome in found if isinstance(outcome, Result)]
    missed = [result.what for result in results if report.verdict(result) == "miss"]
    print(f"\n{len(results)} results, {len(missed)} beside their targets", file=sys.stderr)
    if given.write:
        (ROOT / "docs/performance.md").write_text(report.page(described, outcomes, given.conversion))
        (ROOT / "docs/performance.svg").write_text(picture.draw(results))


if __name__ == "__main__":
    main()

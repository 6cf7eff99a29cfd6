"""The benchmarks run. Their numbers are not looked at: a test that is timed fails on a busy day."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GROUPS = [
    "rows",
    "lists",
    "batches",
    "peers",
    "sinks",
    "functions",
    "latency",
    "startup",
    "memory",
    "flight",
    "listing",
]


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_gives_numbers(group):
    # Of the peers, those have to do that are here for other tests.
    command = [sys.executable, "-m", "benches", "--quick", "--json", "--only", group, "--peers", sys.executable]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    values = [outcome["value"] for outcome in outcomes if "value" in outcome]
    assert values and all(math.isfinite(value) for value in values), outcomes


def test_the_list_of_groups_is_whole():
    command = [sys.executable, "-m", "benches", "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"{{{','.join(GROUPS)}}}" in said

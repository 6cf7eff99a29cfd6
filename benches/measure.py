"""What a measurement is: a number beside its target, and how numbers are taken."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """What a number should be: no more than `limit`, or no less. `aim` is what we would rather see."""

    limit: float
    at_most: bool
    aim: float | None = None

    def met_by(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def reach(self, value: float) -> float:
        """How far beyond the target a number is: 1 is just on it, 2 twice as good, 0.5 half."""
        value, limit = max(value, 1e-9), max(self.limit, 1e-9)
        return limit / value if self.at_most else value / limit


def at_most(limit: float, aim: float | None = None) -> Target:
    return Target(limit, True, aim)


def at_least(limit: float, aim: float | None = None) -> Target:
    return Target(limit, False, aim)


@dataclass(frozen=True)
class Result:
    """One number. `ours` and `theirs` are what it is made of, with their units, for people."""

    what: str
    value: float
    unit: str
    target: Target | None
    ours: str
    theirs: str = ""
    # The page that says how the other side is best used.
    page: str = ""
    # What a picture of throughput shows of it: names, and rows per second.
    speeds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """What could not be measured here, and why."""

    what: str
    reason: str


Outcome = Result | Skipped


@dataclass(frozen=True)
class Scale:
    """How much is measured. Quick numbers mean nothing: they show that everything runs."""

    quick: bool
    peers: Path = Path(sys.executable)

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @property
    def rounds(self) -> int:
        return self.of(7, 2)


Group = Callable[[Scale], Iterable[Outcome]]


def best(seconds: Iterable[float]) -> float:
    """The run that was disturbed least."""
    return min(seconds)


def percentile(values: Sequence[float], percent: int) -> float:
    """A value that so many percent of them do not exceed."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def rate(rows: int, seconds: float) -> str:
    """Rows per second, for people."""
    return f"{rows / seconds / 1e6:.2f} M rows/s"


def each(rows: int, seconds: float) -> str:
    """The time of one row, for people."""
    return f"{seconds / rows * 1e9:.1f} ns/row"

"""Outcomes as text: lines while it runs, and the page in the documentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from benches.measure import Outcome, Result, Target

PREFACE = """\
# Performance

`make bench` writes this page. Each number is taken beside what it is compared with, in one run on one machine, in
interleaved rounds of which the best counts: ratios say more than rates. A target is what we hold ourselves to.

![Rows per second, and every result beside its target](performance.svg)
"""


CONVERSION = """\
## Values of each type

From rows of Python values to Arrow beside `pa.array` of the same values, and from Arrow to lists of Python values
beside `to_pylist`: lists of 1,000 rows of 4 columns, and of 50, given again and again.
"""
# What is known of the numbers that are beside their targets.
LIMITS = Path(__file__).parent / "limits.md"


def number(value: float, unit: str) -> str:
    digits = 0 if value == round(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".strip()


def wanted(target: Target | None, unit: str) -> str:
    if target is None:
        return "none"
    text = f"{'≤' if target.at_most else '≥'} {number(target.limit, unit)}"
    return text if target.aim is None else f"{text}, better {number(target.aim, unit)}"


def verdict(result: Result) -> str:
    if result.target is None:
        return ""
    return "ok" if result.target.met_by(result.value) else "miss"


def line(outcome: Outcome) -> str:
    """One outcome, for a terminal."""
    if not isinstance(outcome, Result):
        return f"  {outcome.what:<48} not measured: {outcome.reason}"
    value, target = number(outcome.value, outcome.unit), wanted(outcome.target, outcome.unit)
    made_of = " beside ".join(filter(None, [outcome.ours, outcome.theirs]))
    return f"  {outcome.what:<48} {value:>11}  {verdict(outcome):<4}  {target:<22}  {made_of}"


def page(
    machine: Mapping[str, str], outcomes: Mapping[ModuleType, Sequence[Outcome]], conversion: Path | None = None
) -> str:
    """All outcomes, for the documentation."""
    parts = [PREFACE, table(["machine", ""], machine.items())]
    for group, found in outcomes.items():
        results = [outcome for outcome in found if isinstance(outcome, Result)]
        rows = [
            (
                f"[{outcome.what}]({outcome.page})" if outcome.page else outcome.what,
                number(outcome.value, outcome.unit),
                wanted(outcome.target, outcome.unit),
                verdict(outcome),
                outcome.ours,
                outcome.theirs,
            )
            for outcome in results
        ]
        parts.append(f"## {group.TITLE}\n\n{group.ABOUT}\n")
        parts.append(table(["", "result", "target", "", "couatl", "beside"], rows))
        skipped = [outcome for outcome in found if not isinstance(outcome, Result)]
        parts += [f"Not measured: {outcome.what} ({outcome.reason}).\n" for outcome in skipped]
    if conversion is not None and conversion.exists():
        parts.append(f"{CONVERSION}\n```text\n{conversion.read_text()}```\n")
    parts.append(LIMITS.read_text())
    return "\n".join(parts)


def table(head: Sequence[str], rows: object) -> str:
    lines = [head, ["---"] * len(head), *rows]  # type: ignore[misc]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

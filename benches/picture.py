"""Outcomes as a picture: an SVG of two panels, which follows the reader's choice of light or dark.

The first has a bar per system, rows per second from the same generator. The second has a mark per result, on a
logarithmic axis whose middle line is the target: what is right of it keeps it.
"""

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from benches.measure import Result
from benches.report import number, verdict, wanted

WIDTH = 860
LINE = 24
# Where labels end, where drawings begin and end, and where what stands behind them begins.
LABELS, LEFT, RIGHT, NUMBERS = 330, 350, 650, 672
# The axis of the second panel: a tenth of the target to a hundred times it.
LEAST, MOST = -1.0, 2.0

# What has which colour, in light and in dark. Written out: not everything that shows an SVG knows CSS variables.
COLOURS = {
    "text": ("fill", "#1f2328", "#e6edf3"),
    "text.faint": ("fill", "#656d76", "#8d96a0"),
    "line": ("stroke", "#d8dee4", "#3d444d"),
    "line.target": ("stroke", "#656d76", "#8d96a0"),
    "rect": ("fill", "#afb8c1", "#565e68"),
    "rect.ours, circle.kept": ("fill", "#0b7a63", "#3fb99b"),
    "circle.missed": ("stroke", "#bc4c00", "#f0883e"),
}
SHAPES = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
text.title { font-size: 16px; font-weight: 600; }
text.faint { font-size: 12px; }
line.target { stroke-dasharray: 4 3; }
circle.missed { fill: none; stroke-width: 2; }
"""


def style() -> str:
    light = "".join(f"{what} {{ {paint}: {colour}; }}\n" for what, (paint, colour, _) in COLOURS.items())
    dark = "".join(f"{what} {{ {paint}: {colour}; }}\n" for what, (paint, _, colour) in COLOURS.items())
    return f"<style>{SHAPES}{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n</style>"


def draw(results: Sequence[Result]) -> str:
    """The picture of all results."""
    speeds: dict[str, float] = {}
    for result in results:
        speeds = result.speeds | speeds
    judged = [result for result in results if result.target is not None]
    second = 60 + LINE * len(speeds) + 50
    height = second + 40 + LINE * len(judged) + 40
    body = [*bars(speeds, 30), *marks(judged, second)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    return "\n".join([head, style(), *body, "</svg>\n"])


def bars(speeds: dict[str, float], top: int) -> Iterator[str]:
    yield text(10, top, "Rows per second from one Python generator, in millions", "title")
    fastest = max(speeds.values(), default=1.0)
    for place, (name, speed) in enumerate(sorted(speeds.items(), key=lambda item: -item[1])):
        y = top + 30 + LINE * place
        width = max(2.0, (RIGHT - LEFT) * speed / fastest)
        kind = ' class="ours"' if name == "couatl" else ""
        yield text(LABELS, y, name, anchor="end")
        yield f'<rect{kind} x="{LEFT}" y="{y - 12}" width="{width:.1f}" height="16" rx="2"/>'
        yield text(LEFT + width + 8, y, f"{speed / 1e6:.2f}", "faint")


def marks(results: Sequence[Result], top: int) -> Iterator[str]:
    yield text(10, top, "Every result beside its target", "title")
    bottom = top + 36 + LINE * len(results)
    for power in range(int(LEAST), int(MOST) + 1):
        x = place_of(10.0**power)
        kind = ' class="target"' if power == 0 else ""
        name = "target" if power == 0 else f"{10**power:g} × as good"
        yield f'<line{kind} x1="{x:.1f}" y1="{top + 16}" x2="{x:.1f}" y2="{bottom - 8}"/>'
        yield text(x, bottom + 8, name, "faint", anchor="middle")
    for place, result in enumerate(results):
        assert result.target is not None
        y = top + 36 + LINE * place
        x = place_of(result.target.reach(result.value))
        value = f"{number(result.value, result.unit)} ({wanted(result.target, result.unit).split(',')[0]})"
        yield text(LABELS, y, result.what, anchor="end")
        kind = "kept" if verdict(result) == "ok" else "missed"
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y - 4}" r="5"/>'
        yield text(NUMBERS, y, value, "faint")


def place_of(reach: float) -> float:
    """Where on the axis a result is that is so many times as good as its target; the ends take what is beyond them."""
    power = min(max(math.log10(reach), LEAST), MOST)
    return LEFT + (RIGHT - LEFT) * (power - LEAST) / (MOST - LEAST)


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(content)}</text>'

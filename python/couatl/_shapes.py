"""Rows as tests give and see them: flat, as tuples, and as the engine makes them of what a source gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from couatl import _couatl
from couatl._columns import Columns, quoted
from couatl._errors import class_name, shown
from couatl._pull import is_arrow
from couatl.sources import Source

NESTED = ("array", "map", "tuple", "struct", "json")


def declaration(columns: Columns | Mapping[str, str]) -> Columns:
    """The columns, of names and types; TypeError where they are something else."""
    if not isinstance(columns, (Columns, Mapping)):
        raise TypeError(f"expected columns as {{'name': 'type', …}}, got {shown(columns)}")
    return columns if isinstance(columns, Columns) else Columns(list(columns), list(columns.values()))


def text_of(columns: Columns) -> str:
    """The columns as a statement has them."""
    return ", ".join(f"{quoted(name)} {type}" for name, type in columns)


def flat(pull: Iterable[Any], columns: Columns | None) -> Iterator[Any]:
    """The rows of what a read function may yield."""
    first = columns.types[0].lower() if columns else ""
    nested = first.startswith(NESTED) or first.endswith("[]")
    for item in pull:
        if isinstance(item, tuple) and (not item or (isinstance(item[0], (list, tuple)) and not nested)):
            item = list(item)
        if isinstance(item, list):
            yield from item
        elif item is not None:
            yield item


def row_of(row: Any, columns: Columns) -> tuple[Any, ...]:
    """The row as a tuple of as many values as there are columns; TypeError where it is none."""
    if isinstance(row, Mapping) and set(row) == set(columns.names):
        return tuple(row[name] for name in columns.names)
    several = isinstance(row, tuple) or (isinstance(row, list) and len(columns) != 1)
    values = tuple(row) if several else (row,)
    if len(values) != len(columns):
        raise TypeError(f"expected a row of the columns {', '.join(columns.names)}, got {shown(row)}")
    return values


def converted(of: object, columns: str, rows: Iterable[Any]) -> tuple[Columns, list[tuple[Any, ...]]]:
    """The columns of a text, and rows as the engine gives them to a sink. `of` is whose they are.

    Raises what a statement would where the text says no columns, or a value does not fit its column.
    """
    told: list[Columns] = []
    kept: list[tuple[Any, ...]] = []

    class Given(Source):
        def open(self, partition: str, state: Any) -> Iterator[Any]:
            assert self.columns is not None, "a statement has columns"
            told.append(self.columns)
            for row in rows:
                yield row if is_arrow(row) else [row]

    def keep(*columns: Any) -> None:
        kept.extend(zip(*columns))

    name = class_name(of)
    session = _couatl.Session()
    session.register(name, columns, "batch", Given, keep)
    session.execute(f'INSERT INTO "{name}" SELECT * FROM "{name}"')
    return told[0], kept

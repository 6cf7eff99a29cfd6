"""Running a connector without a server, for its author's tests.

    >>> from couatl.sources import Source
    >>> from couatl.testing import rows
    >>> class Letters(Source):
    ...     def __init__(self, text: str):
    ...         self.text = text
    ...
    ...     def open(self, partition, state):
    ...         yield from enumerate(self.text)
    >>> rows(Letters, text="ab")
    [(0, 'a'), (1, 'b')]

A connector runs here as the engine runs it, of whatever model it is, up to the conversion of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import Any

from couatl._columns import Columns
from couatl._errors import shown
from couatl._pull import Pull
from couatl._reading import reading
from couatl._writing import writing

__all__ = ["Columns", "rows", "write"]

NESTED = ("array", "map", "tuple", "struct", "json")


def rows(
    thing: object,
    *,
    columns: Columns | Mapping[str, str] | None = None,
    state: Any = None,
    limit: int | None = None,
    **options: Any,
) -> list[Any]:
    """Read a source, one partition after the other, and give its rows as they came; Arrow objects stay as they are.

    `columns` are names and types, where the connector does not know them itself. Each partition is opened with `state`.
    Reading ends at `limit` rows, an Arrow object counting as one; a source is closed, however it ends. What it raises
    is raised.
    """
    declared = None if columns is None else declaration(columns)
    found: list[Any] = []
    with closing(reading(thing, options, declared)) as source:
        for partition in source.partitions:
            left = None if limit is None else limit - len(found)
            if left != 0:
                with closing(source.open(partition, state)) as pull:
                    found += islice(flat(pull, declared), left)
    return found


def write(thing: object, rows: Iterable[Any], *, columns: Columns | Mapping[str, str], **options: Any) -> None:
    """Write rows to a sink, as one block: tuples, dicts by column name, or bare values for the only column.

    It is committed, or aborted where it raises, and closed. What it raises is raised.
    """
    declared = declaration(columns)
    values = [row_of(row, declared) for row in rows]
    sink = writing(thing, options, declared)
    sink.open()
    try:
        if values:
            sink.write(*map(list, zip(*values)))
        sink.flush()
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    finally:
        sink.close()


def declaration(columns: Columns | Mapping[str, str]) -> Columns:
    """The columns, of names and types."""
    return columns if isinstance(columns, Columns) else Columns(list(columns), list(columns.values()))


def flat(pull: Pull, columns: Columns | None) -> Iterator[Any]:
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

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
from couatl._reading import reading
from couatl._writing import writing

__all__ = ["Columns", "rows", "rows_and_state", "write"]

END = object()
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


def rows_and_state(
    thing: object,
    *,
    partition: str | None = None,
    columns: Columns | Mapping[str, str] | None = None,
    state: Any = None,
    limit: int | None = None,
    **options: Any,
) -> tuple[list[Any], Any]:
    """Read one partition of a source, by default the first, and give its rows, and from where to go on after them.

    Reading ends with the batch that has row `limit`, all of which is given: a state is that of whole batches. Raises
    ValueError where there is no such partition.

    >>> from couatl.sources import Partition, Source
    >>> class Pairs(Partition, Source):
    ...     def open(self, partition, state):
    ...         self.last = state or 0
    ...         return self
    ...
    ...     def next_batch(self):
    ...         self.last += 2
    ...         return [self.last - 1, self.last]
    ...
    ...     def snapshot(self):
    ...         return self.last
    >>> found, state = rows_and_state(Pairs, limit=3)
    >>> found, state
    ([1, 2, 3, 4], 4)
    >>> rows_and_state(Pairs, state=state, limit=1)
    ([5, 6], 6)
    """
    declared = None if columns is None else declaration(columns)
    found: list[Any] = []
    with closing(reading(thing, options, declared)) as source:
        asked = [name for name in source.partitions if partition in (None, name)]
        if not asked:
            raise ValueError(f"there is no partition {partition!r}; expected one of {source.partitions}")
        with closing(source.open(asked[0], state)) as pull:
            while limit is None or len(found) < limit:
                batch = next(pull, END)
                if batch is END:
                    break
                found += flat([batch], declared)
            return found, pull.snapshot()


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

"""The contract of sources, as checks: what a connector's author runs, and every connector of ours.

A source is read again and again, all of its partitions side by side, and one after the other; stopped at each place
where it gives a snapshot, and gone on with; closed before its first row; cancelled. What does not keep to the contract
raises :class:`ContractError`; what the SDK sees by itself is the TypeError that a query would end with.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from couatl._columns import Columns
from couatl._contract import ContractError, NoThreadsLeft, check_options, check_plain, same, some, without
from couatl._errors import class_name, counted, shown
from couatl._models import recognise
from couatl._observed import Place, Reads, Seen, of_partition
from couatl._plain import as_source
from couatl._reading import reading, schema_of, source_of
from couatl._shapes import converted, declaration, text_of

__all__ = ["check_resume", "check_source"]

#: How long a source that gives nothing is waited for, unless a test says otherwise.
PATIENCE = timedelta(seconds=2)
#: How often partitions are read in two ways, in turns, before what differs is taken for more than chance.
TURNS = 3


def check_source(
    thing: object,
    *,
    columns: Columns | Mapping[str, str] | None = None,
    limit: int = 100,
    patience: timedelta = PATIENCE,
    **options: Any,
) -> None:
    """Check that a source, a class with these options or an instance, does what the engine expects of it.

    >>> from couatl.sources import Source
    >>> from couatl.testing import check_source
    >>> class Tides(Source):
    ...     def schema(self):
    ...         return "harbour string, height float64"
    ...
    ...     def partitions(self):
    ...         return ["Brest", "Dover"]
    ...
    ...     def open(self, partition, state):
    ...         yield partition, "high"
    >>> check_source(Tides)
    Traceback (most recent call last):
    couatl._contract.ContractError: stream 'Tides', row 1, column 'height' (float64): cannot store 'high' (str)

    It is made and read many times, up to `limit` rows of each partition. One that gives nothing for as long as
    `patience` is taken to wait, and is cancelled. `columns` are names and types, where it does not know them itself, or
    only as an Arrow schema, by which values are not looked at. Checked are its options, `schema`, `partitions`, `open`,
    whether its rows fit the columns, `snapshot`, how reading goes on from there (if it gives the same rows each time),
    `close`, a cancel, and threads that it leaves behind.
    """
    seconds = _checked("check_source", limit, patience)
    thing = as_source(thing)
    model = recognise(thing, "source")
    if model.is_called and isinstance(thing, type):
        check_options(thing)
    check_plain(thing, "schema", "close")
    text, declared = _columns_of(thing, options, columns)
    reads = Reads(thing, options, declared, seconds, limit)
    first = reads.all()
    if not any(seen.rows for seen in first):
        expected = "expected some to look at; give it options with which it has rows, or more patience"
        raise ContractError(f"{class_name(thing)} gave no rows within {patience}; {expected}")
    if text is not None:
        _check_values(thing, text, [row for seen in first for row in seen.rows])
    with NoThreadsLeft(thing):
        replayed = _check_side_by_side(reads, first)
    reading(thing, options, declared).close()
    for most in (0, 1):
        reads.all(rows={seen.partition: min(len(seen.rows), most) for seen in first})
    reads.cancelled()
    if replayed:
        for seen in first:
            if _resumes(seen):
                _check_places(reads, seen)


def check_resume(
    thing: object,
    *,
    columns: Columns | Mapping[str, str] | None = None,
    limit: int = 100,
    patience: timedelta = PATIENCE,
    **options: Any,
) -> None:
    """Check that reading a source goes on where it ended: stopped at any place, it loses no row and gives none twice.

    >>> from couatl.sources import Partition, Source
    >>> from couatl.testing import check_resume
    >>> class Counted(Partition, Source):
    ...     def open(self, partition, state):
    ...         self.last = state or 0
    ...         return self
    ...
    ...     def next_batch(self):
    ...         if self.last >= 3:
    ...             raise StopIteration
    ...         self.last += 1
    ...         return [self.last]
    ...
    ...     def snapshot(self):
    ...         return max(self.last - 1, 0)
    >>> check_resume(Counted)
    Traceback (most recent call last):
    couatl._contract.ContractError: Counted: read up to row 1, and on from the snapshot 0 (int): 1 came again

    It is stopped after each batch, up to `limit` rows of each partition. It has to give the same rows each time that it
    is read from its beginning, and to have snapshots. :func:`check_source` checks this too, where that is so.
    """
    thing = as_source(thing)
    declared = None if columns is None else declaration(columns)
    reads = Reads(thing, options, declared, _checked("check_resume", limit, patience), limit)
    for seen in reads.all():
        of = of_partition(thing, seen.partition)
        if not _resumes(seen):
            raise ContractError(
                f"{of}: snapshot() returned None after {len(seen.rows)} rows; expected from where to go on after them"
            )
        again = reads.one(seen.partition, _reach(seen))
        if not again.is_again(seen):
            raise ContractError(f"{of} gave {some(seen.rows)}, and then {some(again.rows)}; expected the same rows")
        _check_places(reads, seen)


def _checked(of: str, limit: int, patience: timedelta) -> float:
    """The patience in seconds; TypeError or ValueError where one of the two is not what it should be."""
    counted(of, "limit", limit, 1)
    if not isinstance(patience, timedelta):
        raise TypeError(f"{of}: expected a timedelta as patience, got {shown(patience)}")
    return patience.total_seconds()


def _columns_of(
    thing: object, options: Mapping[str, Any], columns: Columns | Mapping[str, str] | None
) -> tuple[str | None, Columns | None]:
    """The columns as a text, and as a source is told of them; None where only Arrow knows."""
    if columns is not None:
        text = text_of(declaration(columns))
        return text, converted(thing, text, [])[0]
    schema = schema_of(source_of(thing, options))
    returned = f"{class_name(thing)}.schema() returned {shown(schema)}"
    if schema is None:
        raise ContractError(f"{returned}, which leaves them to the statement; expected columns={{'name': 'type', …}}")
    if hasattr(schema, "__arrow_c_schema__"):
        return None, None
    if not isinstance(schema, str):
        raise ContractError(f"{returned}; expected 'a int64, b string', an Arrow schema, or None")
    try:
        return schema, converted(thing, schema, [])[0]
    except Exception as error:
        raise ContractError(f"{returned}; expected columns such as 'a int64, b string' ({error})") from error


def _check_values(thing: object, columns: str, rows: Iterable[Any]) -> None:
    """Whether the rows fit the columns, as the engine sees it."""
    try:
        converted(thing, columns, rows)
    except Exception as error:
        sentence, *_ = str(error).splitlines()
        raise ContractError(sentence) from error


def _check_side_by_side(reads: Reads, first: list[Seen]) -> bool:
    """Whether the same rows come each time; if so, they do side by side, one after the other, and alone alike."""
    names = [seen.partition for seen in first]
    reach = {seen.partition: _reach(seen) for seen in first}

    def in_turn() -> list[Seen]:
        found = reads.all(side_by_side=False, rows=reach)
        if [seen.partition for seen in found] != names:
            returned = f"{class_name(reads.thing)}.partitions() returned {[seen.partition for seen in found]}"
            raise ContractError(f"{returned}, and before {names}; expected the same names each time")
        return found

    def alone() -> list[Seen]:
        return [reads.one(name, reach[name]) for name in names]

    if len(names) == 1:
        return _are_again(in_turn(), first)
    return _check_way(reads, first, "alone", alone) and _check_way(reads, first, "in turn with them", in_turn)


def _check_way(reads: Reads, first: list[Seen], way: str, read: Callable[[], list[Seen]]) -> bool:
    """Whether partitions that are read one by one give what they did side by side."""
    found = read()
    if _are_again(found, first):
        return True
    reach = {seen.partition: _reach(seen) for seen in first}
    # Rows that are others each time are nobody's fault. Where the two ways of reading take turns, and those of one come
    # again each time, the others belong to the other way.
    together = [first]
    for _ in range(TURNS):
        together.append(reads.all(rows=reach))
        if not _are_again(read(), found):
            return False
    for by_itself, *beside_others in zip(found, *together):
        if not any(_agree(by_itself, seen) for seen in beside_others):
            raise ContractError(
                f"{of_partition(reads.thing, by_itself.partition)} gave {some(beside_others[0].rows)} while the other "
                f"partitions were read, and {some(by_itself.rows)} {way}; expected partitions that share nothing"
            )
    return False


def _are_again(found: list[Seen], before: list[Seen]) -> bool:
    return all(one.is_again(earlier) for one, earlier in zip(found, before))


def _agree(one: Seen, other: Seen) -> bool:
    """Whether one of the two goes as far as the other, and gave the same rows."""
    return one.is_again(other) or other.is_again(one)


def _reach(seen: Seen) -> int:
    """How many rows to read to come as far again: one more than there are, where that does not mean to wait."""
    return len(seen.rows) + seen.ended


def _resumes(seen: Seen) -> bool:
    return any(place.state is not None for place in seen.places)


def _check_places(reads: Reads, seen: Seen) -> None:
    """Stop at each place, and go on from its snapshot: the rows that are left come, each once."""
    for place in seen.places:
        _check_place(reads, seen, place)
        stopped = reads.one(seen.partition, place.rows).places[-1]
        if stopped.pickled != place.pickled:
            _check_place(reads, seen, stopped)


def _check_place(reads: Reads, seen: Seen, place: Place) -> None:
    left = seen.rows[place.rows :]
    if not left and not seen.ended:
        return
    wanted = _reach(seen) if seen.ended else len(left)
    found = reads.one(seen.partition, wanted, pickle.loads(place.pickled)).rows
    found = found if seen.ended else found[: len(left)]
    if same(found, left):
        return
    of = f"{of_partition(reads.thing, seen.partition)}: read up to row {place.rows}"
    again = without(found, left)
    # Where reading ended early, what came again is in the place of others.
    lost = without(left, found) if seen.ended or not again else []
    came = "came too" if without(again, seen.rows) else "came again"
    what = [f"{some(lost)} did not come"] * bool(lost) + [f"{some(again)} {came}"] * bool(again)
    raise ContractError(
        f"{of}, and on from the snapshot {shown(place.state)}: {' and '.join(what) or 'the order is another'}"
    )

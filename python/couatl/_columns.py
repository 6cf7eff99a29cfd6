"""The declared columns of a stream, as sources and sinks are told of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

_PLAIN = re.compile("[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class Columns:
    """Names and types of a stream's columns, in order.

    `types` are spelled as a statement has them: ``int64``, ``array(int32)``, ``datetime64(3, 'UTC')``. `schema` is an
    object with ``__arrow_c_schema__`` where the engine gives one; it takes no part in comparisons. Raises ValueError
    where there is not one type for each name.

    >>> columns = Columns(["id", "name"], ["int64", "string"])
    >>> len(columns), list(columns)
    (2, [('id', 'int64'), ('name', 'string')])
    """

    names: Sequence[str]
    types: Sequence[str]
    schema: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Keep tuples, so that what is frozen stays as it is."""
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "types", tuple(self.types))
        if len(self.names) != len(self.types):
            raise ValueError(f"expected a type for each of {len(self.names)} columns, got {len(self.types)}")

    def __len__(self) -> int:
        """How many columns there are."""
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Pairs of name and type."""
        return iter(zip(self.names, self.types))


def quoted(name: str) -> str:
    """A column's name as a statement has it: words that are not quoted are folded to lower case."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'

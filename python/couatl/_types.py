"""Types as they are spelled, in a statement of ours or in Spark's DDL, taken apart.

The engine has its own parser; this one is for who has to look into the values of a column: its structs, its members.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

_TOKEN = re.compile(r"""\s*(`(?:[^`]|``)*`|"(?:[^"]|"")*"|'(?:[^'\\]|''|\\.)*'|[\w.+-]+|[(),<>:=\[\]])""")
_PLAIN = re.compile("[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class Type:
    """A type as it was spelled: a name in lower case, types within it, and other parameters, such as a precision."""

    name: str
    inner: tuple[Type, ...] = ()
    names: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    nullable: bool = True


@dataclass
class Parser:
    """Takes a text apart: types, or names with them. ValueError where it is no such text."""

    text: str
    tokens: list[str] = field(default_factory=list)
    place: int = 0

    def __post_init__(self) -> None:
        """Find the tokens."""
        end = 0
        while self.text[end:].strip():
            found = _TOKEN.match(self.text, end)
            if found is None:
                raise ValueError(f"expected column types, got {self.text[end:].strip()!r} in {self.text!r}")
            self.tokens.append(found[1])
            end = found.end()

    def peek(self, ahead: int = 0) -> str:
        """A token that comes, empty at the end."""
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self) -> str:
        """The next token."""
        self.place += 1
        return self.peek(-1)

    def eat(self, *words: str) -> bool:
        """Whether these words come next: then they are taken."""
        if [self.peek(i).lower() for i in range(len(words))] != list(words):
            return False
        self.place += len(words)
        return True

    def need(self, *tokens: str) -> None:
        """Take one of these tokens."""
        if self.peek() not in tokens:
            found = repr(self.peek()) if self.peek() else "the end"
            raise ValueError(f"expected {' or '.join(map(repr, tokens))}, got {found} in {self.text!r}")
        self.place += 1

    def fields(self) -> Iterator[tuple[str, Type]]:
        """Names and types, with commas between them."""
        while True:
            name = _unquoted(self.take())
            self.eat(":")
            kind = self.type()
            if self.eat("not", "null"):
                kind = replace(kind, nullable=False)
            self.eat("null")
            if self.eat("comment"):
                self.take()
            yield name, kind
            if not self.eat(","):
                return

    def type(self) -> Type:
        """The next type."""
        name = self.take().lower()
        if not _PLAIN.fullmatch(name):
            raise ValueError(f"expected a type, got {name!r} in {self.text!r}")
        inner: list[Type] = []
        names: list[str] = []
        parameters: list[str] = []
        if self.peek() in ("(", "<"):
            self.take()
            if name in ("struct", "tuple") and self._is_named():
                for member, kind in self.fields():
                    names.append(member)
                    inner.append(kind)
            elif name in ("array", "map", "struct", "tuple", "nullable", "low_cardinality"):
                while self.peek() not in (")", ">", ""):
                    inner.append(self.type())
                    self.eat(",")
                names = [str(number) for number in range(1, len(inner) + 1)] if name in ("struct", "tuple") else []
            else:
                while self.peek() not in (")", ">", ""):
                    parameters.append(self.take())
                    self.eat(",")
            self.need(")", ">")
        found = Type(self._rest(name), tuple(inner), tuple(names), tuple(parameters))
        while self.eat("[", "]"):
            found = Type("array", (found,))
        return found

    def _is_named(self) -> bool:
        return self.peek(1) not in (",", ")", ">", "(", "<", "[", "")

    def _rest(self, name: str) -> str:
        """What belongs to a name that is more than one word."""
        self.eat("precision")
        if name in ("timestamp", "time") and self.eat("with", "time", "zone"):
            return "timestamptz"
        self.eat("without", "time", "zone")
        if name == "interval":
            while self.peek().lower() in ("day", "to", "second", "hour", "minute"):
                self.take()
        if name == "string" and self.eat("collate"):
            self.take()
        return name


def _unquoted(name: str) -> str:
    quote = name[:1]
    return name[1:-1].replace(quote * 2, quote) if quote in ("`", '"') else name


def parse_type(text: str) -> Type:
    """A type of ours, as a statement spells it. ValueError where it is none."""
    parser = Parser(text)
    found = parser.type()
    if parser.peek():
        raise ValueError(f"expected the end of a type, got {parser.peek()!r} in {text!r}")
    return found

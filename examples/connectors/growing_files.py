"""Files that grow: a table of the lines in the files of a folder, and of those that are appended.

CREATE EXTERNAL STREAM log SETTINGS type = 'python', class = 'growing_files:GrowingFiles', mode = 'streaming',
    folder = '/var/log/shop', pattern = '*.csv', format = 'csv';

SELECT file, data['level'], data['message'] FROM log;

CREATE EXTERNAL STREAM sold (file string, at timestamptz, item string, price decimal(9, 2)) SETTINGS type = 'python',
    class = 'growing_files:GrowingFiles', mode = 'streaming', folder = '/var/log/shop', pattern = '*.json',
    format = 'json';

SELECT at, item, price FROM sold;
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from couatl.sources import Partition, Source

NAMES = ("file", "position", "data")


class GrowingFiles(Source):
    """The lines of all files that fit a pattern, and from then on those of new files and those that are appended.

    A line is there when its end is: never half of one. With `format` ``csv``, the first line of each file is its
    header, a record is one line, and `data` maps column names to texts; with ``json``, each line is JSON; otherwise it
    is the text. `position` is the byte at which the line begins. A file that is shorter than it was is read again.

    A statement may declare columns: `file`, `position`, `data`, and all others by the names that a header or JSON
    objects have, NULL where they do not. A text becomes a number, a truth value, a day or a time (ISO 8601) where that
    is declared; an empty one in a CSV file is NULL then.

    Files are dealt out to as many partitions as `parallel` says, by their names: a file has the same place in every
    query, and so does one that appears later. With `follow` off, reading ends where there are no more lines.
    """

    def __init__(
        self,
        folder: Path,
        pattern: str = "*",
        format: Literal["text", "json", "csv"] = "text",
        interval: timedelta = timedelta(milliseconds=250),
        parallel: int = 2,
        follow: bool = True,
    ) -> None:
        self.folder, self.pattern, self.format = folder, pattern, format
        self.interval, self.parallel, self.follow = interval, parallel, follow

    def schema(self) -> str:
        data = {"text": "string", "json": "json", "csv": "map(string, string)"}[self.format]
        return f"file string, position int64, data {data}"

    def partitions(self) -> list[str]:
        others = [name for name, _ in self.columns or () if name not in NAMES]
        if self.format == "text" and others:
            raise ValueError(f"lines of text have no column '{others[0]}'; expected {', '.join(NAMES)}")
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is no folder")
        return [f"{number} of {self.parallel}" for number in range(self.parallel)]

    def open(self, partition: str, state: dict[str, int] | None) -> Lines:
        return Lines(self, int(partition.split()[0]), state or {})


class Lines(Partition):
    """Some of the files; the state says how many bytes of each have been read."""

    def __init__(self, source: GrowingFiles, number: int, read: dict[str, int]) -> None:
        self.source, self.number, self.read = source, number, dict(read)
        self.columns = list(source.columns or ((name, "") for name in NAMES))
        self.has_fields = any(name not in NAMES for name, _ in self.columns)
        self.awake: datetime | None = None

    def next_batch(self) -> list[tuple[Any, ...]]:
        rows = [row for path in self.files() for row in self.appended(path)]
        if not rows and not self.source.follow:
            raise StopIteration
        self.awake = None if rows else datetime.now(timezone.utc) + self.source.interval
        return rows

    def next_awake(self) -> datetime | None:
        return self.awake

    def snapshot(self) -> dict[str, int]:
        return dict(self.read)

    def files(self) -> Iterator[Path]:
        for path in sorted(self.source.folder.glob(self.source.pattern)):
            if path.is_file() and crc32(self.name(path).encode()) % self.source.parallel == self.number:
                yield path

    def name(self, path: Path) -> str:
        return path.relative_to(self.source.folder).as_posix()

    def appended(self, path: Path, limit: int = 1000) -> Iterator[tuple[Any, ...]]:
        """The next lines of a file, at most so many."""
        name = self.name(path)
        with path.open("rb") as file:
            header = file.readline() if self.source.format == "csv" else b""
            if path.stat().st_size < self.read.get(name, 0):
                self.read[name] = 0
            position = max(self.read.get(name, 0), len(header))
            file.seek(position)
            for line in islice(file, limit):
                if not line.endswith(b"\n"):
                    break
                self.read[name] = position + len(line)
                try:
                    yield self.row(name, position, self.parsed(header, line))
                except (ValueError, csv.Error) as error:
                    raise ValueError(f"{name}, at byte {position}: {error}") from None
                position += len(line)

    def parsed(self, header: bytes, line: bytes) -> Any:
        if self.source.format != "csv":
            return line.decode().rstrip("\r\n")
        names, values = csv.reader([header.decode(), line.decode()], strict=True)
        return dict(zip(names, values, strict=True))

    def row(self, file: str, position: int, data: Any) -> tuple[Any, ...]:
        line = {"file": file, "position": position, "data": data}
        fields = self.fields(data) if self.has_fields else {}
        return tuple(line[name] if name in line else self.field(name, type, fields) for name, type in self.columns)

    def fields(self, data: Any) -> dict[str, Any]:
        fields = json.loads(data) if self.source.format == "json" else data
        if not isinstance(fields, dict):
            raise ValueError(f"expected a JSON object, for the columns, got {data}")
        return fields

    def field(self, name: str, type: str, fields: dict[str, Any]) -> Any:
        value = fields.get(name)
        if value is None:
            return None
        kind = re.split(r"[\d(]", type.lower())[0]
        try:
            return of_json(value, kind) if self.source.format == "json" else of_text(value, kind)
        except (ValueError, ArithmeticError):
            raise ValueError(f"expected {type} in '{name}', got {value!r}") from None


def of_json(value: Any, kind: str) -> Any:
    """The value of a JSON object's member for a column of this kind."""
    if kind == "json":
        return json.dumps(value)
    if kind == "decimal":
        return Decimal(str(value))
    return of_text(value, kind) if isinstance(value, str) else value


def of_text(text: str, kind: str) -> Any:
    """The value of a text for a column of this kind."""
    if kind not in FROM_TEXT:
        return text
    return FROM_TEXT[kind](text) if text else None


def truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))


#: What makes a value of a text, by the kind of a column: its type without what is after the name. Others take the text.
FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "int": int,
    "uint": int,
    "float": float,
    "decimal": Decimal,
    "bool": truth,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "datetime": moment,
    "timestamp": moment,
    "timestamptz": moment,
}

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

import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal
from zlib import crc32

from couatl.sources import Partition, Source

NAMES = ("file", "position", "data")
#: By the name of a file: its number in the file system, how many bytes of it have been read, and the last of those.
State = dict[str, tuple[int, int, bytes]]
#: How many bytes at the end of a line are enough to know it again.
LAST = 64


class GrowingFiles(Source):
    """The lines of all files that fit a pattern, and from then on those of new files and those that are appended.

    A line is there when its end is: never half of one. With `format` ``csv``, the first line of each file is its
    header, a record is one line, and `data` maps column names to texts; with ``json``, each line is JSON; empty lines
    are left out in both. Otherwise `data` is the text. `position` is the byte at which the line begins. A file that
    takes the place of another, or where the last line that was read has changed, is read from its beginning. What has
    not been read of a file that is removed is left out.

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
        if parallel < 1:
            raise ValueError(f"expected at least 1 as parallel, got {parallel}")
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

    def open(self, partition: str, state: State | None) -> Lines:
        return Lines(self, int(partition.split()[0]), state or {})


class Lines(Partition):
    """Some of the files; the state says which file each one is, how many bytes have been read, and the last of them."""

    def __init__(self, source: GrowingFiles, number: int, read: State) -> None:
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

    def snapshot(self) -> State:
        return dict(self.read)

    def files(self) -> Iterator[Path]:
        for path in self.listed():
            if path.is_file() and crc32(self.name(path).encode()) % self.source.parallel == self.number:
                yield path

    def listed(self) -> list[Path]:
        while True:
            # A folder may be gone before its files are listed: then once more, without it.
            with contextlib.suppress(FileNotFoundError):
                return sorted(self.source.folder.glob(self.source.pattern))

    def name(self, path: Path) -> str:
        return path.relative_to(self.source.folder).as_posix()

    def appended(self, path: Path, limit: int = 1000) -> Iterator[tuple[Any, ...]]:
        """The next lines of a file, at most so many; none where it has been removed since it was listed."""
        name = self.name(path)
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            return
        with opened as file:
            header = file.readline() if self.source.format == "csv" else b""
            begin, inode = max(self.known(file, name), len(header)), os.fstat(file.fileno()).st_ino
            file.seek(begin)
            for line in islice(file, limit):
                if not line.endswith(b"\n"):
                    break
                position, begin = begin, begin + len(line)
                self.read[name] = inode, begin, line[-LAST:]
                if self.source.format != "text" and not line.strip():
                    continue
                try:
                    # What some editors put at the beginning of a file is no part of its text.
                    data = self.parsed(header, line.decode("utf-8" if position else "utf-8-sig"))
                    yield self.row(name, position, data)
                except (ValueError, csv.Error) as error:
                    raise ValueError(f"{name}, at byte {position}: {error}") from None

    def known(self, file: BinaryIO, name: str) -> int:
        """How much of a file has been read, if it is the one that was read."""
        inode, position, last = self.read.get(name, (0, 0, b""))
        file.seek(position - len(last))
        return position if os.fstat(file.fileno()).st_ino == inode and file.read(len(last)) == last else 0

    def parsed(self, header: bytes, line: str) -> Any:
        if self.source.format != "csv":
            return line.rstrip("\r\n")
        names, values = csv.reader([header.decode("utf-8-sig"), line], strict=True)
        if len(names) != len(values):
            raise ValueError(f"expected {len(names)} values, as in the header, got {len(values)}")
        return dict(zip(names, values))

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

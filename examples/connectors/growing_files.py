"""Files that grow: a table of the lines in the files of a folder, and of those that are appended.

CREATE EXTERNAL STREAM log SETTINGS type = 'python', class = 'growing_files:GrowingFiles', mode = 'streaming',
    folder = '/var/log/shop', pattern = '*.csv', format = 'csv';

SELECT file, data['level'], data['message'] FROM log;
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from couatl.sources import Partition, Source


class GrowingFiles(Source):
    """The lines of all files that fit a pattern, and from then on those of new files and those that are appended.

    A line is there when its end is: never half of one. With `format` ``csv``, the first line of each file is its
    header, a record is one line, and `data` maps column names to texts; with ``json``, each line is JSON; otherwise it
    is the text. `position` is the byte at which the line begins. A file that is shorter than it was is read again.

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
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is no folder")
        return [f"{number} of {self.parallel}" for number in range(self.parallel)]

    def open(self, partition: str, state: dict[str, int] | None) -> Lines:
        return Lines(self, int(partition.split()[0]), state or {})


class Lines(Partition):
    """Some of the files; the state says how many bytes of each have been read."""

    def __init__(self, source: GrowingFiles, number: int, read: dict[str, int]) -> None:
        self.source, self.number, self.read = source, number, dict(read)
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
                yield name, position, self.parsed(header, line)
                position += len(line)

    def parsed(self, header: bytes, line: bytes) -> Any:
        if self.source.format != "csv":
            return line.decode().rstrip("\r\n")
        names, values = csv.reader([header.decode(), line.decode()], strict=True)
        return dict(zip(names, values, strict=True))

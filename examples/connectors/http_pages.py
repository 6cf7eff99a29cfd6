"""An HTTP API that answers in pages: a table of the items on them.

    CREATE EXTERNAL STREAM issues SETTINGS type = 'python', class = 'http_pages:Pages', mode = 'batch',
        url = 'https://api.example.org/issues?limit=100', items = 'results', next = 'next',
        headers = '{"Authorization": "Bearer ${secret:token}"}';

    SELECT item FROM issues;

With ``interval = '1m'`` and ``mode = 'streaming'``, items that are added at the end of the last page follow.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import httpx
from couatl.sources import AsyncPartition, AsyncSource


class Pages(AsyncSource):
    """The items of a page and of those that it leads to, each as JSON.

    A page is a JSON array, or an object whose member `items` is one. The next one is where the member `next` of the
    object says, or else the header ``Link`` with ``rel="next"``; it may be relative. `headers` are
    for the server of `url`, and are not sent to another one.

    With `interval`, the last page is asked for again and again: what is after the items that it had is new. A server
    that says 429 or 503 is asked again when its ``Retry-After`` says, or after a second, up to `retries` times in a
    row; every other error ends the query, with httpx.HTTPStatusError, or httpx.ConnectError where there is no server.
    """

    def __init__(
        self,
        url: str,
        items: str | None = None,
        next: str = "next",
        headers: dict[str, str] | None = None,
        interval: timedelta | None = None,
        timeout: timedelta = timedelta(seconds=30),
        retries: int = 5,
    ) -> None:
        self.url, self.items, self.next, self.headers = url, items, next, headers
        self.interval, self.timeout, self.retries = interval, timeout, retries

    def schema(self) -> str:
        return "page string, item json"

    async def open(self, partition: str, state: tuple[str, int] | None) -> Items:
        return Items(self, *(state or (self.url, 0)))


class Items(AsyncPartition):
    """The state is the page that comes next, and how many of its items have been given."""

    def __init__(self, source: Pages, url: str, given: int) -> None:
        self.source, self.url, self.given = source, url, given
        self.client = httpx.AsyncClient(timeout=source.timeout.total_seconds())
        self.awake: datetime | None = None
        self.at_end = False
        self.refused = 0

    async def next_batch(self) -> list[tuple[str, str]] | None:
        if self.at_end:
            raise StopAsyncIteration
        is_same_server = httpx.URL(self.url).netloc == httpx.URL(self.source.url).netloc
        answer = await self.client.get(self.url, headers=self.source.headers if is_same_server else None)
        if answer.status_code in (429, 503) and self.refused < self.source.retries:
            self.refused += 1
            self.awake = retry_at(answer.headers.get("retry-after", "1"))
            return None
        answer.raise_for_status()
        self.refused = 0
        page = answer.json()
        items = page if self.source.items is None or not isinstance(page, dict) else page.get(self.source.items)
        if not isinstance(items, list):
            kind = type(items).__name__
            raise TypeError(f"{self.url}: expected a JSON array, got {kind}; the option 'items' says where it is")
        rows = [(self.url, json.dumps(item)) for item in items[self.given :]]
        following = (page.get(self.source.next) if isinstance(page, dict) else None) or (
            answer.links.get("next", {}).get("url")
        )
        if following:
            self.url, self.given, self.awake = str(answer.url.join(following)), 0, None
        else:
            self.given = len(items)
            self.at_end = self.source.interval is None
            self.awake = None if self.source.interval is None else datetime.now(timezone.utc) + self.source.interval
        return rows

    def next_awake(self) -> datetime | None:
        return self.awake

    def snapshot(self) -> tuple[str, int]:
        return self.url, self.given

    async def close(self) -> None:
        await self.client.aclose()


def retry_at(after: str) -> datetime:
    """When to ask again: the header is a number of seconds, or a time; where it is neither, in a second."""
    now = datetime.now(timezone.utc)
    with suppress(ValueError, OverflowError):
        return now + timedelta(seconds=float(after))
    with suppress(ValueError, OverflowError):
        return parsedate_to_datetime(after)
    return now + timedelta(seconds=1)

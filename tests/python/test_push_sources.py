"""Sources that push, driven as the engine drives them, without a server."""

from __future__ import annotations

import gc
import logging
import threading
import time
import traceback
from collections import namedtuple
from contextlib import closing

import pytest
from couatl import _push, _threads
from couatl._columns import Columns
from couatl.sources import PushSource, Source
from couatl.testing import rows
from misuse import ALL, ERRORS, misused
from pulling import SOON, Elsewhere, asleep, nothing_left_running, opened, pulled  # noqa: F401


class Pushing(PushSource):
    """Runs what it is given, with itself."""

    def __init__(self, run, on_stop=lambda self: None):
        self.body = run
        self.stopping = on_stop
        self.stops = 0
        self.ran = threading.Event()

    def run(self):
        try:
            self.body(self)
        finally:
            self.ran.set()

    def on_stop(self):
        self.stops += 1
        self.stopping(self)


class Small(Pushing):
    capacity = 2


def settled(pull):
    """All that a pull gives once its thread has run: then, batches do not depend on who was faster."""
    pull._thread.join(SOON)
    return list(pull)


def test_rows_keep_their_shape():
    Pair = namedtuple("Pair", "a b")

    def run(self):
        self.next(1, "a")
        self.next((2, "b"))
        self.next(a=3, b="c")
        self.next({"a": 4, "b": "d"})
        self.next(Pair(5, "e"))
        self.next([1, 2])
        self.next([1], 2)
        self.next(None)
        self.next("text")
        self.next(())

    source = Pushing(run)
    with closing(opened(source)) as pull:
        assert settled(pull) == [
            [(1, "a"), (2, "b"), {"a": 3, "b": "c"}, {"a": 4, "b": "d"}, (5, "e"), [1, 2], ([1], 2), None, "text", ()]
        ]
    assert source.stops == 1


def test_one_list_is_one_row():
    with closing(opened(Pushing(lambda self: self.next([1, 2])))) as pull:
        assert settled(pull) == [[[1, 2]]]


def test_the_only_column_by_name_is_not_taken_for_its_value():
    columns = Columns(["event"], ["json"])
    assert rows(Pushing(lambda self: self.next(event={"a": 1})), columns=columns) == [({"a": 1},)]
    assert rows(Pushing(lambda self: self.next(evnt=1)), columns=columns) == [{"evnt": 1}]
    assert rows(Pushing(lambda self: self.next({"a": 1})), columns=columns) == [{"a": 1}]
    assert rows(Pushing(lambda self: self.next(None)), columns=columns) == [None]


def test_commits_and_arrow_keep_their_place():
    class Arrow:
        def __arrow_c_array__(self, requested_schema=None):
            raise AssertionError("nobody imports it here")

    arrow = Arrow()

    def run(self):
        self.next(1)
        self.commit()
        self.next(2)
        self.next(arrow)
        self.next(3)

    with closing(opened(Pushing(run))) as pull:
        assert settled(pull) == [[1], [], [2], arrow, [3]]


def test_next_wants_a_row():
    for run in (lambda self: self.next(), lambda self: self.next(1, a=2)):
        with pytest.raises(TypeError, match=r"Pushing\.next\(\): expected values by position, or by name"):
            rows(Pushing(run))


def test_an_error_in_run_comes_after_the_rows_before_it():
    error = ValueError("broken")

    def run(self):
        self.next(1)
        self.next(2)
        raise error

    source = Pushing(run)
    pull = opened(source)
    pull._thread.join(SOON)
    assert next(pull) == [1, 2]
    with pytest.raises(ValueError, match="broken") as raised:
        next(pull)
    assert raised.value is error
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "run"
    pull.close()
    assert source.stops == 1


def test_a_stop_iteration_in_run_is_no_end():
    with pytest.raises(RuntimeError, match=r"Pushing\.run\(\) raised StopIteration"):
        rows(Pushing(lambda self: next(iter([]))))


def test_close_is_the_end_and_rows_after_it_are_ignored():
    def run(self):
        self.next(1)
        self.close()
        self.next(2)
        assert self.wait(SOON)

    source = Pushing(run)
    assert rows(source) == [1]
    assert source.stops == 1


def asked_to_wait(monkeypatch):
    """Who pushed after the end, and had to wait: the threads."""
    asked = []
    monkeypatch.setattr(_push.Rows, "unwanted", lambda queue: asked.append(threading.current_thread()))
    return asked


def test_next_says_whether_a_row_was_taken(monkeypatch):
    asked = asked_to_wait(monkeypatch)
    answers = []

    class Arrow:
        def __arrow_c_array__(self, requested_schema=None):
            raise AssertionError("nobody imports it here")

    def run(self):
        answers.extend([self.next(1), self.next(1, 2), self.next(n=1), self.next(Arrow())])
        assert asked == []
        self.close()
        answers.extend([self.next(1), self.next(1, 2), self.next(n=1), self.next(Arrow())])

    with closing(opened(Pushing(run))) as pull:
        settled(pull)
    assert answers == [True] * 4 + [False] * 4
    assert len(asked) == 4


def test_a_thread_of_ones_own_ends_where_next_says_so(monkeypatch):
    asked = asked_to_wait(monkeypatch)
    producers = []

    def produce(self):
        n = 0
        while self.next(n):
            n += 1

    def run(self):
        producers.append(threading.Thread(target=produce, args=(self,), daemon=True))
        producers[0].start()
        self.wait()

    assert rows(Small(run), limit=3) == [0, 1, 2]
    producers[0].join(SOON)
    assert not producers[0].is_alive()
    assert asked == producers


def test_who_pushes_after_the_end_waits_but_not_while_it_is_cleaned_up(monkeypatch):
    cleaning = []
    source = Pushing(lambda self: self.next(1), lambda self: cleaning.append(self._couatl_rows.cleaning.is_set()))
    queue = source._couatl_rows
    waits = []
    monkeypatch.setattr(queue.cleaning, "wait", waits.append)
    assert rows(source) == [1]
    assert (cleaning, queue.cleaning.is_set()) == ([True], False)
    assert not source.next(2)
    assert waits == [_push.UNWANTED]


def test_what_run_raises_after_close_is_raised():
    def run(self):
        self.close()
        raise ValueError("after the end")

    with pytest.raises(ValueError, match="after the end"):
        rows(Pushing(run))


def test_what_run_raises_a_while_after_close_is_raised(monkeypatch):
    monkeypatch.setattr(_threads, "GRACE", SOON)
    going = threading.Event()

    def run(self):
        self.close()
        assert not self.next(1)
        assert going.wait(SOON)
        raise ValueError("after the end")

    pull = opened(Pushing(run))
    assert list(pull) == []
    ending = Elsewhere(pull.close)
    # Longer than one is waited for that has not said the end itself.
    asleep(ending.thread)
    asleep(ending.thread)
    asleep(ending.thread)
    going.set()
    assert str(ending.result()) == "after the end"


def test_next_waits_while_the_query_is_slower():
    second = threading.Event()

    def run(self):
        for n in range(5):
            self.next(n)
            if n == 1:
                second.set()

    source = Small(run)
    with closing(opened(source)) as pull:
        assert second.wait(SOON)
        assert not source.ran.wait(0.05)
        assert [row for batch in pull for row in batch] == [0, 1, 2, 3, 4]


def test_callbacks_on_other_threads():
    def run(self):
        threads = [threading.Thread(target=self.next, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)

    assert sorted(rows(Small(run))) == list(range(8))


def test_a_cancel_ends_a_push_that_waits_and_a_pull_that_waits():
    seen = []

    def run(self):
        try:
            while True:
                self.next(1)
        except KeyboardInterrupt as error:
            seen.append(error)
            raise

    source = Small(run)
    pull = opened(source)
    while not source._couatl_rows.full():
        time.sleep(0.001)
    start = time.monotonic()
    pull.cancel()
    assert source.ran.wait(SOON)
    assert list(pull) == []
    pull.close()
    assert time.monotonic() - start < 1
    assert len(seen) == 1
    assert source.stops == 1

    source = Pushing(lambda self: self.wait())
    pull = opened(source)
    waiting = pulled(pull)
    asleep(waiting.thread)
    pull.cancel()
    assert waiting.result() == []
    assert source.ran.wait(SOON)
    pull.close()
    pull.close()
    assert source.stops == 1


def test_a_limit_ends_an_endless_run():
    def run(self):
        n = 0
        while True:
            self.next(n)
            n += 1

    start = time.monotonic()
    source = Pushing(run)
    assert rows(source, limit=3) == [0, 1, 2]
    assert time.monotonic() - start < 1
    assert source.stops == 1


def test_on_stop_may_be_what_ends_run():
    disconnected = threading.Event()
    start = time.monotonic()
    source = Pushing(lambda self: (self.next(1), disconnected.wait(SOON)), on_stop=lambda self: disconnected.set())
    assert rows(source, limit=1) == [1]
    assert time.monotonic() - start < 1
    assert source.ran.is_set()


def test_what_run_raises_because_it_was_ended_is_logged(caplog):
    disconnected = threading.Event()

    def run(self):
        self.next(1)
        disconnected.wait(SOON)
        raise ConnectionError("gone")

    assert rows(Pushing(run, on_stop=lambda self: disconnected.set()), limit=1) == [1]
    assert "Pushing.run() raised when it was ended" in caplog.text


def test_what_run_raises_ahead_of_a_limit_is_not_reached():
    def run(self):
        self.next(1)
        raise ValueError("never reached")

    source = Pushing(run)
    pull = opened(source)
    pull._thread.join(SOON)
    assert next(pull) == [1]
    pull.close()
    assert source.stops == 1


def test_a_run_that_goes_on_is_interrupted(monkeypatch):
    monkeypatch.setattr(_threads, "GRACE", 0.05)
    seen = []

    def run(self):
        self.next(1)
        try:
            while True:
                pass
        except KeyboardInterrupt:
            seen.append("interrupted")

    source = Pushing(run)
    assert rows(source, limit=1) == [1]
    assert source.ran.wait(SOON)
    assert seen == ["interrupted"]
    assert source.stops == 1


def test_a_run_that_does_not_end_is_left_behind_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(_threads, "GRACE", 0.05)
    enough = threading.Event()

    def run(self):
        self.next(1)
        # A lock cannot be interrupted on a thread.
        enough.wait(SOON)

    source = Pushing(run)
    with caplog.at_level(logging.WARNING, "couatl"):
        assert rows(source, limit=1) == [1]
    assert "Pushing.run() has not ended" in caplog.text
    assert "couatl-push:Pushing" in caplog.text
    enough.set()
    assert source.stops == 1


def test_an_error_in_on_stop_is_raised():
    def on_stop(self):
        raise ValueError("cannot disconnect")

    source = Pushing(lambda self: self.next(1), on_stop)
    with pytest.raises(ValueError, match="cannot disconnect"):
        rows(source)
    assert source.stops == 1


def test_an_instance_is_read_once():
    source = Pushing(lambda self: self.next(1))
    assert rows(source) == [1]
    with pytest.raises(RuntimeError, match="this Pushing has been read before"):
        rows(source)


def test_another_one_for_each_partition():
    class Several(Source):
        def partitions(self):
            return ["a", "b"]

        def open(self, partition, state):
            return Pushing(lambda self: self.next(partition))

    assert rows(Several) == ["a", "b"]


def test_a_constructor_may_forget_its_base_and_a_capacity_is_checked():
    class Forgets(PushSource):
        def __init__(self, word: str):
            self.word = word

        def run(self):
            self.next(self.word)

    class Empty(PushSource):
        capacity = 0

    assert rows(Forgets, word="sun") == ["sun"]
    with pytest.raises(ValueError, match="Empty: expected capacity to be at least 1, got 0"):
        Empty()


@misused(run=ALL, on_stop=ALL)
def test_misuse_of_what_runs(method, wrong, said):
    bad = type("Bad", (PushSource,), {"run": lambda self: self.next(1), method: wrong})
    with pytest.raises(ERRORS, match=said):
        rows(bad)


def test_a_row_may_push_from_its_own_destructor():
    """The garbage collector runs wherever it likes, the queue's own code among it."""

    def run(self):
        class Row:
            def __del__(row):
                self.next("collected")

        row = Row()
        row.row = row
        self.next("kept")
        del row
        gc.collect()

    assert rows(Pushing(run)) == ["kept", "collected"]


def test_the_queue_alone():
    queue = _push.Rows(2)
    queue.put(1)
    queue.put_whole([])
    assert queue.full()
    assert queue.take() == [1]
    queue.end()
    queue.put(3)
    assert queue.take() == []
    assert queue.take() is None

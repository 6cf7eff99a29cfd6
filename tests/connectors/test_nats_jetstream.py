"""NATS JetStream, against a NATS server."""

import asyncio
import json
import threading
from contextlib import suppress

import nats
import pytest
import services
from couatl import _writing
from couatl.sinks import Columns
from couatl.testing import check_resume, check_sink, check_source, rows_and_state
from couatl.testing import rows as rows_of
from harness import PATIENCE, error, rows, run, wait_until
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError
from nats_jetstream import JetStream, JetStreamSink


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with services.nats(tmp_path_factory.mktemp("nats")) as service:
        yield service


@pytest.fixture
def url(service):
    return f"nats://127.0.0.1:{service.port}"


class Peer:
    """Who publishes and looks, with calls that wait."""

    def __init__(self, url):
        self.loop = asyncio.new_event_loop()
        self.client = self.do(nats.connect(url))
        self.context = self.client.jetstream()
        self.do(self.context.add_stream(name="ORDERS", subjects=["orders.>"]))

    def do(self, work):
        return self.loop.run_until_complete(work)

    def publish(self, *payloads, subject="orders.new"):
        for payload in payloads:
            data = payload if isinstance(payload, bytes) else str(payload).encode()
            self.do(self.context.publish(subject, data))

    def unread(self, durable):
        info = self.do(self.context.consumer_info("ORDERS", durable))
        return info.num_pending, info.num_ack_pending

    def waiting(self, durable):
        """How many requests for messages wait; none where there is no such consumer yet."""
        with suppress(NotFoundError):
            return self.do(self.context.consumer_info("ORDERS", durable)).num_waiting
        return 0

    def close(self):
        self.do(self.context.delete_stream("ORDERS"))
        self.do(self.client.close())
        self.loop.close()


@pytest.fixture
def peer(url):
    peer = Peer(url)
    yield peer
    peer.close()


@pytest.fixture
def source(url, stream):
    def make(**settings):
        stream("orders", "nats_jetstream:JetStream", url=url, stream="ORDERS", mode="streaming", **settings)

    return make


PAYLOADS = "SELECT payload FROM orders"


def texts(*numbers):
    return [(str(number),) for number in numbers]


def test_messages_are_read_and_followed(peer, source, reading):
    peer.publish("one", "two")
    source()
    reader = reading("SELECT sequence, subject, payload FROM orders")
    assert reader.take(2) == [(1, "orders.new", "one"), (2, "orders.new", "two")]
    for n in range(3, 6):
        peer.publish(n)
        assert reader.take(1) == [(n, "orders.new", str(n))]


def test_a_subject_and_a_start(peer, source, connection):
    peer.publish(1, 2, 3, subject="orders.north")
    peer.publish(4, 5, 6, subject="orders.south")
    source(subject="orders.south", start=5)
    assert rows(connection, f"{PAYLOADS} LIMIT 2") == texts(5, 6)


def test_many_messages_keep_their_order(peer, source, connection):
    peer.publish(*range(1000))
    source()
    assert rows(connection, f"{PAYLOADS} LIMIT 1000") == texts(*range(1000))


def test_reading_goes_on_after_the_last_message(peer, url):
    peer.publish(*range(10))
    options = {"url": url, "stream": "ORDERS"}
    found, state = rows_and_state(JetStream, limit=4, batch=4, **options)
    assert ([row[3] for row in found], state) == (["0", "1", "2", "3"], 4)
    assert [row[3] for row in rows_of(JetStream, state=state, limit=6, **options)] == [str(n) for n in range(4, 10)]


def test_the_server_remembers_what_was_read(peer, source, reading):
    peer.publish(1, 2, 3)
    source(durable="couatl")
    reader = reading(PAYLOADS)
    assert reader.take(3) == texts(1, 2, 3)
    wait_until(lambda: peer.unread("couatl") == (0, 0), "all acknowledged")
    reader.kill()
    peer.publish(4)
    assert reading(PAYLOADS).take(1) == texts(4)


def test_each_of_two_queries_has_all_messages(peer, source, reading):
    source()
    readers = [reading(PAYLOADS), reading(PAYLOADS)]
    peer.publish(*range(6))
    for reader in readers:
        assert reader.take(6) == texts(*range(6))


def test_two_queries_of_one_durable_consumer_share_its_messages(peer, source, reading):
    source(durable="couatl", batch=1)
    readers = [reading(PAYLOADS), reading(PAYLOADS)]
    # Both of them ask: the server gives to each in turn.
    wait_until(lambda: peer.waiting("couatl") == 2, "both ask")
    peer.publish(1, 2)
    assert sorted(reader.take(1) for reader in readers) == [texts(1), texts(2)]


def test_what_was_not_asked_beyond_comes_again(peer, source, connection):
    peer.publish(1, 2, 3)
    source(durable="couatl", batch=1)
    assert rows(connection, f"{PAYLOADS} LIMIT 1") == texts(1)
    assert rows(connection, f"{PAYLOADS} LIMIT 1") == texts(1)


def test_what_comes_again_within_a_query_is_left_out(peer, url):
    """The server waits less for an acknowledgement than the query needs for its rows."""
    config = ConsumerConfig(durable_name="couatl", ack_policy=AckPolicy.EXPLICIT, ack_wait=0.1)
    peer.do(peer.context.add_consumer("ORDERS", config))
    peer.publish(1, 2)

    async def read():
        messages = await JetStream(url, "ORDERS", durable="couatl").open("", None)
        found = []

        async def until(count):
            while len(found) < count:
                found.extend(row[0] for row in await messages.next_batch() or [])

        await until(2)
        messages.given.clear()
        # Those are sent once more, before the one that is new.
        while not messages.given:
            found.extend(row[0] for row in await messages.next_batch() or [])
        again = [message.metadata.num_delivered for message in messages.given]
        await peer.context.publish("orders.new", b"3")
        await until(3)
        await messages.next_batch()
        await messages.close()
        return found, again

    found, again = peer.do(read())
    assert found == [1, 2, 3]
    assert min(again) > 1
    assert peer.unread("couatl") == (0, 0)


def test_a_durable_consumer_leaves_out_what_the_state_knows(peer, url):
    peer.publish(*range(6))
    options = {"url": url, "stream": "ORDERS", "durable": "couatl"}
    assert [row[0] for row in rows_of(JetStream, state=4, limit=2, **options)] == [5, 6]


def test_a_kill_ends_it(peer, source, reading):
    peer.publish(1)
    source()
    reader = reading(PAYLOADS)
    assert reader.take(1) == texts(1)
    reader.kill()


def test_what_is_not_there_is_an_error(peer, url, source, stream, connection):
    stream("orders", "nats_jetstream:JetStream", url=url, stream="NONE", mode="streaming")
    assert "nats.js.errors.NotFoundError" in error(connection, f"{PAYLOADS} LIMIT 1")
    stream("said", "nats_jetstream:JetStreamSink", "(n int64)", url=url, subject="nobody")
    assert "nats.js.errors.NoStreamResponseError" in error(connection, "INSERT INTO said VALUES (1)")


def test_without_a_server_both_say_so(stream, connection):
    nowhere = f"nats://127.0.0.1:{services.free_port()}"
    stream("orders", "nats_jetstream:JetStream", url=nowhere, stream="ORDERS", mode="streaming", reconnects=1)
    assert "NoServersError" in error(connection, f"{PAYLOADS} LIMIT 1")
    stream("said", "nats_jetstream:JetStreamSink", "(n int64)", url=nowhere, subject="orders.new")
    assert "NoServersError" in error(connection, "INSERT INTO said VALUES (1)")


def test_rows_become_messages(peer, url, stream, source, connection):
    stream("said", "nats_jetstream:JetStreamSink", "(kind string, n int64)", url=url, subject="orders.{kind}")
    sql = "INSERT INTO said SELECT 'k' || CAST(value % 2 AS STRING), value FROM range(1000)"
    assert run(connection, sql) == 1000
    source()
    found = rows(connection, "SELECT subject, payload FROM orders LIMIT 1000")
    assert [(subject, json.loads(payload)) for subject, payload in found] == [
        (f"orders.k{n % 2}", {"kind": f"k{n % 2}", "n": n}) for n in range(1000)
    ]


def test_bytes_are_base64_and_a_subject_lacks_nothing(peer, url, stream, source, connection):
    def said(subject):
        stream("said", "nats_jetstream:JetStreamSink", "(kind string, b binary)", url=url, subject=subject)

    said("orders.{kind}")
    run(connection, "INSERT INTO said VALUES ('k', x'00ff')")
    expected = "ValueError: 'orders.{kind}' needs a value of 'kind', which is NULL"
    assert expected in error(connection, "INSERT INTO said VALUES ('k', NULL), (NULL, NULL)")
    said("orders.{nope}")
    assert "a value of 'nope', which is no column" in error(connection, "INSERT INTO said VALUES ('k', NULL)")
    peer.publish("end")
    source()
    assert rows(connection, f"{PAYLOADS} LIMIT 2") == [('{"kind": "k", "b": "AP8="}',), ("end",)]


def test_structs_are_objects_and_what_is_no_number_is_null(peer, url, stream, source, connection):
    columns = "(kind string, at struct(x int32, y float64))"
    stream("said", "nats_jetstream:JetStreamSink", columns, url=url, subject="orders.{kind}")
    run(connection, "INSERT INTO said VALUES ('k', struct(1, CAST('NaN' AS double)))")
    source()
    assert rows(connection, f"{PAYLOADS} LIMIT 1") == [('{"kind": "k", "at": {"x": 1, "y": null}}',)]


def test_payloads_may_be_bytes(peer, source, connection, reading):
    """What cannot be read as text is not lost, and does not stand in the way for ever."""
    peer.publish(b"\0\xff")
    source(durable="couatl")
    said = error(connection, f"{PAYLOADS} LIMIT 1")
    assert "ValueError: orders.new, sequence 1: 'utf-8' codec can't decode" in said
    assert "payload = 'bytes' takes it" in said
    source(durable="couatl", payload="bytes")
    assert reading(PAYLOADS).take(1) == [(b"\0\xff",)]


def test_a_cancel_ends_a_wait_for_an_answer(peer, url):
    """Somebody hears the message, who does not say that it is stored."""
    heard = asyncio.Event()

    async def hear(_):
        heard.set()

    peer.do(peer.client.subscribe("quiet", cb=hear))
    peer.do(peer.client.flush())
    writing = _writing.writing(JetStreamSink, {"url": url, "subject": "quiet"}, Columns(["n"], ["int64"]))
    ended = []

    def write():
        writing.open()
        with pytest.raises(KeyboardInterrupt):
            writing.write([1])
        writing.abort()
        writing.close()
        ended.append(True)

    thread = threading.Thread(target=write)
    thread.start()
    peer.do(asyncio.wait_for(heard.wait(), PATIENCE))
    writing.cancel()
    thread.join(2)
    assert ended


def test_a_connection_is_made_again(tmp_path, stream, reading):
    with services.nats(tmp_path) as service:
        url = f"nats://127.0.0.1:{service.port}"
        peer = Peer(url)
        peer.publish(1, 2)
        stream("orders", "nats_jetstream:JetStream", url=url, stream="ORDERS", mode="streaming")
        reader = reading(PAYLOADS)
        assert reader.take(2) == texts(1, 2)
        peer.do(peer.client.close())
        service.stop()
        service.start()
        peer = Peer(url)
        peer.publish(3)
        assert reader.take(1) == texts(3)
        peer.close()


def test_a_server_that_stays_away_ends_it(tmp_path, stream, reading):
    with services.nats(tmp_path) as service:
        url = f"nats://127.0.0.1:{service.port}"
        peer = Peer(url)
        peer.publish(1)
        stream("orders", "nats_jetstream:JetStream", url=url, stream="ORDERS", mode="streaming", reconnects=1)
        reader = reading(PAYLOADS)
        assert reader.take(1) == texts(1)
        peer.close()
        service.stop()
        assert "ConnectionClosedError" in reader.error()


def test_both_keep_to_the_contract(peer, url):
    peer.publish(*range(4))
    options = {"url": url, "stream": "ORDERS", "batch": 2}
    check_source(JetStream, **options)
    check_resume(JetStream, limit=4, **options)
    check_sink(JetStreamSink, ["apples", "kiwis"], columns={"item": "string"}, url=url, subject="orders.{item}")

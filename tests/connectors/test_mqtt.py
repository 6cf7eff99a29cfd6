"""MQTT, against a Mosquitto."""

import json
import queue
import signal

import pytest
import services
from couatl import _writing
from couatl.sinks import Columns
from couatl.testing import check_sink, check_source
from harness import create, error, rows, run, wait_for_text, wait_until
from mqtt import Messages, MessageSink
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with services.mosquitto(tmp_path_factory.mktemp("mosquitto")) as service:
        yield service


class Peer:
    """Who publishes to the broker, and hears what others publish."""

    def __init__(self, port):
        self.heard, self.subscribed = queue.Queue(), queue.Queue()
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda client, data, message: self.heard.put((message.topic, message.payload.decode()))
        self.client.on_subscribe = lambda *_: self.subscribed.put(True)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def publish(self, topic, payload, retain=False):
        self.client.publish(topic, payload, qos=2, retain=retain).wait_for_publish(5)

    def listen(self, topic):
        self.client.subscribe(topic, 1)
        self.subscribed.get(timeout=5)

    def hear(self, count):
        return [self.heard.get(timeout=5) for _ in range(count)]

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def peer(service):
    peer = Peer(service.port)
    yield peer
    peer.close()


@pytest.fixture
def source(service, peer, stream):
    """A stream of the topics below one, which begins with a retained message: where that is read, it is subscribed."""

    def make(topic, **settings):
        peer.publish(f"{topic}/first", "0", retain=True)
        settings = {"mode": "streaming", "host": "127.0.0.1", "port": service.port, "qos": 1, **settings}
        stream("heard", "mqtt:Messages", topics=f"{topic}/#", **settings)

    return make


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_are_read_as_they_come(source, peer, reading, qos):
    source(f"live{qos}", qos=qos)
    reader = reading("SELECT topic, payload, retained FROM heard")
    assert reader.take(1) == [(f"live{qos}/first", "0", True)]
    for n in range(30):
        peer.publish(f"live{qos}/{n}", f"message {n}")
        assert reader.take(1) == [(f"live{qos}/{n}", f"message {n}", False)]


def test_a_payload_may_be_json(source, peer, reading):
    source("json", payload="json")
    reader = reading("SELECT payload FROM heard")
    assert reader.take(1) == [("0",)]
    peer.publish("json/x", '{"on": true}')
    assert [json.loads(payload) for (payload,) in reader.take(1)] == [{"on": True}]
    peer.publish("json/x", "{")
    assert "column 'payload' (json)" in reader.error()


def test_what_is_no_text_is_an_error(source, peer, reading):
    """It is not lost, and does not stand in the way for ever."""
    source("bytes", client_id="bytes")
    reader = reading("SELECT payload FROM heard")
    assert reader.take(1) == [("0",)]
    peer.publish("bytes/x", b"\xff")
    said = reader.error()
    assert "ValueError: bytes/x: 'utf-8' codec can't decode" in said and "payload = 'bytes' takes it" in said
    source("bytes", client_id="bytes", payload="bytes")
    assert reading("SELECT payload FROM heard WHERE NOT retained").take(1) == [(b"\xff",)]


def test_many_messages_keep_their_order(source, peer, reading):
    source("many")
    reader = reading("SELECT payload FROM heard")
    assert reader.take(1) == [("0",)]
    for n in range(1, 3001):
        peer.client.publish("many/x", str(n), qos=1)
    assert reader.take(3000) == [(str(n),) for n in range(1, 3001)]


def test_a_limit_ends_it(source, connection):
    source("limit")
    assert rows(connection, "SELECT payload FROM heard LIMIT 1") == [("0",)]


def test_a_kill_ends_it(source, reading):
    source("kill")
    reader = reading("SELECT payload FROM heard")
    assert reader.take(1) == [("0",)]
    reader.kill()


def test_a_session_goes_on_where_it_ended(source, peer, reading):
    source("session", client_id="couatl")
    reader = reading("SELECT payload FROM heard WHERE NOT retained OR payload = '0'")
    assert reader.take(1) == [("0",)]
    reader.kill()
    for n in (1, 2, 3):
        peer.publish("session/x", str(n))
    again = reading("SELECT payload FROM heard WHERE NOT retained")
    assert again.take(3) == [("1",), ("2",), ("3",)]


def test_without_a_broker_both_say_so(stream, connection):
    nowhere = {"host": "127.0.0.1", "port": services.free_port()}
    stream("heard", "mqtt:Messages", mode="streaming", topics="x", **nowhere)
    assert "ConnectionRefusedError" in error(connection, "SELECT payload FROM heard LIMIT 1")
    stream("said", "mqtt:MessageSink", "(n int64)", topic="x", **nowhere)
    assert "ConnectionRefusedError" in error(connection, "INSERT INTO said VALUES (1)")


def test_a_broker_that_refuses_says_why(tmp_path, stream, connection):
    with services.mosquitto(tmp_path, "allow_anonymous false") as service:
        broker = {"host": "127.0.0.1", "port": service.port, "username": "me", "password": "wrong"}
        stream("heard", "mqtt:Messages", mode="streaming", topics="x", **broker)
        refused = f"ConnectionError: the broker 127.0.0.1:{service.port} refuses: Not authorized"
        assert refused in error(connection, "SELECT payload FROM heard LIMIT 1")
        stream("said", "mqtt:MessageSink", "(n int64)", topic="x", **broker)
        assert refused in error(connection, "INSERT INTO said VALUES (1)")


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_rows_become_messages(service, peer, stream, connection, qos):
    peer.listen(f"devices{qos}/#")
    stream(
        "said",
        "mqtt:MessageSink",
        "(device string, power bool)",
        host="127.0.0.1",
        port=service.port,
        topic=f"devices{qos}/{{device}}/power",
        qos=qos,
    )
    assert run(connection, "INSERT INTO said VALUES ('lamp', true), ('fan', NULL)") == 2
    found = [(topic, json.loads(text)) for topic, text in peer.hear(2)]
    assert found == [
        (f"devices{qos}/lamp/power", {"device": "lamp", "power": True}),
        (f"devices{qos}/fan/power", {"device": "fan", "power": None}),
    ]


def test_structs_are_objects_and_what_is_no_number_is_null(service, peer, stream, connection):
    peer.listen("to/#")
    columns = "(device string, at struct(x int32, y float64))"
    stream("said", "mqtt:MessageSink", columns, host="127.0.0.1", port=service.port, topic="to/{device}")
    run(connection, "INSERT INTO said VALUES ('lamp', struct(1, CAST('NaN' AS double)))")
    assert peer.hear(1) == [("to/lamp", '{"device": "lamp", "at": {"x": 1, "y": null}}')]


def test_bytes_are_base64_and_a_topic_lacks_nothing(service, peer, stream, connection):
    def said(topic):
        settings = {"host": "127.0.0.1", "port": service.port, "topic": topic}
        stream("said", "mqtt:MessageSink", "(device string, b binary)", **settings)

    peer.listen("to/#")
    said("to/{device}")
    run(connection, "INSERT INTO said VALUES ('lamp', x'00ff')")
    expected = "ValueError: 'to/{device}' needs a value of 'device', which is NULL"
    assert expected in error(connection, "INSERT INTO said VALUES ('fan', NULL), (NULL, NULL)")
    said("to/{nope}")
    assert "a value of 'nope', which is no column" in error(connection, "INSERT INTO said VALUES ('lamp', NULL)")
    peer.publish("to/end", "end")
    assert peer.hear(2) == [("to/lamp", '{"device": "lamp", "b": "AP8="}'), ("to/end", "end")]


def test_an_insert_ends_when_all_is_acknowledged(service, peer, stream, connection):
    peer.listen("acknowledged")
    stream("said", "mqtt:MessageSink", "(n int64)", host="127.0.0.1", port=service.port, topic="acknowledged")
    assert run(connection, "INSERT INTO said SELECT value FROM range(2000)") == 2000
    assert [json.loads(text)["n"] for _, text in peer.hear(2000)] == list(range(2000))


def test_a_broker_that_does_not_acknowledge_is_an_error(tmp_path, stream, connection):
    """It is stopped by a signal: what is sent is kept by the kernel, and nobody answers."""
    with services.mosquitto(tmp_path) as silent:
        silent.process.send_signal(signal.SIGSTOP)
        stream("said", "mqtt:MessageSink", "(n int64)", host="127.0.0.1", port=silent.port, topic="x", timeout="300ms")
        assert "no answer" in error(connection, "INSERT INTO said VALUES (1)")


def test_messages_that_are_not_acknowledged_are_an_error(tmp_path):
    """The broker goes away when it has acknowledged the first."""
    with services.mosquitto(tmp_path) as service:
        options = {"host": "127.0.0.1", "port": service.port, "topic": "said", "timeout": "300ms"}
        writing = _writing.writing(MessageSink, options, Columns(["n"], ["int64"]))
        writing.open()
        writing.write([1])
        writing.flush()
        service.stop()
        writing.write([2, 3])
        with pytest.raises(TimeoutError, match=f"{service.port} did not acknowledge 2 of the messages"):
            writing.flush()
        writing.abort()
        writing.close()


def test_an_insert_that_waits_for_the_broker_can_be_killed(tmp_path, stream, connection, inserting):
    """The broker hears nothing more once it has been connected to."""
    here, go = tmp_path / "here", tmp_path / "go"
    body = f"""
    import os, time

    def slow():
        yield [1]
        yield None
        open({str(here)!r}, "w").write("here")
        while not os.path.exists({str(go)!r}):
            time.sleep(0.01)
        yield [2]
        open({str(here)!r}, "w").write("all")
    """
    create(connection, "slow", "n int64", body)
    with services.mosquitto(tmp_path) as service:
        stream("said", "mqtt:MessageSink", "(n int64)", host="127.0.0.1", port=service.port, topic="said", timeout="1h")
        kill = inserting("INSERT INTO said SELECT n FROM slow")
        wait_for_text(here, "here")
        wait_until(lambda: any("New client connected" in line for line in service.said), "the client")
        service.process.send_signal(signal.SIGSTOP)
        go.touch()
        wait_for_text(here, "all")
        kill(5)


def test_a_connection_is_made_again(tmp_path, stream, reading):
    with services.mosquitto(tmp_path) as service:
        peer = Peer(service.port)
        peer.publish("again/first", "0", retain=True)
        peer.close()
        stream("heard", "mqtt:Messages", mode="streaming", host="127.0.0.1", port=service.port, topics="again/#", qos=1)
        reader = reading("SELECT payload FROM heard")
        assert reader.take(1) == [("0",)]
        service.stop()
        service.start()
        wait_until(lambda: any("New client connected" in line for line in service.said), "the client")
        peer = Peer(service.port)
        peer.publish("again/next", "1", retain=True)
        assert reader.take(1) == [("1",)]
        peer.close()


def test_both_keep_to_the_contract(service, peer):
    peer.publish("kept/first", "0", retain=True)
    broker = {"host": "127.0.0.1", "port": service.port}
    check_source(Messages, topics="kept/#", **broker)
    peer.listen("sent/+")
    check_sink(MessageSink, ["lamp", "fan"], columns={"device": "string"}, topic="sent/{device}", **broker)
    assert [topic for topic, _ in peer.hear(5)][-2:] == ["sent/lamp", "sent/fan"]

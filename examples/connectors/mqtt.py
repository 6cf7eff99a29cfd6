"""MQTT: a table of the messages of topics, and messages made of rows.

CREATE EXTERNAL STREAM sensors SETTINGS type = 'python', class = 'mqtt:Messages', mode = 'streaming',
    host = 'localhost', topics = 'sensors/+/state', payload = 'json', qos = 1;

SELECT topic, payload FROM sensors;

CREATE EXTERNAL STREAM commands (device string, power bool) SETTINGS type = 'python',
    class = 'mqtt:MessageSink', host = 'localhost', topic = 'commands/{device}';

INSERT INTO commands VALUES ('lamp', true);
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from string import Formatter
from threading import Event, Semaphore
from typing import Any, Literal

from couatl.sinks import Columns, Sink, objects, to_json
from couatl.sources import PushSource
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion


class Messages(PushSource):
    """The messages that are published while a query reads, on topics that may have the wildcards ``+`` and ``#``.

    With a `client_id` and `qos` 1 or 2 the broker keeps what is published while no query reads, and gives it to the
    next one; a message counts as received when it waits to be read, and those that still wait at the end are lost. A
    query that has begun connects again, every second, when the broker goes away; one that begins without a broker fails
    with ConnectionRefusedError. A payload that is no UTF-8 is an error, unless `payload` is ``bytes``.
    """

    def __init__(
        self,
        host: str,
        topics: list[str],
        port: int = 1883,
        qos: Literal[0, 1, 2] = 0,
        payload: Literal["text", "json", "bytes"] = "text",
        client_id: str = "",
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.host, self.port = host, port
        self.topics = [(topic, int(qos)) for topic in topics]
        self.payload = payload
        self.client_id, self.username, self.password = client_id, username, password

    def schema(self) -> str:
        payload = {"text": "string", "json": "json", "bytes": "binary"}[self.payload]
        return f"topic string, payload {payload}, retained bool, received timestamptz"

    def open(self, partition: str, state: Any) -> Messages:
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id, clean_session=not self.client_id, manual_ack=True
        )
        self.client.username_pw_set(self.username, self.password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self.subscribe
        self.client.on_message = self.deliver
        return self

    def run(self) -> None:
        self.client.connect(self.host, self.port)
        self.client.loop_forever()

    def subscribe(self, client: Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            raise ConnectionError(f"the broker {self.host}:{self.port} refuses: {reason}")
        client.subscribe(self.topics)

    def deliver(self, client: Client, _userdata: Any, message: MQTTMessage) -> None:
        try:
            payload = message.payload if self.payload == "bytes" else message.payload.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{message.topic}: {error}; the option payload = 'bytes' takes it") from None
        # Where the query is slow this waits, and then the broker does.
        self.next(message.topic, payload, message.retain, datetime.now(timezone.utc))
        client.ack(message.mid, message.qos)

    def on_stop(self) -> None:
        self.client.disconnect()


class MessageSink(Sink):
    """Publishes each row as a JSON object, in which bytes are Base64, structs objects, and NaN is null.

    The names in braces in `topic` are columns of the row, not NULL. An INSERT ends when the broker has acknowledged all
    of its messages (with `qos` 0, when they are sent), or fails with TimeoutError when it does not within `timeout`, in
    which a lost connection is made again. What is published cannot be taken back.
    """

    def __init__(
        self,
        host: str,
        topic: str,
        port: int = 1883,
        qos: Literal[0, 1, 2] = 1,
        retain: bool = False,
        timeout: timedelta = timedelta(seconds=10),
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.host, self.port, self.topic, self.qos, self.retain = host, port, topic, int(qos), retain
        self.timeout = timeout
        self.username, self.password = username, password

    def open(self, columns: Columns) -> None:
        self.columns = columns
        self.sent, self.acknowledged = 0, Semaphore(0)
        self.answer, self.answered = "no answer", Event()
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.username_pw_set(self.username, self.password)
        self.client.on_connect = self.connected
        self.client.on_publish = lambda *_: self.acknowledged.release()
        self.client.connect(self.host, self.port)
        self.client.loop_start()
        if not self.answered.wait(self.timeout.total_seconds()) or self.answer:
            self.close()
            raise ConnectionError(f"the broker {self.host}:{self.port} refuses: {self.answer}")

    def connected(self, _client: Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.answer = str(reason) if reason.is_failure else ""
        self.answered.set()

    def write(self, *columns: list[Any]) -> None:
        rows = list(objects(self.columns, columns))
        for topic, message in [(filled(self.topic, row), to_json(row)) for row in rows]:
            self.client.publish(topic, message, self.qos, self.retain)
            self.sent += 1

    def flush(self) -> None:
        deadline = time.monotonic() + self.timeout.total_seconds()
        while self.sent:
            # In small steps: between them, a cancel is noticed.
            if self.acknowledged.acquire(timeout=0.1):
                self.sent -= 1
            elif time.monotonic() > deadline:
                raise TimeoutError(
                    f"the broker {self.host}:{self.port} did not acknowledge {self.sent} of the messages"
                )

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def filled(template: str, row: dict[str, Any]) -> str:
    """The text, with the values of a row in the place of the names in braces."""
    for _, name, _, _ in Formatter().parse(template):
        if name is not None and row.get(name) is None:
            what = "NULL" if name in row else "no column"
            raise ValueError(f"'{template}' needs a value of '{name}', which is {what}")
    return template.format_map(row)

"""What the server is told, by a file, the environment and the command line; health checks and reflection."""

import json
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from harness import COUATL, create, error, queries, rows, wait_until
from test_http import ask
from test_users import connect, users  # noqa: F401

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
FLIGHT = "arrow.flight.protocol.FlightService"
DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"


def serve(*arguments):
    """`couatl serve` that is expected to end by itself."""
    return subprocess.run(
        [COUATL, "serve", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        start_new_session=True,
    )


def printed(*arguments):
    """Every option, as --print-config shows it, and where it was said."""
    done = serve(*arguments, "--print-config")
    assert (done.returncode, done.stderr) == (0, "")
    found = {}
    for line in done.stdout.splitlines():
        if line and not line.startswith("#"):
            name, said = line.split(" = ", 1)
            text, source = said.rsplit("  # ", 1)
            assert name not in found
            found[name] = (text, source)
    return found


def refusal(*arguments):
    done = serve("--listen", "127.0.0.1:0", "--http", "off", *arguments)
    assert done.returncode not in (0, None)
    assert done.stdout == ""
    return done.stderr


@pytest.fixture
def file(tmp_path):
    """Writes a configuration file."""
    path = tmp_path / "couatl.toml"

    def write(text):
        path.write_text(text)
        return path

    return write


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(file, monkeypatch):
    path = file("grace = 1\nheartbeat = 1\nqueue-time = 1\nmax-queries = 1\n")
    monkeypatch.setenv("COUATL_GRACE", "2")
    monkeypatch.setenv("COUATL_HEARTBEAT", "2")
    monkeypatch.setenv("COUATL_MAX_QUERY_ROWS", "2")
    shown = printed("--config", path, "--grace", "3", "--max-query-bytes", "3KB")
    assert shown["grace"] == ("3", "the command line")
    assert shown["heartbeat"] == ("2", "COUATL_HEARTBEAT")
    assert shown["queue-time"] == ("1", "the file")
    assert shown["max-query-rows"] == ("2", "COUATL_MAX_QUERY_ROWS")
    assert shown["max-query-bytes"] == ('"3KB"', "the command line")
    assert shown["max-user-queries"] == ('"unlimited"', "default")
    monkeypatch.setenv("COUATL_CONFIG", str(path))
    assert printed()["queue-time"] == ("1", "the file")
    assert printed("--config", file("queue-time = 9"))["queue-time"] == ("9", "the file")


def test_a_switch_of_the_file_may_be_turned_off(file, monkeypatch):
    path = file("grpc-health = true\ninsecure = false")
    assert printed("--config", path)["grpc-health"] == ("true", "the file")
    assert printed("--config", path, "--insecure")["insecure"] == ("true", "the command line")
    monkeypatch.setenv("COUATL_GRPC_HEALTH", "false")
    assert printed("--config", path)["grpc-health"] == ("false", "COUATL_GRPC_HEALTH")


def test_lists_are_replaced_and_not_joined(file, monkeypatch):
    path = file('user-limit = ["ann:max-query-rows=1", "bob:max-query-rows=1"]')
    assert printed("--config", path)["user-limit"][1] == "the file"
    monkeypatch.setenv("COUATL_USER_LIMIT", "ann:max-query-rows=2,bob:max-query-time=2")
    text = '["ann:max-query-rows=2", "bob:max-query-time=2"]'
    assert printed("--config", path)["user-limit"] == (text, "COUATL_USER_LIMIT")
    arguments = ["--user-limit", "ann:max-query-rows=3", "--user-limit", "ann:max-query-time=3"]
    text = '["ann:max-query-rows=3", "ann:max-query-time=3"]'
    assert printed("--config", path, *arguments)["user-limit"] == (text, "the command line")


def test_the_server_does_what_the_file_says(own_server, file, users, monkeypatch):  # noqa: F811
    path = file(f'users = "{users}"\nmax-query-rows = 10\nuser-limit = ["rita:max-query-rows=5"]\nhttp = "off"\n')
    monkeypatch.setenv("COUATL_MAX_QUERY_BYTES", "10KB")
    server = own_server("--config", path)
    assert server.http, "the command line has said otherwise"
    with connect(server, "rita") as rita, connect(server, "will") as will:
        assert "more than 5 rows" in error(rita, "SELECT * FROM range(6)")
        assert len(rows(will, "SELECT * FROM range(10)")) == 10
        assert "more than 10 rows" in error(will, "SELECT * FROM range(11)")
        assert "more than 10000 bytes" in error(will, "SELECT repeat('x', 20000)")


ROUND_TRIPS = [
    ["--grace", "2.5", "--max-queries", "7", "--max-query-time", "unlimited", "--memory-limit", "1.5GiB"],
    ["--user-limit", "ann:max-query-time=1.5", "--user-limit", "b o:max-query-memory=1GiB", "--grpc-health"],
    ["--listen", "[::1]:0", "--http", "off", "--insecure", "--grpc-reflection"],
    ["--users", "a \"quoted\" 'name'\\with", "--secrets", "ключи"],
    ["--users", "line\nbreak", "--secrets", "# no comment"],
    ["--secrets", "2024"],
    ["--secrets", "1.10"],
    ["--secrets", "007"],
    ["--secrets", "1e3"],
    ["--grace", "5."],
    ["--grace", ".5"],
    ["--max-queries", "007"],
    ["--grace", "1e2"],
]


@pytest.mark.parametrize("arguments", ROUND_TRIPS, ids=" ".join)
def test_what_is_printed_says_the_same_again(file, arguments):
    first = serve(*arguments, "--print-config")
    assert first.returncode == 0
    again = serve("--config", file(first.stdout), "--print-config")
    assert (again.returncode, again.stderr) == (0, "")
    assert said(again.stdout) == said(first.stdout)


def said(text):
    """A configuration without where it was said; numbers as numbers."""
    lines = [line.rsplit("  # ", 1)[0] for line in text.splitlines() if " = " in line and not line.startswith("#")]
    pairs = (line.split(" = ", 1) for line in lines)
    durations = ["grace", "heartbeat", "queue-time", "max-queries"]
    return {name: float(text.strip('"')) if name in durations else text for name, text in pairs}


def test_each_option_is_printed(file):
    flags = set(re.findall(r"^ +--([a-z-]+)", serve("--help").stdout, re.MULTILINE))
    optional = {"users", "tls-cert", "tls-key", "tls-client-ca", "secrets"}
    assert set(printed()) == flags - {"config", "print-config"} - optional
    text = serve("--print-config").stdout
    assert all(f"\n# {name} =\n" in text for name in optional)


def flags_of(*command):
    """The options of a command, as its help lists them."""
    shown = subprocess.run([COUATL, *command, "--help"], capture_output=True, text=True, timeout=30, check=True)
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", shown.stdout, re.MULTILINE))


def test_the_configuration_to_begin_with_is_accepted():
    text = (DEPLOY / "couatl.toml").read_text()
    names = set(re.findall(r"^([a-z-]+) = ", text, re.MULTILINE))
    shown = printed("--config", DEPLOY / "couatl.toml")
    assert {name for name, (_, source) in shown.items() if source == "the file"} == names
    for name in names:
        assert re.search(rf"^{name} = {re.escape(shown[name][0])}$", text, re.MULTILINE), shown[name]


def test_the_service_names_flags_that_exist():
    unit = (DEPLOY / "couatl.service").read_text()
    (served,) = re.findall(r"^ExecStart=.*/couatl (serve .*)", unit, re.MULTILINE)
    (added,) = re.findall(r"^# +\S+/couatl (user add .*)", unit, re.MULTILINE)
    (secrets,) = re.findall(r"(--\S+) \$\{CREDENTIALS_DIRECTORY\} after `serve`", unit)
    used = {word for word in shlex.split(served) if word.startswith("--")} | {secrets}
    assert used >= {"--config"} and used <= flags_of("serve")
    assert {word for word in shlex.split(added) if word.startswith("--")} <= flags_of("user", "add")
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)", unit, re.MULTILINE)
    assert int(patience) > float(printed("--config", DEPLOY / "couatl.toml")["grace"][0]) + 5, "its own comment"


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is of Linux")
def test_a_reload_before_it_listens_does_not_end_the_service():
    """What stands before the command in the unit is run before a shell, which sends itself the signal."""
    (before,) = re.findall(r"^ExecStart=(.*?)\S+/couatl serve", (DEPLOY / "couatl.service").read_text(), re.MULTILINE)
    hanging_up = ["/bin/sh", "-c", 'kill -HUP $$; exec "$@"', "sh", COUATL, "serve", "--print-config"]
    done = subprocess.run([*before.split(), *hanging_up], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert done.returncode == 0


@pytest.mark.parametrize("tls", ["none", "comment", "certificate"])
def test_the_health_check_of_the_image_follows_the_configuration(own_server, tmp_path, monkeypatch, tls):
    pytest.importorskip("tomllib")
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    pair = f'tls-cert = "{tmp_path}/both.pem"\ntls-key = "{tmp_path}/both.pem"\n'
    path = tmp_path / "couatl.toml"
    path.write_text({"none": "", "comment": pair.replace("tls-", "# tls-"), "certificate": pair}[tls])
    server = own_server("--config", path)
    (command,) = re.findall(r"^HEALTHCHECK CMD (.*)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    program = json.loads(command)[-1].replace("127.0.0.1:8123", server.http.split("//")[1])
    monkeypatch.setenv("COUATL_CONFIG", str(path))

    def check():
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )
        return done.returncode

    assert check() == 0
    server.kill()
    assert check() != 0


def test_nothing_is_served_where_the_configuration_is_printed(tmp_path):
    assert serve("--print-config", "--users", tmp_path / "nowhere").returncode == 0


WRONG = {
    "grace": ("soon", '"soon"', "expected a number of seconds"),
    "max-queries": ("0", "0", "expected a number, one or more"),
    "max-query-rows": ("-1", "-1", "expected a number, one or more"),
    "max-query-bytes": ("10", "10", "expected a size with its unit"),
    "max-query-time": ("nan", "nan", "expected a number of seconds"),
    "user-limit": ("ann:max=1", '["ann:max=1"]', "expected NAME:LIMIT=VALUE"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_value_is_named_with_where_it_stands(file, monkeypatch, name):
    plain, toml, expected = WRONG[name]
    text = refusal(f"--{name}={plain}")
    assert f"--{name}" in text and plain in text and expected in text
    path = file(f"{name} = {toml}")
    text = refusal("--config", path)
    assert str(path) in text and name in text and plain.lower() in text.lower() and expected in text
    variable = "COUATL_" + name.upper().replace("-", "_")
    monkeypatch.setenv(variable, plain)
    text = refusal()
    assert name in text and plain in text and expected in text
    assert variable in text, "who has an environment that they have not written must be told where to look"


def test_a_bad_value_of_the_file_is_bad_even_where_it_is_not_used(file):
    path = file('grace = "soon"')
    assert str(path) in refusal("--config", path, "--grace", "1")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("gracious = 1", "'gracious', which is no option: expected listen, http, users"),
        ("max_queries = 1", "'max_queries', which is no option"),
        ("[serve]\ngrace = 1", "'serve', which is no option"),
        ("config = 'x'", "'config', which is no option"),
        ("print-config = true", "'print-config', which is no option"),
        ("help = true", "'help', which is no option"),
        ("grace = [1]", "'grace' what cannot be said: expected a string or a number"),
        ("grace = 1979-05-27", "'grace' what cannot be said"),
        ("grpc-health = 1", "'grpc-health' what cannot be said: expected true or false"),
        ("grpc-health = 'true'", "'grpc-health' what cannot be said: expected true or false"),
        ("grace = true", "'grace' what cannot be said"),
        ("user-limit = [1, [2]]", "'user-limit' what cannot be said: expected an array of strings"),
        ("grace = 1\ngrace = 2", "is no TOML"),
        ("grace", "is no TOML"),
        ("tls-cert = 'x'", "--tls-cert is given without --tls-key"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(file, text, expected):
    path = file(text)
    message = refusal("--config", path)
    assert expected in message
    assert str(path) in message or "--tls" in expected


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    path = tmp_path / "none.toml"
    assert f"cannot read '{path}'" in refusal("--config", path)
    monkeypatch.setenv("COUATL_CONFIG", str(path))
    assert f"cannot read '{path}'" in refusal()
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "binary.toml" in refusal("--config", tmp_path / "binary.toml")
    assert str(tmp_path) in refusal("--config", tmp_path)


def test_other_commands_do_not_read_it(tmp_path, monkeypatch):
    monkeypatch.setenv("COUATL_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("COUATL_GRACE", "soon")
    done = subprocess.run(
        [COUATL, "sql", "SELECT 1"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def channel():
    """Opens gRPC channels to servers, and closes them."""
    opened = []

    def open_channel(server):
        opened.append(grpc.insecure_channel(server.uri.removeprefix("grpc://")))
        return opened[-1]

    yield open_channel
    for each in opened:
        each.close()


def checked(stub, service=""):
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


def code_of(call, *arguments):
    with pytest.raises(grpc.RpcError) as refused:
        call(*arguments)
    return refused.value.code()


class Reflection(ProtoReflectionDescriptorDatabase):
    """The database of grpcio-reflection, which knows v1alpha alone, over v1: their messages are the same."""

    def __init__(self, channel):
        super().__init__(channel)
        self._stub = self
        self.ServerReflectionInfo = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )


def test_neither_is_on_by_itself(server, channel):
    stub = health_pb2_grpc.HealthStub(channel(server))
    assert code_of(checked, stub) == grpc.StatusCode.UNIMPLEMENTED
    database = Reflection(channel(server))
    assert code_of(database.get_services) == grpc.StatusCode.UNIMPLEMENTED


def test_health_is_for_everybody(own_server, users, channel):  # noqa: F811
    server = own_server("--users", users, "--grpc-health")
    stub = health_pb2_grpc.HealthStub(channel(server))
    assert checked(stub) == checked(stub, FLIGHT) == SERVING
    assert code_of(checked, stub, "no.such.Service") == grpc.StatusCode.NOT_FOUND
    for path in [f"/{FLIGHT}/ListActions", "/grpc.health.v1.Health/../ListActions", "/grpc.health.v1.Other/Check"]:
        call = channel(server).unary_unary(path)
        assert code_of(call, b"") in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED), path
    call = channel(server).unary_stream(f"/{FLIGHT}/ListActions")
    assert code_of(lambda: list(call(b""))) == grpc.StatusCode.UNAUTHENTICATED
    metadata = [("authorization", "Basic nonsense")]
    request = health_pb2.HealthCheckRequest()
    assert stub.Check(request, timeout=10, metadata=metadata).status == SERVING


HELD = """
import time

def held():
    yield 1
    while True:
        time.sleep(0.01)
"""


def test_health_tells_of_the_end(own_server, channel):
    server = own_server("--grpc-health", "--grace", "20")
    stub = health_pb2_grpc.HealthStub(channel(server))
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30) for name in ["", FLIGHT]]
    assert [next(watch).status for watch in watches] == [SERVING] * 2
    with server.connect() as connection, connection.cursor() as cursor:
        create(connection, "held", "n int64", HELD, mode="streaming")
        cursor.execute("SELECT n FROM held")
        assert cursor.fetchone() == (1,)
        server.process.send_signal(signal.SIGTERM)
        assert [next(watch).status for watch in watches] == [NOT_SERVING] * 2
        assert checked(stub) == checked(stub, FLIGHT) == NOT_SERVING
        assert checked(health_pb2_grpc.HealthStub(channel(server))) == NOT_SERVING, "also to who comes now"
        assert server.alive()
        cursor.adbc_cancel()
    assert server.process.wait(8) == 0, "a watch does not keep it"


def test_a_health_watch_that_nobody_ends_does_not_keep_the_server(own_server, channel):
    server = own_server("--grpc-health", "--grace", "1")
    watch = health_pb2_grpc.HealthStub(channel(server)).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == SERVING
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0


def test_many_health_checks_are_answered_while_a_query_has_the_only_turn(own_server, channel):
    server = own_server("--grpc-health", "--max-queries", "1", "--queue-time", "0")
    with server.connect() as connection, connection.cursor() as cursor:
        create(connection, "held", "n int64", HELD, mode="streaming")
        cursor.execute("SELECT n FROM held")
        assert cursor.fetchone() == (1,)
        stub = health_pb2_grpc.HealthStub(channel(server))
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: checked(stub), range(100))) == {SERVING}
        cursor.adbc_cancel()
    with server.connect() as connection:
        wait_until(lambda: not queries(connection), "no queries")


def test_reflection_describes_the_protocol(own_server, channel):
    server = own_server("--grpc-reflection")
    database = Reflection(channel(server))
    assert FLIGHT in database.get_services()
    pool = DescriptorPool(database)
    info = pool.FindMessageTypeByName("arrow.flight.protocol.FlightInfo")
    assert {field.name: field.number for field in info.fields} == {
        "schema": 1,
        "flight_descriptor": 2,
        "endpoint": 3,
        "total_records": 4,
        "total_bytes": 5,
        "ordered": 6,
        "app_metadata": 7,
    }
    service = pool.FindServiceByName(FLIGHT)
    methods = {method.name for method in service.methods}
    assert {"Handshake", "ListFlights", "GetFlightInfo", "PollFlightInfo", "DoGet", "DoPut", "DoExchange"} <= methods
    assert {"GetSchema", "DoAction", "ListActions"} <= methods
    for name in ["google.protobuf.Timestamp", "arrow.flight.protocol.FlightDescriptor"]:
        assert pool.FindMessageTypeByName(name).full_name == name
    data = pool.FindMessageTypeByName("arrow.flight.protocol.FlightData")
    assert data.fields_by_name["data_body"].number == 1000


def test_reflection_is_for_clients_of_before(own_server, channel):
    """Many know v1alpha alone: Python's, and grpcurl of some years ago."""
    database = ProtoReflectionDescriptorDatabase(channel(own_server("--grpc-reflection")))
    assert FLIGHT in database.get_services()


def test_what_reflection_says_can_be_called(own_server, channel):
    """A client that knows nothing but what it was told lists the server's actions, as grpcurl would."""

    server = own_server("--grpc-reflection")
    opened = channel(server)
    pool = DescriptorPool(Reflection(opened))
    method = pool.FindServiceByName(FLIGHT).methods_by_name["ListActions"]
    proto = descriptor_pb2.MethodDescriptorProto()
    method.CopyToProto(proto)
    assert (proto.client_streaming, proto.server_streaming) == (False, True)
    request, answer = map(message_factory.GetMessageClass, [method.input_type, method.output_type])
    call = opened.unary_stream(
        f"/{FLIGHT}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=answer.FromString,
    )
    assert "CreatePreparedStatement" in {action.type for action in call(request(), timeout=10)}


def test_reflection_names_health_where_there_is_health_alone(own_server, channel):
    database = Reflection(channel(own_server("--grpc-reflection")))
    assert "grpc.health.v1.Health" not in database.get_services(), "it is off"
    database = Reflection(channel(own_server("--grpc-reflection", "--grpc-health")))
    assert "grpc.health.v1.Health" in database.get_services()


def test_reflection_is_for_those_who_may_come_in(own_server, users, channel):  # noqa: F811
    server = own_server("--grpc-reflection", "--users", users)
    database = Reflection(channel(server))
    assert code_of(database.get_services) == grpc.StatusCode.UNAUTHENTICATED


def test_a_file_by_its_environment_alone_serves(own_server, file, monkeypatch):
    monkeypatch.setenv("COUATL_CONFIG", str(file("max-query-rows = 3\ngrace = 0")))
    server = own_server()
    with server.connect() as connection:
        assert "more than 3 rows" in error(connection, "SELECT * FROM range(4)")
    assert ask(server, "SELECT 1")[1] == b"1\n"


def test_a_folder_of_secrets_that_is_none_is_told(tmp_path):
    """Now, and not when the first query wants one."""
    folder = tmp_path / "nowhere"
    served = serve("--secrets", folder)
    assert served.returncode == 1
    assert served.stderr == f"error: --secrets: '{folder}' is no folder\n"

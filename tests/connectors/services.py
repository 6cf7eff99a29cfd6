"""The servers that connectors talk to, each a process of the tests' own, on a free port of this machine."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from harness import PATIENCE, kill_group, wait_until

POSTGRES = Path("/usr/lib/postgresql")


class Service:
    """A server program, which has started when it has said so."""

    def __init__(self, command, ready, port, user=None):
        self.command, self.ready, self.port, self.user = command, ready, port, user
        self.process = None
        self.start()

    def start(self):
        """Start it, on the port that it had before, if it has been stopped."""
        self.said, self.is_ready = [], threading.Event()
        self.process = subprocess.Popen(
            list(map(str, self.command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            user=self.user,
        )
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        # Also set when it ends.
        assert self.is_ready.wait(PATIENCE), self.said
        if not any(self.ready in line for line in self.said):
            self.stop()
            raise AssertionError(f"{self.command[0]} has not started: {''.join(self.said)}")

    def read(self):
        for line in self.process.stdout:
            self.said.append(line)
            if self.ready in line:
                self.is_ready.set()
        self.is_ready.set()

    def stop(self):
        """Let it go away, at once, as in a power failure."""
        kill_group(self.process)
        self.reader.join(PATIENCE)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def program(name, package, folder=None):
    found = shutil.which(name, path=folder)
    if found is None:
        pytest.fail(f"there is no {name} on this machine: apt-get install {package}", pytrace=False)
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def redis(folder):
    port = free_port()
    command = [program("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", port, "--dir", folder]
    return Service([*command, "--appendonly", "yes"], "Ready to accept connections", port)


def mosquitto(folder, access="allow_anonymous true"):
    port = free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\n{access}\nmax_queued_messages 0\n")
    command = [program("mosquitto", "mosquitto"), "-c", configuration]
    return Service(command, "running", port)


def nats(folder):
    port = free_port()
    command = [program("nats-server", "nats-server"), "--addr", "127.0.0.1", "--port", port, "--jetstream"]
    return Service([*command, "--store_dir", folder], "Server is ready", port)


class PostgreSQL(Service):
    """A database of its own, in a folder that is PostgreSQL's: it does not run as root."""

    def __init__(self):
        versions = sorted(POSTGRES.glob("*/bin")) or [Path("/nowhere")]
        self.programs = str(versions[-1])
        initdb = program("initdb", "postgresql", self.programs)
        user = "postgres" if getpass.getuser() == "root" else None
        self.folder = Path(tempfile.mkdtemp(prefix="couatl-postgresql-"))
        try:
            if user:
                shutil.chown(self.folder, user)
            data = self.folder / "data"
            subprocess.run(
                [initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C"],
                check=True,
                capture_output=True,
                user=user,
                cwd=self.folder,
            )
            port = free_port()
            settings = {
                "listen_addresses": "127.0.0.1",
                "port": port,
                "unix_socket_directories": "",
                "fsync": "off",
                "max_connections": 20,
            }
            command = [program("postgres", "postgresql", self.programs), "-D", data]
            command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            super().__init__(command, "database system is ready to accept connections", port, user)
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def stop(self):
        """Stop it with its children, each of which is in a group of its own."""
        self.process.send_signal(3)
        wait_until(lambda: self.process.poll() is not None, "the end of PostgreSQL")
        super().stop()

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder)

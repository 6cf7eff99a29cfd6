"""What tests need beside the libraries: the harness that starts servers, and a time zone that is not UTC."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))


@pytest.fixture
def away(monkeypatch):
    """A process that is not at home in UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()

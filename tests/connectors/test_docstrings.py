"""The statements in the docstrings of the connectors: each can be run as it is written."""

import ast
import re
from pathlib import Path

import pytest
from harness import error, run

CONNECTORS = Path(__file__).parents[2] / "examples" / "connectors"
#: What needs a server to know its columns says so when none is there.
NO_SERVER = "psycopg.OperationalError"


def statements():
    """All that create a stream, by connector."""
    for path in sorted(CONNECTORS.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text()))
        for statement in re.findall(r"CREATE EXTERNAL STREAM [^;]*;", text):
            yield pytest.param(statement, id=f"{path.stem}-{statement.split()[3]}")


def test_every_connector_shows_how_it_is_used():
    ids = [parameter.id for parameter in statements()]
    assert len(ids) >= len(list(CONNECTORS.glob("*.py"))) >= 6, ids


@pytest.mark.parametrize("statement", list(statements()))
def test_a_statement_can_be_run(connection, statement):
    statement = statement.replace("CREATE", "CREATE OR REPLACE")
    if "PostgresQuery" in statement or "PostgresTable" in statement:
        assert NO_SERVER in error(connection, statement)
    else:
        run(connection, statement)


def test_the_readme_names_every_connector():
    text = (CONNECTORS / "README.md").read_text()
    for path in CONNECTORS.glob("*.py"):
        assert f"[{path.name}]({path.name})" in text

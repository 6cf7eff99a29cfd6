"""Pages of docs: all of their blocks are run as they stand, and print what stands below.

```text
  a block                            is                               and what stands below it
  python that begins with `# x.py`   a module that the server finds
  python that begins with
      `# test_x.py`                  a file that pytest runs
  other python                       a program beside the modules     is what it prints
  toml                               the metadata of an installed
                                     package
  sql                                run on a server, through adbc    is what its last statement gives, as
                                                                      `couatl sql` prints it, or a line of its error
```
"""

import configparser
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pyarrow
import pytest
from harness import Server, error, kill_group, queries, rows, run, table, wait_until

LIBRARIES = ["bytewax", "ekuiper", "pathway", "pyspark", "streamz"]
for library in LIBRARIES:
    if find_spec(library) is None:
        pytest.skip(f"{library} is missing", allow_module_level=True)

DOCS = Path(__file__).parents[2] / "docs"
TEST_LIMIT = 60.0
PROGRAM_LIMIT = 50

THEIRS, OURS = "theirs", "ours"

# The headings of the pages that have blocks, with how many there are of each kind.
PAGES = {
    "connectors.md": {
        "A function": {"sql": 1},
        "A source": {"module": 1, "sql": 2},
        "Options": {"sql": 2},
        "A partition": {"module": 1, "sql": 1},
        "Polling, pushing, awaiting": {"module": 1, "sql": 3},
        "A sink": {"module": 2, "sql": 2, "python": 1},
        "In the body of a statement": {"sql": 1},
        "A name for it": {"toml": 1, "sql": 2},
        "Secrets": {"sql": 1},
        "Tests": {"test": 1},
    },
    "functions.md": {
        "Scalar functions": {"sql": 1},
        "Formats": {"sql": 1},
        "NULLs, and how often it is called": {"sql": 1},
        "Aggregates": {"sql": 1},
        "Table functions": {"sql": 1},
        "Transforms": {"sql": 2},
        "Packages": {"module": 1, "sql": 1},
        "eKuiper": {"sql": 1},
        "Streamz": {"sql": 1},
    },
    "migrating.md": {
        "Timeplus": {"sql": 3},
        "eKuiper": {"module": 1, "python": 1, "sql": 4},
        "Bytewax": {"module": 1, "sql": 3},
        "Pathway": {"module": 1, "sql": 2},
        "Streamz": {"module": 1, "toml": 1, "sql": 3},
        "PySpark": {"module": 1, "sql": 3},
    },
}


# Bodies of half(n int64), each with the call that says what is wrong; None is the CREATE. In the order of the table of
# docs/functions.md.
CALLED = "SELECT half(1)"
PLAIN, AGGREGATE = "FUNCTION", "AGGREGATE FUNCTION"
WRONG_FUNCTIONS = [
    (PLAIN, "def halve(n): pass", None),
    (PLAIN, "def half(n, m): pass", None),
    (AGGREGATE, "def half(n): pass", None),
    (PLAIN, "def half(n): return n", "SELECT half()"),
    (PLAIN, "def half(n): return n", "SELECT half('x')"),
    (PLAIN, "def half(n): return 3", CALLED),
    (PLAIN, "def half(n): return [1, 2]", CALLED),
    (PLAIN, "def half(n): return [0.5]", CALLED),
    (PLAIN, "def half(n): return 1 / 0", CALLED),
    (AGGREGATE, "class half:\n    def process(self, n): pass", None),
]

# Classes that are wrong, each with the statement that says so; None is the CREATE without a list of columns. In the
# order of the table of docs/connectors.md.
OPEN = "\n    def open(self, partition, state): return []"
READ, WRITTEN, MADE = "SELECT n FROM wrong", "INSERT INTO wrong VALUES (1)", None
WRONG = [
    (MADE, "class Tides(Source):\n    def __init__(self, harbours: list[str]): pass"),
    (MADE, "class Tides(Source): pass"),
    (MADE, "class Tides: pass"),
    (MADE, "class Tides(Source):\n    def schema(self): return 'n int64'"),
    (MADE, "class Tides(Source):\n    def schema(self): return 'n int64'\n    def open(self, partition): return [1]"),
    (MADE, "class Ledger(Sink):\n    def schema(self): return 'n int64'\n    write = None"),
    (WRITTEN, "class Tides(Source):\n    def open(self, partition, state): return []"),
    (READ, "class Tides(Source):\n    def open(self, partition, state): return 3"),
    (READ, f"class Tides(Source):\n    def partitions(self): return 'Brest'{OPEN}"),
    (READ, f"class Tides(Source):\n    def partitions(self): return ['Brest', 'Brest']{OPEN}"),
    (
        READ,
        "class Tides(Source):\n    van = type('Van', (Partition,), {'next_batch': lambda self: []})()\n"
        "    def partitions(self): return ['a', 'b']\n    def open(self, partition, state): return self.van",
    ),
    (
        READ,
        "class Polled(PollingSource):\n    def __init__(self): super().__init__(timedelta(seconds=1))\n"
        "    def partitions(self): return ['a', 'b']\n    def next_item(self): pass",
    ),
    (READ, "class Van(Partition):\n    def next_batch(self): return range(3)"),
    (READ, "class Van(Partition):\n    async def next_batch(self): return [1]"),
    (READ, "class Pushed(PushSource):\n    def run(self): yield 1"),
    (
        READ,
        "class Van(Partition):\n    def next_batch(self): raise StopIteration\n"
        "    def close(self): raise StopIteration",
    ),
    (READ, "class Van(Partition):\n    def next_awake(self): return 5"),
    (READ, "class Polled(PollingSource):\n    def __init__(self): pass\n    def next_item(self): pass"),
    (READ, "class Pushed(PushSource):\n    def run(self): self.next()"),
    (WRITTEN, "class Ledger(Sink):\n    def write(self, day, amount): pass"),
    (READ, "class Tides(Source):\n    def open(self, partition, state): return [1, 'high']"),
    (READ, "class Tides(Source):\n    def open(self, partition, state): return [(1, 2)]"),
]
WRONG_MODULE = """
from datetime import timedelta
from couatl.sinks import Sink
from couatl.sources import Partition, PollingSource, PushSource, Source

{code}

class Delivered(Source):
    def open(self, partition, state):
        return Van()
"""


@dataclass(frozen=True)
class Block:
    """A block of a page, and the text below it; None where there is none."""

    language: str
    text: str
    output: str | None

    @property
    def file(self):
        """The name of the file that it is, if any."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named else None

    @property
    def kind(self):
        if self.language == "python" and self.file:
            return "test" if self.file.startswith("test_") else "module"
        return self.language


def sections(page):
    """The texts below the headings of a page."""
    _, *found = re.split(r"^## (.+)\n", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2]))


def blocks(text):
    """The blocks of a text. One of `text` right below another is what that prints."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", text, flags=re.MULTILINE | re.DOTALL)
    assert text.count("```") == sum(2 + 2 * bool(output) for _, _, output in found), "a fence that is not closed"
    return [Block(language, code, output or None) for language, code, output in found]


def all_blocks(page):
    return [block for text in sections(page).values() for block in blocks(text)]


def with_our_imports(page, block):
    """The text of a module with the imports that the page's table says."""
    text = block.text
    for theirs, ours in re.findall(r"^\| \w+ \| `(.+)` \| `(.+)` \|$", (DOCS / page).read_text(), flags=re.MULTILINE):
        text = text.replace(theirs, ours)
    assert text.count("couatl.compat") == 1, text
    assert not re.search(rf"^(from|import) ({'|'.join(LIBRARIES)})\b", text, flags=re.MULTILINE), text
    return text


def install(text, folder):
    """Make a package known by its metadata, as pip would."""
    metadata = configparser.ConfigParser(delimiters="=", interpolation=None)
    metadata.optionxform = str
    metadata.read_string(text)
    unquoted = {title: {key: value.strip('"') for key, value in metadata[title].items()} for title in metadata}
    project = unquoted["project"]
    installed = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = configparser.ConfigParser(delimiters="=", interpolation=None)
    points.optionxform = str
    for title in unquoted:
        if title.startswith("project.entry-points."):
            points[title.removeprefix("project.entry-points.").strip('"')] = unquoted[title]
    with (installed / "entry_points.txt").open("w") as file:
        points.write(file)


class Place:
    """A folder with the modules of a page, as they are or with our imports, and a server that runs in it."""

    def __init__(self, page, imports, folder):
        self.folder = folder
        for block in all_blocks(page):
            if block.kind in ("module", "test"):
                (folder / block.file).write_text(block.text if imports == THEIRS else with_our_imports(page, block))
            elif block.kind == "toml":
                install(block.text, folder)
        for number, (_, code) in enumerate(WRONG):
            (folder / f"wrong_{number}.py").write_text(WRONG_MODULE.format(code=code))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("PYTHONPATH", str(folder))
            patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
            patch.setenv("COUATL_SECRET_tides", "hush-hush")
            self.server = Server(folder)

    def python(self, *arguments):
        """What a Python program prints that runs beside the modules and ends well."""
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROGRAM_LIMIT, check=False, cwd=self.folder
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The place of each page, made when it is asked for."""
    made = {}

    def place(page, imports=THEIRS):
        if (page, imports) not in made:
            made[page, imports] = Place(page, imports, tmp_path_factory.mktemp("page"))
        return made[page, imports]

    yield place
    for each in made.values():
        each.server.kill()


@pytest.fixture
def at(places):
    """The place of a page, for a test, after which its server runs nothing and knows no stream."""
    used = []

    def at(*page):
        place = places(*page)
        watchdog = threading.Timer(TEST_LIMIT, kill_group, [place.server.process])
        watchdog.start()
        used.append((place, watchdog))
        return place

    try:
        yield at
        for place, _ in used:
            assert place.server.alive(), f"the server died: {place.server.log.read_text()[-4000:]}"
            with place.server.connect() as connection:
                wait_until(lambda connection=connection: not queries(connection), "the end of all queries")
                for catalog, schema, name, *_ in rows(connection, "SHOW STREAMS"):
                    run(connection, f"DROP STREAM {catalog}.{schema}.{name}")
            assert "is left behind" not in place.server.log.read_text()
    finally:
        for _, watchdog in used:
            watchdog.cancel()


def printed(result):
    """Rows as `couatl sql` prints them."""
    texts = [[shown(value) for value in column.to_pylist()] for column in result.columns]
    right = [pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) for kind in result.schema.types]
    widths = [max(map(len, [name, *column])) for name, column in zip(result.column_names, texts)]
    lines = [line(result.column_names, widths, right), "+".join("-" * (width + 2) for width in widths)]
    lines += [line(row, widths, right) for row in zip(*texts)]
    return [*lines, f"{result.num_rows} row{'s' * (result.num_rows != 1)}"]


def shown(value):
    return "NULL" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def line(cells, widths, right):
    parts = (
        cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in zip(cells, widths, right)
    )
    return f" {' | '.join(parts)}".rstrip()


def check_sql(connection, block):
    if block.output is None:
        assert rows(connection, block.text) == [], f"nothing stands below\n{block.text}"
    elif block.output.startswith("error: "):
        assert block.output.removeprefix("error: ").strip() in error(connection, block.text)
    elif re.fullmatch(r"\d+ rows? written\n", block.output):
        assert run(connection, block.text) == int(block.output.split()[0])
    else:
        assert printed(table(connection, block.text)) == block.output.splitlines()


def check(place, connection, block):
    """Run a block; modules are there, and so are packages."""
    if block.kind == "sql":
        check_sql(connection, block)
    elif block.kind == "test":
        assert " passed" in place.python("-m", "pytest", "-q", "-p", "no:cacheprovider", block.file)
    elif block.kind == "python":
        assert place.python("-c", block.text) == (block.output or "")
    else:
        assert block.kind in ("module", "toml") and block.output is None, block


def test_the_pages_have_the_blocks_that_are_run():
    for page, expected in PAGES.items():
        found = {
            heading: dict(Counter(block.kind for block in blocks(text))) for heading, text in sections(page).items()
        }
        assert {heading: kinds for heading, kinds in found.items() if kinds} == expected
        before, *_ = (DOCS / page).read_text().split("\n## ")
        assert {block.kind for block in blocks(before)} <= {"text"}
        files = [block.file for block in all_blocks(page) if block.file]
        assert len(set(files)) == len(files)


@pytest.mark.parametrize(
    ("page", "imports", "heading"),
    [
        *((page, THEIRS, heading) for page in PAGES for heading in PAGES[page]),
        *(("migrating.md", OURS, heading) for heading in PAGES["migrating.md"] if heading != "Timeplus"),
    ],
)
def test_the_blocks_of_a_section_print_what_stands_below_them(at, page, imports, heading):
    place = at(page, imports)
    with place.server.connect() as connection:
        for block in blocks(sections(page)[heading]):
            check(place, connection, block)


def test_what_goes_wrong_says_the_sentence_of_the_table(at):
    section = sections("connectors.md")["What goes wrong"]
    sentences = re.findall(r"^\| .* \| `(.+)` \|$", section, flags=re.MULTILINE)
    assert len(sentences) == len(WRONG)
    with at("connectors.md").server.connect() as connection:
        for number, (sentence, (statement, code)) in enumerate(zip(sentences, WRONG)):
            name = re.match(r"class (\w+)", code)[1]
            columns = "" if statement is None else "(n int64)"
            made = f"wrong_{number}:{'Delivered' if name == 'Van' else name}"
            sql = f"CREATE OR REPLACE EXTERNAL STREAM wrong {columns} SETTINGS type = 'python', class = '{made}'"
            if statement is not None:
                run(connection, sql)
            assert sentence.removesuffix("…") in error(connection, statement or sql)


def test_what_goes_wrong_with_a_function_says_the_sentence_of_the_table(at):
    sentences = re.findall(r"^\| .* \| `(.+)` \|$", sections("functions.md")["What goes wrong"], flags=re.MULTILINE)
    assert len(sentences) == len(WRONG_FUNCTIONS)
    with at("functions.md").server.connect() as connection:
        for sentence, (kind, body, call) in zip(sentences, WRONG_FUNCTIONS):
            sql = f"CREATE OR REPLACE {kind} half(n int64) RETURNS int64 LANGUAGE PYTHON AS $$\n{body}\n$$"
            if call is not None:
                run(connection, sql)
            assert sentence in error(connection, call or sql)
        run(connection, "DROP FUNCTION half")

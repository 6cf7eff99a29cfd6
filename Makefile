# Everything is made inside the checkout: .venv holds Python, target Rust, .venv-connectors the libraries whose connectors
# run here, and .venv-peers what benchmarks compare with.

PYTHON  ?= python3
TARGET  := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
VENV    := $(CURDIR)/.venv
BIN     := $(VENV)/bin
PROFILE ?= dev

# Rust programs that embed Python are linked with, and find, the library of the environment's interpreter.
export PYO3_PYTHON := $(BIN)/python
export VIRTUAL_ENV := $(VENV)
LIBRARY_PATH := $(LD_LIBRARY_PATH)
LIBDIR = $(shell test -x $(BIN)/python && $(BIN)/python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
export LD_LIBRARY_PATH = $(LIBDIR)$(if $(LIBRARY_PATH),:$(LIBRARY_PATH))

RUST    := $(shell find crates python -name '*.rs' -o -name '*.py' -path '*/src/*' -o -name Cargo.toml) Cargo.toml Cargo.lock
CLIENTS := adbc-driver-flightsql adbc-driver-manager pyarrow pandas polars
RIVALS  := pyarrow polars duckdb bytewax streamz chdb shillelagh pysail pyspark-client pathway
EXAMPLES := clock join_parquet session_context sink
MODELS  := bytewax pathway streamz pyspark-client ekuiper pynng
# Published connectors, and what they import. They are installed without what they ask for: a whole pyspark would be put
# over pyspark-client, and the rest is large (sentence-transformers, azure's clients, mkdocs). One that this Python cannot
# have is left out, and its tests say so.
PUBLISHED := pyspark-data-sources pysparkformat cyber-spark-data-connectors spark-fuse spark-rest-api-reader
IMPORTED := faker requests tenacity azure-monitor-ingestion
DRIVERS := redis paho-mqtt nats-py psycopg[binary] httpx
SERVERS := redis-server mosquitto nats-server postgresql
CONNECTORS := $(CURDIR)/.venv-connectors
PEERS   := $(CURDIR)/.venv-peers
TOOLS   := maturin pytest ruff mypy pandas-stubs trustme grpcio grpcio-health-checking grpcio-reflection prometheus-client datafusion==55.0.0

.PHONY: demo test build lint bless bench clean servers

demo: $(VENV)/wheel-dev
	$(BIN)/python examples/demo/demo.py

test: $(VENV)/wheel-dev $(CONNECTORS)/wheel servers
	cargo test --workspace --all-targets
	cargo test --workspace --doc
	cargo build --workspace --examples
	for example in $(EXAMPLES); do $(TARGET)/debug/examples/$$example || exit 1; done
	$(BIN)/python -m mypy.stubtest couatl._couatl
	COUATL_EXAMPLES=$(TARGET)/debug/examples $(BIN)/python -m pytest -q tests/python
	$(CONNECTORS)/bin/python -m pytest -q tests/models tests/connectors

build: PROFILE := release
build: $(VENV)/wheel-release

lint: $(VENV)/ready
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(call cargo-deny) check bans licenses
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd python && $(BIN)/mypy --strict couatl

bless: $(VENV)/ready
	BLESS=1 cargo test --workspace --test sqllogic
	UPDATE_EXPECT=1 cargo test --workspace --all-targets

bench: $(VENV)/wheel-release $(PEERS)/ready
	CONVERSION_TABLE=$(TARGET)/conversion/table.txt \
	cargo bench --manifest-path benches/conversion/Cargo.toml --target-dir $(TARGET)/conversion --bench conversion
	$(BIN)/python -m benches --write --conversion $(TARGET)/conversion/table.txt

clean:
	rm -rf $(VENV) $(CONNECTORS) $(PEERS) .venv-clients target

# The wheel of a profile, installed. Tests and the demo share the one that tests are built with.
$(VENV)/wheel-%: $(VENV)/ready $(RUST) $(shell find python/couatl -name '*.py' -o -name '*.pyi') python/pyproject.toml
	cd python && $(BIN)/maturin build --quiet --profile $* --interpreter $(BIN)/python --out $(VENV)/wheels-$*
	$(BIN)/pip install --quiet --no-deps --force-reinstall $(VENV)/wheels-$*/couatl-*.whl
	rm -f $(VENV)/wheel-* && touch $@

$(VENV)/ready: Makefile
	$(PYTHON) tools/check_python.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TOOLS) $(CLIENTS)
	touch $@

# The same wheel beside the libraries whose connectors it runs, and the drivers of those in examples/connectors.
$(CONNECTORS)/wheel: $(VENV)/wheel-dev $(CONNECTORS)/ready
	$(CONNECTORS)/bin/pip install --quiet --no-deps --force-reinstall $(VENV)/wheels-dev/couatl-*.whl
	touch $@

$(CONNECTORS)/ready: Makefile
	test -x $(CONNECTORS)/bin/python || $(PYTHON) -m venv $(CONNECTORS)
	$(CONNECTORS)/bin/pip install --quiet --disable-pip-version-check pytest trustme $(CLIENTS) $(MODELS) $(IMPORTED) $(DRIVERS)
	for package in $(PUBLISHED); do $(CONNECTORS)/bin/pip install --quiet --disable-pip-version-check --no-deps $$package || true; done
	touch $@

# What the tests of connectors start, each on a port of its own. Where one is missing, it is installed if that may be.
servers:
	@dpkg-query --show --showformat='$${Status}\n' $(SERVERS) 2>/dev/null | grep -c '^install ok installed' | \
	grep -qx $(words $(SERVERS)) || { test "$$(id -u)" = 0 && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SERVERS) >/dev/null; } || \
	echo "not installed: some of $(SERVERS); the tests of connectors will say which"

# The systems that benchmarks compare with, in an environment of their own. One that this machine cannot have is left
# out, and the benchmarks say so.
$(PEERS)/ready: Makefile
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	for peer in $(RIVALS); do $(PEERS)/bin/pip install --quiet --disable-pip-version-check $$peer || true; done
	touch $@

# cargo-deny is built once, where cargo builds everything else.
define cargo-deny
test -x $(TARGET)/tools/bin/cargo-deny || cargo install --quiet --locked --root $(TARGET)/tools cargo-deny@0.20.2
	$(TARGET)/tools/bin/cargo-deny
endef

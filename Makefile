# The front doors: `make demo` runs the main job, `make test` checks everything, `make kafka` starts a broker, `make bench` measures
# FinFlow beside its peers. All set up what is missing first.
# Build outputs stay outside the clone, so that RocksDB is compiled once per machine.

export CARGO_TARGET_DIR ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/finflow/target
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Told by `finflow --version`; a tree with changes says so.
export FINFLOW_COMMIT ?= $(shell git describe --always --dirty --exclude '*' 2>/dev/null)

# What each package is needed for, by a file or command that shows it is there.
MISSING := $(strip \
  $(if $(shell which clang),,clang) \
  $(if $(wildcard /usr/lib/llvm*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so*),,libclang-dev) \
  $(if $(shell which pkg-config),,pkg-config) \
  $(if $(shell which g++),,g++) \
  $(if $(wildcard /usr/include/openssl/ssl.h /usr/local/include/openssl/ssl.h),,libssl-dev) \
  $(if $(wildcard /usr/include/zlib.h /usr/local/include/zlib.h),,zlib1g-dev) \
  $(if $(shell which openssl),,openssl) \
  $(if $(shell which ps),,procps) \
  $(if $(shell which mvn),,maven) \
  $(if $(shell which kcat),,kcat) \
  $(if $(shell java -version 2>&1 | grep -E 'version "(1[7-9]|[2-9][0-9])'),,openjdk-17-jdk-headless))

# What the peers need besides.
PEERS_MISSING := $(strip \
  $(if $(shell which python3),,python3) \
  $(if $(shell which javac),,default-jdk-headless) \
  $(if $(shell which initdb)$(wildcard /usr/lib/postgresql/*/bin/initdb),,postgresql))

# Where `make kafka` keeps its broker's data.
KAFKA_DIR ?= $(if $(XDG_STATE_HOME),$(XDG_STATE_HOME),$(HOME)/.local/state)/finflow/kafka
KAFKA_PORT ?= 9092

.PHONY: setup demo test kafka bench

setup:
ifneq ($(MISSING),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && missing="$(MISSING)" && \
	  { apt-cache show openjdk-17-jdk-headless >/dev/null 2>&1 || \
	    missing="$$(echo $$missing | sed s/openjdk-17-jdk-headless/default-jdk-headless/)"; } && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	else \
	  echo "finflow needs these packages, please install them: $(MISSING)" >&2; exit 1; \
	fi
endif
	@command -v cargo >/dev/null || { echo "finflow needs a Rust toolchain (cargo), please install one" >&2; exit 1; }

demo: setup
	cargo run --locked --bin finflow -- demo

test: setup
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --workspace

kafka: setup
	config/ops/kafka/kafka start $(KAFKA_PORT) "$(KAFKA_DIR)"
	@echo 'stop it with: config/ops/kafka/kafka stop "$(KAFKA_DIR)"'

bench: setup
ifneq ($(PEERS_MISSING),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(PEERS_MISSING); \
	else \
	  echo "the peers need these packages, please install them: $(PEERS_MISSING)" >&2; exit 1; \
	fi
endif
	cargo build --locked --bin finflow
	benches/peers/compare $(BENCH)

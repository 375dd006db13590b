# The front doors: `make demo` runs the main job, `make test` checks everything. Both set up what is missing first.
# Build outputs stay outside the clone, so that RocksDB is compiled once per machine.

export CARGO_TARGET_DIR ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/finflow/target
export PATH := $(HOME)/.cargo/bin:$(PATH)

# What each package is needed for, by a file or command that shows it is there.
MISSING := $(strip \
  $(if $(shell which clang),,clang) \
  $(if $(wildcard /usr/lib/llvm*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so*),,libclang-dev) \
  $(if $(shell which pkg-config),,pkg-config) \
  $(if $(shell which g++),,g++))

.PHONY: setup demo test

setup:
ifneq ($(MISSING),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(MISSING); \
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

# Each target sets up what it needs, once. CI calls these same targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Where rustup puts cargo, in case this shell is older than it.
export PATH := $(CURDIR)/.venv/bin:$(HOME)/.cargo/bin:$(PATH):/usr/sbin:/sbin

CRATES := --locked --workspace --manifest-path rust/Cargo.toml
RUST_SOURCES := $(shell find rust -name target -prune -o \( -name '*.rs' -o -name 'Cargo.*' \) -print)
STAMPS := .stamps
# Many tests mostly wait: more run at a time than there are processors. Then those that measure.
PYTEST = pytest -n 4 --dist worksteal -m 'not alone and not others' $(1) && pytest -m alone $(1)

.PHONY: help setup packages demo demo-user test lint types rust miri fuzz cross unit sim laws interop interop-kernel \
	interop-others conformance mutants bench docs wheel wheels clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup: packages $(STAMPS)/native $(STAMPS)/wireguard-go ## Bring all that building and testing need

demo: packages $(STAMPS)/native ## Two hosts, a tunnel, real traffic, roaming: under a minute
	python -m lab.demo

demo-user: $(STAMPS)/native ## A tunnel, a server in it, and programs, without root and without packages
	python -m lab.rootless

test: setup lint types rust ## Everything: lint, types, Rust, unit, simulation, laws, interop
	$(call PYTEST)

lint: $(STAMPS)/venv $(STAMPS)/rust ## ruff, rustfmt and clippy, all as checks
	ruff check
	ruff format --check
	cargo fmt --all --manifest-path rust/Cargo.toml --check
	cargo clippy --quiet $(CRATES) --all-targets -- -D warnings

types: $(STAMPS)/native ## mypy --strict
	mypy

rust: $(STAMPS)/rust ## The Rust side's own tests, with each cipher that this CPU can run
	@failed=0; cargo test --quiet --no-fail-fast $(CRATES) || failed=1; \
	if [ "$$(grep -m1 ^flags /proc/cpuinfo | grep -owE 'avx512(f|bw|ifma|_vbmi2)' | sort -u | wc -l)" = 4 ]; then \
	    WIRESNAKE_CIPHER=ring cargo test --quiet --no-fail-fast $(CRATES) || failed=1; \
	else \
	    echo 'Skipped: the own cipher needs a CPU with AVX-512 (F, BW, IFMA, VBMI2); ring ran.'; \
	fi; \
	exit $$failed

miri: $(STAMPS)/rust ## The own cipher, interpreted: for machines that cannot run it (rustup, minutes)
	rustup component add --toolchain nightly miri rust-src
	RUSTFLAGS='-C target-feature=+avx512f,+avx512bw,+avx512ifma,+avx512vbmi2' \
	    cargo +nightly miri test --locked --package chapoly --lib --manifest-path rust/Cargo.toml \
	    --target-dir rust/target/miri -- --include-ignored avx512 the_own_cipher_passes

fuzz: $(STAMPS)/rust ## Random segments for the stack in this process: CASES=100000, minutes
	STACK_CASES=$(or $(CASES),100000) cargo test --quiet --locked --package stack --test core \
	    --manifest-path rust/Cargo.toml hostile

cross: $(STAMPS)/cross ## The Rust side for other systems, and its tests in qemu and Wine (packages, hour)
	tools/cross

unit: $(STAMPS)/native ## Unit tests
	pytest tests/unit

sim: $(STAMPS)/native ## Simulation: many devices, a virtual clock, a bad network
	pytest tests/sim

laws: packages $(STAMPS)/native ## The laws of the code base, and the page of conformance
	pytest tests/test_laws.py tests/test_conformance.py

interop: setup ## Against every other WireGuard, in network namespaces (root)
	$(call PYTEST,tests/interop)

interop-others: setup $(STAMPS)/others ## The operator's tool on boringtun and gotatun, built once (root)
	pytest -m others tests/interop

conformance: setup $(STAMPS)/others ## Every item of the list, ours beside all others (root)
	tools/conformance --markdown docs/conformance-table.md --json .conformance.json

mutants: setup ## Planted faults, each of which must turn a test red (root); QUICK=1 is shorter
	python -m mutants $(if $(QUICK),--quick)

interop-kernel: packages $(STAMPS)/native $(STAMPS)/uml ## Against Linux's own WireGuard, in a kernel inside (root)
	pytest tests/kernel
	tools/uml --memory 2G --out $(CURDIR) $(CURDIR)/.venv/bin/wiresnake-conformance \
	    --kernel --known 94 --json $(CURDIR)/.conformance-kernel.json

# PUBLISH=1 writes the page and the plot in docs/.
bench: setup $(STAMPS)/others $(if $(PUBLISH),$(STAMPS)/plot) ## Speed, in turns with every other WireGuard (root); QUICK=1 is shorter
	python -m bench $(if $(QUICK),--quick) $(if $(PUBLISH),--publish)

docs: $(STAMPS)/docs ## The documents as a site, in site/: open site/index.html
	PYTHONPATH=src NO_MKDOCS_2_WARNING=1 mkdocs build --strict

wheel: $(STAMPS)/native ## A wheel for this platform, in dist/
	maturin build --release --out dist

wheels: $(STAMPS)/cross ## Wheels for other systems, in dist/ (packages, hour)
	tools/wheels

clean: ## Remove all that was built or set up here
	rm -rf .venv .tools $(STAMPS) dist site rust/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src lab tests bench mutants conformance \( -name __pycache__ -o -name '*.so' \) -prune -exec rm -rf {} +

packages:
	@tools/setup packages

$(STAMPS)/venv: requirements-dev.txt conformance/pyproject.toml tools/setup | packages
	tools/setup venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/plot: requirements-plot.txt $(STAMPS)/venv
	tools/setup plot
	@touch $@

$(STAMPS)/docs: requirements-docs.txt $(STAMPS)/venv
	tools/setup docs
	@touch $@

$(STAMPS)/cross: requirements-cross.txt $(STAMPS)/venv
	tools/setup cross
	@touch $@

$(STAMPS)/rust: rust/Cargo.toml | packages
	tools/setup rust
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/native: $(STAMPS)/venv $(STAMPS)/rust pyproject.toml $(RUST_SOURCES)
	tools/setup native
	@touch $@

$(STAMPS)/wireguard-go: $(STAMPS)/venv
	tools/setup wireguard_go
	@touch $@

$(STAMPS)/others: $(STAMPS)/venv $(STAMPS)/rust $(wildcard bench/netstack/*)
	tools/setup boringtun gotatun onetun netstack
	@touch $@

$(STAMPS)/uml: tools/uml.config
	tools/setup uml
	@mkdir -p $(STAMPS) && touch $@

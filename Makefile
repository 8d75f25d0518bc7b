# pousse: `make run` serves the page, `make test` runs the tests. Needs Rust (cargo) and make.

CARGO ?= cargo
FLAGS ?=
ADDR ?= 127.0.0.1:8443
SECONDS ?= 60
TARGETS ?=
PYTHON ?= python3
AUTOBAHN ?=

.PHONY: help run run-tls test small small-test simulate simulate-crowd simulate-mutants check autobahn interop fuzz bench bench-peers bench-check bench-record doc clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: ## page, chat and API on http://127.0.0.1:8080 (FLAGS="--listen 127.0.0.1:9000")
	$(CARGO) run --release -- $(FLAGS)

run-tls: ## the same on https://127.0.0.1:8443, with a certificate that signs itself (ADDR=127.0.0.1:9443)
	$(CARGO) run --example tls_certificate -- target/tls
	@echo 'Browsers warn of it; curl wants --cacert target/tls/cert.pem, or -k.'
	$(CARGO) run --release -- --listen $(ADDR) --tls-cert target/tls/cert.pem \
	  --tls-key target/tls/key.pem $(FLAGS)

test: ## every test; a part that is missing on this machine is SKIPPED and named
	$(CARGO) build --examples
	$(CARGO) test
	$(MAKE) simulate SEEDS=1000

# The program for machines with little memory. What the linker is told is for this program alone, and
# not for what builds it (as RUSTFLAGS would be):
# - what is to be relocated stands packed, in 3 kB in place of 42, and is 40 kB less to be read at the
#   start; so it wants glibc 2.36 (of 2022), or musl 1.2.4, and an older one refuses it by that name.
# - no tables for unwinding (src/small.ld): nothing unwinds where a panic ends the process.
FEATURES ?= daemon,v1
LINK_SMALL = -C link-arg=-Wl,-z,pack-relative-relocs \
  -C link-arg=-Wl,--no-eh-frame-hdr -C link-arg=-Wl,-T,$(CURDIR)/src/small.ld
SMALL = $(or $(CARGO_TARGET_DIR),target)/small/pousse
SMALL_BYTES_MAX = 900000
comma = ,
LEFT_OUT = $(filter-out $(subst $(comma), ,$(FEATURES)),tls deflate v1)

small: ## a small program in target/small: no TLS, no compression, a panic ends it (FEATURES=daemon,v1,tls)
	$(CARGO) rustc --profile small --no-default-features --features $(FEATURES) --bin pousse -- $(LINK_SMALL)
	@bytes=$$(wc -c < $(SMALL)); echo "$(SMALL): $$bytes bytes, without $(or $(LEFT_OUT),nothing)"; \
	[ "$(LEFT_OUT)" != "tls deflate" ] || [ $$bytes -le $(SMALL_BYTES_MAX) ] || { \
	  echo "they may be $(SMALL_BYTES_MAX)"; exit 1; }

small-test: small ## that program, as it is, by the tests of the daemon and by the scripts
	POUSSE_TEST_PROGRAM=$(abspath $(SMALL)) $(CARGO) test --test daemon --test scripts -- \
	  --skip compresses --skip deflate --skip extensions --skip what_the_page_says

# With features that need no daemon: the machine of the simulation has no signals.
SIMULATION = POUSSE_SEED=$(SEED) POUSSE_SEEDS=$(SEEDS) POUSSE_CLIENTS=$(CLIENTS) \
  RUSTFLAGS="$(strip $(RUSTFLAGS) --cfg simulation)" \
  CARGO_TARGET_DIR=target/simulation $(CARGO) test --profile simulation --no-default-features \
  --features deflate,files,tls,v1
# It would take the place of RUSTFLAGS.
unexport CARGO_ENCODED_RUSTFLAGS
SEED ?=
SEEDS ?= 10000
CLIENTS ?=

simulate: ## the loop on a machine made of memory: SEEDS=10000, or one again: SEED=2607
	$(SIMULATION) --test simulation $(if $(SEED),,--test crowd) -- --nocapture --test-threads=1

simulate-crowd: ## the same with so many clients at once: CLIENTS=1000000 takes a minute, and 600 MB
	$(SIMULATION) --test crowd -- --nocapture --test-threads=1 $(ONLY)

simulate-mutants: ## shows that the simulation finds bugs that are put in on purpose
	@command -v patch >/dev/null || { \
	  echo "make simulate-mutants wants patch (Debian: apt-get install patch)"; exit 1; }
	tests/simulation/mutants.sh

autobahn: ## Autobahn's 517 cases against examples/echo (AUTOBAHN="'9.*'": only these)
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make autobahn wants Python 3.10 or newer (Debian: apt-get install python3-venv)"; exit 1; }
	$(CARGO) build --release --example echo
	$(PYTHON) tests/autobahn/run.py $(AUTOBAHN)

interop: ## pousse and clients that other people wrote: websockets of Python, ws of Node
	@for tool in $(PYTHON) npm; do command -v $$tool >/dev/null || { \
	  echo "make interop wants $$tool (Debian: apt-get install python3-venv nodejs npm)"; exit 1; }; done
	$(PYTHON) -m venv --clear tests/interop/.venv
	tests/interop/.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement tests/interop/requirements.txt
	npm ci --prefix tests/interop
	$(CARGO) build --examples
	$(CARGO) test --test interop

check: ## what a change has to pass beside the tests: form, lints, docs, each feature alone
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy --lib --no-default-features -- -D warnings
	$(CARGO) clippy --lib --no-default-features --features deflate -- -D warnings
	$(CARGO) clippy --lib --no-default-features --features files -- -D warnings
	$(CARGO) clippy --lib --no-default-features --features tls -- -D warnings
	$(CARGO) clippy --lib --no-default-features --features v1 -- -D warnings
	$(CARGO) clippy --lib --bins --no-default-features --features daemon -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --all-features
	$(CARGO) test --lib --no-default-features

fuzz: ## looks for what breaks a promise, each target so long (SECONDS=60 TARGETS="oracle heads")
	tests/fuzz/run.sh $(SECONDS) $(TARGETS)

BENCH = $(CARGO) build --quiet --release --bins --examples && \
  $(CARGO) run --quiet --release --example bench --

bench: ## what it costs beside the least possible, and per message (ONLY=echo ROUNDS=5 SECONDS=1)
	$(BENCH) table "$(ONLY)"
	$(BENCH) costs "$(ONLY)"

bench-peers: ## the same loads against other servers, those that are installed (ONLY=echo ROUNDS=5)
	$(BENCH) peers "$(ONLY)"

bench-check: ## fails if a part needs 2 % more instructions than tests/bench/instructions.txt says
	$(BENCH) check

bench-record: ## writes that file anew
	$(BENCH) record

doc: ## the library's documentation, in target/doc
	$(CARGO) doc --no-deps --all-features

clean: ## removes what was built
	$(CARGO) clean

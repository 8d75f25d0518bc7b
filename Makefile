# pousse: `make run` serves the page, `make test` runs the tests. Needs Rust (cargo) and make.

CARGO ?= cargo
FLAGS ?=
ADDR ?= 127.0.0.1:8443

.PHONY: help run run-tls test simulate simulate-mutants check doc clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: ## page, chat and API on http://127.0.0.1:8080 (FLAGS="--listen 127.0.0.1:9000")
	$(CARGO) run --release -- $(FLAGS)

run-tls: ## the same on https://127.0.0.1:8443, with a certificate that signs itself (ADDR=127.0.0.1:9443)
	$(CARGO) run --quiet --example tls_certificate -- target/tls
	$(CARGO) run --release -- --listen $(ADDR) --tls-cert target/tls/cert.pem \
	  --tls-key target/tls/key.pem $(FLAGS)

test: ## every test; a part that is missing on this machine is SKIPPED and named
	$(CARGO) build --examples
	$(CARGO) test
	$(MAKE) simulate SEEDS=1000

# With features that need no daemon: the machine of the simulation has no signals.
SIMULATION = POUSSE_SEED=$(SEED) POUSSE_SEEDS=$(SEEDS) RUSTFLAGS="--cfg simulation" \
  CARGO_TARGET_DIR=target/simulation $(CARGO) test --profile simulation --no-default-features \
  --features files,tls,v1 --test simulation
SEED ?=
SEEDS ?= 10000

simulate: ## the loop on a machine made of memory: SEEDS=10000, or one again: SEED=42
	$(SIMULATION) -- --nocapture --test-threads=1

simulate-mutants: ## shows that the simulation finds bugs that are put in on purpose
	tests/simulation/mutants.sh

check: ## what a change has to pass beside the tests: form, lints, docs, each feature alone
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	$(CARGO) clippy --lib --no-default-features -- -D warnings
	$(CARGO) clippy --lib --no-default-features --features files -- -D warnings
	$(CARGO) clippy --lib --no-default-features --features tls -- -D warnings
	$(CARGO) clippy --lib --no-default-features --features v1 -- -D warnings
	$(CARGO) clippy --lib --bins --no-default-features --features daemon -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --all-features
	$(CARGO) test --lib --no-default-features

doc: ## the library's documentation, in target/doc
	$(CARGO) doc --no-deps --all-features

clean: ## removes what was built
	$(CARGO) clean

# pousse: `make run` serves the page, `make test` runs the tests. Needs Rust (cargo) and make.

CARGO ?= cargo
FLAGS ?=
ADDR ?= 127.0.0.1:8443

.PHONY: help run run-tls test check bench bench-peers bench-check bench-record doc clean

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

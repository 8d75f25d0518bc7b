#!/usr/bin/env bash
# Fuzzes: run.sh SECONDS [TARGET]… — each target so many seconds, two at a time; all targets unless
# some are named. Ends with 1 if something is found, and says how to play that again.
set -euo pipefail
export RUST_BACKTRACE=0
cd "$(dirname "$0")/../.."

seconds=${1:-60}
shift || true
here=tests/fuzz
into=target/fuzz
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "cargo-fuzz is missing; to get it: cargo install cargo-fuzz (it needs a C++ compiler)" >&2
  exit 1
fi

all=()
for program in "$here"/bins/*.rs; do all+=("$(basename "$program" .rs)"); done
targets=("${@:-${all[@]}}")

# Stable Rust has no sanitizers, and there is no unsafe code of ours for them to look at.
cargo fuzz build --fuzz-dir "$here" --sanitizer none --target-dir "$into"
POUSSE_FUZZ_SEEDS=$here/corpus cargo test --quiet --test fuzz seeds >/dev/null
programs=$into/$(rustc -vV | sed -n 's/^host: //p')/release

fuzz() {
  local target=$1
  local corpus=$here/corpus/$target artifacts=$here/artifacts/$target log=$into/$target.log
  mkdir -p "$corpus" "$artifacts"
  local words=() length=4096
  case $target in
    connection | cuts) words=(http) length=8192 ;;
    heads | negotiation | forwarded) words=(http) ;;
    oracle) words=(frames) ;;
    commands) words=(commands) length=1024 ;;
    offers) words=(offers) length=1024 ;;
    settings) words=(settings) length=1024 ;;
    paths | query | ids | origins) length=512 ;;
  esac
  local flags=(-max_total_time="$seconds" -max_len="$length" -timeout=20 -rss_limit_mb=1024
    -artifact_prefix="$artifacts/" -print_final_stats=1 -verbosity=1)
  for word in "${words[@]}"; do flags+=(-dict="$here/dictionaries/$word.txt"); done
  [ -d "$here/found/$target" ] && set -- "$here/found/$target" || set --
  if "$programs/$target" "${flags[@]}" "$corpus" "$@" >"$log" 2>&1; then
    local runs covered
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    echo "$target: nothing in $runs runs and $seconds s; $covered edges seen"
  else
    grep -a -B40 -m1 '^artifact_prefix' "$log" | grep -a -A12 'panicked\|ERROR' | cut -c1-2000 || tail -5 "$log"
    local found
    found=$(sed -n 's/.*Test unit written to \(.*\)$/\1/p' "$log" | tail -1)
    echo "$target: FOUND. Again: $programs/$target $found"
    echo "  shorter: $programs/$target -minimize_crash=1 -runs=100000 $found"
    echo "  once mended: keep it as $here/found/$target/WHAT-IT-WAS, cargo test --test fuzz plays it"
    return 1
  fi
}

# Two at a time; all of them, even if one finds something.
failed=0
running=0
for target in "${targets[@]}"; do
  if ((running == 2)); then
    wait -n || failed=1
    running=$((running - 1))
  fi
  fuzz "$target" &
  running=$((running + 1))
done
while ((running > 0)); do
  wait -n || failed=1
  running=$((running - 1))
done
exit "$failed"

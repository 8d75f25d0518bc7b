#!/usr/bin/env bash
# Shows that the simulation can fail: puts one bug after the other into a copy of the source, and
# has each found. `tests/simulation/mutants/*.patch` are the bugs; their first line says which.
# Usage: mutants.sh [NAME…]   SEEDS=1000
set -euo pipefail
cd "$(dirname "$0")/../.."
copy=target/mutants/source
mkdir -p target/mutants
export POUSSE_SEEDS="${SEEDS:-1000}" POUSSE_TRACE=0 RUSTFLAGS="${RUSTFLAGS-} --cfg simulation"
unset CARGO_ENCODED_RUSTFLAGS
export CARGO_TARGET_DIR="$PWD/target/mutants/target"
run() {
  (cd "$copy" && cargo test --quiet --profile simulation --no-default-features \
    --features deflate,files,tls,v1 --test simulation every_seed -- --nocapture </dev/null)
}
rm -rf "$copy"
mkdir -p "$copy"
cp -a Cargo.toml Cargo.lock src tests examples docs README.md "$copy"/
if (($#)); then
  patches=("${@/#/tests/simulation/mutants/}")
  patches=("${patches[@]/%/.patch}")
else
  patches=(tests/simulation/mutants/*.patch)
fi
missed=0
printf '%-34s %-7s %s\n' bug seed 'what was found'
for patch in "${patches[@]}"; do
  if ! patch --directory "$copy" --quiet --strip 1 <"$patch" >/dev/null; then
    printf '%-34s %s\n' "$(basename "$patch" .patch)" 'DOES NOT APPLY'
    missed=1
    continue
  fi
  out="target/mutants/$(basename "$patch" .patch).txt"
  if run >"$out" 2>&1; then
    printf '%-34s %s\n' "$(basename "$patch" .patch)" "NOT FOUND in $POUSSE_SEEDS seeds"
    missed=1
  elif line=$(grep --max-count 1 '^seed [0-9]*: ' "$out"); then
    seed=${line%%:*}
    printf '%-34s %-7s %.110s\n' "$(basename "$patch" .patch)" "${seed#seed }" "${line#*: }"
  else
    printf '%-34s %s\n' "$(basename "$patch" .patch)" 'DOES NOT BUILD'
    missed=1
  fi
  patch --directory "$copy" --quiet --strip 1 --reverse <"$patch" >/dev/null
done
exit "$missed"

#!/usr/bin/env bash
# Runs one command as one step and shows one line for it.
#
#   tools/step.sh LABEL COMMAND [ARGUMENT...]
#
# Shows "LABEL  ok  1.2 s". What the command prints is kept back and shown only when it fails, so that a good run
# can be read at a glance and a bad one has all it needs. The exit code is the command's own.
set -euo pipefail
export LC_ALL=C.UTF-8

label=$1
shift

output=$(mktemp)
trap 'rm -f "$output"' EXIT

printf '  %-52s ' "$label"
started=${EPOCHREALTIME/./}
status=0
"$@" >"$output" 2>&1 </dev/null || status=$?
tenths=$(((${EPOCHREALTIME/./} - started) / 100000))

if ((status == 0)); then
  printf 'ok %4d.%d s\n' $((tenths / 10)) $((tenths % 10))
else
  printf 'FAILED (exit %d) %d.%d s\n' "$status" $((tenths / 10)) $((tenths % 10))
  printf '  $ %s\n' "$*"
  cat "$output"
fi
exit "$status"

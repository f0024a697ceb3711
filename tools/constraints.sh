#!/usr/bin/env bash
# Resolves pyproject.toml into constraints/: every package that the extras need, pinned, with the hashes of its files.
#
#   tools/constraints.sh              keeps each pin that still fits
#   tools/constraints.sh --upgrade    takes the newest releases
#
#   constraints/dev.txt        sesguard, its extras sandbox, pkcs11 and dev, and what builds it
#   constraints/runtime.txt    the same without dev, at the same versions
#
# Promises: the answer is of the default package index alone, whatever pip is set up to use on this machine, and the
# files name no index, host or path. They serve CPython 3.11 to 3.13 on x86_64 and aarch64, which
# tests/unit/test_repository.py checks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_INDEX_URL PIP_CONSTRAINT
export PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND='make constraints'

resolve() { # NAME OPTION...
  local name=$1
  shift
  tools/step.sh "constraints/$name.txt" .venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe \
    --strip-extras --build-deps-for editable --no-emit-options --no-emit-index-url --no-emit-trusted-host \
    --no-emit-find-links --output-file "constraints/$name.txt" "$@" pyproject.toml
}

resolve dev --extra sandbox --extra pkcs11 --extra dev "$@"
rm -f constraints/runtime.txt
resolve runtime --extra sandbox --extra pkcs11 --constraint constraints/dev.txt

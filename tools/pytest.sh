#!/usr/bin/env bash
# Runs pytest and measures branch coverage, of the processes that the tests start as well.
#
#   tools/pytest.sh [ARGUMENT...]    as for pytest
#
# A process that has dropped root's rights writes what it saw, too. So the data are kept in a directory that everyone
# may write to, outside the clone, which another user may not even be able to enter. Nothing is printed after pytest's
# own closing line, and the exit code is pytest's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
chmod 1777 "$data"
COVERAGE_FILE=$data/data .venv/bin/python -m pytest \
  --cov --cov-report=term --cov-report=html:.cache/coverage "$@"

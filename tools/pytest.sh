#!/usr/bin/env bash
# Runs pytest and measures branch coverage, of the processes that the tests start as well.
#
#   tools/pytest.sh [ARGUMENT...]    as for pytest
#
# A whole run is shared by two processes: the longest tests come first (tests/conftest.py), and a process that has done
# its part takes some of the other's. With arguments there is one process; -n 2 among them makes it two. So a test must
# bear another beside it: a port that the kernel chose, files in its own tmp_path, no look at processes of others.
#
# A whole run, by root and with every program that the tests can use, fails when it reaches less than COVERAGE_FLOOR
# per cent. Without root, a program or some tests it is not held to that.
#
# A process that has dropped root's rights writes what it saw, too. So the data are kept in a directory that everyone
# may write to, outside the clone, which another user may not even be able to enter. Nothing is printed after pytest's
# own closing line, and the exit code is pytest's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# == 0)); then
  set -- -n 2 --dist worksteal
  if ((EUID == 0)) && [[ -z $(tools/system_packages.sh --missing) ]]; then
    set -- "$@" --cov-fail-under="${COVERAGE_FLOOR:-95}"
  fi
fi

data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
chmod 1777 "$data"
COVERAGE_FILE=$data/data .venv/bin/python -m pytest \
  --cov --cov-report=term --cov-report=html:.cache/coverage "$@"

#!/usr/bin/env bash
# Prints the path of the Python that the virtual environment is made with: 3.11 or later.
#
# PYTHON names it; otherwise it is the newest of python3.13, python3.12, python3.11 and python3 that is good enough.
# Each is run, for a name on PATH proves little: a version manager leaves names there that fail when called.
set -euo pipefail

path_if_good() {
  "$1" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys.executable)' 2>/dev/null
}

if [[ -n ${PYTHON:-} ]]; then
  path_if_good "$PYTHON" && exit
  echo "setup: PYTHON=$PYTHON does not run or is older than Python 3.11" >&2
  exit 2
fi
for name in python3.13 python3.12 python3.11 python3; do
  path_if_good "$name" && exit
done
echo "setup: no Python 3.11 or later was found" >&2
echo "hint: install one (Rocky 9: dnf install python3.11) or name it: make PYTHON=/path/to/python3.11 ..." >&2
exit 2

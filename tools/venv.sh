#!/usr/bin/env bash
# Makes .venv, the virtual environment with this clone's Python packages.
#
#   tools/venv.sh runtime    what `make demo` needs
#   tools/venv.sh dev        that, and what `make test` needs
#
# Promises: every package is one that constraints/ pins by hash; the environment is made anew when those pins,
# pyproject.toml, the wanted Python or the place of the clone have changed, or when making it was cut short; otherwise
# nothing is done. Two runs in one clone wait for each other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

level=${1:-dev}

made_from() {
  printf '%s\n' "$PWD" "${PYTHON:-}"
  sha256sum pyproject.toml "constraints/$1.txt"
}

is_made() {
  [[ -e .venv/made-from-$1 && $(<".venv/made-from-$1") == "$(made_from "$1")" ]] && .venv/bin/python -c '' 2>/dev/null
}

is_enough() {
  is_made dev || { [[ $level == runtime ]] && is_made runtime; }
}

need_venv_module() {
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  PYTHON=$python tools/system_packages.sh venv
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  echo "setup: $python cannot make a virtual environment, its ensurepip is missing" >&2
  echo "hint: install it (Debian: apt-get install python3-venv) or name another Python: make PYTHON=..." >&2
  exit 2
}

is_enough && exit
mkdir -p .cache
exec 9>.cache/venv.lock
flock 9
is_enough && exit

python=$(tools/python.sh)
need_venv_module
version=$("$python" -c 'import platform; print(platform.python_version())')
tools/step.sh "virtual environment, Python $version" "$python" -m venv --clear .venv
# --no-deps: the file is the whole closure. Resolving it again would look at newer releases, and pip refuses a release
# that came out since the pin when a package asks for it by an extra, as pytest-cov asks for coverage[toml].
tools/step.sh "Python packages of constraints/$level.txt" \
  .venv/bin/python -m pip install --no-deps --require-hashes --requirement "constraints/$level.txt"
tools/step.sh "sesguard from this clone" \
  .venv/bin/python -m pip install --no-deps --no-build-isolation --editable .
tools/step.sh "whether every package has what it needs" .venv/bin/python -m pip check
made_from "$level" >".venv/made-from-$level"

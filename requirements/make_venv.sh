#!/usr/bin/env bash
# Make .venv and install the locked dependencies into it. Takes the Python 3.11 to use.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
"$python" -c "" 2>/dev/null || python=python3 # a version manager may name a Python that it does not have
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
  3.11 | 3.12) ;;
  *) echo "Python $version found; this project needs 3.11 or 3.12. Call make PYTHON=/path/to/python3.11" >&2; exit 1 ;;
esac
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "python$version-venv" >/dev/null
  else
    echo "Python's venv module is missing: install the package python$version-venv" >&2; exit 1
  fi
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "Installing the locked dependencies into .venv (about two minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

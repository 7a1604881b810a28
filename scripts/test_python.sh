#!/usr/bin/env bash
# Runs the tests with another Python and the newest packages that it still gets, torch and transformers among them:
#   scripts/test_python.sh 3.10 [what pytest takes]
# ROS 2 has no packages for most of these, so tests of the node skip themselves and say why. The pins in constraints.txt
# do not hold here: pip takes the newest release of each package that says it works with this Python. The environment
# is build/python-VERSION; it is made once, `rm -r` has the newest packages looked up again.
#
#   PYTHON   the interpreter to use (default: pythonVERSION on PATH, pyenv's or uv's)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    printf 'test_python.sh: %s\n' "$*" >&2
    exit 1
}

[[ ${1:-} =~ ^3\.[0-9]+$ ]] || die "name a Python version first, as in: scripts/test_python.sh 3.10 -k memory"
VERSION=$1
shift
VENV=build/python-$VERSION

# A shim of pyenv is on PATH for each version, whether or not it runs.
fits() {
    [[ -n $1 ]] && [[ $("$1" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$VERSION" ]]
}

find_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        fits "$PYTHON" || die "PYTHON=$PYTHON is not a Python $VERSION with venv"
        echo "$PYTHON"
        return
    fi
    for candidate in "python$VERSION" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$VERSION".*/bin/python \
        "$(uv python find "$VERSION" 2>/dev/null || true)"; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "found no Python $VERSION with venv: install python$VERSION-venv, or uv and then: uv python install $VERSION"
}

make_environment() {
    local key
    key=$(sha256sum setup.py | cut -d ' ' -f 1)
    [[ -f $VENV/.complete && $(<"$VENV/.complete") == "$key" ]] && return
    printf '==> installing the newest packages into %s (minutes, the first time)\n' "$VENV"
    if ! fits "$VENV/bin/python"; then
        rm -rf "$VENV"
        "$BASE_PYTHON" -m venv "$VENV"
    fi
    "$VENV/bin/python" -m pip install --quiet --upgrade pip
    "$VENV/bin/python" -m pip install --quiet --no-input -e '.[train,eval,mcp,web,json,pictures,rerun,quantization,dev]'
    echo "$key" >"$VENV/.complete"
}

# What . ./env.sh and a sourced distribution put there belongs to another Python.
unset PYTHONPATH AMENT_PREFIX_PATH LD_LIBRARY_PATH PIP_CONSTRAINT
BASE_PYTHON=$(find_python)
make_environment
"$VENV/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

names = ("torch", "transformers", "tokenizers", "numpy", "opencv-python-headless", "pytest")
print(f"==> Python {sys.version.split()[0]},", ", ".join(f"{name} {version(name)}" for name in names))
PYTHON
exec "$VENV/bin/python" -m pytest "$@"

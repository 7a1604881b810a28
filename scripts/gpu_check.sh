#!/bin/bash
# What CI cannot check without a GPU, in at most ten minutes a call: scripts/gpu_check.sh [--device cpu] [--out DIR]
# A second call goes on where the first one ended. scripts/gpu_check.py has the parts and the other options.
set -eu
cd "$(dirname "$0")/.."
# Where `make setup` has made an environment, that one; else whatever python3 has.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -f .venv/.fvs-environment ]; then
    . ./env.sh
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" scripts/gpu_check.py "$@"

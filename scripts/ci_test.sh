#!/usr/bin/env bash
# Runs the tests in the environment that scripts/ci_build.sh made; takes what pytest takes.
set -eo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ./env.sh
exec python -m pytest "$@"

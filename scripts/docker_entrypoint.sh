#!/usr/bin/env bash
# Runs a command in the environment that scripts/setup.sh made: the entry point of the images.
set -eo pipefail
# shellcheck source=env.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$@"

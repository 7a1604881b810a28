#!/usr/bin/env bash
# Everything that is checked without running it: Python, shell scripts, images and workflows. It needs the extras dev and
# lint, in the environment that `make setup` makes without a distribution.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ruff check .
ruff format --check .
mypy
shellcheck --external-sources env.sh .ci/run scripts/*.sh
hadolint Dockerfile Dockerfile.jetson
check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
# What is right by the schema and yet unsafe: permissions, injection, credentials that are kept.
zizmor --quiet --offline --strict-collection --persona pedantic .github

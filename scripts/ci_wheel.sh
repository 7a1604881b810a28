#!/usr/bin/env bash
# Builds the wheel and the source distribution of the part without ROS into a folder, and uses the wheel as a stranger
# would: installed elsewhere, away from the checkout, with the model that ships.
#
#   scripts/ci_wheel.sh [FOLDER]   (default: dist)
#   PYTHON   an interpreter that has the package's requirements and setuptools (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
folder=${1:-dist}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# From a copy: setuptools would take what earlier builds left in build/, and leave something there itself.
mkdir "$work/source"
cp -r setup.py pyproject.toml README.md LICENSE fvs_ros "$work/source"
(
    cd "$work/source"
    "$PYTHON" -c 'from setuptools import build_meta; build_meta.build_sdist("'"$folder"'")' >"$work/log" 2>&1 &&
        "$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$folder" . >>"$work/log" 2>&1
) || {
    cat "$work/log" >&2
    exit 1
}

wheel=$(find "$folder" -name 'fvs_ros-*-py3-none-any.whl' | sort | tail -n 1)
"$PYTHON" -m pip install --quiet --no-deps --target "$work/site" "$wheel"
cd "$work"
cat >use.py <<'PYTHON'
from pathlib import Path

import fvs_ros

root = Path(fvs_ros.__file__).parent
assert root.parent.name == "site", f"the checkout was imported, not the wheel: {root}"
missing = [
    name
    for name in ("assets/patrol_model/model.safetensors", "assets/patrol_bag/metadata.yaml", "patrol/phrasings.yaml")
    if not (root / name).exists()
]
assert not missing, f"the wheel lacks {missing}"
strays = [path.name for path in root.parent.iterdir() if path.name in {"test", "scripts", "docs", "launch"}]
assert not strays, f"the wheel installs {strays} beside the package"
PYTHON
PYTHONPATH=$work/site "$PYTHON" use.py
PYTHONPATH=$work/site "$PYTHON" -m fvs_ros.cli --version
# The recording and the model that ship, from the wheel alone.
PYTHONPATH=$work/site HF_HUB_OFFLINE=1 "$PYTHON" -m fvs_ros.cli chat "$work/site/fvs_ros/assets/patrol_bag" \
    --ask "20:What room are you in?"
ls "$folder"

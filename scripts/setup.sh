#!/usr/bin/env bash
# Makes .venv and builds the package into install/: the one way on a robot and on any other machine. Where a ROS 2
# distribution is sourced, .venv lies over its packages and keeps its NumPy; elsewhere ROS comes from PyPI, everything
# pinned in constraints.txt. What is already done is skipped, so that running it again takes seconds.
#
#   PYTHON   the interpreter to use (default: the first of python3, python3.12, python3.11 that fits)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
VENV=$ROOT/.venv

say() { printf '==> %s\n' "$*"; }
die() {
    printf 'make setup: %s\n' "$*" >&2
    exit 1
}

# Two runs at once would write into one environment.
exec 9>"$ROOT/.setup.lock"
flock 9

# A shell in which env.sh was sourced carries this project's own paths: those are no distribution.
ros_is_sourced() {
    [[ -n ${ROS_DISTRO:-} && -n ${AMENT_PREFIX_PATH:-} && ":$AMENT_PREFIX_PATH:" != *":$VENV:"* ]]
}

# Prints the interpreter that $1 stands for (behind a shim or a virtual environment), if it fits.
interpreter() {
    local wanted='(3, 11) <= sys.version_info < (3, 13)'
    if [[ $MODE == distribution ]]; then
        wanted='sys.version_info >= (3, 10) and __import__("rclpy")'
    fi
    "$1" -c "import os, sys
if not ($wanted): sys.exit(1)
print(os.path.realpath(sys._base_executable))" 2>/dev/null
}

find_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        interpreter "$PYTHON" || die "PYTHON=$PYTHON does not fit: $REQUIREMENT"
        return
    fi
    # First what .venv was made with: a PYTHON= given to an earlier run holds for the next ones.
    for candidate in "$VENV/bin/python" python3 python3.12 python3.11 /usr/bin/python3; do
        if interpreter "$candidate"; then
            return
        fi
    done
    die "found no fitting Python: $REQUIREMENT"
}

# Prints the Debian packages that are missing. The wheels carry their own libraries and need libc, libstdc++ and
# libz only, which come with g++ and dpkg.
missing_packages() {
    local version
    version=$("$BASE_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    command -v g++ >/dev/null || echo g++
    command -v make >/dev/null || echo make
    command -v cmake >/dev/null || echo cmake
    "$BASE_PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo "python$version-venv"
    "$BASE_PYTHON" -c 'import os, sysconfig, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || echo "python$version-dev"
    if [[ $MODE == distribution ]]; then
        missing_ros_packages
    fi
}

# Prints the distribution's packages that package.xml asks for and that are not there, by Debian's names.
missing_ros_packages() {
    "$BASE_PYTHON" - <<'PYTHON'
import os
from xml.etree import ElementTree

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

manifest = ElementTree.parse("package.xml").getroot()
tags = ("buildtool_depend", "depend", "exec_depend")
for name in sorted({element.text for tag in tags for element in manifest.findall(tag)}):
    try:
        if not name.startswith("python3-"):
            get_package_prefix(name)
    except PackageNotFoundError:
        print(f"ros-{os.environ['ROS_DISTRO']}-{name.replace('_', '-')}")
PYTHON
}

install_system_packages() {
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    [[ -z $missing ]] && return
    if ! command -v apt-get >/dev/null; then
        die "missing: $missing(Debian's names); install them with this system's package manager"
    elif [[ $(id -u) != 0 ]]; then
        die "missing system packages; install them with: sudo apt-get install $missing"
    fi
    say "installing system packages: $missing"
    apt-get update -qq || die "apt-get update failed; missing packages: $missing"
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null ||
        die "could not install: $missing"
    missing=$(missing_packages | tr '\n' ' ')
    [[ -z $missing ]] || die "still missing after apt-get install: $missing"
}

# Draws patrols without a GPU. Nothing else needs it, and the tests that do say so where it is missing.
install_osmesa() {
    local missing='import ctypes.util, sys; sys.exit(ctypes.util.find_library("OSMesa") is not None)'
    "$BASE_PYTHON" -c "$missing" || return 0
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "installing libosmesa6"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            libosmesa6 >/dev/null; } && return
    fi
    say "libosmesa6 is missing: patrols can only be drawn on a GPU"
}

digest() { cat "$@" | sha256sum | cut -d ' ' -f 1; }

# The wheels' CMake files name the machine that built them: point them at this environment.
relocate_wheels() {
    local packages headers
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    headers=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("INCLUDEPY"))')
    { grep -rlZ --include='*.cmake' /opt/python/ "$VENV/share" || true; } | xargs -0 -r sed -i -E \
        -e "s#/opt/python/cp[0-9]+-cp[0-9]+/lib/python[0-9.]+/site-packages#$packages#g" \
        -e "s#/opt/python/cp[0-9]+-cp[0-9]+/include/python[0-9.]+#$headers#g"
}

pip_install() {
    mkdir -p log
    "$VENV/bin/python" -m pip --disable-pip-version-check install --no-input "$@" >log/pip.txt 2>&1 || {
        tail -n 20 log/pip.txt >&2
        die "pip could not install the packages; the whole output is in log/pip.txt"
    }
}

install_python_packages() {
    local requirements=(-e "${ROOT}[train,eval,json,mcp,web,pictures,quantization,rerun,dev]")
    # Not the index's newest setuptools in a build of its own: the pinned one that is already there.
    local options=(--no-build-isolation)
    if [[ $MODE == wheels ]]; then
        export PIP_CONSTRAINT=$ROOT/constraints.txt
        requirements=(-e "${ROOT}[train,eval,json,mcp,web,pictures,quantization,rerun,dev,lint]" -r "$ROOT/scripts/ros_wheels.txt")
        pip_install -c constraints.txt pip setuptools wheel
        options+=(-c constraints.txt)
    else
        # The distribution sets the versions here. Its compiled modules (cv_bridge) are tied to NumPy's major version.
        pip_install 'setuptools>=64,<80' wheel
        requirements+=("$("$BASE_PYTHON" -c 'import numpy; print("numpy<" + str(int(numpy.__version__.split(".")[0]) + 1))')")
        command -v colcon >/dev/null || requirements+=(colcon-common-extensions)
    fi
    pip_install "${options[@]}" "${requirements[@]}"
}

make_environment() {
    local stamp=$VENV/.fvs-environment key
    key="$MODE $BASE_PYTHON $("$BASE_PYTHON" -V) $ROOT $(digest constraints.txt setup.py scripts/setup.sh scripts/ros_wheels.txt)"
    [[ -f $stamp && $(<"$stamp") == "$key" ]] && return
    # Another interpreter or another place: nothing in the old one can be used.
    if [[ ! -f $VENV/.fvs-interpreter || $(<"$VENV/.fvs-interpreter") != "$MODE $BASE_PYTHON $ROOT" ]]; then
        say "making .venv with $("$BASE_PYTHON" -V) ($BASE_PYTHON)"
        rm -rf "$VENV" build/fvs_ros install
        if [[ $MODE == wheels ]]; then
            "$BASE_PYTHON" -m venv "$VENV"
        else
            "$BASE_PYTHON" -m venv --system-site-packages "$VENV"
        fi
        echo "$MODE $BASE_PYTHON $ROOT" >"$VENV/.fvs-interpreter"
    fi
    say "installing Python packages into .venv (minutes, the first time)"
    install_python_packages
    if [[ $MODE == wheels ]]; then
        relocate_wheels
    else
        echo "/opt/ros/$ROS_DISTRO/setup.sh" >"$VENV/.fvs-ros-setup"
    fi
    echo "$key" >"$stamp"
}

build_interfaces() {
    local stamp=install/.fvs-interfaces key colcon=$VENV/bin/colcon
    # The modules are linked, not copied; of them only the list matters.
    key="$(<"$VENV/.fvs-environment") $(digest msg/* srv/* action/* package.xml CMakeLists.txt scripts/run_module.in) $(find config docs launch scripts -type f | sort | sha256sum)"
    [[ -f $stamp && $(<"$stamp") == "$key" ]] && return
    say "building the interfaces"
    [[ -x $colcon ]] || colcon=colcon
    (
        if [[ $MODE == wheels ]]; then
            # The wheels' libraries, and nothing of another ROS.
            unset ROS_DISTRO PYTHONPATH COLCON_PREFIX_PATH
            export AMENT_PREFIX_PATH=$VENV CMAKE_PREFIX_PATH=$VENV PATH=$VENV/bin:$PATH
        fi
        # CMake refuses headers (NumPy's, in .venv) that lie inside the source folder, so it gets the sources by
        # another path.
        mkdir -p log build/source/fvs_ros
        for part in package.xml CMakeLists.txt CHANGELOG.md LICENSE README.md msg srv action fvs_ros config docs launch scripts test; do
            ln -sfn "$ROOT/$part" "build/source/fvs_ros/$part"
        done
        "$colcon" --log-base log build --base-paths build/source --packages-select fvs_ros --symlink-install \
            --event-handlers console_direct- console_stderr- --cmake-args -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
            -DPython3_EXECUTABLE="$VENV/bin/python" >log/colcon.txt 2>&1
    ) || {
        tail -n 40 log/colcon.txt log/latest_build/fvs_ros/stdout_stderr.log >&2
        die "the interfaces did not build; the whole output is in log/"
    }
    echo "$key" >"$stamp"
}

if ros_is_sourced; then
    MODE=distribution
    REQUIREMENT="rclpy of ROS 2 $ROS_DISTRO, which is sourced in this shell, must import in it"
else
    MODE=wheels
    REQUIREMENT="3.11 and 3.12 are supported (the versions that ROS 2 wheels and the pins are tested with)"
fi
if [[ $MODE == wheels && -f $VENV/.fvs-ros-setup ]]; then
    die ".venv was made with a ROS 2 distribution: source $(<"$VENV/.fvs-ros-setup") first, or start anew with make clean"
fi
BASE_PYTHON=$(find_python)
install_system_packages
install_osmesa
make_environment
build_interfaces
say "ready: . ./env.sh puts a shell into this environment"

# Puts a shell into the environment that `make setup` made: `. ./env.sh` from this folder in any POSIX shell,
# `. /path/to/env.sh` from anywhere in bash and zsh. Sourcing it twice changes nothing.
# shellcheck shell=sh disable=SC1090,SC2154,SC3028

_fvs_prepend() {
    # $1: name of a variable that holds a colon-separated list; $2: the folder to put in front, once.
    eval "_fvs_list=\${$1:-}"
    case ":$_fvs_list:" in
        *":$2:"*) ;;
        *) eval "export $1=\"\$2\${_fvs_list:+:\$_fvs_list}\"" ;;
    esac
}

_fvs_enter() {
    if [ ! -f "$1/.venv/.fvs-environment" ] || [ ! -f "$1/install/.fvs-interfaces" ]; then
        echo "env.sh: $1 is not set up yet; run: make -C $1 setup" >&2
        return 1
    fi
    if [ -f "$1/.venv/.fvs-ros-setup" ] && [ -z "${AMENT_PREFIX_PATH:-}" ]; then
        _fvs_ros=$(cat "$1/.venv/.fvs-ros-setup")
        if [ ! -f "$_fvs_ros" ]; then
            echo "env.sh: source the ROS 2 distribution that .venv was made with first ($_fvs_ros does not exist)" >&2
            return 1
        fi
        . "$_fvs_ros"
    fi
    _fvs_packages=$("$1/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib", vars={"base": ""}))')
    if [ ! -f "$1/.venv/.fvs-ros-setup" ]; then
        _fvs_prepend AMENT_PREFIX_PATH "$1/.venv"
        # What the wheels' start-up hook would find by running every Python process twice.
        for _fvs_libraries in "$1/.venv/lib" "$1/.venv/lib"/python3.*/site-packages/ros_*.libs; do
            _fvs_prepend LD_LIBRARY_PATH "$_fvs_libraries"
        done
        export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
    fi
    _fvs_prepend AMENT_PREFIX_PATH "$1/install/fvs_ros"
    _fvs_prepend LD_LIBRARY_PATH "$1/install/fvs_ros/lib"
    # The checkout first: its modules are the ones that run; only the generated ones come from install/.
    _fvs_prepend PYTHONPATH "$1/install/fvs_ros$_fvs_packages"
    _fvs_prepend PYTHONPATH "$1"
    _fvs_prepend PATH "$1/.venv/bin"
    export VIRTUAL_ENV="$1/.venv"
}

if [ -n "${BASH_VERSION:-}" ]; then
    _fvs_file=${BASH_SOURCE:-}
elif [ -n "${ZSH_VERSION:-}" ]; then
    eval '_fvs_file=${(%):-%x}'
else
    _fvs_file=./env.sh
fi
_fvs_root=$(CDPATH='' cd -- "$(dirname -- "$_fvs_file")" && pwd)
if [ -f "$_fvs_root/env.sh" ] && [ -d "$_fvs_root/fvs_ros" ]; then
    _fvs_enter "$_fvs_root"
else
    echo "env.sh: this shell cannot tell where env.sh lies; change to its folder, then: . ./env.sh" >&2
    false
fi

#!/usr/bin/env bash
# Builds the package by colcon, with what its tests need: on ROS 2's own images, where ROS_DISTRO is set, over that
# distribution; elsewhere over the wheels of ROS, as `make setup` does.
set -eo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -f /opt/ros/${ROS_DISTRO:-}/setup.bash ]]; then
    # shellcheck disable=SC1090  # whichever distribution the image has
    . "/opt/ros/$ROS_DISTRO/setup.bash"
    apt-get update -qq
    rosdep update --rosdistro "$ROS_DISTRO"
    # setup.sh brings all that the package itself needs.
    rosdep install --from-paths . --ignore-src --default-yes --dependency-types=test --rosdistro "$ROS_DISTRO"
fi
exec scripts/setup.sh

# The stream node on ROS 2 with CUDA, for x86-64. CUDA's libraries come with PyPI's torch, the driver from the host, by
# the NVIDIA Container Toolkit; without a GPU the node runs on the CPU.
#
#   docker build -t fvs_ros .
#   docker run --rm --gpus all --network host --ipc host fvs_ros \
#       ros2 launch fvs_ros stream.launch.py image_topic:=/camera/image_raw model:=Qwen/Qwen2-VL-2B-Instruct
#
# --build-arg ROS_DISTRO=humble (or kilted, lyrical) takes another distribution.
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/fvs_ros
COPY . .
# PIP_NO_CACHE_DIR: the wheels of torch alone are gigabytes.
RUN . "/opt/ros/$ROS_DISTRO/setup.bash" \
    && PIP_NO_CACHE_DIR=1 scripts/setup.sh \
    && rm -rf /var/lib/apt/lists/*

ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Checkpoints of the hub and episode stores go into this home: mount a volume there to keep them.
RUN useradd --create-home --uid 10001 robot
USER 10001
WORKDIR /home/robot

ENTRYPOINT ["/opt/fvs_ros/scripts/docker_entrypoint.sh"]
CMD ["ros2", "launch", "fvs_ros", "stream.launch.py"]

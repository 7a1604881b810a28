"""Starts the stream node: `ros2 launch fvs_ros stream.launch.py model:=FOLDER image_topic:=/camera/image_raw`."""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

FROM_FILE = "empty takes the value from params_file"
BOOLEANS = ["true", "false", "True", "False"]
RESPAWN_DELAY_S = 5.0

# Each overrides the parameter of its name, but only where it is given.
OVERRIDES = {
    "model": (
        str,
        f"Checkpoint: a folder, a hub name such as zhang9302002/Flash-VStream-Qwen-7b, embedded; {FROM_FILE}",
        None,
    ),
    "image_transport": (
        str,
        f"raw (sensor_msgs/Image) or compressed (sensor_msgs/CompressedImage); {FROM_FILE}",
        ["", "raw", "compressed"],
    ),
    "device": (str, f"Where the model runs: auto, cpu, cuda or cuda:N; {FROM_FILE}", None),
    "quantization": (
        str,
        f"none, int8 or int4: bits of the language model's weights; {FROM_FILE}",
        ["", "none", "int8", "int4"],
    ),
    "memory_dir": (
        str,
        f"Folder of the episode store, which outlasts the node: ~/robot_memory; {FROM_FILE} (there: in RAM)",
        None,
    ),
    "memory_bytes": (int, f"Most bytes of the episode store; {FROM_FILE}", None),
    "resume": (
        str,
        f"auto, always or never: whether the memory goes on where the store's last episode ended; {FROM_FILE}",
        ["", "auto", "always", "never"],
    ),
    "map_id": (str, f"Name of the map in which poses hold; {FROM_FILE}", None),
    "autostart": (
        bool,
        f"true configures and activates the node at once, false waits for transitions; {FROM_FILE}",
        ["", *BOOLEANS],
    ),
    # Empty rather than false: that would overrule a bringup's SetParameter and the file.
    "use_sim_time": (
        bool,
        "true takes the time from /clock, for simulation and recordings; empty takes the value from the launch file "
        "that includes this one (SetParameter) or from params_file",
        ["", *BOOLEANS],
    ),
}


def generate_launch_description() -> LaunchDescription:
    overrides = [
        DeclareLaunchArgument(name, default_value="", description=description, choices=choices)
        for name, (_, description, choices) in OVERRIDES.items()
    ]
    return LaunchDescription(
        [
            *overrides,
            DeclareLaunchArgument(
                "image_topic",
                default_value="image",
                description="Topic of the images; the compressed transport adds /compressed where it is missing",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([FindPackageShare("fvs_ros"), "config", "stream.yaml"]),
                description="YAML file of parameters; config/stream.yaml lists and explains them all",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node, its topics and its services"
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="false",
                description=f"true starts the node again, on its memory_dir, {RESPAWN_DELAY_S:g} s after it ends",
                choices=BOOLEANS,
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                description="Least severe level that is logged",
                choices=["debug", "info", "warn", "error", "fatal"],
            ),
            OpaqueFunction(function=_stream_node),
        ]
    )


def _stream_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in OVERRIDES.items()
        if given[name]
    }
    return [
        Node(
            package="fvs_ros",
            executable="stream_node",
            name="stream_node",
            namespace=given["namespace"],
            parameters=[ParameterFile(given["params_file"]), overrides],
            remappings=[("image", given["image_topic"])],
            ros_arguments=["--log-level", given["log_level"]],
            respawn=given["respawn"].lower() == "true",
            respawn_delay=RESPAWN_DELAY_S,
            output="both",
            emulate_tty=True,
        )
    ]

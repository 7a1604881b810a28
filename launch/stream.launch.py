"""Starts the stream node: `ros2 launch fvs_ros stream.launch.py model:=FOLDER image_topic:=/camera/image_raw`."""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

FROM_FILE = "empty takes the value from params_file"

# Each overrides the parameter of its name, but only where it is given.
OVERRIDES = {
    "model": f"Checkpoint: a folder, a hub name such as zhang9302002/Flash-VStream-Qwen-7b, embedded; {FROM_FILE}",
    "image_transport": f"raw (sensor_msgs/Image) or compressed (sensor_msgs/CompressedImage); {FROM_FILE}",
    "device": f"Where the model runs: auto, cpu, cuda or cuda:N; {FROM_FILE}",
    "autostart": f"true configures and activates the node at once, false waits for transitions; {FROM_FILE}",
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=description)
        for name, description in OVERRIDES.items()
    ]
    return LaunchDescription(
        [
            *arguments,
            DeclareLaunchArgument(
                "image_topic",
                default_value="image",
                description="Topic of the raw images; with the compressed transport, /compressed is added to it",
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
                "use_sim_time",
                default_value="false",
                description="true takes the time from /clock, for simulation and recordings",
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
            OpaqueFunction(function=_stream_node),
        ]
    )


def _stream_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    overrides = {name: ParameterValue(given[name], value_type=str) for name in OVERRIDES if given[name]}
    if "autostart" in overrides:
        overrides["autostart"] = ParameterValue(LaunchConfiguration("autostart"), value_type=bool)
    overrides["use_sim_time"] = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    return [
        Node(
            package="fvs_ros",
            executable="stream_node",
            name="stream_node",
            namespace=given["namespace"],
            parameters=[ParameterFile(given["params_file"]), overrides],
            remappings=[("image", given["image_topic"])],
            ros_arguments=["--log-level", given["log_level"]],
            output="both",
            emulate_tty=True,
        )
    ]

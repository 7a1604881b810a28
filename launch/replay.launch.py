"""Plays a recording as a camera: `ros2 launch fvs_ros replay.launch.py bag:=PATH`.

With `with_stream:=true model:=FOLDER image_topic:=/camera/image_raw` the stream node watches it.
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("fvs_ros")
FROM_FILE = "empty takes the value from replay_params_file"

# Each overrides the parameter of its name, but only where it is given.
OVERRIDES = {
    "rate": (float, f"Recorded seconds per wall-clock second; {FROM_FILE}"),
    "loop": (bool, f"true begins again at the end, recorded stamps jump back then; {FROM_FILE}"),
    "start_offset": (float, f"Seconds of the recording to leave out at its beginning; {FROM_FILE}"),
    "duration": (float, f"Seconds of the recording to play, 0 for all; {FROM_FILE}"),
    "topics": (list[str], f"Topics of a bag to play, as a YAML list such as [/camera/image_raw, /odom]; {FROM_FILE}"),
    "wait_for_subscriber": (
        float,
        f"Longest wait, in seconds, for a subscriber to the images; with_stream needs the time that its model takes to "
        f"load; {FROM_FILE}",
    ),
    "image_transport": (
        str,
        f"raw or compressed: how a video is published, and with with_stream what is subscribed to; {FROM_FILE}",
    ),
}


def generate_launch_description() -> LaunchDescription:
    overrides = [
        DeclareLaunchArgument(name, default_value="", description=description)
        for name, (_, description) in OVERRIDES.items()
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag",
                description="Recording: a rosbag2 folder, an .mcap, .db3 or .bag file, a video, or a folder of images",
            ),
            *overrides,
            DeclareLaunchArgument(
                "image_topic",
                default_value="image",
                description="What a video is published as, and with with_stream the raw image topic to watch",
            ),
            DeclareLaunchArgument(
                "replay_params_file",
                default_value=PathJoinSubstitution([SHARE, "config", "replay.yaml"]),
                description="YAML file of parameters; config/replay.yaml lists and explains them all",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the nodes; recorded topics keep their names"
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
            DeclareLaunchArgument(
                "with_stream", default_value="false", description="true starts the stream node too, on /clock"
            ),
            OpaqueFunction(function=_replay_node),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "stream.launch.py"])),
                condition=IfCondition(LaunchConfiguration("with_stream")),
                # The others have the same names there, and pass on by themselves.
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
        ]
    )


def _replay_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in OVERRIDES.items()
        if given[name]
    }
    overrides["bag"] = ParameterValue(LaunchConfiguration("bag"), value_type=str)
    return [
        Node(
            package="fvs_ros",
            executable="replay_node",
            name="replay_node",
            namespace=given["namespace"],
            parameters=[ParameterFile(given["replay_params_file"]), overrides],
            remappings=[("image", given["image_topic"])],
            ros_arguments=["--log-level", given["log_level"]],
            output="both",
            emulate_tty=True,
        )
    ]

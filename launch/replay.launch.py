"""Plays a recording as a camera: `ros2 launch fvs_ros replay.launch.py bag:=PATH`.

With `with_stream:=true model:=FOLDER image_topic:=/camera/image_raw` the stream node watches it. `with_stream:=true`
alone shows the model that ships the recording that ships.
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
BOOLEANS = ["true", "false", "True", "False"]
# The patrol in the package's assets, and how its images are published.
EMBEDDED = "embedded"
EMBEDDED_IMAGES = {"image_topic": "/camera/image", "image_transport": "compressed"}
# Longest time that a large model takes to load.
STREAM_START_S = "600.0"

# Each overrides the parameter of its name, but only where it is given.
OVERRIDES = {
    "rate": (float, f"Recorded seconds per wall-clock second; {FROM_FILE}", None),
    "loop": (
        bool,
        f"true begins again at the end, recorded stamps jump back then; {FROM_FILE}",
        ["", *BOOLEANS],
    ),
    "start_offset": (float, f"Seconds of the recording to leave out at its beginning; {FROM_FILE}", None),
    "duration": (float, f"Seconds of the recording to play, 0 for all; {FROM_FILE}", None),
    "topics": (
        list[str],
        f"Topics of a bag to play, as a YAML list such as [/camera/image_raw, /odom]; {FROM_FILE}",
        None,
    ),
    "wait_for_subscriber": (
        float,
        f"Longest wait, in seconds, for a subscriber to the images; {FROM_FILE}, or {STREAM_START_S} with with_stream",
        None,
    ),
    "image_transport": (
        str,
        f"How a video is published, and with with_stream what is subscribed to; {FROM_FILE}, or fits {EMBEDDED}",
        ["", "raw", "compressed"],
    ),
}


def generate_launch_description() -> LaunchDescription:
    overrides = [
        DeclareLaunchArgument(name, default_value="", description=description, choices=choices)
        for name, (_, description, choices) in OVERRIDES.items()
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag",
                default_value=EMBEDDED,
                description="Recording: a rosbag2 folder, an .mcap, .db3 or .bag file, a video, or a folder of images; "
                f"{EMBEDDED} is the patrol that ships with the package",
            ),
            *overrides,
            DeclareLaunchArgument(
                "image_topic",
                default_value="",
                description="What a video is published as, and with with_stream the raw image topic to watch; empty is "
                f"image, or the topic of {EMBEDDED}",
            ),
            DeclareLaunchArgument(
                "replay_params_file",
                default_value=PathJoinSubstitution([SHARE, "config", "replay.yaml"]),
                description="YAML file of parameters; config/replay.yaml lists and explains them all",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the nodes; recorded topics keep their names"
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                description="Least severe level that is logged",
                choices=["debug", "info", "warn", "error", "fatal"],
            ),
            DeclareLaunchArgument(
                "with_stream",
                default_value="false",
                description="true starts the stream node too, on /clock; stream.launch.py's arguments are its own",
                choices=BOOLEANS,
            ),
            OpaqueFunction(function=_fill_in),
            OpaqueFunction(function=_replay_node),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "stream.launch.py"])),
                condition=IfCondition(LaunchConfiguration("with_stream")),
                # The others have the same names there, and pass on by themselves.
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
        ]
    )


def _fill_in(context: LaunchContext) -> None:
    """Gives the arguments that were left empty what the recording or the stream node needs."""
    given = context.launch_configurations
    wanted = {"image_topic": "image"}
    if given["bag"] == EMBEDDED:
        wanted |= EMBEDDED_IMAGES
    if given["with_stream"].lower() == "true":
        wanted["wait_for_subscriber"] = STREAM_START_S
    given.update({name: value for name, value in wanted.items() if not given[name]})


def _replay_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in OVERRIDES.items()
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

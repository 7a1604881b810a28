"""Plays a recording to the stream node and asks it timed questions: the live form of `fvs evaluate replay`.

`ros2 launch fvs_ros evaluate.launch.py bag:=FOLDER questions:=FILE out:=FOLDER model:=FOLDER`
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag",
                description="Recording: a rosbag2 folder, an .mcap, .db3 or .bag file, a video, or a folder of images",
            ),
            DeclareLaunchArgument(
                "questions", description="Timed questions, one JSON object a line; docs/evaluation.md has the form"
            ),
            DeclareLaunchArgument("out", description="New folder for answers.jsonl, report.json and report.html"),
            DeclareLaunchArgument("rate", default_value="1.0", description="Recorded seconds per wall-clock second"),
            DeclareLaunchArgument(
                "topic",
                default_value="",
                description="The bag's image topic, where it has several; see image_topic too",
            ),
            DeclareLaunchArgument(
                "max_new_tokens", default_value="128", description="Longest answer to a question, in tokens"
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the stream node, its topics and its services"
            ),
            # Its own arguments (model, image_topic, image_transport, params_file ...) pass on by their names.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([FindPackageShare("fvs_ros"), "launch", "stream.launch.py"])
                ),
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
            OpaqueFunction(function=_evaluation),
        ]
    )


def _evaluation(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    # Not sys.executable: that is the Python of the `ros2` command, which may lack what the package was built with.
    command = [ExecutableInPackage("fvs", "fvs_ros"), "evaluate", "replay", "--live"]
    for name in ("bag", "questions", "out", "rate", "max_new_tokens"):
        command += [f"--{name.replace('_', '-')}", given[name]]
    if given["topic"]:
        command += ["--topic", given["topic"]]
    # A launch file that includes this one may have pushed a namespace of its own.
    names = [*given.get("ros_namespace", "").split("/"), *given["namespace"].split("/"), "stream_node"]
    command += ["--node", "/" + "/".join(filter(None, names))]
    evaluation = ExecuteProcess(name="evaluate", cmd=command, output="both", emulate_tty=True)
    return [evaluation, RegisterEventHandler(OnProcessExit(on_exit=_ended))]


def _ended(event: ProcessExited, context: LaunchContext) -> EmitEvent | None:
    """Ends everything with the evaluation or the node; what is raised here makes launch's exit status 1."""
    if context.is_shutdown:
        return None
    if event.returncode:
        raise RuntimeError(f"{event.process_name} ended with exit status {event.returncode}")
    return EmitEvent(event=Shutdown(reason=f"{event.process_name} ended"))

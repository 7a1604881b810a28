"""The stream node: a camera topic in, answers out.

Start it with ``python -m fvs_ros.nodes.stream_node --ros-args -p model:=FOLDER -r image:=/camera/image_raw``, or with
``ros2 launch fvs_ros stream.launch.py``; `config/stream.yaml` documents the parameters.
"""

from __future__ import annotations

from fvs_ros.nodes.process_signals import end_on_signals, ignore_interrupts, leave_signals_to_rclpy

if __name__ == "__main__":
    # Before the other imports, which take long.
    end_on_signals()

import functools
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.model.names import example_question
from fvs_ros.msg import MemoryState, StreamStatistics
from fvs_ros.nodes.answer_topics import AnswerTopics
from fvs_ros.nodes.ask_server import AskServer
from fvs_ros.nodes.autostart import Autostart
from fvs_ros.nodes.command_server import CommandServer
from fvs_ros.nodes.diagnostics import Observation, StreamDiagnostics
from fvs_ros.nodes.episode_store import map_id_of, open_episode_store, store_name
from fvs_ros.nodes.image_input import ImageInput, camera_name, with_unstamped
from fvs_ros.nodes.log_bridge import bridge_logging, unbridge_logging
from fvs_ros.nodes.messages import ask_options, memory_message, statistics_message
from fvs_ros.nodes.model_loader import Loaded, ModelLoader, load_stream_model
from fvs_ros.nodes.parameters import TABLE, StreamParameters
from fvs_ros.nodes.pose_sources import PoseSource, create_pose_source
from fvs_ros.nodes.qos import latched_qos
from fvs_ros.nodes.starting import START_ERRORS, Patience, init_ros, one_line, spin
from fvs_ros.nodes.watch_server import WatchServer
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.device_memory import free_device_memory
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.recording import Episodes, RecordingStatus
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode, MemoryStatus

NAME = "stream_node"
STATISTICS_PERIOD_S = 1.0

TransitionCallback = Callable[["StreamNode", LifecycleState], TransitionCallbackReturn]


def _explained(callback: TransitionCallback) -> TransitionCallback:
    """Lets a transition that raises fail with a log; rclpy would swallow the exception and report no reason."""

    @functools.wraps(callback)
    def guarded(node: StreamNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(node, state)
        except Exception as error:
            node.failure = error
            node.get_logger().error(f"{callback.__name__} failed: {error}")
            node.get_logger().debug(traceback.format_exc())
            return TransitionCallbackReturn.FAILURE

    return guarded


class StreamNode(LifecycleNodeMixin, Node):
    """A lifecycle node around a `StreamEngine`.

    | transition | what happens |
    |---|---|
    | configure | the model is loaded, the episode store is opened, the memory is as the store's last episode left it |
    | activate | subscribes to the camera, answers questions |
    | deactivate | unsubscribes; the memory is kept and saved, questions are refused as NOT_ACTIVE |
    | cleanup | the memory and the model are freed, the episode store is closed |

    Attributes:
        state: label of the lifecycle state.
        failure: why the last transition failed; None if it did not.

    Raises:
        rclpy.exceptions.ParameterException, ValueError: a parameter given at start has no meaning.
    """

    def __init__(self) -> None:
        self._engine: StreamEngine | None = None
        self._model: StreamModel | None = None
        self._store: EpisodeStore | None = None
        self._store_name = ""
        self._images: ImageInput | None = None
        # Images without a stamp, of the subscriptions before the present one.
        self._unstamped = 0
        # Whether a model call went on when its engine was closed.
        self._hung = False
        self._poses: PoseSource | None = None
        self.state = "unconfigured"
        self.failure: Exception | None = None
        Node.__init__(self, NAME)
        # Not LifecycleNode, which does not let the group be chosen: a configure request awaits the model, and in the
        # default, exclusive group it would block timers and parameters meanwhile.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._log_handler = bridge_logging(self.get_logger())
        self._stream_parameters = StreamParameters(self)
        self._map_id = map_id_of(self._stream_parameters.settings())
        self._loader = ModelLoader(self._load)
        self._autostart = Autostart(self, self._loader)
        self._guard_change_state()
        self._memory_publisher = self.create_publisher(MemoryState, "~/memory", latched_qos())
        self._statistics_publisher = self.create_publisher(StreamStatistics, "~/statistics", QoSProfile(depth=1))
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        self._diagnostics = StreamDiagnostics(self.get_fully_qualified_name().lstrip("/"))
        # Steady: with use_sim_time and no /clock, the node must still report.
        self.create_timer(STATISTICS_PERIOD_S, self._publish_statistics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._commands = CommandServer(self, lambda: self._engine, lambda: self._way_to("configure"))
        self._answer_topics = AnswerTopics(self, lambda: self._stream_parameters.settings().pose_source == "tf")
        self._ask_server = AskServer(
            self, self._active_engine, self._ask_options, self._no_frames, self._answer_topics.show
        )
        self._watch_server = WatchServer(self, self._active_engine)

    def start(self, executor: Executor) -> None:
        """Adds the node to its executor, and configures and activates it there if `autostart` says so."""
        executor.add_node(self)
        if self._stream_parameters.settings().autostart:
            self._autostart.begin(self._stream_parameters.settings().load_retry_s)

    @property
    def busy(self) -> bool:
        """Whether a model is being loaded or called, even after `close`: that cannot be interrupted."""
        return self._loader.loading or self._hung

    def close(self) -> None:
        """Frees everything, from any state, and ends all threads but those on which a model is busy."""
        self._loader.abandon()
        self._release()
        self._ask_server.close()
        self._watch_server.close()
        self.destroy_node()
        unbridge_logging(self._log_handler)

    # Lifecycle

    @property
    def _problem(self) -> str:
        """Why the last transition failed; empty if it did not."""
        return f"{self.failure or ''}{'; trying again soon' if self._autostart.pending else ''}"

    def _guard_change_state(self) -> None:
        for service in self.services:
            if service.srv_type is ChangeState:
                self._change_state = service.callback
                service.callback = self._on_change_state

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Does a transition: loads what it needs beforehand, and refuses an impossible one instead of raising."""
        wanted = request.transition
        configure = wanted.label == "configure" or wanted.id == Transition.TRANSITION_CONFIGURE
        if configure and self.state == "unconfigured":
            await self._loader.load_ahead(self.executor)
        try:
            return self._change_state(request, response)
        except Exception as error:
            self.get_logger().warning(f"No transition {wanted.label or wanted.id} from {self.state}: {error}")
            response.success = False
            return response

    @_explained
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes model and store and starts the engine; on SUCCESS the node is inactive, else still unconfigured."""
        settings = self._stream_parameters.settings()
        try:
            self._watch_server.read(settings.watches_path)
            loaded = self._loader.take()
            self._model, self._store = loaded.model, loaded.store
            self._store_name = store_name(loaded.store, settings)
            self._poses = create_pose_source(self, settings)
            episodes = Episodes(self._store, camera_name(self), self._map_id, Resume(settings.resume))
            config = self._stream_parameters.stream_config()
            self._engine = StreamEngine(self._model, config, self._publish_memory, episodes)
            # Before the engine publishes what it restores, which this would replace.
            self._publish_memory(self._engine.status)
            self._engine.start()
        except Exception:
            self._release()
            raise
        return self._enter("inactive")

    @_explained
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the camera; on SUCCESS the node is active, on FAILURE still inactive."""
        assert self._engine is not None
        assert self._poses is not None
        settings = self._stream_parameters.settings()
        self._watch_server.activate(self._engine)
        self._images = ImageInput(self, settings.image_transport, self._engine.submit, self._poses.at)
        ask, question = self.resolve_service_name("ask"), example_question(settings.model)
        self.get_logger().info(
            f"Watching {self._images.topic}; ask such as: "
            f"ros2 service call {ask} fvs_ros/srv/Ask \"{{question: '{question}'}}\""
        )
        return self._enter("active")

    @_explained
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes; the memory is saved, questions on their way are answered, watches end. Leads to inactive."""
        self._unsubscribe()
        self._commands.save()
        return self._enter("inactive")

    @_explained
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees the memory and the model, and closes the store; leads to unconfigured."""
        self._release()
        return self._enter("unconfigured")

    @_explained
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything, from any state; leads to finalized."""
        self._loader.abandon()
        self._release()
        return self._enter("finalized")

    def _enter(self, state: str) -> TransitionCallbackReturn:
        self.state = state
        self.failure = None
        self._autostart.cancel()
        self.get_logger().info(f"Now {state}")
        return TransitionCallbackReturn.SUCCESS

    def _load(self, on_progress: Callable[[str], None]) -> Loaded:
        """Called on the loader's thread."""
        settings, logger = self._stream_parameters.settings(), self.get_logger()
        model = load_stream_model(settings, logger, on_progress)
        on_progress("opening the episode store")
        return Loaded(model, open_episode_store(settings, camera_name(self), model.fingerprint(), self._map_id, logger))

    def _unsubscribe(self) -> None:
        self._watch_server.deactivate()
        if self._images is not None:
            self._images.close()
            self._unstamped += self._images.unstamped
            self._images = None

    def _release(self) -> None:
        self._unsubscribe()
        self._unstamped = 0
        if self._engine is not None:
            patience = Patience(self.context)
            # Both, whatever the first says.
            self._hung |= (not self._engine.close(patience.over)) | (not self._commands.wait(patience.over))
            self._engine = None
            # Late subscribers must not take the last memory for the present one.
            self._publish_memory(MemoryStatus())
        if self._poses is not None:
            self._poses.close()
            self._poses = None
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._model is not None:
            self._model = None
            free_device_memory()

    # Questions

    def _way_to(self, transition: str) -> str:
        """The lifecycle state, why the last transition failed, and what to do."""
        state = f"it is {self.state}{f' ({self._problem})' if self._problem else ''}"
        if self.state == "finalized":
            return f"{state}: start the node again"
        steps = "configure, then activate" if transition == "activate" and self._engine is None else transition
        return f"{state}; ros2 lifecycle set {self.get_fully_qualified_name()} {steps}"

    def _active_engine(self) -> StreamEngine:
        if self._engine is None or self._images is None:
            if self._loader.loading:
                problem = "it is loading its model; ask again once it is active"
            else:
                problem = self._way_to("activate")
            raise AskError(ErrorCode.NOT_ACTIVE, f"the node answers when it is active, and {problem}")
        return self._engine

    def _ask_options(self, request: Any) -> AskOptions:
        return ask_options(request, self._stream_parameters.stream_config())

    def _no_frames(self) -> str:
        return self._images.no_frames if self._images is not None else ""

    # What the node publishes

    def _publish_memory(self, status: MemoryStatus) -> None:
        """Also called on the engine's ingest thread; publishing is thread-safe."""
        model = self._model
        if model is None or not self.context.ok():
            return
        now = self.get_clock().now().to_msg()
        self._memory_publisher.publish(memory_message(status, model.memory_config, model.name, now))
        self._watch_server.on_memory(status)

    def _publish_statistics(self) -> None:
        """As typed counters, and as diagnostics for people; and markers of an answer, if they are wanted only now."""
        self._answer_topics.look()
        now = self.get_clock().now().to_msg()
        observation = self._observe()
        self._statistics_publisher.publish(statistics_message(observation.statistics, now, observation.recording))
        self._diagnostics_publisher.publish(
            DiagnosticArray(header=Header(stamp=now), status=self._diagnostics.statuses(observation))
        )

    def _observe(self) -> Observation:
        if self._loader.loading:
            return Observation(time.monotonic(), "loading the model", progress=self._loader.progress)
        now = Observation(time.monotonic(), self.state, problem=self._problem)
        engine, images, model = self._engine, self._images, self._model
        if engine is None or model is None:
            return now
        now = replace(
            now,
            device=str(model.device),
            paused=engine.paused,
            statistics=with_unstamped(engine.statistics, self._unstamped + (images.unstamped if images else 0)),
            faults=engine.faults,
            watching=engine.watches.status,
            memory=engine.status,
            recording=engine.recording or RecordingStatus(),
            store=self._store_name,
            capacity=model.memory_config,
        )
        if images is None:
            return now
        last_stamp_ns = images.last_stamp_ns
        return replace(
            now,
            active=True,
            topic=images.topic,
            publishers=images.publishers,
            silence=images.silence(self._stream_parameters.settings().image_timeout_s),
            image_age_s=images.image_age_s,
            stamp_age_s=(self.get_clock().now().nanoseconds - last_stamp_ns) / SECOND_NS if last_stamp_ns else None,
            last_rejection=images.last_rejection,
        )


def main(arguments: list[str] | None = None) -> int:
    """Runs the node until it is interrupted or terminated (returns 0); returns 1 if it cannot start."""
    leave_signals_to_rclpy()
    text = [row.name for row in TABLE if isinstance(row.default, str)]
    node: StreamNode | None = None
    started = False
    try:
        init_ros(sys.argv if arguments is None else arguments, text)
        started = True
        node = StreamNode()
        executor = SingleThreadedExecutor()
        node.start(executor)
        spin(executor, NAME)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        # A context that was valid and no longer is: a signal came while the node was made.
        if rclpy.ok() or not started:
            if not isinstance(error, START_ERRORS):
                raise
            get_logger(NAME).fatal(f"Cannot start: {one_line(str(error))}")
            return 1
    finally:
        ignore_interrupts()
        # In this order: the engine's threads publish, so they end before the context does.
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    if node is not None and node.busy:
        # Python would wait for the threads on which weights are read, torch is imported or a model is called.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())

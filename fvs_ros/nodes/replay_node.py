"""Plays a recording as a camera: a bag's topics or a video's images, and `/clock`.

Start it with ``python -m fvs_ros.nodes.replay_node --ros-args -p bag:=PATH``; `config/replay.yaml` documents the
parameters.
"""

from __future__ import annotations

from fvs_ros.nodes.process_signals import end_on_signals, ignore_interrupts, leave_signals_to_rclpy

if __name__ == "__main__":
    # Before the other imports, which take long.
    end_on_signals()

import sys
import threading
from dataclasses import fields

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rosgraph_msgs.msg import Clock as ClockMessage

from fvs_ros.model.names import EMBEDDED_RECORDING, is_embedded
from fvs_ros.nodes.messages import time_message
from fvs_ros.nodes.replay_outputs import BagOutput, ReplayOutput, VideoOutput
from fvs_ros.nodes.replay_parameters import ReplayConfig, declare_parameters
from fvs_ros.nodes.starting import START_ERRORS, init_ros, one_line
from fvs_ros.sources.bags import Bag, SourceError, is_bag
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.playback import Playback
from fvs_ros.sources.recordings import open_source, recording_path

_NAME = "replay_node"
_REPORT_PERIOD_S = 10.0
_LAG_CHECK_PERIOD_S = 1.0
# Below this a late message is the machine's ordinary jitter.
_LAG_WARNING_S = 0.25


class ReplayNode(Node):
    """Publishes from a thread of its own, so that due times do not wait for callbacks.

    Attributes:
        finished: completes with the number of messages published, or with the exception that ended the replay.

    Raises:
        SourceError: if the recording cannot be read.
        ValueError, rclpy.exceptions.ParameterException: for a parameter that has no meaning.
    """

    def __init__(self) -> None:
        super().__init__(_NAME)
        self._config = declare_parameters(self)
        self.finished = Future()
        self._output = _open_output(self, self._config)
        self._clock_publisher = self.create_publisher(ClockMessage, "/clock", QoSProfile(depth=10))
        endless = self._config.continue_stamps and isinstance(self._output, VideoOutput)
        self._playback = Playback(
            self._output.items,
            lambda time_ns: self._clock_publisher.publish(ClockMessage(clock=time_message(time_ns))),
            rate=self._config.rate,
            clock_hz=self._config.clock_rate,
            loop=self._config.loop and not endless,
        )
        # This node makes the simulated time, so its own timers must not follow it.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_REPORT_PERIOD_S, self._report, clock=steady)
        self.create_timer(_LAG_CHECK_PERIOD_S, self._check_lag, clock=steady)
        self._thread = threading.Thread(target=self._play, name="playback", daemon=True)

    def start(self) -> None:
        """Begin to play."""
        self._thread.start()

    def close(self) -> None:
        """Stop playing and close the recording."""
        self._playback.stop()
        self._thread.join()
        if self.finished.done():
            # Looked at once more: of an interrupted replay rclpy would print it as never retrieved.
            self.finished.exception()
        self._output.close()

    def _play(self) -> None:
        try:
            self._wait_for_subscriber()
            length_s = self._output.duration_ns / SECOND_NS
            self.get_logger().info(f"Playing {self._output.name}: {length_s:.1f} s at {self._config.rate:g} x")
            self._playback.run()
            self._wait_for_acknowledgment()
            self.finished.set_result(self._playback.progress.items)
        except Exception as error:
            self.finished.set_exception(error)

    def _wait_for_subscriber(self) -> None:
        if not self._config.wait_for_subscriber:
            return
        publishers = self._output.image_publishers or self._output.publishers
        topics = ", ".join(publisher.topic_name for publisher in publishers)
        self.get_logger().info(f"Waiting for a subscriber to {topics}")
        if not self._playback.wait_for(
            lambda: any(publisher.get_subscription_count() for publisher in publishers),
            self._config.wait_for_subscriber,
        ):
            self.get_logger().warning(
                f"Nobody subscribed to {topics} in {self._config.wait_for_subscriber:g} s; starting"
            )

    def _wait_for_acknowledgment(self) -> None:
        """Reliable publishers repeat what was lost on the way; a process that has left cannot."""
        self._playback.wait_for(
            lambda: all(publisher.wait_for_all_acked(Duration()) for publisher in self._output.publishers),
            self._config.wait_for_acknowledgment,
        )

    def _report(self) -> None:
        progress = self._playback.progress
        if not progress.items:
            return
        played_s = (progress.now_ns - progress.start_ns) / SECOND_NS
        run = f", pass {progress.passes}" if progress.passes > 1 else ""
        self.get_logger().info(
            f"{played_s:.1f} of {self._output.duration_ns / SECOND_NS:.1f} s{run}, {progress.items} messages"
        )

    def _check_lag(self) -> None:
        lag_s = self._playback.progress.lag_s
        if lag_s > _LAG_WARNING_S:
            self.get_logger().warning(
                f"{lag_s:.2f} s behind; this machine cannot read and publish at rate {self._config.rate:g}, lower it",
                throttle_duration_sec=_REPORT_PERIOD_S,
            )

    def summary(self) -> str:
        """What was played, in a sentence."""
        progress = self._playback.progress
        return (
            f"Played {progress.items} messages in {progress.passes} pass(es); at most {progress.worst_lag_s:.3f} s late"
        )


def _open_output(node: Node, config: ReplayConfig) -> ReplayOutput:
    path = EMBEDDED_RECORDING if is_embedded(config.bag) else recording_path(config.bag)
    if path.exists() and is_bag(path):
        return BagOutput(node, Bag(path), config)
    # The system's time: the node's own clock may follow the /clock that this node is about to publish.
    now_ns = Clock(clock_type=ClockType.SYSTEM_TIME).now().nanoseconds
    start_ns = now_ns if config.stamp_offset < 0 else round(config.stamp_offset * SECOND_NS)
    return VideoOutput(node, open_source(path, fps=config.video_fps or None, start_ns=start_ns), config)


def main(arguments: list[str] | None = None) -> int:
    """Play one recording; returns 0 at its end or when interrupted, 1 if it cannot be played."""
    leave_signals_to_rclpy()
    text = [item.name for item in fields(ReplayConfig) if isinstance(item.default, str)]
    logger = get_logger(_NAME)
    executor: SingleThreadedExecutor | None = None
    node: ReplayNode | None = None
    try:
        init_ros(sys.argv if arguments is None else arguments, text)
        executor = SingleThreadedExecutor()
        node = ReplayNode()
        executor.add_node(node)
        node.start()
        executor.spin_until_future_complete(node.finished)
        if rclpy.ok() and node.finished.done():
            node.finished.result()
            logger.info(node.summary())
        return 0
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except (SourceError, OSError, *START_ERRORS) as error:
        if executor is not None and not executor.context.ok():
            # A signal ended the context just before rclpy waited on it.
            return 0
        logger.fatal(one_line(str(error)))
        return 1
    finally:
        ignore_interrupts()
        if node is not None:
            node.close()
            node.destroy_node()
        # Its destructor would complain once the context is gone.
        if executor is not None:
            executor.shutdown()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())

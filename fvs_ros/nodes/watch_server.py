"""Standing questions over ROS: the action `watch`, the topics `~/watches` and `~/events`, and watches from a file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from fvs_ros.action import Watch as WatchAction
from fvs_ros.msg import WatchEvent as WatchEventMessage
from fvs_ros.msg import WatchList
from fvs_ros.nodes.ask_server import FEEDBACK_DEPTH, RESULT_TIMEOUT_S
from fvs_ros.nodes.futures import worker_future
from fvs_ros.nodes.qos import latched_qos, question_qos
from fvs_ros.nodes.watch_messages import watch_event_message, watch_state_message
from fvs_ros.nodes.watches_file import FileWatch, read_watches
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskError, ErrorCode, MemoryStatus
from fvs_ros.stream.watch import Watch, WatchEvent, WatchOptions
from fvs_ros.stream.watch_condition import Change

EVENTS_DEPTH = 100


class WatchServer:
    """Watches for clients and for the file; never blocks the executor. All exist as long as the node does.

    Args:
        node: gets the action and the topics.
        engine: the engine while the node is active; raises AskError (NOT_ACTIVE) otherwise.
    """

    def __init__(self, node: Node, engine: Callable[[], StreamEngine]) -> None:
        self._node = node
        self._engine = engine
        self._goals: dict[bytes, Watch] = {}
        self._of_file: list[FileWatch] = []
        # Of the active engine, while there is one.
        self._active: StreamEngine | None = None
        self._episode = -1
        self._publishing = threading.Lock()
        self._list_publisher = node.create_publisher(WatchList, "~/watches", latched_qos())
        self._event_publisher = node.create_publisher(WatchEventMessage, "~/events", QoSProfile(depth=EVENTS_DEPTH))
        self._action_server = ActionServer(
            node,
            WatchAction,
            "watch",
            self._on_goal,
            # In an exclusive group one goal would keep the others waiting.
            callback_group=ReentrantCallbackGroup(),
            goal_callback=lambda _: GoalResponse.ACCEPT,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=question_qos(),
            result_service_qos_profile=question_qos(),
            cancel_service_qos_profile=question_qos(),
            feedback_pub_qos_profile=QoSProfile(depth=FEEDBACK_DEPTH),
            result_timeout=RESULT_TIMEOUT_S,
        )
        self._publish_list()

    def read(self, path: Path | None) -> None:
        """Reads the file of watches; None: there is none.

        Raises:
            ValueError: it makes no sense.
        """
        self._of_file = [] if path is None else read_watches(path)

    def activate(self, engine: StreamEngine) -> None:
        """Begins the watches of the file.

        Raises:
            AskError: one of them cannot be watched; none is then.
        """
        self.deactivate()
        self._active, self._episode = engine, engine.status.episode
        try:
            for one in self._of_file:
                self._begin(engine, one.condition, one.options)
        except AskError as error:
            self.deactivate()
            raise AskError(error.code, f"the watch {one.options.name!r} of watches_file: {error}") from error

    def deactivate(self) -> None:
        """Ends all watches: nothing is seen any more."""
        if self._active is not None:
            self._active.watches.end_all(
                AskError(ErrorCode.NOT_ACTIVE, "the node was deactivated; watch again once it is active")
            )
            self._active = None

    def on_memory(self, status: MemoryStatus) -> None:
        """Tells that nothing counts as true any more where a new episode has begun. Called on the ingest thread."""
        if self._active is not None and status.episode != self._episode:
            self._episode = status.episode
            self._publish_list()

    def close(self) -> None:
        """Destroys the action server; the node destroys its publishers itself."""
        self.deactivate()
        self._action_server.destroy()

    def _begin(
        self,
        engine: StreamEngine,
        condition: str,
        options: WatchOptions,
        goal: ServerGoalHandle | None = None,
    ) -> Watch:
        def tell(event: WatchEvent) -> None:
            """Called on the engine's answer thread: events handed over to the executor could change their order."""
            message = watch_event_message(event, condition, options.name)
            if goal is not None and goal.is_active:
                goal.publish_feedback(WatchAction.Feedback(event=message))
            if event.change is not Change.NOTHING:
                self._event_publisher.publish(message)
                self._publish_list()

        watch = engine.watches.add(condition, options, tell)
        watch.add_done_callback(lambda _: self._publish_list())
        self._publish_list()
        return watch

    async def _on_goal(self, goal: ServerGoalHandle) -> WatchAction.Result:
        request, key = goal.request, bytes(goal.goal_id.uuid)
        options = WatchOptions(request.period_s, request.hold_s, request.once, request.timeout_s, request.with_images)
        result = WatchAction.Result()
        try:
            watch = self._begin(self._engine(), request.condition, options, goal)
        except AskError as error:
            self._node.get_logger().warning(f"A goal of watch is refused: {error}")
            result.error_code, result.error_message = int(error.code), str(error)
            goal.abort()
            return result
        self._goals[key] = watch
        try:
            # A cancel that came between acceptance and now found nothing to cancel.
            if goal.is_cancel_requested:
                watch.cancel()
            ended = worker_future(self._node.executor)
            watch.add_done_callback(lambda _: ended.set_result(None))
            await ended
        finally:
            del self._goals[key]
        return self._ended(goal, watch, result)

    def _ended(self, goal: ServerGoalHandle, watch: Watch, result: WatchAction.Result) -> WatchAction.Result:
        outcome = watch.result()
        if outcome.became_true is not None:
            result.became_true = True
            result.event = watch_event_message(outcome.became_true, watch.condition)
        result.looks, result.model = outcome.looks, self._model_name
        if outcome.error is None:
            result.success = True
            goal.succeed()
            return result
        result.error_code, result.error_message = int(outcome.error.code), str(outcome.error)
        if goal.is_cancel_requested and outcome.error.code == ErrorCode.CANCELLED:
            goal.canceled()
        else:
            goal.abort()
        return result

    @property
    def _model_name(self) -> str:
        return str(self._node.get_parameter("model").value)

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        watch = self._goals.get(bytes(goal.goal_id.uuid))
        if watch is not None:
            watch.cancel()
        return CancelResponse.ACCEPT

    def _publish_list(self) -> None:
        """Also called on the engine's threads; publishing is thread-safe."""
        if not self._node.context.ok():
            return
        engine = self._active
        # Two threads at once could publish the older list last.
        with self._publishing:
            message = WatchList(stamp=self._node.get_clock().now().to_msg())
            if engine is not None:
                episode = engine.status.episode
                message.watches = [watch_state_message(watch, watch.last(episode)) for watch in engine.watches.open()]
            self._list_publisher.publish(message)

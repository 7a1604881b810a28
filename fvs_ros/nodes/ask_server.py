"""Questions over ROS: the service `ask` and the action `ask_stream`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from fvs_ros.action import Ask as AskAction
from fvs_ros.nodes.futures import worker_future
from fvs_ros.nodes.messages import fill_answer, fill_error
from fvs_ros.nodes.qos import question_qos
from fvs_ros.nodes.reply_pacer import ReplyPacer
from fvs_ros.srv import Ask as AskService
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.questions import PendingAnswer
from fvs_ros.stream.types import Answer, AskError, AskOptions, ErrorCode

# Clients fetch a result at once. rclpy keeps it in RAM this long for late ones; its default is 900 s.
RESULT_TIMEOUT_S = 30
# Tokens that may wait for a slow client; the result holds the whole answer in any case.
FEEDBACK_DEPTH = 128


class AskServer:
    """Answers questions without ever blocking the executor: callbacks await what the engine's thread completes.

    Both exist as long as the node does, so a question to an inactive node gets NOT_ACTIVE instead of no response.

    Args:
        node: gets the service and the action.
        engine: the engine while the node is active; raises AskError (NOT_ACTIVE) otherwise.
        options: the options of a request, the node's defaults filled in.
        no_frames: why no frame can be in memory; empty where that is not known.
        on_answer: called with each answer, on the executor's thread, before its reply goes.
    """

    def __init__(
        self,
        node: Node,
        engine: Callable[[], StreamEngine],
        options: Callable[[Any], AskOptions],
        no_frames: Callable[[], str] = str,
        on_answer: Callable[[Answer], None] = lambda answer: None,
    ) -> None:
        self._node = node
        self._engine = engine
        self._options = options
        self._no_frames = no_frames
        self._on_answer = on_answer
        self._pending: dict[bytes, PendingAnswer] = {}
        # On one thread callbacks never overlap, but in an exclusive group one that awaits would block the next.
        group = ReentrantCallbackGroup()
        self._pacer = ReplyPacer(node, group)
        node.create_service(AskService, "ask", self._on_ask, qos_profile=question_qos(), callback_group=group)
        self._action_server = ActionServer(
            node,
            AskAction,
            "ask_stream",
            self._on_goal,
            callback_group=group,
            goal_callback=self._on_goal_request,
            cancel_callback=self._on_cancel,
            goal_service_qos_profile=question_qos(),
            result_service_qos_profile=question_qos(),
            cancel_service_qos_profile=question_qos(),
            feedback_pub_qos_profile=QoSProfile(depth=FEEDBACK_DEPTH),
            result_timeout=RESULT_TIMEOUT_S,
        )

    def close(self) -> None:
        """Destroys the action server; the node destroys its services itself."""
        self._action_server.destroy()

    async def _on_ask(self, request: AskService.Request, response: AskService.Response) -> AskService.Response:
        try:
            pending = self._engine().ask(request.question, self._options(request))
            await self._settled(pending)
            self._fill(response, request, pending.result())
        except AskError as error:
            fill_error(response, self._explained(request, error))
        await self._pacer.turn()
        return response

    async def _on_goal_request(self, request: AskAction.Goal) -> GoalResponse:
        """Accepts every goal at the pace of replies; what is wrong with it is in its result, as in a response.

        Beyond that pace goals are rejected: each that is accepted is kept for `RESULT_TIMEOUT_S`.
        """
        if self._pacer.full:
            return GoalResponse.REJECT
        await self._pacer.turn()
        return GoalResponse.ACCEPT

    async def _on_goal(self, goal: ServerGoalHandle) -> AskAction.Result:
        result = AskAction.Result()
        try:
            pending = self._engine().ask(
                goal.request.question, self._options(goal.request), on_token=partial(_publish_token, goal)
            )
            await self._settled_or_cancelled(goal, pending)
            self._fill(result, goal.request, pending.result())
            await self._pacer.turn()
            goal.succeed()
        except AskError as error:
            fill_error(result, self._explained(goal.request, error))
            await self._pacer.turn()
            if goal.is_cancel_requested and error.code == ErrorCode.CANCELLED:
                goal.canceled()
            else:
                goal.abort()
        return result

    def _fill(self, message: Any, request: Any, answer: Answer) -> None:
        fill_answer(message, answer, request.with_all_moments)
        self._on_answer(answer)

    def _explained(self, request: Any, error: AskError) -> AskError:
        """A lack of frames in the newest memory with its cause, as far as the node knows it."""
        newest = error.code == ErrorCode.NO_FRAMES and not self._options(request).ranged
        cause = self._no_frames() if newest else ""
        return AskError(error.code, f"no frame is in memory: {cause}") if cause else error

    async def _settled(self, pending: PendingAnswer) -> None:
        settled = worker_future(self._node.executor)
        pending.add_done_callback(lambda _: settled.set_result(None))
        await settled

    async def _settled_or_cancelled(self, goal: ServerGoalHandle, pending: PendingAnswer) -> None:
        key = _goal_key(goal)
        self._pending[key] = pending
        try:
            # A cancel that came between acceptance and now found nothing to cancel.
            if goal.is_cancel_requested:
                pending.cancel()
            await self._settled(pending)
        finally:
            del self._pending[key]

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        pending = self._pending.get(_goal_key(goal))
        if pending is not None:
            pending.cancel()
        return CancelResponse.ACCEPT


def _goal_key(goal: ServerGoalHandle) -> bytes:
    # Goal handles compare by id but cannot be hashed.
    return bytes(goal.goal_id.uuid)


def _publish_token(goal: ServerGoalHandle, token: str) -> None:
    """Called on the engine's answer thread: tokens handed over to the executor could change their order."""
    if goal.is_active:
        goal.publish_feedback(AskAction.Feedback(token=token))

"""A watch as the client of the node receives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future

from fvs_ros.action import Watch as WatchAction
from fvs_ros.msg import WatchEvent
from fvs_ros.nodes.qos import question_qos
from fvs_ros.ros_tools.answer_stream import answered
from fvs_ros.ros_tools.requests import RefusedError, ask_fields
from fvs_ros.ros_tools.spinning import Spinning
from fvs_ros.stream.config import LONGEST_TIMEOUT_S
from fvs_ros.stream.types import AskError, ErrorCode

if TYPE_CHECKING:
    # Part of Python from 3.11 on, and needed by type checkers alone.
    from typing import Unpack


class WatchRequest(TypedDict, total=False):
    """How to watch.

    Attributes:
        period_s: seconds of the images' stamps between two looks; 0 looks at each prefilled memory.
        hold_s: seconds of stamps for which the condition must be true before that is told.
        once: end when it becomes true.
        timeout_s: seconds after which the watch ends; 0 never.
        with_images: let the moments of each change bring their pictures.
    """

    period_s: float
    hold_s: float
    once: bool
    timeout_s: float
    with_images: bool


class WatchStream:
    """A watch that is open; `FlashVStreamClient.watch` makes it, and spins in `cancel` and `result`.

    Attributes:
        goal: the action's goal handle.
        events: looks that arrived so far, those that changed nothing too.
    """

    def __init__(self, client: Spinning, goal: ClientGoalHandle, events: list[WatchEvent]) -> None:
        self.goal = goal
        self.events = events
        self._client = client
        self._result: Future = goal.get_result_async()

    @property
    def changes(self) -> list[WatchEvent]:
        """Those of `events` at which something changed."""
        return [event for event in self.events if event.change != WatchEvent.NOTHING]

    def done(self) -> bool:
        """Whether the watch has ended; `result` then returns, or raises, at once."""
        return self._result.done()

    def cancel(self) -> bool:
        """Ends the watch; `result` then raises AskError (CANCELLED).

        Returns:
            False if it had ended already.

        Raises:
            TimeoutError: the node does not respond.
        """
        response = self._client.result_of(self.goal.cancel_goal_async(), "a reply to the cancel")
        return bool(response.goals_canceling)

    def result(self, timeout_s: float = LONGEST_TIMEOUT_S) -> WatchAction.Result:
        """Waits for the end of a watch with `once`: its condition has become true.

        Returns:
            The `fvs_ros/action/Watch` result, of which `success` is true.

        Raises:
            AskError: it ended otherwise; `code` says why.
            TimeoutError: it has not ended within `timeout_s` seconds, and goes on.
        """
        return answered(self._client.result_of(self._result, "the watch's end", timeout_s).result)


class WatchClient:
    """The client's side of the action `watch`.

    Args:
        client: spins while something is waited for.
        action: the action's name.
    """

    def __init__(self, client: Spinning, action: str) -> None:
        self._client = client
        self._name = action
        self._action = ActionClient(
            client.ros_node,
            WatchAction,
            action,
            goal_service_qos_profile=question_qos(),
            result_service_qos_profile=question_qos(),
            cancel_service_qos_profile=question_qos(),
            feedback_sub_qos_profile=question_qos(),
        )

    def begin(
        self, condition: str, on_event: Callable[[WatchEvent], None] | None, **options: Unpack[WatchRequest]
    ) -> WatchStream:
        """See `FlashVStreamClient.watch`."""
        goal, events = WatchAction.Goal(**_watch_fields(condition, **options)), list[WatchEvent]()

        def add(message: Any) -> None:
            events.append(message.feedback.event)
            if on_event is not None:
                on_event(message.feedback.event)

        self._client.wait_for(self._action.server_is_ready, f"the action {self._name} to be offered")
        handle = self._client.result_of(self._action.send_goal_async(goal, add), f"a reply of {self._name}")
        if not handle.accepted:
            raise RefusedError(f"{self._name} rejected the watch's goal")
        return WatchStream(self._client, handle, events)

    def close(self) -> None:
        """Leaves the action."""
        self._action.destroy()


def _watch_fields(
    condition: str,
    *,
    period_s: float = 0.0,
    hold_s: float = 0.0,
    once: bool = False,
    timeout_s: float = 0.0,
    with_images: bool = False,
) -> dict[str, Any]:
    seconds = {"period_s": float(period_s), "hold_s": float(hold_s), "timeout_s": float(timeout_s)}
    for name, value in seconds.items():
        if not 0 <= value <= LONGEST_TIMEOUT_S:
            raise AskError(ErrorCode.INVALID_QUESTION, f"{name} is {value}; give 0 to {LONGEST_TIMEOUT_S:g} seconds")
    fields = {"once": bool(once), "with_images": bool(with_images), **seconds}
    return {"condition": ask_fields(condition)["question"], **fields}

"""A streamed answer as the client of the node receives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future

from fvs_ros.action import Ask as AskAction
from fvs_ros.stream.types import AskError, ErrorCode


class AnswerStream:
    """An answer on its way; `FlashVStreamClient.ask_stream` makes it, and spins in `cancel` and `result`.

    Attributes:
        goal: the action's goal handle.
        tokens: pieces of the answer that arrived so far.
    """

    def __init__(
        self,
        result_of: Callable[..., Any],
        goal: ClientGoalHandle,
        tokens: list[str],
        add: Callable[[str], None],
        longest_s: float,
    ) -> None:
        self.goal = goal
        self.tokens = tokens
        self._add = add
        self._result_of = result_of
        self._longest_s = longest_s
        self._result: Future = goal.get_result_async()

    def done(self) -> bool:
        """Whether the answer has ended; `result` then returns, or raises, at once."""
        return self._result.done()

    def cancel(self) -> bool:
        """Has the node stop at the next token; `result` then raises AskError (CANCELLED).

        Returns:
            False if the answer had ended already.

        Raises:
            TimeoutError: the node does not respond.
        """
        response = self._result_of(self.goal.cancel_goal_async(), "a reply to the cancel")
        return bool(response.goals_canceling)

    def result(self) -> AskAction.Result:
        """Waits for the end of the answer. `tokens` is complete then, its end in one piece if the result overtook it.

        Returns:
            The `fvs_ros/action/Ask` result, of which `success` is true.

        Raises:
            AskError: there is no answer; `code` says why.
            TimeoutError: the node does not respond.
        """
        result = answered(self._result_of(self._result, "the answer's end", self._longest_s).result)
        # rclpy forgets a goal's feedback callback when its result arrives: tokens still waiting then never come.
        text = "".join(self.tokens)
        if result.answer.startswith(text) and len(text) < len(result.answer):
            self._add(result.answer[len(text) :])
        return result


def answered(response: Any) -> Any:
    """The response, if it is one to a question that was answered.

    Raises:
        AskError: it is not; `code` says why.
    """
    if not response.success:
        raise AskError(ErrorCode(response.error_code), response.error_message)
    return response

"""A Python client of the stream node: ask it, stream an answer, watch, reset, save, load and forget its memory.

For instance::

    with FlashVStreamClient() as client:
        client.wait_until_active(timeout_s=120)
        print(client.ask("In which room did you last see the green chair?").answer)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from fvs_ros.action import Ask as AskAction
from fvs_ros.msg import MemoryState, StreamStatistics, WatchEvent, WatchList
from fvs_ros.nodes.qos import latched_qos, question_qos
from fvs_ros.ros_tools.answer_stream import AnswerStream, answered
from fvs_ros.ros_tools.requests import (
    DEFAULT_TIMEOUT_S,
    RefusedError,
    RequestOptions,
    ask_fields,
    done,
    episode_number,
    longest_wait,
)
from fvs_ros.ros_tools.service_calls import ServiceCalls
from fvs_ros.ros_tools.spinning import TICK_S, Spinning
from fvs_ros.ros_tools.watch_stream import WatchClient, WatchRequest, WatchStream
from fvs_ros.srv import Ask, Forget, Keyframe, LoadMemory

if TYPE_CHECKING:
    # Part of Python from 3.11 on, and needed by type checkers alone.
    from typing import Unpack

__all__ = ["FlashVStreamClient", "RefusedError", "RequestOptions", "WatchRequest"]

DEFAULT_NODE = "/stream_node"
# For saving, loading and forgetting: the node's own limit, and a little more.
COMMAND_TIMEOUT_S = 660.0
# One look at the lifecycle state. A request that crosses the node's start or end is lost.
_STATE_S = 2.0

AnyClient = TypeVar("AnyClient", bound="FlashVStreamClient")


class FlashVStreamClient(Spinning):
    """Talks to one stream node through its public interface, from one thread.

    It has a node and an executor of its own, which it spins while a method waits: call it from anywhere, also from a
    callback of another node. Messages arrive, and callbacks run, only during such a wait; `spin_for` does nothing else.

    Args:
        node: full name of the stream node, such as "/robot1/stream_node"; its `ask` and `ask_stream` lie beside it.
        domain: ROS domain; None takes ROS_DOMAIN_ID.
        ros_node: a node to talk through instead of one of the client's own. It must not be in another executor; the
            client spins it and leaves it to the caller to destroy.
        on_wait: called about 50 times a second during every wait. What it raises ends the wait.

    Attributes:
        node: as given.
        ros_node: the rclpy node that the client talks through; it can have further subscriptions and publishers.
        memory: the newest `fvs_ros/msg/MemoryState` that arrived, None before the first.
        statistics: the newest `fvs_ros/msg/StreamStatistics` that arrived, None before the first.
        watches: the newest `fvs_ros/msg/WatchList` that arrived, None before the first.

    Raises:
        ValueError: `ros_node` is in an executor already.
    """

    def __init__(
        self,
        node: str = DEFAULT_NODE,
        *,
        domain: int | None = None,
        ros_node: Node | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        if ros_node is not None and ros_node.executor is not None:
            name = ros_node.get_fully_qualified_name()
            raise ValueError(f"{name} is in an executor already; leave ros_node out, for a node of the client's own")
        self.node = node
        self.memory: MemoryState | None = None
        self.statistics: StreamStatistics | None = None
        self.watches: WatchList | None = None
        self._on_wait = on_wait
        self._owns_node = ros_node is None
        if ros_node is None:
            context = rclpy.Context()
            rclpy.init(args=[], context=context, domain_id=domain)
            ros_node = rclpy.create_node("flash_vstream_client", context=context)
        self.ros_node = ros_node
        self._executor = SingleThreadedExecutor(context=ros_node.context)
        self._executor.add_node(ros_node)
        namespace = "".join(node.rpartition("/")[:2])
        self._ask_service, self._ask_action = f"{namespace}ask", f"{namespace}ask_stream"
        self._calls = ServiceCalls(ros_node, node, self.wait_for)
        self._call = self._calls.call
        self._calls.offer(Ask, self._ask_service)
        commands = {"save_memory": Trigger, "load_memory": LoadMemory, "forget": Forget, "reset": Trigger}
        for name, service_type in {**commands, "pause": SetBool, "get_state": GetState}.items():
            self._calls.offer(service_type, f"{node}/{name}")
        self._action = ActionClient(
            ros_node,
            AskAction,
            self._ask_action,
            goal_service_qos_profile=question_qos(),
            result_service_qos_profile=question_qos(),
            cancel_service_qos_profile=question_qos(),
            # rclpy keeps 10 by default: tokens that come while nobody spins would push each other out.
            feedback_sub_qos_profile=question_qos(),
        )
        self._watching = WatchClient(self, f"{namespace}watch")
        self._subscriptions = (
            ros_node.create_subscription(MemoryState, f"{node}/memory", self._on_memory, latched_qos()),
            ros_node.create_subscription(StreamStatistics, f"{node}/statistics", self._on_statistics, 1),
            ros_node.create_subscription(WatchList, f"{node}/watches", self._on_watches, latched_qos()),
        )

    def __enter__(self: AnyClient) -> AnyClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves DDS; a node that was given stays, without the client's subscriptions and clients."""
        self._action.destroy()
        self._watching.close()
        self._calls.close()
        for subscription in self._subscriptions:
            self.ros_node.destroy_subscription(subscription)
        self._executor.remove_node(self.ros_node)
        self._executor.shutdown()
        if self._owns_node:
            context = self.ros_node.context
            self.ros_node.destroy_node()
            rclpy.shutdown(context=context)

    # Questions

    def ask(self, question: str, **options: Unpack[RequestOptions]) -> Ask.Response:
        """Asks through the service, and waits for the whole answer.

        Args:
            question: in any language that the model speaks.
            options: see `RequestOptions`; a timeout of 60 s where none is given.

        Returns:
            The `fvs_ros/srv/Ask` response, of which `success` is true.

        Raises:
            AskError: there is no answer; `code` says why.
            TimeoutError: the service is not offered, or the node does not respond.
        """
        request = Ask.Request(**ask_fields(question, **options))
        return answered(self._call(Ask, self._ask_service, request, response_s=longest_wait(request.timeout_s)))

    def ask_stream(
        self,
        question: str,
        on_token: Callable[[str], None] | None = None,
        **options: Unpack[RequestOptions],
    ) -> AnswerStream:
        """Asks through the action, and returns once the node has accepted the goal.

        Several can be on their way at once. Tokens arrive while the client waits, `AnswerStream.result` for instance.

        Args:
            question: in any language that the model speaks.
            on_token: called with each piece of the answer.
            options: see `ask`.

        Raises:
            AskError: no ROS message can hold the question or a limit. What the node refuses, `result` raises.
            TimeoutError: the action is not offered, or the node does not respond.
            RefusedError: the node rejects the goal.
        """
        tokens: list[str] = []

        def add(token: str) -> None:
            tokens.append(token)
            if on_token is not None:
                on_token(token)

        goal = AskAction.Goal(**ask_fields(question, **options))
        self.wait_for(self._action.server_is_ready, f"the action {self._ask_action} to be offered")
        self._calls.be_known()
        handle = self.result_of(
            self._action.send_goal_async(goal, lambda message: add(message.feedback.token)),
            f"a reply of {self._ask_action}",
        )
        if not handle.accepted:
            raise RefusedError(f"{self.node} rejected the question's goal")
        return AnswerStream(self.result_of, handle, tokens, add, longest_wait(goal.timeout_s))

    def keyframe(self, stamp: Time | None = None) -> Keyframe.Response:
        """The stored picture of the scene in view at a stamp, or else of the nearest one in time.

        Args:
            stamp: such as a moment's; None takes the newest picture.

        Returns:
            The `fvs_ros/srv/Keyframe` response, of which `success` is true: the picture with its stamp, and its pose.

        Raises:
            RefusedError: no picture is kept, or the node is not configured.
            TimeoutError: the node does not respond.
        """
        response = self._call(Keyframe, f"{self.node}/keyframe", Keyframe.Request(stamp=stamp or Time()))
        done(response)
        return response

    def watch(
        self,
        condition: str,
        on_event: Callable[[WatchEvent], None] | None = None,
        **options: Unpack[WatchRequest],
    ) -> WatchStream:
        """Has the node watch for a condition, and returns once it has accepted the goal.

        Events arrive while the client waits, `WatchStream.result` for instance.

        Args:
            condition: a statement about now ("the door is open"), or a yes/no question with its question mark.
            on_event: called with each look at it.
            options: see `WatchRequest`.

        Raises:
            AskError: no ROS message can hold it. What the node refuses, `result` raises.
            TimeoutError: the action is not offered, or the node does not respond.
        """
        return self._watching.begin(condition, on_event, **options)

    # The node

    def wait_until_active(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Waits until the node is active, that is, subscribes to its camera and answers.

        Loading a large model takes minutes.

        Raises:
            TimeoutError: it is not in time; the message says in which state it is.
        """
        deadline = time.monotonic() + timeout_s
        state = "not there"
        while state != "active":
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_s:g} s for {self.node} to be active; it is {state}")
            try:
                state = self._state()
            except TimeoutError:
                continue
            self.spin_for(TICK_S)

    def wait_for_memory(
        self, condition: Callable[[MemoryState], bool] = lambda memory: True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> MemoryState:
        """Waits until the newest memory fulfils `condition`, and returns it.

        Raises:
            TimeoutError: it does not in time.
        """
        what = f"a memory on {self.node}/memory"
        self.wait_for(lambda: self.memory is not None and condition(self.memory), what, timeout_s)
        return self.memory

    def next_statistics(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> StreamStatistics:
        """Waits for the node's next counters; they come once a second.

        Raises:
            TimeoutError: none come in time.
        """
        # What has waited in the reader since the last spin is of before this call.
        self.spin_for(TICK_S)
        known = self.statistics
        self.wait_for(lambda: self.statistics is not known, f"counters on {self.node}/statistics", timeout_s)
        return self.statistics

    def reset(self) -> None:
        """Has the node begin anew: its memory is empty, and the next image begins a new episode.

        What is stored stays; `forget` removes it.

        Raises:
            RefusedError: the node is not configured.
            TimeoutError: the node does not respond.
        """
        done(self._call(Trigger, f"{self.node}/reset", Trigger.Request()))

    def pause(self, paused: bool = True) -> None:
        """Has the node skip its images, or take them in again; the memory stays and answers.

        Raises:
            RefusedError: the node is not configured.
            TimeoutError: the node does not respond.
        """
        done(self._call(SetBool, f"{self.node}/pause", SetBool.Request(data=paused)))

    def save_memory(self, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Has the node save its memory and all that it has seen up to now; returns what it saved, in a sentence.

        Nobody need do that: a segment is stored when it ends, and the memory every few minutes and where the node ends.

        Raises:
            RefusedError: it cannot be saved, another command is under way, or the node is not configured.
            TimeoutError: the node does not respond.
        """
        return done(self._call(Trigger, f"{self.node}/save_memory", Trigger.Request(), response_s=timeout_s))

    def load_memory(self, episode: int = 0, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Has the node take up a stored episode; returns what is in memory now, in a sentence.

        Frames go on in it where their stamps do.

        Args:
            episode: as `fvs memory info` numbers them; 0 is the last one.
            timeout_s: longest wait, in seconds.

        Raises:
            RefusedError: there is no such episode, another command is under way, or the node is not configured.
            TimeoutError: the node does not respond.
            ValueError: no message can hold the number.
        """
        request = LoadMemory.Request(episode=episode_number(episode))
        return done(self._call(LoadMemory, f"{self.node}/load_memory", request, response_s=timeout_s))

    def forget(
        self,
        since: Time | None = None,
        until: Time | None = None,
        episode: int = 0,
        *,
        everything: bool = False,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> int:
        """Has the node forget what was seen in a range of time, in an episode, or all. There is no way back.

        Pictures, features and the memory's share are gone, from the disk too, for all segments that overlap the range.

        Args:
            since: first stamp, such as a moment's `start`; None: from the beginning.
            until: last stamp; None: to the end.
            episode: as `fvs memory info` numbers them; 0 is any.
            everything: must be true where nothing else is given.
            timeout_s: longest wait, in seconds.

        Returns:
            How many stored segments are gone.

        Raises:
            RefusedError: the wish makes no sense, another command is under way, or the node is not configured.
            TimeoutError: the node does not respond.
            ValueError: no message can hold the episode's number.
        """
        request = Forget.Request(
            since=since or Time(), until=until or Time(), episode=episode_number(episode), everything=everything
        )
        response = self._call(Forget, f"{self.node}/forget", request, response_s=timeout_s)
        done(response)
        return response.segments

    def _state(self) -> str:
        response = self._call(GetState, f"{self.node}/get_state", GetState.Request(), response_s=_STATE_S)
        return response.current_state.label

    def _on_memory(self, message: MemoryState) -> None:
        self._calls.hear()
        self.memory = message

    def _on_statistics(self, message: StreamStatistics) -> None:
        self._calls.hear()
        self.statistics = message

    def _on_watches(self, message: WatchList) -> None:
        self.watches = message

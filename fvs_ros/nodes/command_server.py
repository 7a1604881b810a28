"""The node's commands: reset, pause, a stored picture, and those that take long, to save, load and forget."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from fvs_ros.errors import ReadableError
from fvs_ros.nodes.futures import worker_future
from fvs_ros.nodes.messages import open_stamp, picture_message, pose_message
from fvs_ros.nodes.qos import question_qos
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.srv import Forget, Keyframe, LoadMemory
from fvs_ros.stream.engine import StreamEngine

# Longest wait for a command. Rebuilding the memory of a large model on a CPU takes minutes.
COMMAND_TIMEOUT_S = 600.0
_JOIN_S = 0.1

Command = Callable[[StreamEngine], Any]


class CommandServer:
    """Offers `~/reset`, `~/pause`, `~/keyframe`, `~/save_memory`, `~/load_memory`, `~/forget`.

    The last three wait for the disk and for the model: on a thread of their own, one at a time, while all other
    callbacks go on. What cannot be done is refused with the reason.

    Args:
        node: gets the services.
        engine: the engine; None while the node is not configured.
        way_to_configure: why it is not, and what to do.
    """

    def __init__(
        self, node: Node, engine: Callable[[], StreamEngine | None], way_to_configure: Callable[[], str]
    ) -> None:
        self._node = node
        self._engine = engine
        self._way_to_configure = way_to_configure
        # What the thread does now; empty if nothing.
        self._running = ""
        self._thread: threading.Thread | None = None
        # In an exclusive group a command that is awaited would block the next one, which is to be refused.
        group = ReentrantCallbackGroup()
        node.create_service(Trigger, "~/reset", self._on_reset, callback_group=group)
        node.create_service(SetBool, "~/pause", self._on_pause, callback_group=group)
        node.create_service(Keyframe, "~/keyframe", self._on_keyframe, qos_profile=question_qos(), callback_group=group)
        node.create_service(Trigger, "~/save_memory", self._on_save, callback_group=group)
        node.create_service(LoadMemory, "~/load_memory", self._on_load, callback_group=group)
        node.create_service(Forget, "~/forget", self._on_forget, callback_group=group)

    def save(self) -> None:
        """Saves without being asked, and without waiting; what goes wrong is logged."""
        engine = self._engine()
        if engine is not None and not self._running:
            self._begin("save_memory", _save, engine).add_done_callback(self._log_failure)

    def wait(self, give_up: Callable[[], bool]) -> bool:
        """Waits for the thread, which ends soon after the engine is closed; returns whether it has ended."""
        thread = self._thread
        while thread is not None and thread.is_alive() and not give_up():
            thread.join(_JOIN_S)
        return thread is None or not thread.is_alive()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        done = "the memory is empty; the next image begins a new episode. What is stored stays: forget removes it"
        return self._do(lambda engine: engine.reset(), "there is no memory to reset", done, response)

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        done = "images are skipped; the memory stays" if request.data else "images are taken in again"
        return self._do(lambda engine: engine.pause(request.data), "there is no stream to pause", done, response)

    def _do(self, command: Command, lack: str, done: str, response: Any) -> Any:
        """Does what takes no time, and fills in how it ended."""
        engine = self._engine()
        response.success = engine is not None
        if engine is None:
            response.message = f"{lack}: {self._way_to_configure()}"
        else:
            command(engine)
            response.message = done
        return response

    async def _on_keyframe(self, request: Keyframe.Request, response: Keyframe.Response) -> Keyframe.Response:
        engine = self._engine()
        response.success = False
        if engine is None:
            response.message = f"there is no memory: {self._way_to_configure()}"
            return response
        try:
            found = worker_future(self._node.executor)
            picture = engine.keyframe(open_stamp(request.stamp))
            picture.add_done_callback(lambda _: found.set_result(None))
            await found
            kept = picture.result()
        except ReadableError as error:
            response.message = str(error)
            return response
        except Exception as error:
            response.message = f"the picture cannot be given ({type(error).__name__}); the node's log has the details"
            self._node.get_logger().error(f"keyframe failed: {''.join(traceback.format_exception(error))}")
            return response
        if kept is None:
            response.message = "no picture is kept, or it is damaged; the first one comes with the second image"
            return response
        response.success, response.image, response.pose_valid = True, picture_message(kept), kept.pose is not None
        if kept.pose is not None:
            response.pose = pose_message(kept.pose, kept.stamp_ns)
        return response

    async def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        await self._run("save_memory", _save, response)
        return response

    async def _on_load(self, request: LoadMemory.Request, response: LoadMemory.Response) -> LoadMemory.Response:
        episode = request.episode or None
        await self._run("load_memory", lambda engine: engine.load_memory(episode, COMMAND_TIMEOUT_S), response)
        return response

    async def _on_forget(self, request: Forget.Request, response: Forget.Response) -> Forget.Response:
        since_ns, until_ns = open_stamp(request.since), open_stamp(request.until)
        episode = request.episode or None
        if problem := _contradiction(since_ns, until_ns, episode, request.everything):
            response.message = problem
            return response
        forgotten = await self._run(
            "forget", lambda engine: engine.forget(since_ns, until_ns, episode, COMMAND_TIMEOUT_S), response
        )
        if response.success:
            response.segments = forgotten
            response.message = f"{forgotten} segments are gone, and their share of the memory"
        return response

    async def _run(self, name: str, command: Command, response: Any) -> Any:
        """Does a command, and fills in how it ended; the message of success is what the command returns."""
        engine = self._engine()
        response.success = False
        if engine is None:
            response.message = f"there is no memory: {self._way_to_configure()}"
            return None
        if self._running:
            response.message = f"{self._running} is under way; call again when it has ended"
            return None
        try:
            result = await self._begin(name, command, engine)
        except ReadableError as error:
            response.message = str(error)
            return None
        except Exception as error:
            response.message = f"{name} failed ({type(error).__name__}); the node's log has the details"
            self._node.get_logger().error(f"{name} failed: {''.join(traceback.format_exception(error))}")
            return None
        response.success, response.message = True, str(result)
        return result

    def _begin(self, name: str, command: Command, engine: StreamEngine) -> Future:
        self._running = name
        future = worker_future(self._node.executor)
        self._thread = threading.Thread(
            target=self._work, args=(command, engine, future), name="fvs-command", daemon=True
        )
        self._thread.start()
        return future

    def _work(self, command: Command, engine: StreamEngine, future: Future) -> None:
        try:
            result, failure = command(engine), None
        except Exception as error:
            result, failure = None, error
        # Before the reply goes: who has it may send the next command.
        self._running = ""
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)

    def _log_failure(self, future: Future) -> None:
        if (error := future.exception()) is not None:
            self._node.get_logger().warning(f"The memory was not saved: {error}")


def _save(engine: StreamEngine) -> str:
    return engine.save_memory(COMMAND_TIMEOUT_S)


def _contradiction(since_ns: int | None, until_ns: int | None, episode: int | None, everything: bool) -> str:
    """What is wrong with a wish to forget, and how to write it; empty if nothing."""
    chosen = not (since_ns is None and until_ns is None and episode is None)
    if everything and chosen:
        return "everything is true beside a range or an episode; set it to false, or leave those out"
    if not everything and not chosen:
        return "nothing says what to forget; give since, until or an episode, or set everything to true"
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        return f"since is {since_ns / SECOND_NS:.3f} s, after until, {until_ns / SECOND_NS:.3f} s; swap them"
    return ""

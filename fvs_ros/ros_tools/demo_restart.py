"""The demo's second act: the node is killed in mid-patrol, started again, and asked about what it saw before."""

from __future__ import annotations

import time
from pathlib import Path

from fvs_ros.msg import MemoryState, StreamStatistics
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.demo_cast import CAMERA, NODE, Cast
from fvs_ros.ros_tools.demo_console import DemoConsole
from fvs_ros.ros_tools.demo_questions import right_answers
from fvs_ros.ros_tools.demo_viewer import STALL_TIMEOUT_S, START_TIMEOUT_S, Viewer
from fvs_ros.ros_tools.processes import ProcessError
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.srv import Ask

# Of the answers after the restart. Runs beside much other work had 9 of 12; without a kill 87 percent of such are right
LEAST_RIGHT = 0.5


class RestartAct:
    """Plays the recording to the first question of `Camera.after_restart`, kills the node, and asks it once it is back.

    Args:
        cast: runs.
        console: where it is shown.
        store: folder of the node's episode store; it is made.
        answers_are_known: whether the model knows what is in the recording, so that `LEAST_RIGHT` is asked of it.
    """

    def __init__(self, cast: Cast, console: DemoConsole, store: Path, answers_are_known: bool) -> None:
        self._cast = cast
        self._console = console
        self._store = store
        self._answers_are_known = answers_are_known
        self._kill_s = cast.camera.after_restart[0].at_s
        self._answers: list[Ask.Response | None] = []
        self._lost_s = 0.0
        self._problem = ""

    def run(self) -> bool:
        """Plays it; whether every question was answered, enough of them right, and the stream goes on in its memory."""
        try:
            self._after_the_restart(*self._until_the_kill())
        except (ProcessError, TimeoutError) as error:
            self._problem = str(error)
        finally:
            self._console.note("stopping the node and the camera")
            codes = self._cast.processes.stop()
        if not self._problem and any(codes.values()):
            self._problem = f"{', '.join(name for name, code in codes.items() if code)} did not end well"
        right, known = self._right()
        if not self._problem and self._answers_are_known and right < LEAST_RIGHT * known:
            self._problem = f"{right} of {known} answers after the restart are right; {LEAST_RIGHT:.0%} are asked for"
        if self._problem:
            self._console.error(self._problem)
        return not self._problem and None not in self._answers

    def summary(self) -> list[str]:
        """What came of it, in lines."""
        asked = len(self._cast.camera.after_restart)
        answered = sum(answer is not None for answer in self._answers)
        right, known = self._right()
        lines = [f"after kill -9: {answered} of {asked} questions answered, {self._lost_s:.1f} s of the patrol lost"]
        if known:
            bound = f", where {LEAST_RIGHT:.0%} are asked for" if self._answers_are_known else ""
            lines.append(f"after kill -9: {right} of {known} answers right, {right / known:.0%}{bound}")
        return lines

    def _right(self) -> tuple[int, int]:
        asked = self._cast.camera.after_restart[: len(self._answers)]
        return right_answers(asked, [answer.answer if answer else "" for answer in self._answers])

    def _viewer(self) -> Viewer:
        # A client of its own for each life of the node: one that knew the dead node might send it its first question.
        camera = self._cast.camera
        return Viewer(camera, self._console, self._cast.processes, self._cast.domain, camera.start_ns)

    def _until_the_kill(self) -> tuple[MemoryState, int]:
        """The memory before the kill, and the number of the killed process."""
        cast = self._cast
        self._console.act(
            "second act: kill -9",
            {
                "node": "the same, with memory_dir set to an empty folder",
                "plan": f"the patrol begins again, and after {self._kill_s:.0f} s of it the node is killed",
            },
        )
        cast.start_node(memory_dir=self._store)
        cast.start_camera(duration=self._kill_s)
        with self._viewer() as viewer:
            viewer.wait_for_stream()
            # The last kept frame lies less than two frames before the kill.
            last_ns = viewer.start_ns + round((self._kill_s - 2.0 / cast.fps) * SECOND_NS)
            memory = viewer.client.wait_for_memory(
                lambda memory: stamp_nanoseconds(memory.end) >= last_ns, self._kill_s / cast.rate + STALL_TIMEOUT_S
            )
        # The client has left: beside a node that is killed, clients in its domain hung now and then.
        process = cast.processes.kill(NODE)
        cast.processes.kill(CAMERA)
        return memory, process

    def _after_the_restart(self, before: MemoryState, process: int) -> None:
        cast = self._cast
        began = time.monotonic()
        cast.start_node(memory_dir=self._store)
        with self._viewer() as viewer:
            viewer.client.wait_until_active(START_TIMEOUT_S)
            memory = viewer.client.wait_for_memory(lambda memory: memory.steps > 0, STALL_TIMEOUT_S)
            took_s = time.monotonic() - began
            self._lost_s = (stamp_nanoseconds(before.end) - stamp_nanoseconds(memory.end)) / SECOND_NS
            self._tell(before, process, memory, viewer.client.next_statistics(), took_s)
            for number, question in enumerate(cast.camera.after_restart):
                if question.at_s <= self._kill_s:
                    # All are answered from one memory: its keyframes need not be shown with each.
                    self._answers.append(viewer.answer(question, "before any new image", brief=number > 0))
            self._console.note("the camera plays again, from where it was")
            cast.start_camera(start_offset=self._kill_s)
            viewer.wait_for_stream()
            for question in cast.camera.after_restart[len(self._answers) :]:
                viewer.watch(question.at_s)
                self._answers.append(viewer.answer(question))
            goes_on = viewer.client.wait_for_memory(
                lambda now: stamp_nanoseconds(now.end) > stamp_nanoseconds(before.end), STALL_TIMEOUT_S
            )
            if goes_on.start != memory.start:
                self._problem = "the stream did not go on in the memory that was restored"

    def _tell(
        self,
        before: MemoryState,
        process: int,
        memory: MemoryState,
        statistics: StreamStatistics,
        took_s: float,
    ) -> None:
        """What was killed, and what was found."""
        start_ns = self._cast.camera.start_ns
        first_s, last_s = ((stamp_nanoseconds(stamp) - start_ns) / SECOND_NS for stamp in (memory.start, memory.end))
        self._console.act(
            "killed, and started again",
            {
                "killed": f"stream_node, process {process}, by SIGKILL, with {before.steps} steps in memory",
                "started": f"again on the same folder; active with its memory {took_s:.1f} s later",
                "found": f"{statistics.segments} segments; {memory.steps} steps are in memory again, from "
                f"{first_s:.1f} to {last_s:.1f} s of the patrol: {self._lost_s:.1f} s are lost",
            },
        )

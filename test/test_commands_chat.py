"""`fvs chat`: with questions on the command line, from a pipe, and typed into a real terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import PATIENCE_S
from recordings import stamp_ns, write_bag, write_video
from small_networks import write_qwen3_vl

from fvs_ros import cli
from fvs_ros.chat.player import Cue
from fvs_ros.commands.chat import parse_cue
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.questions import PendingAnswer
from fvs_ros.stream.types import AskOptions, ChatMessage

RunChat = Callable[..., tuple[int, str, str]]
OnToken = Callable[[str], None]

# A process that loads torch and a checkpoint on a busy machine.
START_S = 60.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fvs_ros.model.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=4, dam_slots=2))
    return folder


@pytest.fixture
def chat(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> RunChat:
    """Runs the command with questions; returns its status and what it printed."""

    def run(source: str | Path, *options: str) -> tuple[int, str, str]:
        status = cli.main(
            ["chat", str(source), "--model", str(checkpoint), "--device", "cpu", "--max-new-tokens", "8", *options]
        )
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return run


def answers(output: str) -> list[str]:
    return re.findall(r"^answer +(.*)$", output, re.MULTILINE)


def test_questions_at_their_times_get_the_same_answers_each_time(chat: RunChat, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=100, fps=20.0)
    options = ["--rate", "20", "--fps", "4", "--ask", "4:And now?", "--ask", "1.5:What do you see?"]
    status, output, _ = chat(video, *options)
    assert status == 0
    assert re.findall(r"^(\d:\d\d\.\d) +(.*)$", output, re.MULTILINE) == [
        ("0:01.5", "What do you see?"), ("0:04.0", "And now?"),
    ]  # fmt: skip
    assert len(answers(output)) == 2
    assert "keyframe at" in output
    assert "first token after" in output
    assert answers(chat(video, *options)[1]) == answers(output)


@pytest.mark.parametrize("options", [(), ("--no-deepstack",)], ids=["deepstack", "without"])
def test_a_qwen3_vl_is_asked_like_any_other(chat: RunChat, tmp_path: Path, options: Sequence[str]) -> None:
    """From a checkpoint on the disk to answers with their evidence; more steps than the memory keeps apart."""
    write_qwen3_vl(tmp_path / "qwen3", FlashMemoryConfig(csm_slots=4, dam_slots=2, window_slots=2))
    video = write_video(tmp_path / "clip.avi", frames=100, fps=20.0)
    asked = ("--rate", "20", "--fps", "4", "--ask", "4:And now?", "--ask", "1.5:What do you see?")
    status, output, _ = chat(video, "--model", str(tmp_path / "qwen3"), *options, *asked)
    assert status == 0
    assert len(answers(output)) == 2
    assert "keyframe at" in output


def test_folders_and_bags_are_played(chat: RunChat, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((48, 64, 3), 60 * index, np.uint8))
    status, output, _ = chat(folder, "--image-fps", "10", "--ask", "0.25:What?")
    assert (status, len(answers(output))) == (0, 1)
    status, output, _ = chat(write_bag(tmp_path / "bag"), "--ask", "0.2:What?", "--ask", "0.3:And?")
    assert (status, len(answers(output))) == (0, 2)


def test_what_was_left_out_is_said_at_the_end_and_by_the_exit_status(chat: RunChat, tmp_path: Path) -> None:
    stamps = [stamp_ns(index) for index in range(20)]
    stamps[10] += 600 * 10**9
    status, output, _ = chat(write_bag(tmp_path / "bag", 20, stamps=stamps), "--ask", "0.9:What?")
    assert status == 3
    assert len(answers(output)) == 1
    assert "a frame was left out: its stamp 1700000600.500 s is wrong" in re.sub(r"\s+", " ", output)
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((48, 64, 3), 60 * index, np.uint8))
    (folder / "1.png").write_bytes(b"no image")
    status, output, _ = chat(folder, "--rate", "20", "--ask", "2:What?")
    assert status == 3
    assert "1 of 3 frames never came into memory: 0 dropped, 0 late, 1 undecodable." in re.sub(r"\s+", " ", output)


def test_a_time_after_the_end_is_reported(chat: RunChat, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=20, fps=20.0)
    status, output, _ = chat(video, "--rate", "10", "--ask", "0.5:What?", "--ask", "60:Never?")
    assert status == 1
    assert len(answers(output)) == 1
    assert "not asked: the stream ended at 0:00.9, before 1:00.0" in output.replace("\n          ", " ")


def test_lines_of_a_pipe_are_asked(chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What?\n\nAnd where?\n")))
    status, output, _ = chat(write_video(tmp_path / "clip.avi", frames=40, fps=20.0))
    assert status == 0
    assert [heading for _, heading in re.findall(r"^(\d:\S+) +(.*)$", output, re.MULTILINE)] == ["What?", "And where?"]
    assert len(answers(output)) == 2


def test_a_line_has_later_answers_chosen_from_texts(
    chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"/choices yes | not yet\nIs it?\n/choices alone\nWas it?\n/choices\nWhat?\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    status, output, _ = chat(write_video(tmp_path / "clip.avi", frames=40, fps=20.0), "--rate", "20", "--fps", "4")
    assert status == 0
    assert "answers are now one of: yes, not yet" in output
    assert "there are 1 choices; give 2 to 64" in output
    assert "answers are in free words again" in output
    first, second, third = answers(output)
    assert {first, second} <= {"yes", "not yet"}
    assert third not in ("yes", "not yet")
    assert len(re.findall(r"^choices +(yes|not yet) \d+\.\d%, (yes|not yet) \d+\.\d%$", output, re.MULTILINE)) == 2
    assert len(re.findall(r"^sure +\d+% \(probability of exactly these words\)", output, re.MULTILINE)) == 1


@pytest.mark.parametrize(("turns", "told"), [("0", [0, 0, 0]), ("1", [0, 1, 1]), ("5", [0, 1, 2])])
def test_each_question_is_asked_with_the_turns_before_it(
    chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: str, told: list[int]
) -> None:
    asked: list[tuple[str, tuple[ChatMessage, ...]]] = []
    ask = StreamEngine.ask

    def noted(engine: StreamEngine, question: str, options: AskOptions, on_token: OnToken) -> PendingAnswer:
        asked.append((question, options.history))
        return ask(engine, question, options, on_token)

    monkeypatch.setattr(StreamEngine, "ask", noted)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What?\nAnd where?\nSince when?\n")))
    status, output, _ = chat(write_video(tmp_path / "clip.avi", frames=40, fps=20.0), "--turns", turns)
    assert status == 0
    assert [question for question, _ in asked] == ["What?", "And where?", "Since when?"]
    assert [len(history) // 2 for _, history in asked] == told
    assert all(history[-2].text == "And where?" and history[-1].text for _, history in asked[2:] if history)
    assert len(answers(output)) == 3


def test_turns_are_for_questions_that_are_typed(chat: RunChat, tmp_path: Path) -> None:
    status, _, errors = chat(tmp_path, "--turns", "2", "--ask", "1:What?")
    assert status == 1
    assert "--turns is for questions that are typed or piped" in errors


def test_what_is_no_utf_8_is_refused_line_by_line(
    chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where Python's own standard input would raise, as under en_US.UTF-8.
    lines = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfWhat?\nWhat\xff?\nAnd now?\n"), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdin", lines)
    status, output, _ = chat(write_video(tmp_path / "clip.avi", frames=40, fps=20.0))
    assert status == 1
    asked = re.findall(r"^\d:\S+ +(.*)$", output, re.MULTILINE)
    assert sorted(asked) == ["And now?", "What?", "What\u00b7?"]
    assert len(answers(output)) == 2
    assert "INVALID_QUESTION: the question is no UTF-8 text: its character 5 is '\\udcff'" in re.sub(
        r"\s+", " ", output
    )


def test_an_argument_that_is_no_utf_8_is_refused(chat: RunChat, tmp_path: Path) -> None:
    status, output, _ = chat(write_video(tmp_path / "clip.avi", frames=20), "--ask", os.fsdecode(b"0.1:What\xff?"))
    assert status == 1
    assert "INVALID_QUESTION" in output


def test_questions_are_on_the_screen_and_not_in_the_log(
    chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: FlashVStream, text: str) -> list[str]:
        raise KeyError(text)

    video = write_video(tmp_path / "clip.avi", frames=20)
    _, answered, log = chat(video, "--ask", "0.1:Where is SECRET-4711?")
    monkeypatch.setattr(FlashVStream, "control_tokens_in", fails)
    status, failed, more_log = chat(video, "--ask", "0.1:Where is SECRET-4711?")
    assert status == 1
    assert answered.count("SECRET-4711") == 1
    assert "the model failed to check the question: 'Where is SECRET-4711?'" in re.sub(r"\s+", " ", failed)
    assert "the model failed to check a question" in caplog.text
    assert "SECRET" not in log + more_log + caplog.text


def test_more_lines_than_may_wait_are_all_answered(
    chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"".join(b"What is %d?\n" % number for number in range(400))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    status, output, _ = chat(write_video(tmp_path / "clip.avi", frames=40, fps=20.0), "--max-new-tokens", "1")
    asked = re.findall(r"^\d:\S+ +What is (\d+)\?$", output, re.MULTILINE)
    assert (status, list(map(int, asked))) == (0, list(range(400)))


def test_no_standard_input_is_the_end_of_it(chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    status, output, _ = chat(write_video(tmp_path / "clip.avi", frames=20))
    assert (status, answers(output)) == (0, [])


def test_a_recording_of_one_image_answers_a_piped_question(
    chat: RunChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "only.png"), np.full((48, 64, 3), 60, np.uint8))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What?\n")))
    status, output, _ = chat(folder)
    assert (status, len(answers(output))) == (0, 1)
    assert "100%   now" in output


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("missing.mp4", [], "missing.mp4 does not exist; give a bag, a video file or a folder of images"),
        ("98", [], "there is no camera /dev/video98"),
        ("clip.avi", ["--topic", "/camera"], "is no bag, so it has no topic /camera"),
        ("clip.avi", ["--fps", "5000"], "fps is 5000.0; it must be at most 1000"),
    ],
)
def test_what_cannot_be_played_is_one_clear_line(
    chat: RunChat,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.avi", frames=2)
    status, _, error = chat(source, *options)
    assert status == 1
    assert error.startswith("fvs chat: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_model_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "clip.avi", frames=2)
    assert cli.main(["chat", str(video), "--model", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["What?", "1.5", "1.5:", "-1:What?", "nan:What?", "soon:What?"])
def test_what_is_no_question_at_a_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["chat", "0", "--model", "m", f"--ask={text}"])
    assert "is no SECONDS:QUESTION" in capsys.readouterr().err


def test_a_question_may_hold_colons() -> None:
    assert parse_cue("12.5: At 3:00, what?") == Cue(12.5, "At 3:00, what?")


def take_terminal() -> None:
    """Makes standard input the controlling terminal, whose Ctrl-C goes to this process."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A chat in a terminal of 80 by 24, without ROS."""

    def __init__(self, source: Path, checkpoint: Path) -> None:
        self._main, self._terminal = pty.openpty()
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self._terminal)
        program = "import sys; sys.modules['rclpy'] = None; from fvs_ros.cli import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "chat", str(source), "--model", str(checkpoint), "--device", "cpu"],
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            env=os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1"},
            preexec_fn=take_terminal,
        )
        self.seen = ""

    def wait_for(self, text: str, timeout_s: float = START_S) -> None:
        """Reads until `text` was printed; what came before it is not looked at again."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come; there was: {self.seen[-2000:]!r}"
            if select.select([self._main], [], [], 0.1)[0]:
                self.seen += os.read(self._main, 65_536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def wait_for_answer(self) -> None:
        """Reads until an answer was printed and the bottom is there again: keys that are typed while it is not may be
        the terminal's own.
        """
        self.wait_for("first token after")
        self.wait_for("play")

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def end(self) -> tuple[int, bool]:
        """The exit status, and whether the terminal has its mode back."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the chat did not end; there was: {self.seen[-2000:]!r}"
            if select.select([self._main], [], [], 0.1)[0]:
                self.seen += os.read(self._main, 65_536).decode(errors="replace")
        return self.process.returncode, termios.tcgetattr(self._terminal) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self._terminal)


@pytest.fixture
def terminal(checkpoint: Path, tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(write_video(tmp_path / "clip.avi", frames=400, fps=20.0), checkpoint)
    yield opened
    opened.close()


def test_typing_while_the_stream_plays(terminal: Terminal) -> None:
    terminal.wait_for("1 kept")
    # Corrected at its end, in its middle and at its beginning.
    terminal.type("hat is  it?\x17\x17\x17hat is therr\x7fe?\x01W\x05\r")
    terminal.wait_for("What is there?")
    terminal.wait_for_answer()
    # From the history.
    terminal.type("draft\x1b[A\r")
    terminal.wait_for("What is there?")
    terminal.wait_for_answer()
    terminal.type("\x04")
    assert terminal.end() == (0, True)
    assert "Traceback" not in terminal.seen


def test_lines_that_are_pasted_are_questions_each(terminal: Terminal) -> None:
    terminal.wait_for("1 kept")
    terminal.type("\x1b[200~What?\n\nAnd where?\x1b[201~\r")
    for question in ("What?", "And where?"):
        terminal.wait_for(question)
        terminal.wait_for("first token after")
    terminal.wait_for("play")
    # On a line that is not empty it ends nothing.
    terminal.type("x\x1b[D\x04\x04")
    assert terminal.end() == (0, True)


def test_the_bottom_follows_a_resize(terminal: Terminal) -> None:
    terminal.wait_for("1 kept")
    terminal.resize(40)
    terminal.wait_for("\u2026")


def test_ctrl_c_ends_the_chat_and_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.wait_for("1 kept")
    terminal.type("half a quest\x03")
    assert terminal.end() == (cli.INTERRUPTED, True)
    assert "Traceback" not in terminal.seen

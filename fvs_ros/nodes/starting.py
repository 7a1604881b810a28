"""The start of a node's process: a command line that ROS cannot read ends it with one line, not with a traceback."""

from __future__ import annotations

import math
import re
import time
import traceback
from collections.abc import Collection, Sequence

import rclpy
from rclpy.context import Context
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.logging import LoggingSeverity, get_logger, set_logger_level

from fvs_ros import errors
from fvs_ros.nodes.parameters import text_arguments

# What rclpy raises where a node's names, remaps or parameters have no meaning; RuntimeError is its RCLError.
START_ERRORS = (NameValidationException, ParameterException, RuntimeError, ValueError)

# For a model call that is under way when the process is told to end.
PATIENCE_S = 1.0

# By the words with which rcl names what it could not read.
_ADVICE = {
    "Error opening YAML file": "name a file that exists and can be read",
    "parse params file": "write `/**:`, below it `ros__parameters:`, below that `name: value`, indented with blanks, "
    "as config/stream.yaml does",
    "parse remap rule": "write -r NAME:=NEW_NAME, in letters, digits, _ and /, with no digit after a /",
    "parse parameter override": "write -p NAME:=VALUE",
    "parse log level": "write --log-level debug, info, warn, error or fatal",
}


def init_ros(arguments: Sequence[str], text_parameters: Collection[str]) -> None:
    """`rclpy.init` for a process that is one node.

    Args:
        arguments: of the command line.
        text_parameters: names of the parameters whose values are text, whatever they look like.

    Raises:
        ValueError: ROS cannot read the command line, or a file that it names; in one line, with what to write.
    """
    # rcl logs the same failure in its own words.
    set_logger_level("rcl", LoggingSeverity.FATAL)
    try:
        rclpy.init(args=text_arguments(arguments, text_parameters))
    except RuntimeError as error:
        raise ValueError(_with_advice(error)) from error
    finally:
        set_logger_level("rcl", LoggingSeverity.UNSET)


def one_line(error: str) -> str:
    """An error of rcl's or rclpy's as one line, without rcl's source files."""
    return errors.one_line(re.sub(r",? at /\S+:\d+", "", error)).removeprefix("failed to initialize rcl: ")


def spin(executor: Executor, name: str) -> None:
    """Spins until shutdown; a callback that raises is logged and ends nothing but itself.

    A signal shuts the context down while a callback runs, which then cannot publish any more: that is no failure.
    """
    while executor.context.ok():
        try:
            executor.spin_once()
        except ExternalShutdownException:
            raise
        except Exception:
            if executor.context.ok():
                get_logger(name).error(f"A callback failed; the node goes on.\n{traceback.format_exc()}")


class Patience:
    """How long to wait for a model call: to its end, or to a second after the process was told to end.

    rclpy shuts the context down on SIGINT and SIGTERM, also while the executor's thread is in a callback.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told_s = math.inf

    def over(self) -> bool:
        """Whether not to wait any longer."""
        now_s = time.monotonic()
        if not self._context.ok():
            self._told_s = min(self._told_s, now_s)
        return now_s - self._told_s > PATIENCE_S


def _with_advice(error: Exception) -> str:
    if type(error).__name__ == "UnknownROSArgsError":
        return f"unknown arguments after --ros-args: {error}"
    # Of the lexer's states nobody learns anything.
    text = re.sub(r"\. Error: (Expected lexeme|error not set).*", "", one_line(str(error)))
    advice = next((advice for words, advice in _ADVICE.items() if words in text), "")
    return f"{text}; {advice}" if advice else text

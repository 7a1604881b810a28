"""The stream node's parameters: one table of their meaning and range, and the one place that reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.parameter import Parameter

from fvs_ros.episodic.database import LEAST_LIMIT_BYTES
from fvs_ros.episodic.store import Resume
from fvs_ros.memory.config import AUTO, KEEP_SLOTS, MOST_SLOTS, SPATIAL_METHODS, TEMPORAL_METHODS
from fvs_ros.model.names import EMBEDDED
from fvs_ros.model.quantization import QUANTIZATIONS, Quantization
from fvs_ros.stream.config import LONGEST_TIMEOUT_S, StreamConfig

ParameterValue = bool | int | float | str | list[str]

MOST_PIXELS = 4_000_000
# Of the episode store: 1 TiB, in which a robot keeps years.
MOST_MEMORY_BYTES = 2**40


@dataclass(frozen=True)
class ParameterRow:
    """One parameter.

    Attributes:
        least, most: inclusive range of a number.
        choices: all values of a string; empty where any will do.
        live: can be set while the node runs; the others are read once.
    """

    name: str
    default: ParameterValue
    description: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    @property
    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows, and rclpy enforces."""
        descriptor = ParameterDescriptor(description=self.description, read_only=not self.live)
        if self.choices:
            descriptor.additional_constraints = f"one of {', '.join(self.choices)}"
        if self.least is not None and self.most is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(self.least), to_value=float(self.most), step=0.0)
                ]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(self.least), to_value=int(self.most), step=1)]
        return descriptor

    def check(self, value: ParameterValue) -> str:
        """What is wrong with a value, apart from the type and the range that rclpy checks; empty if nothing."""
        if self.choices and value not in self.choices:
            return f"{self.name} is {value!r}; set it to one of {', '.join(self.choices)}"
        return ""


def declare(node: Node, row: ParameterRow) -> Any:
    """Declares a parameter, and returns its value.

    Raises:
        ValueError: the value that was given at start is of the wrong type; the message says how to write it.
        rclpy.exceptions.ParameterException: it is out of range.
    """
    try:
        return node.declare_parameter(row.name, row.default, row.descriptor).value
    except InvalidParameterTypeException as error:
        given = re.search(r"to '(.*)' of type '(\w+)'", str(error), re.DOTALL)
        if given is None:
            raise
        raise ValueError(_wrong_type(row, given[1], given[2])) from error


def _wrong_type(row: ParameterRow, value: str, kind: str) -> str:
    if isinstance(row.default, bool):
        advice = "true or false, without quotes"
    elif isinstance(row.default, float):
        advice = f"{value}.0" if kind == "INTEGER" else f"a number with a decimal point, such as {row.default}"
    elif isinstance(row.default, int):
        whole = value.removesuffix(".0")
        advice = whole if whole.isdecimal() else f"a whole number, such as {row.default}"
    elif isinstance(row.default, str):
        advice = f"'{value}', in quotes"
    else:
        advice = f"a list, such as {row.default}"
    return f"{row.name} is {value}, of type {kind.lower()}; write {advice}"


def parameter(
    default: Any,
    description: str,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A field of a dataclass of parameters; see `ParameterRow`."""
    row = {"description": description, "least": least, "most": most, "choices": choices, "live": live}
    return field(default=default, metadata=row)


def rows_of(settings: type) -> list[ParameterRow]:
    """The parameters that a dataclass declares, by `parameter` or in the metadata of its fields, in its order."""
    rows = []
    for item in fields(settings):
        default: Any = item.default
        # rclpy knows lists, not tuples.
        rows.append(ParameterRow(item.name, list(default) if isinstance(default, tuple) else default, **item.metadata))
    return rows


@dataclass(frozen=True)
class NodeSettings:
    """The parameters that are the node's own; `StreamConfig` holds the engine's. `TABLE` describes both.

    Raises:
        ValueError: a limit below what a store needs, or a folder in the home of a user who does not exist.
    """

    model: str = parameter(
        EMBEDDED,
        "Checkpoint to load: a folder, a hub name such as zhang9302002/Flash-VStream-Qwen-7b, embedded for the small "
        "model that ships with the package and knows only simulated patrols, or tiny for random weights",
    )
    device: str = parameter("auto", "Where the model runs: auto (CUDA where there is one), cpu, cuda or cuda:N")
    dtype: str = parameter(
        "auto",
        "Precision of the weights: auto is bfloat16 on a GPU that has it, float32 otherwise",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    quantization: str = parameter(
        Quantization.NONE.value,
        "Bits of the language model's weights: none leaves them as the checkpoint has them, int8 takes half the memory "
        "of bfloat16, int4 a quarter, on CUDA of compute capability 8.0 and above; both need torchao",
        choices=QUANTIZATIONS,
    )
    temporal_method: str = parameter(
        AUTO,
        "How the memory sums up more steps than its context slots: auto takes the checkpoint's method",
        choices=(AUTO, *TEMPORAL_METHODS),
    )
    spatial_method: str = parameter(
        AUTO,
        "How the memory chooses keyframes: auto takes the checkpoint's method",
        choices=(AUTO, *SPATIAL_METHODS),
    )
    csm_slots: int = parameter(
        KEEP_SLOTS,
        "Most slots of the memory's synopsis (CSM), of a quarter of a step's tokens each; -1 takes the checkpoint's",
        KEEP_SLOTS,
        MOST_SLOTS,
    )
    dam_slots: int = parameter(
        KEEP_SLOTS, "Most keyframes in full detail (DAM); -1 takes the checkpoint's", KEEP_SLOTS, MOST_SLOTS
    )
    window_slots: int = parameter(
        KEEP_SLOTS,
        "Newest grid steps that stay in full detail beside them; -1 takes the checkpoint's, 2 for weights that were "
        "trained without a Flash Memory",
        KEEP_SLOTS,
        MOST_SLOTS,
    )
    deepstack: bool = parameter(
        True,
        "Of Qwen3-VL: false does without DeepStack's features: a quarter of the memory, and less detail; "
        "all other models refuse it",
    )
    autostart: bool = parameter(True, "Configure and activate at once; false waits for lifecycle transitions")
    load_retry_s: float = parameter(
        30.0,
        "Seconds after which autostart loads a model again that the hub did not give; 0 never does",
        0,
        LONGEST_TIMEOUT_S,
    )
    image_transport: str = parameter(
        "raw",
        "raw subscribes to `image`, compressed to `image/compressed` (JPEG or PNG)",
        choices=("raw", "compressed"),
    )
    image_timeout_s: float = parameter(
        5.0, "Seconds without an image after which /diagnostics warns; 0 never warns", 0, LONGEST_TIMEOUT_S, live=True
    )
    pose_source: str = parameter(
        "none",
        "Where the poses of moments come from: none, odometry (`odom`: the robot base's pose) or tf (the camera's)",
        choices=("none", "odometry", "tf"),
    )
    pose_frame: str = parameter("map", "Coordinate frame of the poses that tf gives; odometry brings its own")
    pose_tolerance_s: float = parameter(
        0.1, "Seconds by which a pose may miss the image's stamp, or tf may be late", 0, 10
    )
    memory_dir: str = parameter(
        "",
        "Folder of the episode store, which outlasts the node; ~ is the home folder. Empty keeps the store in RAM, and "
        "it ends with the node",
    )
    memory_bytes: int = parameter(
        0,
        "Most bytes of the episode store, on the disk or in RAM; 0 takes the limit that it has, 256 MiB for a new one",
        0,
        MOST_MEMORY_BYTES,
    )
    resume: str = parameter(
        Resume.AUTO.value,
        "Whether the memory goes on where the store's last episode ended: auto (if the stamps do), always or never",
        choices=tuple(choice.value for choice in Resume),
    )
    map_id: str = parameter(
        "",
        "Name of the map in which poses hold: those of another are never given. Empty is one unnamed map for tf, and "
        "another one in every run for odometry",
    )

    watches_file: str = parameter(
        "",
        "YAML file of what is watched as long as the node is active; ~ is the home folder. Empty: nothing",
    )

    def __post_init__(self) -> None:
        if 0 < self.memory_bytes < LEAST_LIMIT_BYTES:
            raise ValueError(
                f"memory_bytes is {self.memory_bytes}; set it to 0 for the store's own limit, or to at least "
                f"{LEAST_LIMIT_BYTES}"
            )
        _expanded("memory_dir", self.memory_dir)
        _expanded("watches_file", self.watches_file)

    @property
    def memory_folder(self) -> Path | None:
        """The folder of the episode store, absolute; None: in RAM."""
        return _expanded("memory_dir", self.memory_dir) if self.memory_dir else None

    @property
    def watches_path(self) -> Path | None:
        """The file of watches, absolute; None: there is none."""
        return _expanded("watches_file", self.watches_file) if self.watches_file else None


def _expanded(name: str, path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{name} is {path!r}, and there is no such user; write the whole path") from error


# Above what a robot needs, and below what would exhaust its memory; rclpy wants an end of every range.
_MOST = {
    "max_pixels": MOST_PIXELS,
    "min_pixels": MOST_PIXELS,
    "frame_queue": 4_096,
    "batch_steps": 256,
    "late_tolerance_s": LONGEST_TIMEOUT_S,
    "parallel_questions": 64,
    "question_queue": 1_024,
    "question_characters": 100_000,
}
_LIVE = frozenset({"max_new_tokens", "timeout_s"})
TABLE = [
    *rows_of(NodeSettings),
    *(replace(row, most=_MOST.get(row.name, row.most), live=row.name in _LIVE) for row in rows_of(StreamConfig)),
]
ROWS = {row.name: row for row in TABLE}


class StreamParameters:
    """Declares the table on a node, and refuses values that are out of range or do not fit each other.

    Raises:
        rclpy.exceptions.ParameterException: a value that was given at start is out of range.
        ValueError: one is of the wrong type, or several do not fit each other.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        node.add_on_set_parameters_callback(_check_each)
        for row in TABLE:
            declare(node, row)
        # Only now: while they are declared one by one, two that fit each other may not fit the other's default.
        self.stream_config()
        self.settings()
        node.add_on_set_parameters_callback(self._check_together)

    def settings(self) -> NodeSettings:
        """The node's settings as they are now."""
        return NodeSettings(**{item.name: self._value(item.name) for item in fields(NodeSettings)})

    def stream_config(self, changes: Iterable[Parameter] = ()) -> StreamConfig:
        """The stream's settings as they are now, or as they would be after `changes`.

        Raises:
            ValueError: they do not fit each other.
        """
        values = {item.name: self._value(item.name) for item in fields(StreamConfig)}
        values.update((change.name, change.value) for change in changes if change.name in values)
        return StreamConfig(**values)

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _check_together(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self.stream_config(changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def _check_each(changes: list[Parameter]) -> SetParametersResult:
    for change in changes:
        if change.name in ROWS and (problem := ROWS[change.name].check(change.value)):
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)


def text_arguments(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """A command line on which the values of text parameters are text.

    rcl reads ``-p bag:=VALUE`` as YAML, where 20240501 is a number, yes a boolean, [lab] a list, and what follows a #
    a comment; the text itself is lost. So it is quoted before rcl sees it, unless it is quoted already.

    Args:
        arguments: as the process got them.
        names: of the parameters whose values are text.
    """
    taken = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, assigned, value = argument.partition(":=")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        if before in ("-p", "--param") and assigned and value and not quoted and name.rpartition(":")[2] in names:
            escaped = value.replace("'", "''")
            argument = f"{name}:='{escaped}'"
        taken.append(argument)
    return taken

"""The stream node's parameters: one table, of which the node, the configuration file and the engine agree."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import require_ros

require_ros()
import rclpy
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from fvs_ros.nodes.parameters import ROWS, TABLE, NodeSettings, StreamParameters, text_arguments
from fvs_ros.stream.config import StreamConfig

CONFIG = Path(__file__).resolve().parents[1] / "config" / "stream.yaml"


@pytest.fixture
def node(ros_domain_id: int) -> Iterator[Any]:
    """Makes nodes with given parameters."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain_id)
    nodes: list[Node] = []

    def make(**parameters: Any) -> Node:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        nodes.append(rclpy.create_node("tested", context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for made in nodes:
        made.destroy_node()
    rclpy.shutdown(context=context)


def test_the_table_holds_every_setting_once() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))
    assert set(names) == {field.name for field in (*fields(StreamConfig), *fields(NodeSettings))}


def test_the_table_takes_the_streams_own_defaults() -> None:
    for field in fields(StreamConfig):
        assert ROWS[field.name].default == field.default
        assert type(ROWS[field.name].default) is type(field.default)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_row_is_described_and_its_default_allowed(row: Any) -> None:
    assert len(row.description) > 15
    assert row.check(row.default) == ""
    if isinstance(row.default, (int, float)) and not isinstance(row.default, bool):
        assert row.least <= row.default <= row.most
    if row.least is not None and row.name in inspect.signature(StreamConfig).parameters:
        with pytest.raises(ValueError, match=row.name):
            StreamConfig(**{row.name: row.least - 1})


def test_the_configuration_file_lists_and_explains_every_parameter_with_its_default() -> None:
    listed = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    assert listed == {row.name: row.default for row in TABLE}
    lines = CONFIG.read_text().splitlines()
    for row in TABLE:
        (line,) = (number for number, text in enumerate(lines) if text.strip().startswith(f"{row.name}:"))
        explained = line - 1 if row.name != "min_pixels" else line - 2
        assert lines[explained].strip().startswith("#"), f"{row.name} has no comment above it"
        assert ("Live" in "".join(lines[max(0, line - 3) : line])) or not row.live, f"{row.name} is live"


def test_the_declared_parameters_are_read_into_both_settings(node: Any) -> None:
    parameters = StreamParameters(node(model="folder", fps=2.5, pose_source="tf", frame_queue=3))
    assert parameters.settings().model == "folder"
    assert parameters.settings().pose_source == "tf"
    assert parameters.stream_config() == StreamConfig(fps=2.5, frame_queue=3)


def test_two_values_may_fit_each_other_though_neither_fits_the_others_default(node: Any) -> None:
    config = StreamParameters(node(max_pixels=20_000, min_pixels=10_000)).stream_config()
    assert (config.max_pixels, config.min_pixels) == (20_000, 10_000)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("fps", -1.0, InvalidParameterValueException),
        ("fps", float("nan"), InvalidParameterValueException),
        ("dtype", "int4", InvalidParameterValueException),
        ("image_transport", "theora", InvalidParameterValueException),
        ("pose_source", "gps", InvalidParameterValueException),
        ("frame_queue", 1, InvalidParameterValueException),
        ("max_new_tokens", 2_000, ValueError),
        ("min_pixels", 300_000, ValueError),
        ("resume", "sometimes", InvalidParameterValueException),
        ("memory_bytes", -1, InvalidParameterValueException),
        ("memory_bytes", 1_000_000, ValueError),
        ("memory_dir", "~nobody_of_that_name/memory", ValueError),
    ],
)
def test_a_value_that_does_not_fit_is_refused_at_start(node: Any, name: str, value: Any, error: type) -> None:
    with pytest.raises(error, match=name):
        StreamParameters(node(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fps", 2, "fps is 2, of type integer; write 2.0"),
        ("fps", "fast", "fps is fast, of type string; write a number with a decimal point, such as 1.0"),
        ("max_pixels", 200704.0, "max_pixels is 200704.0, of type double; write 200704"),
        ("max_pixels", 0.5, "max_pixels is 0.5, of type double; write a whole number, such as 200704"),
        ("autostart", "false", "autostart is false, of type string; write true or false, without quotes"),
        ("model", 7, "model is 7, of type integer; write '7', in quotes"),
    ],
)
def test_a_value_of_the_wrong_type_says_how_to_write_it(node: Any, name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        StreamParameters(node(**{name: value}))


def test_changes_that_fit_only_together_are_taken_together(node: Any) -> None:
    tested = node(max_new_tokens_limit=500)
    parameters = StreamParameters(tested)
    (result,) = tested.set_parameters([Parameter("max_new_tokens", value=501)])
    assert not result.successful
    assert "max_new_tokens_limit 500" in result.reason
    assert parameters.stream_config().max_new_tokens == 128
    changes = [Parameter("max_new_tokens", value=400), Parameter("timeout_s", value=5.0)]
    assert tested.set_parameters_atomically(changes).successful
    assert parameters.stream_config() == StreamConfig(max_new_tokens=400, max_new_tokens_limit=500, timeout_s=5.0)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("model:=20240501", "model:='20240501'"),
        ("stream_node:model:=yes", "stream_node:model:='yes'"),
        ("model:=it's", "model:='it''s'"),
        ("model:='1e5'", "model:='1e5'"),
        ('model:="1e5"', 'model:="1e5"'),
        ("model:=", "model:="),
        ("fps:=2.0", "fps:=2.0"),
    ],
)
def test_text_parameters_are_quoted_on_the_command_line(given: str, taken: str) -> None:
    assert text_arguments(["node", "--ros-args", "-p", given], ["model"]) == ["node", "--ros-args", "-p", taken]
    assert text_arguments(["--ros-args", "--param", given], ["model"]) == ["--ros-args", "--param", taken]
    assert text_arguments(["--ros-args", "-r", given], ["model"]) == ["--ros-args", "-r", given]


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("", None),
        ("~", Path.home()),
        ("~/robot_memory", Path.home() / "robot_memory"),
        ("yes", Path.cwd() / "yes"),
        ("/data/2026", Path("/data/2026")),
    ],
)
def test_the_store_lies_where_a_shell_would_put_it(given: str, folder: Path | None) -> None:
    assert NodeSettings(memory_dir=given).memory_folder == folder


def test_a_limit_too_small_for_a_store_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"memory_bytes is 5; set it to 0 .* or to at least 1048576"):
        NodeSettings(memory_bytes=5)

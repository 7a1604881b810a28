"""Parameters of any type and range: the value itself, or an error of the documented kinds that names the parameter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import require_ros, ros_domain
from fuzzing import TEXTS, Edit, broken, check_message, damaged, edits, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

require_ros()
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from fvs_ros.nodes.parameters import ROWS, TABLE, StreamParameters, text_arguments
from fvs_ros.nodes.starting import START_ERRORS, init_ros, one_line

INT64 = st.one_of(st.integers(-2, 300), st.sampled_from([2**31, 2**32, 2**63 - 1, -(2**63)]))
WORDS = TEXTS.filter(lambda text: text.isprintable())
VALUES = st.one_of(
    st.booleans(),
    INT64,
    st.floats(),
    WORDS,
    st.lists(INT64, min_size=1, max_size=2),
    st.lists(st.floats(), min_size=1, max_size=2),
    st.lists(WORDS, min_size=1, max_size=2),
    st.lists(st.booleans(), min_size=1, max_size=2),
)
NAMES = st.sampled_from(sorted(ROWS))


@pytest.fixture(scope="module")
def context() -> Iterator[rclpy.Context]:
    with ros_domain() as domain:
        made = rclpy.Context()
        rclpy.init(context=made, domain_id=domain)
        yield made
        rclpy.shutdown(context=made)


@pytest.fixture(scope="module")
def running(context: rclpy.Context) -> Iterator[Node]:
    """A node with every parameter declared."""
    node = rclpy.create_node("running", context=context)
    StreamParameters(node)
    yield node
    node.destroy_node()


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=2))
@example({"fps": float("nan")})
@example({"timeout_s": float("inf")})
@example({"max_pixels": 2**63 - 1})
@example({"min_pixels": 300_000})
@example({"max_new_tokens_limit": 1})
@fuzz(40)
def test_at_start(context: rclpy.Context, values: dict[str, Any]) -> None:
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = rclpy.create_node("tested", context=context, parameter_overrides=overrides)
    try:
        parameters = StreamParameters(node)
        held = {**vars(parameters.settings()), **vars(parameters.stream_config())}
        assert {name: held[name] for name in values} == values
    except (ParameterException, ValueError) as error:
        # As the process ends.
        check_message(ValueError(one_line(str(error))))
        assert any(name in str(error) for name in values)  # noqa: PT017 - it may also succeed
    finally:
        node.destroy_node()


@given(NAMES, VALUES)
@fuzz(300)
def test_while_running(running: Node, name: str, value: Any) -> None:
    before = {row.name: running.get_parameter(row.name).value for row in TABLE}
    (result,) = running.set_parameters([Parameter(name, value=value)])
    after = {row.name: running.get_parameter(row.name).value for row in TABLE}
    if result.successful:
        assert ROWS[name].live
        assert after == before | {name: value}
        running.set_parameters([Parameter(name, value=before[name])])
    else:
        check_message(ValueError(result.reason))
        assert after == before


WORDS_OF_ROS = st.sampled_from(["-p", "--param", "--ros-args", "bag:=", "node:bag:=", ":=", "'"])


@given(st.lists(st.one_of(WORDS_OF_ROS, TEXTS)), TEXTS)
@example(["-p"], "")
@fuzz(200)
def test_text_arguments(arguments: list[str], value: str) -> None:
    """The command line keeps its length, and a text is quoted where it was not."""
    assert len(text_arguments(arguments, ["bag"])) == len(arguments)
    (_, quoted) = text_arguments(["-p", f"bag:={value}"], ["bag"])
    name, _, text = quoted.partition(":=")
    assert name == "bag"
    if value and not (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        assert text[1:-1].replace("''", "'") == value


CONFIG = (Path(__file__).resolve().parents[1] / "config" / "stream.yaml").read_bytes()
# The nodes' name, the section, and few parameters; the file that ships is mostly comments.
SMALL = {"/**": {"ros__parameters": {"fps": 1.0, "max_pixels": 200_704, "model": "tiny", "autostart": True}}}


def start(content: bytes) -> None:
    """Starts ROS and a node as a process does, with a file of parameters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_bytes(content)
        try:
            init_ros(["node", "--ros-args", "--params-file", str(path)], ["model"])
            node = rclpy.create_node("stream_node")
            try:
                StreamParameters(node)
            finally:
                node.destroy_node()
        except START_ERRORS as error:
            check_message(ValueError(one_line(str(error))))
        finally:
            rclpy.try_shutdown()


@given(broken(SMALL))
@fuzz(60)
def test_files_of_other_values(ros_domain_id: int, values: Any) -> None:
    start(yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(st.sampled_from([CONFIG, yaml.safe_dump(SMALL).encode()]), edits)
@example(b"[" * 5_000, [])
@example(b"/**: {ros__parameters: &a {b: *a}}", [])
@example(b"/**: {ros__parameters: {fps: [1, a]}}", [])
@example(b"/**: {ros__parameters: {fps: " + b"1" * 5_000 + b"}}", [])
@example(b"\0", [])
@example(b"", [])
@fuzz(60)
def test_files_of_other_bytes(ros_domain_id: int, content: bytes, places: list[Edit]) -> None:
    start(damaged(content, places))

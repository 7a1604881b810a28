"""The node's life over DDS: transitions, memory, commands, parameters and its end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import ros_domain
from node_harness import SLOTS, Client, StreamProcess, image, write_talkative_checkpoint
from small_networks import write_qwen3_vl

from action_msgs.msg import GoalStatus  # isort: skip
from diagnostic_msgs.msg import DiagnosticArray  # isort: skip
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue, SetParametersResult  # isort: skip
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters, SetParametersAtomically  # isort: skip
from sensor_msgs.msg import Image  # isort: skip

from fvs_ros.memory.config import FlashMemoryConfig  # isort: skip
from fvs_ros.ros_tools.client import RefusedError  # isort: skip
from fvs_ros.stream.types import ErrorCode  # isort: skip


@contextmanager
def waiting_node(folder: Path) -> Iterator[tuple[StreamProcess, Client]]:
    """A node that stays unconfigured until a transition is asked for, and its client."""
    write_talkative_checkpoint(folder)
    with ros_domain() as domain:
        process = StreamProcess(
            domain, model=folder, fps=0.0, autostart="false", max_new_tokens=20, max_new_tokens_limit=50
        )
        try:
            with Client(domain) as client:
                yield process, client
        finally:
            process.stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StreamProcess, Client]]:
    """The node that most tests share; each finds it active, with an empty memory and its own parameters."""
    with waiting_node(tmp_path_factory.mktemp("model")) as (process, client):
        assert client.change_state("configure")
        assert client.change_state("activate")
        yield process, client


@pytest.fixture
def active(node: tuple[StreamProcess, Client]) -> Client:
    process, client = node
    assert process.alive
    assert client.state == "active"
    client.pause(False)
    client.reset()
    client.wait_for_memory(lambda memory: memory.steps == 0)
    assert set_parameter(client, integer("max_new_tokens", 20)).successful
    return client


def is_inactive(client: Client) -> str:
    """Checks that questions are refused since the node is not active; returns what to do."""
    error = client.refusal()
    assert error.code == ErrorCode.NOT_ACTIVE
    return str(error)


def refused(command: Callable[[], None]) -> str:
    with pytest.raises(RefusedError) as caught:
        command()
    return str(caught.value)


def test_a_life_from_unconfigured_to_finalized(tmp_path: Path) -> None:
    with waiting_node(tmp_path) as (process, client):
        assert client.state == "unconfigured"
        assert "configure, then activate" in is_inactive(client)
        assert "no memory to reset: it is unconfigured; ros2 lifecycle set /stream_node configure" in refused(
            client.reset
        )
        assert "no stream to pause: it is unconfigured; ros2 lifecycle set /stream_node configure" in refused(
            client.pause
        )
        client.wait_diagnostic("stream", "state", "unconfigured")

        assert client.change_state("configure")
        assert client.state == "inactive"
        assert "set /stream_node activate" in is_inactive(client)
        memory = client.wait_for_memory(lambda memory: memory.csm_capacity == SLOTS.csm_slots)
        assert (memory.steps, memory.bytes, memory.dam_capacity) == (0, 0, SLOTS.dam_slots)

        assert client.change_state("activate")
        assert client.refusal().code == ErrorCode.NO_FRAMES
        client.feed(100, 101, 102, 103)
        assert client.ask_anything(fresh=True).memory_steps == 2

        assert client.change_state("deactivate")
        assert client.state == "inactive"
        is_inactive(client)
        client.ends(client.ask_stream("What happened?"), ErrorCode.NOT_ACTIVE, GoalStatus.STATUS_ABORTED)
        client.ros_node.create_publisher(Image, "image", 10).publish(image(104))

        assert client.change_state("activate")
        response = client.ask_anything(fresh=True)
        assert (response.memory_steps, response.memory_end.sec) == (2, 103)

        assert client.change_state("deactivate")
        assert client.change_state("cleanup")
        assert client.state == "unconfigured"
        client.wait_for_memory(lambda memory: memory.steps == 0 and memory.bytes == 0)
        assert client.change_state("configure")
        assert client.change_state("activate")
        assert client.refusal().code == ErrorCode.NO_FRAMES

        # From the active state, with a memory.
        client.feed(900)
        assert client.change_state("shutdown")
        assert client.state == "finalized"
        for refusal in (is_inactive(client), refused(client.reset), refused(client.pause)):
            assert refusal.endswith("it is finalized: start the node again")
        assert process.stop(signal.SIGINT) == 0
        assert "Traceback" not in process.log


def test_an_impossible_transition_is_refused_and_harms_nothing(active: Client) -> None:
    for label in ("activate", "configure", "cleanup", "no such transition"):
        assert not active.change_state(label)
        assert active.state == "active"
    active.feed(200)
    assert active.ask_anything().success


def test_late_subscribers_get_the_memory_at_once(active: Client) -> None:
    published = active.feed(300, 301)
    with Client(active.ros_node.context.get_domain_id()) as late:
        assert late.wait_for_memory() == published


def test_reset_forgets_and_begins_an_episode(active: Client) -> None:
    before = active.feed(400, 401, 402)
    active.reset()
    memory = active.wait_for_memory(lambda memory: memory.version > before.version)
    assert (memory.steps, memory.episode) == (0, before.episode + 1)
    assert active.refusal().code == ErrorCode.NO_FRAMES
    # Stamps before those that were forgotten are as good as any.
    assert active.feed(50).start.sec == 50


def test_while_paused_images_are_skipped_and_questions_answered(active: Client) -> None:
    before = active.feed(500, 501)
    active.pause()
    skipped = active.next_counters().skipped
    active.publish(502)
    active.wait_for(lambda: active.counters.skipped == skipped + 1, "the image to be skipped")
    assert active.ask_anything(fresh=True).memory_version == before.version
    active.pause(False)
    assert active.feed(503).version > before.version


def double(name: str, value: float) -> Parameter:
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value))


def integer(name: str, value: int) -> Parameter:
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value))


def string(name: str, value: str) -> Parameter:
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))


def values(client: Client, *names: str) -> list[ParameterValue]:
    request = GetParameters.Request(names=list(names))
    return client.call(GetParameters, "get_parameters", request).values


def set_parameter(client: Client, change: Parameter) -> SetParametersResult:
    (result,) = client.call(SetParameters, "set_parameters", SetParameters.Request(parameters=[change])).results
    return result


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (double("timeout_s", 0.0), "out of range"),
        (double("timeout_s", float("nan")), "out of range"),
        (double("timeout_s", 1e9), "out of range"),
        (integer("timeout_s", 5), "type"),
        (integer("max_new_tokens", 0), "out of range"),
        (integer("max_new_tokens", 51), "max_new_tokens_limit 50"),
        (string("model", "elsewhere"), "read-only"),
        (double("fps", 2.0), "read-only"),
        (string("no_such_parameter", ""), "undeclared"),
    ],
    ids=lambda value: value.name if isinstance(value, Parameter) else value,
)
def test_a_parameter_that_does_not_fit_is_rejected_without_side_effects(
    active: Client, change: Parameter, reason: str
) -> None:
    names = ("model", "timeout_s", "max_new_tokens", "fps")
    before = values(active, *names)
    result = set_parameter(active, change)
    assert not result.successful
    assert reason in result.reason
    # Neither does a good one that is set together with it.
    together = SetParametersAtomically.Request(parameters=[double("timeout_s", 7.0), change])
    result = active.call(SetParametersAtomically, "set_parameters_atomically", together).result
    assert not result.successful
    assert values(active, *names) == before


def test_a_live_parameter_acts_on_the_next_question(active: Client) -> None:
    active.feed(600)
    for limit in (20, 2):
        result = set_parameter(active, integer("max_new_tokens", limit))
        assert result.successful, result.reason
    short = active.ask("What do you see?").answer
    assert 0 < len(short) < len(active.ask("What do you see?", max_new_tokens=20).answer)


def test_every_parameter_says_what_it_is(active: Client) -> None:
    names = ["model", "timeout_s", "max_new_tokens", "dtype"]
    request = DescribeParameters.Request(names=names)
    described = active.call(DescribeParameters, "describe_parameters", request).descriptors
    model, timeout, tokens, dtype = described
    assert all(descriptor.description for descriptor in described)
    assert model.read_only
    assert not timeout.read_only
    assert timeout.floating_point_range[0].from_value == pytest.approx(0.1)
    assert tokens.integer_range[0].from_value == 1
    assert "bfloat16" in dtype.additional_constraints


def test_a_model_that_cannot_be_loaded_leaves_the_node_unconfigured(tmp_path: Path) -> None:
    """Also that questions are refused while it tries, and that an interrupt ends it with 0."""
    with ros_domain() as domain:
        process = StreamProcess(domain, model=tmp_path)
        try:
            with Client(domain) as client:
                process.wait_for_log("on_configure failed")
                assert client.state == "unconfigured"
                is_inactive(client)
                assert process.stop(signal.SIGINT) == 0
                assert "Traceback" not in process.log
        finally:
            process.stop()


def test_a_qwen3_vl_without_deepstack_answers_from_more_steps_than_it_keeps_apart(tmp_path: Path) -> None:
    write_qwen3_vl(tmp_path, FlashMemoryConfig(csm_slots=4, dam_slots=2, window_slots=2))
    with ros_domain() as domain:
        process = StreamProcess(domain, model=tmp_path, fps=0.0, autostart="false", deepstack="false")
        try:
            with Client(domain) as client:
                assert client.change_state("configure")
                assert client.change_state("activate")
                assert client.feed(*range(14)).steps == 7
                assert client.ask_anything(fresh=True).moments
        finally:
            process.stop()


def test_with_an_empty_model_the_log_says_what_to_set() -> None:
    with ros_domain() as other:
        process = StreamProcess(other, model="''")
        try:
            process.wait_for_log("the parameter model is empty; set it to")
        finally:
            assert process.stop(signal.SIGINT) == 0


def test_parameters_that_do_not_fit_from_the_start_end_the_node_with_a_reason() -> None:
    with ros_domain() as other:
        process = StreamProcess(other, max_new_tokens=2000)
        assert process.wait() == 1
        assert "max_new_tokens is 2000, max_new_tokens_limit 1024" in process.log
        assert "Traceback" not in process.log


def test_diagnostics_of_two_robots_carry_their_namespaces() -> None:
    """Nodes of one name in one domain; each name on /diagnostics is one node's own."""
    with ExitStack() as stack:
        domain = stack.enter_context(ros_domain())
        for robot in ("robot1", "robot2"):
            process = StreamProcess(domain, "-r", f"__ns:=/fleet/{robot}", autostart=False)
            stack.callback(process.stop)
        names: set[str] = set()
        client = stack.enter_context(Client(domain, "/fleet/robot1/stream_node"))
        client.ros_node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda message: names.update(status.name for status in message.status), 10
        )
        wanted = {
            f"fleet/{robot}/stream_node: {part}"
            for robot in ("robot1", "robot2")
            for part in ("stream", "memory", "answers", "episodes", "watches")
        }
        client.wait_for(lambda: len(names) >= len(wanted), "the diagnostics of both")
        assert names == wanted

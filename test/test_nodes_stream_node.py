"""The node's life over DDS: transitions, memory, commands, parameters and its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from conftest import ros_domain
from node_harness import SLOTS, Client, StreamProcess, image, write_talkative_checkpoint

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # isort: skip
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters, SetParametersAtomically  # isort: skip
from sensor_msgs.msg import Image  # isort: skip
from std_srvs.srv import SetBool, Trigger  # isort: skip

from fvs_ros.srv import Ask  # isort: skip

Response = Ask.Response


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    with ros_domain() as number:
        yield number


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamProcess]:
    """A node that waits to be told."""
    folder = tmp_path_factory.mktemp("model")
    write_talkative_checkpoint(folder)
    process = StreamProcess(
        domain, model=folder, fps=0.0, autostart="false", max_new_tokens=20, max_new_tokens_limit=50
    )
    yield process
    process.stop()


@pytest.fixture(scope="module")
def only_client(domain: int, node: StreamProcess) -> Iterator[Client]:
    client = Client(domain)
    yield client
    client.close()


@pytest.fixture
def client(node: StreamProcess, only_client: Client) -> Client:
    assert node.alive
    return only_client


@pytest.fixture
def active(client: Client) -> Client:
    """The client of an active node with an empty memory."""
    for label in {"unconfigured": ("configure", "activate"), "inactive": ("activate",), "active": ()}[client.state]:
        assert client.change_state(label)
    assert client.call(Trigger, "/stream_node/reset", Trigger.Request()).success
    client.wait_memory(lambda memory: memory.steps == 0)
    return client


def refusal(client: Client) -> str:
    response = client.ask()
    assert (response.success, response.error_code) == (False, Response.NOT_ACTIVE)
    return response.error_message


def test_a_life_from_unconfigured_to_active_and_back(client: Client) -> None:
    assert client.state == "unconfigured"
    assert "configure, then activate" in refusal(client)
    assert not client.call(Trigger, "/stream_node/reset", Trigger.Request()).success
    assert not client.call(SetBool, "/stream_node/pause", SetBool.Request(data=True)).success
    client.wait_diagnostic("stream", "state", "unconfigured")

    assert client.change_state("configure")
    assert client.state == "inactive"
    assert "set /stream_node activate" in refusal(client)
    memory = client.wait_memory(lambda memory: memory.csm_capacity == SLOTS.csm_slots)
    assert (memory.steps, memory.bytes, memory.dam_capacity) == (0, 0, SLOTS.dam_slots)

    assert client.change_state("activate")
    assert client.ask().error_code == Response.NO_FRAMES
    client.feed(100, 101, 102, 103)
    assert client.ask(fresh=True).steps == 2

    assert client.change_state("deactivate")
    assert client.state == "inactive"
    refusal(client)
    goal, _ = client.send_goal()
    assert client.result(goal).result.error_code == Response.NOT_ACTIVE
    client.node.create_publisher(Image, "image", 10).publish(image(104))

    assert client.change_state("activate")
    response = client.ask(fresh=True)
    assert (response.success, response.steps, response.memory_end.sec) == (True, 2, 103)

    assert client.change_state("deactivate")
    assert client.change_state("cleanup")
    assert client.state == "unconfigured"
    client.wait_memory(lambda memory: memory.steps == 0 and memory.bytes == 0)
    assert client.change_state("configure")
    assert client.change_state("activate")
    assert client.ask().error_code == Response.NO_FRAMES


def test_an_impossible_transition_is_refused_and_harms_nothing(active: Client) -> None:
    for label in ("activate", "configure", "cleanup", "no such transition"):
        assert not active.change_state(label)
        assert active.state == "active"
    active.feed(200)
    assert active.ask().success


def test_late_subscribers_get_the_memory_at_once(active: Client, domain: int) -> None:
    published = active.feed(300, 301)
    late = Client(domain)
    try:
        assert late.wait_memory(lambda memory: True) == published
    finally:
        late.close()


def test_reset_forgets_and_begins_an_episode(active: Client) -> None:
    before = active.feed(400, 401, 402)
    response = active.call(Trigger, "/stream_node/reset", Trigger.Request())
    assert response.success
    memory = active.wait_memory(lambda memory: memory.version > before.version)
    assert (memory.steps, memory.episode) == (0, before.episode + 1)
    assert active.ask().error_code == Response.NO_FRAMES
    # Stamps before those that were forgotten are as good as any.
    assert active.feed(50).start.sec == 50


def test_while_paused_images_are_skipped_and_questions_answered(active: Client) -> None:
    before = active.feed(500, 501)
    assert active.call(SetBool, "/stream_node/pause", SetBool.Request(data=True)).success
    skipped = "skipped (not due or paused)"
    active.wait_for(lambda: active.diagnostic("stream"), "diagnostics")
    count = int(active.diagnostic("stream")[skipped])
    active.publish(502)
    active.wait_diagnostic("stream", skipped, str(count + 1))
    assert active.ask(fresh=True).memory_version == before.version
    assert active.call(SetBool, "/stream_node/pause", SetBool.Request(data=False)).success
    assert active.feed(503).version > before.version


def double(name: str, value: float) -> Parameter:
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value))


def integer(name: str, value: int) -> Parameter:
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value))


def string(name: str, value: str) -> Parameter:
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))


def values(client: Client, *names: str) -> list[ParameterValue]:
    request = GetParameters.Request(names=list(names))
    return client.call(GetParameters, "/stream_node/get_parameters", request).values


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (double("timeout_s", 0.0), "out of range"),
        (double("timeout_s", float("nan")), "out of range"),
        (double("timeout_s", 1e9), "out of range"),
        (integer("timeout_s", 5), "type"),
        (integer("max_new_tokens", 0), "out of range"),
        (integer("max_new_tokens", 51), "its limit 50"),
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
    request = SetParameters.Request(parameters=[change])
    (result,) = active.call(SetParameters, "/stream_node/set_parameters", request).results
    assert not result.successful
    assert reason in result.reason
    # Neither does a good one that is set together with it.
    together = SetParametersAtomically.Request(parameters=[double("timeout_s", 7.0), change])
    result = active.call(SetParametersAtomically, "/stream_node/set_parameters_atomically", together).result
    assert not result.successful
    assert values(active, *names) == before


def test_a_live_parameter_acts_on_the_next_question(active: Client) -> None:
    active.feed(600)
    for limit in (20, 2):
        request = SetParameters.Request(parameters=[integer("max_new_tokens", limit)])
        (result,) = active.call(SetParameters, "/stream_node/set_parameters", request).results
        assert result.successful, result.reason
    short = active.ask(max_new_tokens=0).answer
    assert 0 < len(short) < len(active.ask(max_new_tokens=20).answer)


def test_every_parameter_says_what_it_is(client: Client) -> None:
    names = ["model", "timeout_s", "max_new_tokens", "dtype"]
    request = DescribeParameters.Request(names=names)
    described = client.call(DescribeParameters, "/stream_node/describe_parameters", request).descriptors
    model, timeout, tokens, dtype = described
    assert all(descriptor.description for descriptor in described)
    assert model.read_only
    assert not timeout.read_only
    assert timeout.floating_point_range[0].from_value == pytest.approx(0.1)
    assert tokens.integer_range[0].from_value == 1
    assert "bfloat16" in dtype.additional_constraints


def test_a_model_that_cannot_be_loaded_leaves_the_node_unconfigured(
    domain: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also that questions are refused while it tries, and that an interrupt ends it with 0."""
    with ros_domain() as other:
        process = StreamProcess(other, model=tmp_path_factory.mktemp("empty"))
        client = Client(other)
        try:
            process.wait_for_log("on_configure failed")
            assert client.state == "unconfigured"
            refusal(client)
            assert process.stop(signal.SIGINT) == 0
            assert "Traceback" not in process.log
        finally:
            client.close()
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
        assert "max_new_tokens is 2000, its limit 1024" in process.log
        assert "Traceback" not in process.log


def test_shutdown_frees_everything_from_the_active_state(active: Client, node: StreamProcess) -> None:
    """The last test of this module's node."""
    active.feed(900)
    assert active.change_state("shutdown")
    assert active.state == "finalized"
    refusal(active)
    assert node.stop(signal.SIGINT) == 0
    assert "Traceback" not in node.log

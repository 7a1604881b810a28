"""Loading over DDS: what the node says meanwhile and where it fails, that it tries again, and that it can be ended."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ros_domain
from fake_hub import NAME, NOWHERE, cached, serving_hub, silent_hub, use_hub
from fakes import FakeModel
from node_harness import PATIENCE_S, Client, StreamProcess

from diagnostic_msgs.msg import DiagnosticStatus  # isort: skip
from rclpy.context import Context  # isort: skip
from rclpy.executors import SingleThreadedExecutor  # isort: skip
from fvs_ros.episodic.store import EpisodeStore  # isort: skip
from fvs_ros.model.tiny import write_tiny_checkpoint  # isort: skip
from fvs_ros.nodes.model_loader import AbandonedError, Loaded, ModelLoader  # isort: skip
from fvs_ros.stream.types import ErrorCode  # isort: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hub"


@contextmanager
def started(**parameters: object) -> Iterator[tuple[StreamProcess, Client]]:
    with ros_domain() as domain:
        process = StreamProcess(domain, **parameters)
        try:
            with Client(domain) as client:
                yield process, client
        finally:
            process.stop()
    assert "Traceback" not in process.log


def wait_for_message(client: Client, level: bytes, text: str) -> None:
    def said() -> bool:
        status = client.status("stream")
        return status.level == level and text in status.message

    client.wait_for(said, f"diagnostics of {text!r}")


def test_a_hub_that_is_not_there_is_told_and_tried_again(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(monkeypatch, cache, NOWHERE)
    with started(model=NAME, load_retry_s=2.0) as (process, client):
        reason = f"{NAME} is not whole in the cache {cache}, which lacks config.json, tokenizer.json, the weights"
        wait_for_message(client, DiagnosticStatus.ERROR, f"unconfigured: {reason}")
        process.wait_for_log("Loading the model again in 2 s")
        # Between two tries, since during one the node says that it is loading.
        client.wait_for(lambda: reason in str(client.refusal()), "the reason by ask")
        shutil.copytree(model, cached(cache), dirs_exist_ok=True)
        client.wait_until_active(PATIENCE_S)
        wait_for_message(client, DiagnosticStatus.OK, "receiving")
        assert client.refusal().code == ErrorCode.NO_FRAMES


def test_a_damaged_checkpoint_is_told_and_not_tried_again(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with started(model=model, load_retry_s=0.1) as (process, client):
        reason = f"{model}/model.safetensors is a pointer of git-LFS"
        wait_for_message(client, DiagnosticStatus.ERROR, f"unconfigured: {reason}")
        refusal = client.refusal()
        assert refusal.code == ErrorCode.NOT_ACTIVE
        assert reason in str(refusal)
        assert "configure, then activate" in str(refusal)
        assert "again in" not in process.log
        # Whoever mends it configures it: the old reason is gone.
        write_tiny_checkpoint(model)
        assert client.change_state("configure")
        wait_for_message(client, DiagnosticStatus.OK, "not subscribed: inactive")


def test_an_unconfigured_node_is_no_error(model: Path) -> None:
    with started(model=model, autostart="false") as (_, client):
        wait_for_message(client, DiagnosticStatus.OK, "not subscribed: unconfigured")


def test_a_download_is_seen_in_log_and_diagnostics(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = threading.Event()
    with serving_hub(model, on_get=lambda file: _wait(seen) if file == "model.safetensors" else None) as address:
        use_hub(monkeypatch, cache, address)
        with started(model=NAME) as (process, client):
            wait_for_message(client, DiagnosticStatus.OK, "loading the model (downloading: 0.00 of 0.00 GB)")
            assert f"Loading {NAME}: asking {address}" in process.log
            assert "loading its model" in str(client.refusal())
            seen.set()
            client.wait_until_active(PATIENCE_S)


@pytest.mark.parametrize("feed", [b"", b" "], ids=["silent", "slow"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_while_the_hub_is_waited_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, feed: bytes
) -> None:
    with silent_hub(feed) as address:
        use_hub(monkeypatch, cache, address)
        with started(model=NAME) as (process, _):
            process.wait_for_log(f"asking {address}")
            assert process.stop(number) == 0
            # It has not waited for the load's own end.
            assert "failed" not in process.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_while_it_reads_a_model(number: int) -> None:
    with started(model="embedded") as (process, _):
        process.wait_for_log("Loading embedded")
        assert process.stop(number) == 0
        assert "Loaded" not in process.log


def _wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


@pytest.mark.parametrize("when", ["while it loads", "when it is there"])
def test_what_is_loaded_for_nobody_is_closed(tmp_path: Path, when: str) -> None:
    """Or its lock would keep the next one out."""
    begun, go_on = threading.Event(), threading.Event()

    def load(progress: object) -> Loaded:
        begun.set()
        _wait(go_on)
        return Loaded(FakeModel(), EpisodeStore.open(tmp_path))

    loader = ModelLoader(load)
    context = Context()
    context.init()
    executor = SingleThreadedExecutor(context=context)
    ended = executor.create_task(loader.load_ahead, executor)
    executor.spin_once(timeout_sec=0)
    _wait(begun)
    if when == "while it loads":
        loader.abandon()
        executor.spin_until_future_complete(ended, PATIENCE_S)
        assert isinstance(ended.result(), AbandonedError)
        go_on.set()
    else:
        go_on.set()
        executor.spin_until_future_complete(ended, PATIENCE_S)
        assert ended.result() is None
        loader.abandon()
    for thread in threading.enumerate():
        if thread.name == "fvs-load":
            thread.join(PATIENCE_S)
    EpisodeStore.open(tmp_path, create=False).close()
    context.shutdown()

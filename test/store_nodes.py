"""The stream node on an episode store, for tests over DDS."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import ros_domain
from node_harness import Client, StreamProcess

LIMIT = 2**21


@contextmanager
def started(model: Path, domain: int, end: int, **parameters: object) -> Iterator[StreamProcess]:
    process = StreamProcess(
        domain, **{"model": model, "fps": 0.0, "prefill_share": 0.0, "memory_bytes": LIMIT, **parameters}
    )
    try:
        yield process
    finally:
        status = process.stop(end)
    assert status == (0 if end == signal.SIGINT else -end)
    assert "Traceback" not in process.log


@contextmanager
def node_on(
    model: Path, folder: Path | str | None, end: int = signal.SIGINT, **parameters: object
) -> Iterator[tuple[StreamProcess, Client]]:
    """A node on a store, None for one in RAM, which a signal ends at last, and its client.

    The client leaves before: beside a node that is killed, clients in its domain hung now and then.
    """
    if folder is not None:
        parameters = {"memory_dir": folder, **parameters}
    with (
        ros_domain() as domain,
        started(model, domain, end, **parameters) as process,
        Client(domain) as client,
    ):
        yield process, client


def wait_for_episodes(client: Client, **counted: int) -> None:
    """Waits for counters of what is stored."""

    def told() -> bool:
        statistics = client.statistics
        return statistics is not None and all(getattr(statistics, name) >= least for name, least in counted.items())

    client.wait_for(told, f"counters of at least {counted}")

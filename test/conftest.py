"""What every test gets: fixed seeds, one thread, no network, and a ROS domain of its own where it asks for one."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

# Before torch, OpenCV or rclpy start their threads, and for the processes that tests start. The models are tiny: more
# threads cost more than they bring, and one gives the same sums bit for bit on every machine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests of two machines on one network must not hear each other. Humble knows only the older name, newer
# distributions warn about it.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"

# A shell's background job ignores Ctrl-C, and so would the nodes that tests start and stop with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from needs import needed

if TYPE_CHECKING:
    from engines import MakeEngine
    from fakes import FakeModel

    from fvs_ros.stream.engine import StreamEngine

SEED = 20240607
NEEDS_ROS = "needs ROS 2 and the built interfaces: run it in the environment that `make setup` makes"
NEEDS_DOMAINS = "needs domain_coordinator: install ros-$ROS_DISTRO-domain-coordinator, or use what `make setup` makes"

# Each request starts after the last domain, not at the first free one: a domain that was just released may still
# hold a dying participant. Different processes start at different places.
_domains = itertools.count(os.getpid())


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seeds each generator; torch only where a test module has loaded it."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(SEED)
        torch.set_num_threads(1)


def require_ros() -> None:
    """Skips the test, or the module, without ROS 2 or the interfaces. Where they are broken or old, it fails."""
    needed("rclpy", NEEDS_ROS)
    needed("fvs_ros.srv", NEEDS_ROS)


@contextmanager
def ros_domain() -> Iterator[int]:
    """A ROS domain that no other test process on this machine uses."""
    require_ros()
    domain_coordinator = needed("domain_coordinator", NEEDS_DOMAINS)
    # From 1 to 100: the ports of higher domains lie among those that Linux hands out.
    with domain_coordinator.domain_id(selector=lambda: next(_domains) % 100 + 1) as domain:
        yield domain


@pytest.fixture
def ros_domain_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A domain of the test's own, also in ROS_DOMAIN_ID until it ends."""
    with ros_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield domain


# The next three import when they are asked for: most tests need no torch.
@pytest.fixture
def model() -> FakeModel:
    """A model that engines of tests run on."""
    from fakes import FakeModel

    return FakeModel()


@pytest.fixture
def make_engine(model: FakeModel) -> Iterator[MakeEngine]:
    """Makes running engines on `model`."""
    from engines import engine_maker

    with engine_maker(model) as make:
        yield make


@pytest.fixture
def engine(make_engine: MakeEngine) -> StreamEngine:
    """A running engine on `model`."""
    return make_engine()

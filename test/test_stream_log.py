import logging

import pytest

from fvs_ros.stream.log import ThrottledLog


def test_repeated_messages_are_held_back_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    log = ThrottledLog(logging.getLogger("throttled"), period_s=5.0, clock=lambda: now[0])
    for _ in range(3):
        log.log(logging.WARNING, "image", "bad image")
    log.log(logging.WARNING, "pose", "no pose")
    now[0] = 105.0
    log.log(logging.WARNING, "image", "bad image")
    assert caplog.messages == ["bad image", "no pose", "bad image (2 more like this before)"]

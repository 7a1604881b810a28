"""`stream.launch.py`: `launch_stream.py` runs it, where ROS's launch tools are installed."""

from __future__ import annotations

import pytest
from launching import launch, launch_test


def test_stream_launch_file() -> None:
    launch_test("launch_stream.py")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_transport", "jpeg"),
        ("log_level", "loud"),
        ("respawn", "maybe"),
        ("resume", "sometimes"),
        ("use_sim_time", "1"),
    ],
)
def test_a_value_that_is_no_choice_is_refused_with_the_choices(name: str, value: str) -> None:
    status, output = launch("stream.launch.py", **{name: value})
    assert status == 1, output
    assert f'Argument "{name}" provided value "{value}" is not valid. Valid options are' in output

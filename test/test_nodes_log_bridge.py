"""The library's log as ROS logging."""

from __future__ import annotations

import logging
import re

import pytest
from conftest import require_ros

require_ros()
from rclpy.logging import LoggingSeverity, get_logger, set_logger_level

from fvs_ros.nodes.log_bridge import LIBRARY, bridge_logging, unbridge_logging

NAME = "bridged"
SEVERITIES = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARN",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "ERROR",
}


def logged(capfd: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Severity and text of what the ROS logger wrote since the last call."""
    output = "".join(capfd.readouterr())
    return re.findall(rf"^\[(\w+)\] \[[\d.]+\] \[{NAME}\]: (.*)$", output, re.MULTILINE)


def test_each_level_becomes_its_ros_severity(capfd: pytest.CaptureFixture[str]) -> None:
    set_logger_level(NAME, LoggingSeverity.DEBUG)
    handler = bridge_logging(get_logger(NAME))
    try:
        logger = logging.getLogger(f"{LIBRARY}.stream.engine")
        for level in SEVERITIES:
            logger.log(level, "at %s", logging.getLevelName(level))
        assert logged(capfd) == [
            (severity, f"at {logging.getLevelName(level)}") for level, severity in SEVERITIES.items()
        ]
    finally:
        unbridge_logging(handler)


def test_the_ros_loggers_level_decides_what_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    set_logger_level(NAME, LoggingSeverity.WARN)
    handler = bridge_logging(get_logger(NAME))
    try:
        for level in SEVERITIES:
            logging.getLogger(LIBRARY).log(level, "said")
        assert [severity for severity, _ in logged(capfd)] == ["WARN", "ERROR", "ERROR"]
    finally:
        unbridge_logging(handler)


def test_afterwards_the_library_logs_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger(LIBRARY)
    before = (library.level, library.propagate, list(library.handlers))
    unbridge_logging(bridge_logging(get_logger(NAME)))
    assert (library.level, library.propagate, library.handlers) == before
    library.error("said")
    assert logged(capfd) == []

"""The library's Python logging as ROS logging, so that it reaches `/rosout` and obeys `--log-level`."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

LIBRARY = "fvs_ros"


class RosLogHandler(logging.Handler):
    """Passes records on to a node's logger."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a record. rclpy ties a severity to the line that calls it, so each has a line of its own."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        elif record.levelno >= logging.INFO:
            self._logger.info(message)
        else:
            self._logger.debug(message)


def bridge_logging(logger: RcutilsLogger) -> RosLogHandler:
    """Sends all that the library logs to a node's logger; pass the handler to `unbridge_logging` when it ends."""
    handler = RosLogHandler(logger)
    library = logging.getLogger(LIBRARY)
    library.addHandler(handler)
    # The ROS logger has a level of its own; this one must let through what that might want.
    library.setLevel(logging.DEBUG)
    library.propagate = False
    return handler


def unbridge_logging(handler: RosLogHandler) -> None:
    """Undoes `bridge_logging`."""
    library = logging.getLogger(LIBRARY)
    library.removeHandler(handler)
    library.setLevel(logging.NOTSET)
    library.propagate = True

"""Arguments of commands that play one recording, or follow one camera, into an engine."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from fvs_ros.commands.arguments import positive

if TYPE_CHECKING:
    from fvs_ros.sources.cameras import LiveSource
    from fvs_ros.sources.recordings import FrameSource


SOURCE_HELP = "video file, folder of images, bag, camera (0 or /dev/video0), or address (rtsp://host/path)"


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what a source may need to be opened, and how often a frame of it is kept."""
    parser.add_argument("--topic", default="", help="of a bag with several image topics")
    parser.add_argument("--image-fps", type=positive, help="images per second of a folder (default 1)")
    parser.add_argument("--fps", type=positive, help="frames kept per second of stream (default 1)")


def open_source(arguments: argparse.Namespace) -> FrameSource | LiveSource:
    """The source that the arguments name; its decoders write nothing to the terminal.

    Raises:
        SourceError: it cannot be opened.
        OSError: it cannot be read.
    """
    # The decoders of OpenCV would write across whatever is drawn there.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from fvs_ros.sources.cameras import LiveSource, is_live
    from fvs_ros.sources.recordings import open_source

    if is_live(arguments.source):
        return LiveSource(arguments.source)
    return open_source(arguments.source, topic=arguments.topic, fps=arguments.image_fps)

"""The episode store of the node: where it lies, and in which map its poses hold."""

from __future__ import annotations

import uuid

from rclpy.impl.rcutils_logger import RcutilsLogger

from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.nodes.parameters import NodeSettings

READ_ONLY = " (read only)"


def open_episode_store(
    settings: NodeSettings, camera: str, fingerprint: str, map_id: str, logger: RcutilsLogger
) -> EpisodeStore:
    """The store that the parameters name, which the caller closes; logs what is in it, and what is wrong with it.

    A day's store takes half a second, on a slow disk several.

    Args:
        settings: of the node.
        camera: name of the images' topic.
        fingerprint: of the model.
        map_id: of the map in which poses hold now.
        logger: of the node.

    Raises:
        StoreError: it must not be touched, or its folder cannot be used.
    """
    folder = settings.memory_folder
    opener = Opener(camera=camera, fingerprint=fingerprint, map_id=map_id)
    try:
        store = EpisodeStore.open(folder, settings.memory_bytes or None, opener=opener, resume=Resume(settings.resume))
    except OSError as error:
        reason = f"{error.strerror or error}; set memory_dir to a folder that the node may write, or leave it empty"
        raise StoreError(Problem.DISK_FAILS, f"the episode store cannot be opened in {folder}: {reason}") from error
    if folder is not None:
        about = store.info()
        logger.info(
            f"Opened the episode store in {folder}: {about.segments} segments, "
            f"{about.file_bytes / 1e6:.1f} of at most {about.limit_bytes / 1e6:.1f} MB"
        )
    for notice in store.notices():
        logger.warning(f"Episode store: {notice.message}")
    return store


def store_name(store: EpisodeStore, settings: NodeSettings) -> str:
    """Where a store lies, as people call it, with `READ_ONLY` behind it where nothing new is kept in it."""
    unwritable = any(notice.problem is Problem.READ_ONLY for notice in store.notices())
    return f"{settings.memory_folder or 'in RAM'}{READ_ONLY if unwritable else ''}"


def map_id_of(settings: NodeSettings) -> str:
    """The parameter; for odometry without one a name of its own in each call.

    Odometry begins at zero whenever its driver starts, which the node cannot see: a place of an earlier run would be
    given as one of this run.
    """
    if not settings.map_id and settings.pose_source == "odometry":
        return f"odometry {uuid.uuid4().hex[:8]}"
    return settings.map_id

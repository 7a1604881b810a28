"""Robot patrols as episodes: simulated, asked about and drawn in the process that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fvs_ros.memory.geometry import FRAME_MULTIPLE, POOL
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED, PatrolConfig, Wording
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.errors import PatrolError, RenderError
from fvs_ros.patrol.questions import FAMILIES, ask, check_families, step_ends
from fvs_ros.patrol.render import shared_renderer
from fvs_ros.patrol.templates import NOTHING
from fvs_ros.patrol.truth import EpisodeRecord, EpisodeTruth
from fvs_ros.patrol.world import Stream, generator
from fvs_ros.training.config import PatrolData
from fvs_ros.training.data.episodes import Conversation, TrainingEpisode, TrainingMoment
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.objectives.memory_probe import ProbeLabels
from fvs_ros.training.objectives.patrol_cells import GROUPS, cell_labels
from fvs_ros.training.objectives.patrol_probe import probe_labels, probe_sets
from fvs_ros.training.objectives.token_naming import TokenNames

_LOW_CELLS = FRAME_SIZE // FRAME_MULTIPLE
CAPTION = "Describe what you saw so far."
"""Asks for a caption; in words that questions hold as well."""


class PatrolEpisodes:
    """Patrols with the seeds `first_seed`, `first_seed` + 1 and so on.

    Raises:
        TrainingError: settings that no patrol can have, or seeds reserved for tests.
    """

    drawn = True

    def __init__(self, data: PatrolData, *, token_naming: bool = False, memory_probe: bool = False) -> None:
        """With `token_naming` episodes hold names for their visual tokens in place of questions; with `memory_probe`
        labels for the memory's tokens beside them.
        """
        last = data.first_seed + data.episodes - 1
        if last >= TEST_SEED:
            raise TrainingError(
                f"patrols from first_seed {data.first_seed} reach seed {last}; seeds from {TEST_SEED} up are for tests"
            )
        self.min_pixels = self.max_pixels = FRAME_SIZE**2
        self._data = data
        self._token_naming = token_naming
        self._memory_probe = memory_probe
        try:
            self._configs = [_config(data, steps) for steps in data.lengths]
            check_families(data.families or FAMILIES, Wording(data.wording))
        except PatrolError as error:
            raise TrainingError(f"patrol: {error}") from error

    def __len__(self) -> int:
        return self._data.episodes

    def length(self, index: int) -> int:
        """See `EpisodeSource.length`."""
        return self._config(index).steps

    def episode(self, index: int) -> TrainingEpisode:
        """See `EpisodeSource.episode`."""
        simulated = self._simulate(index)
        seed = self._data.first_seed + index
        ends = step_ends(simulated)
        name, identity = f"patrol seed {seed}", f"patrol {seed} {FRAME_SIZE} {self._config(index)}"
        stamps_ns = tuple(simulated.stamps_ns.tolist())
        if self._token_naming:
            return TrainingEpisode(name, identity, stamps_ns, moments=(), token_names=_token_names(simulated, ends))
        # A fraction of the episode between two moments; the first ones of a long stream are no shorter memories than
        # curricula begin with.
        count = min(self._data.moments, len(ends))
        chosen = [ends[-1 - len(ends) * number // count] for number in reversed(range(count))]
        record, moments = EpisodeRecord(simulated), []
        for number, end in enumerate(chosen):
            conversations = [_caption(record.until(end), index) for index in range(self._data.captions)]
            if self._data.questions:
                families = self._data.families or FAMILIES
                wording = Wording(self._data.wording)
                questions = ask(simulated, self._data.questions, families, [end], number, wording)
                conversations += [
                    Conversation(((asked.question, asked.answer_text),), asked.family) for asked in questions
                ]
            if conversations:
                moments.append(TrainingMoment((end + 1) // 2, tuple(conversations)))
        labels = None
        if self._memory_probe:
            labels = ProbeLabels(probe_labels(record, ends, _LOW_CELLS), probe_sets(record, ends))
        return TrainingEpisode(name, identity, stamps_ns, tuple(moments), probe_labels=labels)

    def frames(self, index: int) -> Sequence[np.ndarray]:
        """See `EpisodeSource.frames`."""
        try:
            return list(shared_renderer(FRAME_SIZE).frames(self._simulate(index)))
        except RenderError as error:
            raise TrainingError(f"patrol seed {self._data.first_seed + index} cannot be drawn: {error}") from error

    def _config(self, index: int) -> PatrolConfig:
        return self._configs[index % len(self._configs)]

    def _simulate(self, index: int) -> Episode:
        return _simulate(self._data.first_seed + index, self._config(index))


def _config(data: PatrolData, steps: int) -> PatrolConfig:
    shortest, longest = data.dwell_s
    return PatrolConfig(steps=steps, rooms=data.rooms, views=data.views, drive=data.drive, dwell_s=(shortest, longest))


def _caption(truth: EpisodeTruth, index: int) -> Conversation:
    """Every object seen so far, in random order: its colour, its kind and its last room, in random order."""
    random = generator(truth.episode.world.seed, Stream.QUESTIONS, truth.frame, index)
    named = []
    for object_id in random.permutation(list(truth.seen)):
        found = truth.episode.objects[object_id]
        words = (found.colour, found.kind, truth.room(truth.seen[object_id][-1].room))
        named.append(" ".join(words[place] for place in random.permutation(len(words))))
    return Conversation(((CAPTION, ", ".join(named) or NOTHING),), "caption")


def _token_names(episode: Episode, step_ends: Sequence[int]) -> TokenNames:
    """Of a step's two frames the second one counts: it is what the robot sees now."""
    return TokenNames(
        GROUPS, cell_labels(episode, step_ends, _LOW_CELLS * POOL), cell_labels(episode, step_ends, _LOW_CELLS)
    )


@lru_cache(maxsize=1)
def _simulate(seed: int, config: PatrolConfig) -> Episode:
    """Kept for the frames that are asked for right after the questions."""
    return simulate(seed, config)

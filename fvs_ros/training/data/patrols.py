"""Robot patrols as episodes: simulated, asked about and drawn in the process that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fvs_ros.memory.geometry import FRAME_MULTIPLE, POOL
from fvs_ros.patrol.config import FRAME_SIZE, STEP_S, TEST_SEED, PatrolConfig, Wording, day_config
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.errors import PatrolError, RenderError
from fvs_ros.patrol.questions import CLOCK_TEMPLATES, FAMILIES, TEMPLATES, Question, ask, check_families, step_ends
from fvs_ros.patrol.render import shared_renderer
from fvs_ros.patrol.templates import NOTHING
from fvs_ros.patrol.truth import EpisodeRecord, EpisodeTruth
from fvs_ros.patrol.world import Stream, generator
from fvs_ros.training.config import Objective, PatrolData
from fvs_ros.training.data.episodes import Conversation, TrainingEpisode, TrainingMoment
from fvs_ros.training.data.recall import (
    EpisodeSegments,
    RecalledMoments,
    conversations,
    recalled_moments,
    segment_questions,
)
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.objectives.memory_probe import ProbeLabels
from fvs_ros.training.objectives.patrol_cells import GROUPS, cell_labels
from fvs_ros.training.objectives.patrol_probe import probe_labels, probe_sets
from fvs_ros.training.objectives.token_naming import TokenNames

_LOW_CELLS = FRAME_SIZE // FRAME_MULTIPLE
_CLOCK_ONLY = tuple(template.name for template in CLOCK_TEMPLATES if template not in TEMPLATES)
CAPTION = "Describe what you saw so far."
"""Asks for a caption; in words that questions hold as well."""


class PatrolEpisodes:
    """Patrols with the seeds `first_seed`, `first_seed` + 1 and so on.

    Raises:
        TrainingError: settings that no patrol can have, or seeds reserved for tests.
    """

    drawn = True

    def __init__(self, data: PatrolData, *, objective: Objective = "answers", memory_probe: bool = False) -> None:
        """With token naming episodes hold names for their visual tokens in place of questions, for recall segments and
        questions about these; with `memory_probe` labels for the memory's tokens beside questions.
        """
        last = data.first_seed + data.episodes - 1
        if last >= TEST_SEED:
            raise TrainingError(
                f"patrols from first_seed {data.first_seed} reach seed {last}; seeds from {TEST_SEED} up are for tests"
            )
        self.min_pixels = self.max_pixels = FRAME_SIZE**2
        self._data = data
        self._objective = objective
        self._memory_probe = memory_probe
        # Kept for the frames that are asked for right after the questions.
        self._last_recalled: tuple[int, RecalledMoments] | None = None
        try:
            self._configs = [_config(data, steps) for steps in data.lengths]
            self._configs += [day_config(steps) for steps in (*data.day_lengths, *data.recalled_lengths)]
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
        if self._objective == "recall":
            asked = [(end, self._questions(simulated, end, number)) for number, end in enumerate(self._ends(simulated))]
            found = segment_questions(simulated, asked)
            return TrainingEpisode(name, f"{identity} segments", None, moments=(), recall=found)
        if self._recalls(index):
            recalled = self._recalled(index)
            drawn_ns = tuple(simulated.stamps_ns[_frames(recalled.steps)].tolist())
            return TrainingEpisode(name, f"{identity}, {recalled.steps}", drawn_ns, recalled.moments)
        stamps_ns = tuple(simulated.stamps_ns.tolist())
        if self._objective == "token_naming":
            return TrainingEpisode(name, identity, stamps_ns, moments=(), token_names=_token_names(simulated, ends))
        chosen = self._ends(simulated)
        record, moments = EpisodeRecord(simulated), []
        for number, end in enumerate(chosen):
            told = [_caption(record.until(end), index) for index in range(self._data.captions)]
            told += conversations(self._questions(simulated, end, number))
            if told:
                moments.append(TrainingMoment((end + 1) // 2, tuple(told)))
        labels = None
        if self._memory_probe:
            labels = ProbeLabels(probe_labels(record, ends, _LOW_CELLS), probe_sets(record, ends))
        return TrainingEpisode(name, identity, stamps_ns, tuple(moments), probe_labels=labels)

    def frames(self, index: int) -> Sequence[np.ndarray]:
        """See `EpisodeSource.frames`."""
        simulated = self._simulate(index)
        indices = None
        if self._objective == "recall":
            segments = EpisodeSegments.of(simulated)
            indices = _frames(((segments.first + segments.last) // 2).tolist())
        elif self._recalls(index):
            indices = _frames(self._recalled(index).steps)
        try:
            return list(shared_renderer(FRAME_SIZE).frames(simulated, indices))
        except RenderError as error:
            raise TrainingError(f"patrol seed {self._data.first_seed + index} cannot be drawn: {error}") from error

    def _ends(self, simulated: Episode) -> list[int]:
        """The moments: a fraction of the episode lies between two, and the first are no shorter memories than curricula
        begin with.
        """
        ends = step_ends(simulated)
        count = min(self._data.moments, len(ends))
        return [ends[-1 - len(ends) * number // count] for number in reversed(range(count))]

    def _questions(self, simulated: Episode, end: int, number: int) -> list[Question]:
        """Those of one moment, by its number."""
        families = self._data.families or FAMILIES
        if simulated.config.clock:
            families = (*families, *_CLOCK_ONLY)
        return ask(simulated, self._data.questions, families, [end], number, Wording(self._data.wording))

    def _recalls(self, index: int) -> bool:
        place = index % len(self._configs)
        return place >= len(self._configs) - len(self._data.recalled_lengths)

    def _recalled(self, index: int) -> RecalledMoments:
        if self._last_recalled is None or self._last_recalled[0] != index:
            simulated = self._simulate(index)
            ends = self._ends(simulated)
            # A moment takes several memories, so that half as many do as much work.
            later = ends[len(ends) // 2 :]
            asked = [(end, self._questions(simulated, end, number)) for number, end in enumerate(later)]
            self._last_recalled = index, recalled_moments(simulated, asked)
        return self._last_recalled[1]

    def _config(self, index: int) -> PatrolConfig:
        return self._configs[index % len(self._configs)]

    def _simulate(self, index: int) -> Episode:
        return _simulate(self._data.first_seed + index, self._config(index))


def _frames(steps: Sequence[int]) -> list[int]:
    """The frames of grid steps, at 1 frame per second."""
    return [STEP_S * step + number for step in steps for number in range(STEP_S)]


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

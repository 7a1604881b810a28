"""Finds `relevance_weights` of a checkpoint on validation patrols, and prints them as JSON for its config.json.

    MUJOCO_GL=osmesa python scripts/fit_relevance.py --model embedded --seeds 870000:870023 > weights.json

Seeds from 870000 to 879999 are for choices such as this one; those from 900000 up are for tests, and refused.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch import Tensor

from fvs_ros.commands.evaluate_patrol import parse_seeds
from fvs_ros.evaluation.timed.breakdowns import GRID_STEP_S
from fvs_ros.evaluation.timed.patrol import PatrolPlan, timed
from fvs_ros.evaluation.timed.relevance_fit import RelevanceSample, fit_relevance
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prefix_cache import PrefixCache
from fvs_ros.model.relevance import RelevanceWeights
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED
from fvs_ros.patrol.questions import Question
from fvs_ros.patrol.render import shared_renderer
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.evidence import shown_moments
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.types import MemoryStatus

LONGEST_ANSWER = 32


def main() -> None:
    """Answers, fits and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("870000:870023"))
    parser.add_argument("--steps", type=int, nargs=2, default=(200, 600), metavar=("SHORTEST", "LONGEST"))
    arguments = parser.parse_args()
    if max(arguments.seeds) >= TEST_SEED:
        parser.error(f"seeds from {TEST_SEED} up are for tests; choose from 870000 to 879999")
    torch.set_num_threads(1)
    model = FlashVStream.load(arguments.model, device="cpu")
    layers, heads = len(model._backbone.layers), model._backbone.text_config.num_attention_heads
    # Any weights that are nowhere 0 have all layers observed.
    everywhere = ((1.0,) * heads,) * layers
    model.relevance = RelevanceWeights(everywhere, everywhere)
    plan = PatrolPlan(shortest=arguments.steps[0], longest=arguments.steps[1])
    samples = [sample for seed in arguments.seeds for sample in episode_samples(model, plan, seed)]
    question, answer = ([[round(one, 3) for one in row] for row in table] for table in fit_relevance(samples).tolist())
    print(json.dumps({"question": question, "answer": answer}))


def episode_samples(model: FlashVStream, plan: PatrolPlan, seed: int) -> list[RelevanceSample]:
    """One of each question with a proof that an episode is asked."""
    episode, renderer = plan.episode(seed), shared_renderer(FRAME_SIZE)
    questions = sorted((one for one in plan.ask(episode) if one.proof_ns), key=lambda one: one.time_ns)
    frames = list(zip(episode.stamps_ns.tolist(), renderer.frames(episode), strict=True))
    grid = model.frame_grid(FRAME_SIZE, FRAME_SIZE, FRAME_SIZE**2, FRAME_SIZE**2)
    memory, cache, samples = model.new_memory(grid), model.new_prefix_cache(), []
    for first, second in zip(frames[::2], frames[1::2], strict=False):
        features = model.encode_steps([first[1], second[1]], grid)
        memory.append(features.high, features.low, [first[0]], [second[0]])
        due = [one for one in questions if first[0] < one.time_ns <= second[0]]
        if due:
            samples += memory_samples(cache, memory.snapshot(), due)
    return samples


def memory_samples(cache: PrefixCache, snapshot: MemorySnapshot, questions: list[Question]) -> list[RelevanceSample]:
    """One of each question about a memory."""
    prefilled, samples = cache.allocate(snapshot), []
    while not prefilled.prefill_chunk():
        pass
    shown = shown_moments(PublishedMemory(snapshot, {}, MemoryStatus()))
    for question in questions:
        generation = prefilled.start(timed(question).question, LONGEST_ANSWER)
        while not generation.done:
            prefilled.decode_step()
        rows, slots = cache.suffixes.attention, len(shown.of_slots)
        asked, answered = rows.question[generation.row], rows.answer[generation.row]
        both = torch.stack([asked, answered if bool(answered.any()) else asked])[..., :slots].clone()
        generation.close()
        samples.append(
            RelevanceSample(both, on_proof(shown.of_slots, [one.stamp_ns for one in shown.moments], question))
        )
    prefilled.close()
    return samples


def on_proof(of_slots: tuple[int, ...], stamps_ns: list[int], question: Question) -> Tensor:
    """Which slots [C] show a question's proof, or a grid step beside it."""
    least = GRID_STEP_S * SECOND_NS
    hits = [any(start - least <= at <= end + least for start, end in question.proof_ns) for at in stamps_ns]
    return torch.tensor([hits[moment] for moment in of_slots])


if __name__ == "__main__":
    main()

"""The other published methods while streaming: equal to offline as far as all steps are kept, bounded beyond."""

import pytest
import torch
from feature_streams import stream
from memory_steps import GRID, append_all, assert_same, random_steps
from safetensors.torch import load, save

from fvs_ros.memory.config import SPATIAL_METHODS, TEMPORAL_METHODS, FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, StepFeatures
from fvs_ros.memory.spaced_steps import KEPT_PER_WANTED
from fvs_ros.memory.streaming import StreamingFlashMemory

SIZES = [(6, 3), (3, 6), (0, 4), (5, 0)]
CPU = torch.device("cpu")


def new_memory(config: FlashMemoryConfig, width: int = 3) -> StreamingFlashMemory:
    return StreamingFlashMemory(config, GRID, width, device=CPU, dtype=torch.float32)


def offline(features: StepFeatures, config: FlashMemoryConfig) -> MemorySnapshot:
    start = torch.arange(features.low.shape[0]) * 10
    return build_memory(features, GRID, config, start_ns=start, end_ns=start + 5)


@pytest.mark.parametrize("temporal", TEMPORAL_METHODS)
@pytest.mark.parametrize("spatial", SPATIAL_METHODS)
@pytest.mark.parametrize(("csm", "dam"), SIZES)
def test_every_method_equals_offline_up_to_the_slots_and_stays_bounded(
    temporal: str, spatial: str, csm: int, dam: int
) -> None:
    config = FlashMemoryConfig(csm_slots=csm, dam_slots=dam, temporal_method=temporal, spatial_method=spatial)
    features, other = random_steps(60), random_steps(1, seed=9)
    memory, untouched = new_memory(config), new_memory(config)
    size = memory.bytes
    for step in range(60):
        one = StepFeatures(features.high[step : step + 1], features.low[step : step + 1])
        append_all(untouched, one, first=step)
        append_all(memory, one, first=step)
        provisional = memory.snapshot(provisional=(other.high[0], other.low[0], 10 * step + 10))
        snapshot = memory.snapshot()
        seen = StepFeatures(features.high[: step + 1], features.low[: step + 1])
        exact = csm if csm else KEPT_PER_WANTED * dam
        if temporal == "sample" and spatial == "sample":
            exact = KEPT_PER_WANTED * max(csm, dam)
        if step + 1 <= exact:
            assert_same(snapshot, offline(seen, config))
        assert (snapshot.csm.shape[0], snapshot.dam.shape[0]) == (min(csm, step + 1), min(dam, step + 1))
        assert (provisional.csm.shape[0], provisional.dam.shape[0]) == (min(csm, step + 2), min(dam, step + 2))
        assert torch.equal(snapshot.dam, features.high[snapshot.dam_steps])
        assert torch.equal(snapshot.dam_stamps_ns, 10 * snapshot.dam_steps)
        assert set(snapshot.dam_steps.tolist()) <= set(memory.candidate_steps().tolist())
    assert memory.bytes == size
    assert_same(memory.snapshot(), untouched.snapshot())
    restored = new_memory(config)
    restored.load_state_dict(load(save(memory.state_dict())))
    assert_same(restored.snapshot(), memory.snapshot())


@pytest.mark.parametrize("temporal", TEMPORAL_METHODS)
def test_sampled_keyframes_stay_within_a_quarter_of_their_spacing(temporal: str) -> None:
    config = FlashMemoryConfig(csm_slots=6, dam_slots=4, temporal_method=temporal, spatial_method="sample")
    for steps in (15, 40, 100, 257):
        features = random_steps(steps)
        snapshot = append_all(new_memory(config), features).snapshot()
        wanted = torch.linspace(0, steps - 1, 4)
        assert (snapshot.dam_steps - wanted).abs().max() <= (steps - 1) / (KEPT_PER_WANTED * 4) + 0.5
        if temporal == "sample":
            wanted = torch.linspace(0, steps - 1, 6)
            assert (snapshot.csm_times - wanted).abs().max() <= (steps - 1) / (KEPT_PER_WANTED * 6) + 1
            assert torch.equal(snapshot.csm, features.low[snapshot.csm_times.long()])


def test_nearest_takes_the_step_at_the_mean_time_and_later_the_nearest_candidate() -> None:
    config = FlashMemoryConfig(csm_slots=6, dam_slots=4, spatial_method="nearest")
    memory = new_memory(config, width=4)
    low = stream("more_scenes_than_slots", slots=6, steps=300, features=16, seed=1).view(300, 4, 4)
    features = StepFeatures(low.repeat(1, 4, 1), low)
    misses = []
    for step in range(300):
        append_all(memory, StepFeatures(features.high[step : step + 1], low[step : step + 1]), first=step)
        snapshot = memory.snapshot()
        times = snapshot.csm_times[snapshot.dam_slots].round()
        candidates = memory.candidate_steps()
        if step >= 6:
            nearest = (candidates[None] - times[:, None]).abs().amin(1)
            assert torch.equal((snapshot.dam_steps - times).abs(), nearest)
        misses.append((snapshot.dam_steps - times).abs().max().item())
    # 2 x 6 + 16 micro-clusters: all of the first 28 steps are candidates.
    assert max(misses[6:28]) == 0
    # Measured: the mean time of a scene that returned may lie where no candidate is.
    assert max(misses) <= 300 / 10


def test_the_cosine_method_takes_the_least_similar_candidate() -> None:
    config = FlashMemoryConfig(csm_slots=6, dam_slots=4, spatial_method="klarge_retrieve_cos")
    memory, features = new_memory(config), random_steps(200)
    snapshot = append_all(memory, features).snapshot()
    candidates = memory.candidate_steps()
    similarities = torch.nn.functional.cosine_similarity(
        snapshot.csm[snapshot.dam_slots].flatten(1)[:, None], features.low[candidates].flatten(1)[None], dim=2
    )
    assert snapshot.dam_steps.tolist() == candidates[similarities.argmin(1)].tolist()


def test_a_saved_memory_of_another_method_is_refused_by_name() -> None:
    saved = new_memory(FlashMemoryConfig(csm_slots=6, dam_slots=3, spatial_method="nearest")).state_dict()
    with pytest.raises(ValueError, match="spatial_method nearest where this one has klarge_retrieve"):
        new_memory(FlashMemoryConfig(csm_slots=6, dam_slots=3)).load_state_dict(saved)

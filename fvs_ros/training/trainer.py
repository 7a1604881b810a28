"""Hugging Face's Trainer on episodes, and what it reports while it runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fvs_ros.training.config import Method
from fvs_ros.training.data.dataset import EpisodeDataset, EpisodeSampler
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.muon import MuonAdamW
from fvs_ros.training.objectives.losses import EpisodeLoss
from fvs_ros.training.trainable import load_trained_weights, trained_weights

WEIGHTS_FILE = "model.safetensors"


class Tally:
    """Counts answers and tokens between reports, without waiting for the device."""

    def __init__(self) -> None:
        self._losses: list[EpisodeLoss] = []
        self._since = time.monotonic()

    def add(self, loss: EpisodeLoss) -> None:
        """Counts a batch."""
        self._losses.append(replace(loss, loss=loss.loss.detach()))

    def take(self) -> dict[str, float]:
        """Accuracy over all and by family, and answers and tokens per second, since the last call."""
        if not self._losses:
            return {}
        shares: defaultdict[str, list[float]] = defaultdict(list)
        for loss in self._losses:
            for family, right in zip(loss.families, loss.right.tolist(), strict=True):
                shares["accuracy"].append(right)
                if family:
                    shares[f"accuracy_{family}"].append(right)
            for name, share in loss.shares.items():
                shares[name].append(float(share))
        seconds = time.monotonic() - self._since
        values = {name: sum(found) / len(found) for name, found in sorted(shares.items())}
        values["answers_per_second"] = len(shares["accuracy"]) / seconds
        values["tokens_per_second"] = sum(loss.tokens for loss in self._losses) / seconds
        self._losses, self._since = [], time.monotonic()
        return values


class EpisodeTrainer(Trainer):
    """The Trainer on batches of episodes, in an order of its own, with checkpoints of the trained weights only.

    Batches of an optimiser step count equally, as published, whatever their number of learnt tokens.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: EpisodeModel,
        arguments: TrainingArguments,
        dataset: EpisodeDataset,
        *,
        method: Method = "adamw",
        **rest: Any,
    ) -> None:
        super().__init__(model=model, args=arguments, train_dataset=dataset, **rest)
        self._tally = Tally()
        self._method = method

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's own, or Muon with AdamW."""
        if self._method == "muon" and self.optimizer is None:
            self.optimizer = MuonAdamW(
                list(trained_weights(self.model if model is None else model).items()),
                learning_rate=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
            )
        return super().create_optimizer(model)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, EpisodeLoss]:
        """The loss of one batch."""
        output: EpisodeLoss = model(inputs["samples"])
        self._tally.add(output)
        return (output.loss, output) if return_outputs else output.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds accuracy and rates to what the Trainer reports."""
        super().log({**logs, **self._tally.take()}, start_time)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Leaves samples where they are; the model moves what it needs, part by part."""
        return inputs

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        assert isinstance(self.train_dataset, EpisodeDataset)
        return EpisodeSampler(
            self.train_dataset, self.args.train_batch_size * self.args.world_size, seed=self.args.seed
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the trained weights. Under DeepSpeed's ZeRO-3 the Trainer hands them over gathered.

        The Trainer calls this in every process, but all would write the same file.
        """
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        wanted = trained_weights(self.model)
        source = wanted if state_dict is None else state_dict
        weights = {name: source[name].detach().cpu().contiguous() for name in wanted}
        save_file(weights, folder / WEIGHTS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained_weights(self.model, Path(resume_from_checkpoint) / WEIGHTS_FILE)


@dataclass(eq=False)
class Progress(TrainerCallback):
    """Reports a line every `logging_steps`: steps, loss, accuracy, rates and the time left."""

    report: Callable[[str], None]
    stage: str
    start: tuple[float, int] | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remembers where this process began."""
        self.start = (time.monotonic(), state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **rest: Any) -> None:
        """Reports a line."""
        logs = rest.get("logs") or {}
        if not state.is_world_process_zero or "loss" not in logs or self.start is None:
            return
        began, first = self.start
        done = state.global_step - first
        rate = done / (time.monotonic() - began)
        left_s = round((state.max_steps - state.global_step) / rate) if rate else 0
        self.report(
            f"{self.stage} {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  "
            f"right {logs.get('accuracy', 0):.1%}  rate {logs['learning_rate']:.1e}  {rate:.2f} steps/s  "
            f"{logs.get('answers_per_second', 0):.1f} answers/s  {logs.get('tokens_per_second', 0):.0f} tokens/s  "
            f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left"
        )


@dataclass(eq=False)
class StopWhenDue(TrainerCallback):
    """Ends the run at a time, with a checkpoint to resume from.

    Attributes:
        deadline_s: on the monotonic clock.
        due: whether it did.
    """

    deadline_s: float
    due: bool = False

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Looks at the clock."""
        if _agreed(time.monotonic() >= self.deadline_s, args) and state.global_step < state.max_steps:
            self.due = True
            control.should_save = True
            control.should_training_stop = True


def _agreed(decision: bool, args: TrainingArguments) -> bool:
    """The first process's decision, for all of them: one that stopped by itself would leave the others waiting."""
    if args.world_size == 1:
        return decision
    shared = torch.tensor(int(decision), device=args.device)
    torch.distributed.broadcast(shared, 0)
    return bool(shared.item())

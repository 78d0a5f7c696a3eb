"""Training progress: a callback that turns Trainer's events into steps and epoch lines."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback

from rekd_edge.progress import say, steps

__all__ = ["TrainingDisplay"]


class TrainingDisplay(TrainerCallback):
    """Shows steps as they pass and one line an epoch with the dev metrics."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._open = ExitStack()
        self._note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the display."""
        self._step = self._open.enter_context(steps(self.title))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self._step(state.global_step, state.max_steps, self._note)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Keep the newest loss beside the bar."""
        if logs and "loss" in logs:
            self._note = f"loss {logs['loss']:.3f}"
            if "argmax_ratio" in logs:
                self._note += f"  argmax ratio {logs['argmax_ratio']:.1%}"

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One line an epoch."""
        metrics = kwargs["metrics"]
        say(
            f"{self.title}: epoch {round(state.epoch or 0)}  dev loss {metrics['eval_loss']:.3f}  "
            f"accuracy {metrics['eval_accuracy']:.3f}  rationale ratio {metrics['eval_rationale_ratio']:.1%}"
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the display."""
        self._open.close()

"""Loggers: where the numbers, grids and measurements of a training go beside the run's own log.jsonl."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

from ..config.training import TrainConfig
from ..errors import InputError
from ..runs.run_directory import Run


class Logger(Protocol):
    """What a logger is told. images: training images seen, on its horizontal axis."""

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Numbers by name: the loss and the like, at every line of the log, and what --measure found."""

    def grid(self, pixels: Tensor, images: int) -> None:
        """A grid of samples, uint8 [C, H, W]."""

    def close(self) -> None:
        """The training has ended, for now."""


class TensorBoard:
    """Writes RUN/tensorboard, through torch."""

    def __init__(self, run: Run, images: int):
        try:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs a package: pip install 'bytepixels[tensorboard]'") from error
        self.writer = writer(str(run.path / "tensorboard"), purge_step=images)

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, images)

    def grid(self, pixels: Tensor, images: int) -> None:
        self.writer.add_image("samples", pixels[:3] if len(pixels) > 2 else pixels[:1], images)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Sends to Weights & Biases; with WANDB_MODE=offline it writes RUN/wandb alone, for `wandb sync`.

    The run there has the id of the run here, so that a training that goes on goes on there too.
    """

    def __init__(self, run: Run, project: str):
        try:
            self.library = import_module("wandb")
        except ImportError as error:
            raise InputError("--wandb needs a package: pip install 'bytepixels[wandb]'") from error
        told: dict[str, Any] = {"project": project, "name": run.path.name, "id": run.id, "resume": "allow"}
        told |= {"dir": str(run.path), "config": run.config.to_dict()}
        try:
            self.run = self.library.init(**told, settings=self.library.Settings(silent=True))
        except Exception as error:  # of many kinds, and none of the training's
            why = " ".join(str(error).split())[:200]
            raise InputError(f"--wandb {project} cannot begin: {why}; WANDB_MODE=offline needs no account") from error

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        self.run.log(dict(values), step=images)

    def grid(self, pixels: Tensor, images: int) -> None:
        shown = pixels[:3] if len(pixels) > 2 else pixels[:1]
        self.run.log({"samples": self.library.Image(shown.permute(1, 2, 0).cpu().numpy())}, step=images)

    def close(self) -> None:
        self.run.finish()


def open_loggers(run: Run, config: TrainConfig, images: int) -> list[Logger]:
    """The loggers that the settings ask for. InputError where a package is missing, or one cannot begin."""
    loggers: list[Logger] = [TensorBoard(run, images)] if config.tensorboard else []
    return loggers + ([WandB(run, config.wandb)] if config.wandb is not None else [])


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, by name; not its counts of steps and images."""
    names = record.keys() - {"step", "images", "n"}
    return {name: record[name] for name in sorted(names) if type(record[name]) in (int, float)}

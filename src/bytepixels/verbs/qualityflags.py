"""The flags of evaluate RUN without --bits and --loss, and what they share with compare RUN."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..errors import check_range
from ..evaluate.quality import LEAST
from ..randomness import MAX_SEED
from ..runs.quantities import seconds_of


@dataclass(frozen=True)
class OfSamples:
    """What is asked of every measurement of a run's samples."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The run's directory. Numbers go to RUN/eval.jsonl, pictures to RUN/evaluate."""
    n: Annotated[int, arg(aliases=["-n"])] = 256
    """How many samples. A Frechet distance from few is too high: compare it with the floor."""
    features: str = "random"
    """random (fixed convolutions), pixels (principal components), a folder of evaluate train-features, or a TorchScript
    file. Of one named inception-2015-12-05.pt the distance is FID."""
    reference: int = 50_000
    """Training pictures to compare with, at most."""
    source: str | None = None
    """Where the training pictures are now. Default: where they were."""
    batch: int = 64
    """Pictures at a time; it changes the speed, not the numbers."""
    seed: int = 0
    """Of the first sample, and of every other choice."""
    weights: Literal["ema", "model"] = "ema"
    """ema (the average) or model (the raw weights)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""
    device: str = "auto"
    """cpu, cuda, mps; auto takes the best there is."""

    def __post_init__(self) -> None:
        check_range("-n", self.n, LEAST)
        check_range("-n", self.n, LEAST, MAX_SEED)
        check_range("--seed", self.seed, 0, MAX_SEED - self.n + 1)
        check_range("--batch", self.batch, 1)
        check_range("--reference", self.reference, LEAST)


@dataclass(frozen=True)
class Quality(OfSamples):
    """How good a run's samples are: distances from its training pictures, copies, and drift; a card of it.

    With --bits or --loss it measures something else: bytepixels evaluate --bits --help. Without labels of your own,
    --features random compares colour, contrast and texture; evaluate train-features makes features that know your
    classes.
    """

    n: Annotated[int, arg(aliases=["-n"])] = 1000
    """How many samples, where the budget allows. A Frechet distance from few is too high: compare it with the floor."""
    budget: str = "10m"
    """Time for drawing them: 90s, 10m, 2h."""
    sampler: str | None = None
    """As for sample. Default: the run's own, like --steps and --guidance."""
    steps: int | None = None
    """Steps from noise to picture."""
    guidance: float | None = None
    """How strongly the label pulls; 1 is no guidance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        seconds_of(self.budget)

    @property
    def sampling(self) -> dict[str, str | int | float]:
        """The settings that replace the run's own."""
        asked = {"sampler": self.sampler, "steps": self.steps, "guidance": self.guidance}
        return {name: value for name, value in asked.items() if value is not None}

"""The flags of `bytepixels sample`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..choices import MAX_SEED
from ..config.sampling import SampleConfig
from ..errors import check_choice, check_range
from .words import Words


@dataclass(frozen=True)
class Sample:
    """Draw new images from a trained run: seed-K.png each, grid.png and manifest.json."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or the name of a bundled model: digits, cifar10, cifar10-fast, emoji."""
    n: Annotated[int, arg(aliases=["-n"])] = 16
    """How many images."""
    seed: int = 0
    """Seed of the first image; the next have the seeds that follow. An image depends on its seed alone."""
    sampler: str | None = None
    """Sampler: {SAMPLERS}; auto: the best measured for that many steps. Default: the run's own, as for
    the flags that follow."""
    steps: int | None = None
    """Sampling steps: more is better and slower. Usual: 10 to 50."""
    spacing: str | None = None
    """Where the steps lie among the noise levels: {SPACINGS}; own: where they suit this model best,
    which is measured once (a minute, say); auto takes the sampler's best."""
    eta: float | None = None
    """Fresh noise in each step of ddim: 0 (none, deterministic) to 1 (as much as ddpm)."""
    churn: float | None = None
    """Fresh noise in heun, euler and ddim: edm's S_churn, which each step divides by --steps. 0 is none."""
    renoise: float | None = None
    """Share of the noise that each step of ddim draws afresh, 0 to 1, of a run with --objective flow_map."""
    reverse_variance: str | None = None
    """Variance of ddpm's steps: small, large, learned, or auto."""
    guidance: float | None = None
    """How strongly images follow the label or prompt (or, with --weak, the better model). 1: no guidance; usual: 1.5 to
    4."""
    guidance_interval: tuple[float, float] | None = None
    """Guide only at noise levels with sigma / alpha between LOW and HIGH."""
    guidance_rescale: float | None = None
    """Guidance rescale, which undoes the contrast that guidance adds: 0 (off) to 1."""
    guidance_parallel: float | None = None
    """How much is kept of the part of guidance that only makes images stronger: 1 (all) to 0 (none), as APG has it."""
    weak: Path | None = None
    """Autoguidance: a weaker run of the same kind, or one checkpoint (RUN/checkpoints/step-...), to guide away from."""
    clip: bool | None = None
    """Clip each estimate of the clean image to the pixel range during sampling."""
    label: Words = None
    """Class name or, if no class name is a number, class number from 0. Default: the classes in turn."""
    prompt: Words = None
    """Text prompt, for a run trained with --text; "" for unconditional. Default: captions of the training images in
    turn."""
    out: Path | None = None
    """The folder for the images. Default: RUN/samples/SAMPLER-STEPS-seed-SEED."""
    batch: int = 64
    """Batch size: affects speed and memory, not the images."""
    gif: bool = False
    """Also write denoising.gif, an animation from noise to the images."""
    weights: Literal["ema", "model"] = "ema"
    """Weights to use: ema (moving average, usually better) or model (last step)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the network with torch.compile. auto: in jobs of 20 minutes or more, if measured to be faster.
    Images of a compiled network differ by rounding."""

    def __post_init__(self) -> None:
        check_range("-n", self.n, 1)
        check_range("-n", self.n, 1, MAX_SEED)
        check_range("--seed", self.seed, 0, MAX_SEED - self.n + 1)
        check_range("--batch", self.batch, 1)
        check_choice("--weights", self.weights, ("ema", "model"))
        check_choice("--compile", self.compile, ("auto", "yes", "no"))

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling settings that replace the run's own."""
        asked = {f.name: getattr(self, f.name) for f in fields(SampleConfig)}
        return {name: value for name, value in asked.items() if value is not None}

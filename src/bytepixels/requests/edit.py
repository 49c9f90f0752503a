"""The flags of the verb edit, a frozen dataclass per kind of edit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, Suppress, arg

from ..choices import MAX_SEED
from ..errors import InputError, check_choice, check_range
from .words import Words


@dataclass(frozen=True, kw_only=True)
class EditFlags:
    """The flags that all edits share."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or the name of a bundled model: digits, cifar10, cifar10-fast, emoji."""
    steps: int | None = None
    """Sampling steps. Default: the run's own, as for the flags that follow."""
    spacing: str | None = None
    """Where the steps lie among the noise levels: {SPACINGS}; own: where they suit this model best,
    which is measured once (a minute, say); auto takes the sampler's best."""
    guidance: float | None = None
    """Classifier-free guidance towards --label or --prompt, one of which it needs. 1: no guidance; usual: 1.5 to 4."""
    clip: bool | None = None
    """Clip each estimate of the clean image to the range of pixels on the way."""
    label: Words = None
    """Class name or, if no class name is a number, class number from 0. Default: none (unconditional)."""
    prompt: Words = None
    """Text prompt, for a run trained with --text. Default: none (unconditional)."""
    out: Path | None = None
    """A folder for the images, or a .png for the only one or for a grid of them.
    Default: a folder below RUN/samples, named for what was asked."""
    weights: Literal["ema", "model"] = "ema"
    """Which weights: ema (the moving average, usually better) or model (those of the last step)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""
    device: str = "auto"
    """Where to compute: cpu, cuda, mps; auto takes the fastest there is."""

    def __post_init__(self) -> None:
        check_choice("--weights", self.weights, ("ema", "model"))


@dataclass(frozen=True, kw_only=True)
class Drawing(EditFlags):
    """An edit that draws noise: n images, each a function of its seed."""

    image: Positional[Annotated[Path, arg(metavar="IMAGE")]]
    """Any image file; it is made to fit the run as its training images were."""
    n: Annotated[int, arg(aliases=["-n"])] = 4
    """How many results."""
    seed: int = 0
    """Seed of the first result; the next have the seeds that follow."""
    batch: int = 64
    """Images at a time: it changes the speed and the memory, not the images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("-n", self.n, 1)
        check_range("-n", self.n, 1, MAX_SEED)
        check_range("--seed", self.seed, 0, MAX_SEED - self.n + 1)
        check_range("--batch", self.batch, 1)


@dataclass(frozen=True, kw_only=True)
class Inpaint(Drawing):
    """Repaint a part of IMAGE and keep every other pixel as it is (RePaint, Lugmayr et al. 2022)."""

    mask: Path
    """A mask with IMAGE's aspect ratio, fitted like IMAGE: white (128 and more) is repainted, black and transparent
    parts are kept."""
    sampler: str | None = None
    """A stochastic sampler: ddpm, dpmpp_sde_2m, or ddim with --eta. Default: ddpm, or ddim if --eta is given."""
    eta: float | None = None
    """Fresh noise in ddim, up to 1 (as much as ddpm)."""
    jump: int | None = None
    """RePaint's jump length: steps repeated so that new and kept parts agree. Default: a tenth of the steps."""
    repeats: int = 5
    """RePaint's number of resamplings: how often each jump is walked, at as many times the cost. 1: no resampling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("--repeats", self.repeats, 1)
        if self.jump is not None:
            check_range("--jump", self.jump, 1)


@dataclass(frozen=True, kw_only=True)
class Vary(Drawing):
    """Draw variations of IMAGE: add noise, then denoise (SDEdit, Meng et al. 2022)."""

    strength: float = 0.6
    """How much noise is added, as a share of the steps: near 0 the image hardly changes, 1 ignores it."""
    sampler: str | None = None
    """ddpm, ddim, heun, dpmpp_2m and the others of sample. Default: the run's own."""
    eta: float | None = None
    """Fresh noise in each step of ddim: 0 (none) to 1 (as much as ddpm)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength <= 1:
            raise InputError(f"--strength must be above 0 and at most 1, got {self.strength}")


@dataclass(frozen=True, kw_only=True)
class Interpolate(EditFlags):
    """Interpolate from A to B: their noises are mixed by spherical interpolation, then denoised with ddim."""

    a: Positional[Annotated[str, arg(metavar="A")]]
    """An image file, whose noise is found by inversion; or a seed, which is a whole number."""
    b: Positional[Annotated[str, arg(metavar="B")]]
    """An image file if A is one, a seed if A is one."""
    n: Annotated[int, arg(aliases=["-n"])] = 8
    """Number of images, both ends included."""
    refine: int = 3
    """Extra network evaluations per inversion step: more is more accurate and slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("-n", self.n, 2)
        check_range("--refine", self.refine, 0)


@dataclass(frozen=True, kw_only=True)
class Invert(EditFlags):
    """Find the noise from which ddim makes IMAGE, reconstruct IMAGE from it, and print the error."""

    image: Positional[Annotated[Path, arg(metavar="IMAGE")]]
    """Any image file; it is made to fit the run as its training images were."""
    refine: int = 3
    """Extra network evaluations per inversion step: more is more accurate and slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("--refine", self.refine, 0)


@dataclass(frozen=True, kw_only=True)
class Restore(Drawing):
    """Make the image that IMAGE was measured of: enlarge it, colour it, sharpen it, or fill its holes.

    What is drawn anew agrees with IMAGE, to within a grey level; how far it does is said.
    """

    image: Annotated[Path, arg(name="from", metavar="IMAGE")]
    """An image file. upscale: smaller than the run's images by a whole factor; otherwise it is made to fit the run."""
    task: Annotated[Literal["upscale", "colour", "deblur", "fill", "operator"], arg(metavar="TASK")]
    """upscale: IMAGE is the mean of blocks of pixels; colour: IMAGE is grey; deblur: IMAGE is blurred, by --blur-std;
    fill: what is white in --mask is missing."""
    blur_std: float | None = None
    """Of deblur: the standard deviation of the Gaussian blur, in pixels of the run's images."""
    mask: Path | None = None
    """Of fill: an image of IMAGE's shape (any size), white (128 and more) where IMAGE says nothing."""
    noise: float = 0.0
    """Standard deviation of the noise in IMAGE, in grey levels of 255. 0: every pixel of IMAGE holds."""
    sampler: str | None = None
    """ddpm, ddim, heun, dpmpp_2m and the others of sample. Default: dpmpp_sde_2m, or ddim where --eta is given."""
    eta: float | None = None
    """Fresh noise in each step of ddim: 0 (none) to 1 (as much as ddpm)."""
    measurement: Suppress[Any] = None  # from Python, of a task "operator": a LinearOperator, and y [...] or [1, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        own = () if self.measurement is None else ("operator",)
        check_choice("--task", self.task, ("upscale", "colour", "deblur", "fill", *own))
        check_range("--noise", self.noise, 0, 255)
        for task, flag, value in (("deblur", "--blur-std", self.blur_std), ("fill", "--mask", self.mask)):
            if (value is None) == (self.task == task):
                raise InputError(f"--task {task} and {flag} go together, got --task {self.task} and {flag} {value}")
        if self.blur_std is not None:
            check_range("--blur-std", self.blur_std, 0.1, 100)

"""The flags of edit: one frozen dataclass for each kind of edit, and the help that lists them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, Suppress, arg

from ..choices import MAX_SEED
from ..errors import InputError, check_choice, check_range
from .words import Words

HELP = """\
usage: bytepixels edit inpaint|vary|interpolate|invert|restore RUN IMAGE [OPTIONS]

Images of your own, changed by a trained run; nothing is trained for it.

  bytepixels edit inpaint RUN IMAGE --mask MASK.png   paint anew what is white in the mask, keep the rest
  bytepixels edit vary RUN IMAGE --strength 0.6       other images like this one: noise, then back
  bytepixels edit interpolate RUN A B                   from one to the other: two images, or two seeds
  bytepixels edit invert RUN IMAGE                    the noise that an image comes from, and the image from it
  bytepixels edit restore RUN --from IMAGE --task upscale   an image out of a small, grey, blurred or torn one

Each writes its images, grid.png (what went in beside what came out) and manifest.json.
Every one explains itself: bytepixels edit inpaint --help
"""


@dataclass(frozen=True, kw_only=True)
class EditFlags:
    """What all edits share."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or a model that comes along: digits, cifar10, emoji."""
    steps: int | None = None
    """Steps from noise to image. Default: the run's own, like all that follow."""
    spacing: str | None = None
    """Where the steps lie among the noise levels: {SPACINGS}; own: where they suit this model best,
    which is measured once (a minute, say); auto takes the sampler's best."""
    guidance: float | None = None
    """How strongly the result follows the label or prompt, one of which it needs. 1: no guidance; usual: 1.5 to 4."""
    clip: bool | None = None
    """Clip each estimate of the clean image to the range of pixels on the way."""
    label: Words = None
    """A class by its name or, where no class is named by a number, by its number from 0.
    Default: none, the image speaks for itself."""
    prompt: Words = None
    """What the result shows, in words: of a run with --text. Default: nothing is said."""
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
    """Paint a part of IMAGE anew and keep the rest, to the pixel (RePaint, Lugmayr et al. 2022)."""

    mask: Path
    """An image of IMAGE's shape (any size), cropped as it is: white (128 and more) is painted anew, black and what is
    transparent is kept."""
    sampler: str | None = None
    """One that draws noise: ddpm, dpmpp_sde_2m, or ddim with --eta. Default: ddpm, or ddim where --eta is given."""
    eta: float | None = None
    """Fresh noise in ddim, up to 1 (as much as ddpm)."""
    jump: int | None = None
    """Steps in a stretch that is walked again, so that new and old parts agree. Default: a tenth of the steps."""
    repeats: int = 5
    """How often each stretch is walked, 5 costing about 5 times the steps; 1 is never again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("--repeats", self.repeats, 1)
        if self.jump is not None:
            check_range("--jump", self.jump, 1)


@dataclass(frozen=True, kw_only=True)
class Vary(Drawing):
    """Put noise on IMAGE and take it away again: images like it (SDEdit, Meng et al. 2022)."""

    strength: float = 0.6
    """How much noise: near 0 the image stays, 1 goes the whole way. It is the share of the steps that are taken."""
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
    """Images on the way from A to B: their noises are mixed along the sphere, then denoised with ddim."""

    a: Positional[Annotated[str, arg(metavar="A")]]
    """An image file, whose noise is found by inversion; or a seed, which is a whole number."""
    b: Positional[Annotated[str, arg(metavar="B")]]
    """An image file if A is one, a seed if A is one."""
    n: Annotated[int, arg(aliases=["-n"])] = 8
    """How many images in the row, both ends included."""
    refine: int = 3
    """Extra evaluations for each step of the inversion of an image: more is more exact and slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("-n", self.n, 2)
        check_range("--refine", self.refine, 0)


@dataclass(frozen=True, kw_only=True)
class Invert(EditFlags):
    """Find the noise that ddim makes IMAGE from, make IMAGE from it again, and say how near it comes."""

    image: Positional[Annotated[Path, arg(metavar="IMAGE")]]
    """Any image file; it is made to fit the run as its training images were."""
    refine: int = 3
    """Evaluations for each step back beyond the first: the more, the nearer it comes."""

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


KINDS: dict[str, type[EditFlags]] = {
    "inpaint": Inpaint,
    "vary": Vary,
    "interpolate": Interpolate,
    "invert": Invert,
    "restore": Restore,
}

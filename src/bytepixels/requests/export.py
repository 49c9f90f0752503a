"""The flags of export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..errors import InputError, check_choice
from .words import Words

KINDS = ("onnx", "html", "diffusers", "torch")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a trained model as files for other programs, which draw the same images without bytepixels.

    onnx: network.onnx, and sampler.onnx, which goes all the way from noise to uint8 images, for onnxruntime and others.
    html: one page that draws new images in any browser, offline, with nothing installed.
    diffusers: a folder that DiffusionPipeline.from_pretrained opens, of a U-Net of ddpm.
    torch: network.pt2, a torch.export program. Beside all but diffusers lies model.json: inputs, classes, and the
    sampler as a table of numbers.
    """

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """The folder of a run, or the name of a bundled model: digits, cifar10, cifar10-fast, emoji."""
    to: Literal["onnx", "html", "diffusers", "torch"]
    """What to write: onnx, html, diffusers or torch."""
    out: Path | None = None
    """The folder for the files. Default: RUN/export/KIND."""
    half: bool = False
    """Keep the weights in 16 bits: half the size; they are computed with in 32 bits. Of html always."""
    label: Words = None
    """Class name or number that the pipeline of diffusers always draws, since it takes none. Default: no class."""
    by_class: bool = False
    """Of diffusers: let the UNet2DModel take class_labels, the last one meaning no class. Its pipelines cannot draw
    from it, a program of your own can; import takes it back with the names of the classes."""
    sampler: str | None = None
    """The sampler of sampler.onnx: {SAMPLERS}; auto: the best measured for that many steps. Default: the run's own, as
    for the flags that follow."""
    steps: int | None = None
    """Sampling steps: more is better and slower. Usual: 10 to 50."""
    spacing: str | None = None
    """Where the steps lie among the noise levels: {SPACINGS}; own: where they suit this model best; auto takes the
    sampler's best."""
    eta: float | None = None
    """Fresh noise in each step of ddim: 0 (none, deterministic) to 1 (as much as ddpm)."""
    guidance: float | None = None
    """How strongly images follow the label or prompt. 1: no guidance. Any other makes it an input of sampler.onnx."""
    clip: bool | None = None
    """Clip each estimate of the clean image to the range of pixels on the way."""
    weights: Literal["ema", "model"] = "ema"
    """Which weights: ema (the moving average, usually better) or model (those of the last step)."""
    checkpoint: str | None = None
    """A checkpoint's name. Default: the newest."""

    def __post_init__(self) -> None:
        check_choice("--to", self.to, KINDS)
        if self.half and self.to in ("diffusers", "torch"):
            raise InputError(f"--half is for --to onnx and html, got --to {self.to}")
        if self.label is not None and self.to != "diffusers":
            raise InputError(f"--label is for --to diffusers, got --to {self.to}, which takes it as an input")
        if self.by_class and (self.to != "diffusers" or self.label is not None):
            raise InputError("--by-class is for --to diffusers without --label")
        check_choice("--weights", self.weights, ("ema", "model"))

    @property
    def sampling(self) -> dict[str, object]:
        """The sampling settings that replace the run's own."""
        names = ("sampler", "steps", "spacing", "eta", "guidance", "clip")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

"""The verb show: the forward process on one's own images, and the curves of every schedule."""

import math
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from .. import events
from ..codec.codec import PixelCodec
from ..config.data import DataConfig
from ..core.gaussian_diffusion import GaussianDiffusion
from ..data import Packed
from ..data.packed import default_cache
from ..data.sources.decode import upright_size
from ..data.sources.open_source import open_source
from ..images import GAP, grid, room_in_grid, save_png
from ..randomness import SeededNoise
from ..registries import SCHEDULES
from ..requests.show import Show
from ..runs.packing import pack_with_progress
from ..runs.run_directory import make_folder

SHOWN = 256  # pixels of an image's longest side, unless --size says otherwise
LOOKED_AT = 16  # images whose size is looked at before they are packed
FEWER = "fewer --columns or a smaller -n show them larger"
TEXT, HEADER = 13, 40  # pixels: the height of the letters, and of the lines above a strip


def show(request: Show) -> list[Path]:
    """Write the forward process of a source's first images under every schedule; prints and returns the paths."""
    size = request.size or shown_size(request.source, request.n, request.columns)
    packed = pack_with_progress(request.source, DataConfig(size=size, channels=request.channels))
    paths = write_strips(packed, request.out, request.n, request.columns, request.timesteps)
    events.say(*paths)
    return paths


def write_strips(packed: Packed, out: Path, n: int = 4, columns: int = 11, timesteps: int = 1000) -> list[Path]:
    """Write forward-SCHEDULE.png (x_0 .. x_T of the first n images, one row each) and schedules.png; their paths.

    Where so many have no room at the size that they are packed at, the size that they are drawn at is said.
    """
    make_folder(out, "--out")
    images = torch.from_numpy(packed.images[:n].copy())
    processes = {name: GaussianDiffusion(timesteps, schedule) for name, schedule in SCHEDULES.items()}
    paths = []
    for name, process in processes.items():
        paths.append(out / f"forward-{name}.png")
        strip = grid(forward_strip(images, process, columns), columns)
        save_png(labelled(strip, name, ["image", *(f"t = {t}" for t in times_of(process, columns))]), paths[-1])
    height, width = (strip.shape[1] - GAP) // len(images) - GAP, (strip.shape[2] - GAP) // columns - GAP
    if height < images.shape[2] or width < images.shape[3]:
        what = f"{len(images):,} x {columns:,} images have room for {height} x {width} pixels each (height x width)"
        events.say(f"note: {what}, not for their {images.shape[2]} x {images.shape[3]}; {FEWER}")
    paths.append(out / "schedules.png")
    plot_schedules(processes, paths[-1])
    return paths


def forward_strip(images: Tensor, process: GaussianDiffusion, columns: int) -> Tensor:
    """Noise each image at even times up to T - 1: uint8 [N, C, H, W] -> [N * columns, C, H, W], clean first."""
    codec = PixelCodec()
    x0 = codec.to_model(images)
    noise = SeededNoise(range(len(images)))(x0)
    states = [x0] + [process.add_noise(x0, torch.full((len(x0),), t), noise)[0] for t in times_of(process, columns)]
    return torch.stack([codec.to_images(x) for x in states], dim=1).flatten(0, 1)  # [N, columns, ...] -> one list


def times_of(process: GaussianDiffusion, columns: int) -> list[int]:
    """The timestep t of each column after the first, which is the image itself."""
    return torch.linspace(0, process.T - 1, columns - 1).round().long().tolist()


def labelled(sheet: Tensor, schedule: str, labels: list[str]) -> Tensor:
    """Draw the schedule's name and column labels above a strip uint8 [C, H, W], as far as they have room."""
    from PIL import Image, ImageDraw, ImageFont

    channels, _, width = sheet.shape
    header = Image.new("L", (width, HEADER), 255)
    draw, font = ImageDraw.Draw(header), ImageFont.load_default(TEXT)
    draw.text((4, 2), f"{schedule} schedule", fill=0, font=font)
    pitch = width / len(labels)
    every = math.ceil(max(draw.textlength(f"{label}  ", font=font) for label in labels) / pitch)
    for k in range(0, len(labels), every):
        anchor = "ma" if every == 1 else "la"
        draw.text(((k + 0.5 * (every == 1)) * pitch, 4 + TEXT), labels[k], fill=0, font=font, anchor=anchor)
    grey = torch.from_numpy(np.array(header))[None]
    opaque = torch.full_like(grey, 255)
    top = torch.cat([*[grey] * (channels if channels in (1, 3) else channels - 1), opaque])[:channels]
    return torch.cat([top, sheet], dim=1)


def shown_size(source: str, n: int, columns: int) -> tuple[int, int] | None:
    """The size to draw larger images at: SHOWN pixels at most, and so that n rows of `columns` have room, by the
    headers of the first images; None if none is larger.

    Known before the images are decoded: to pack those of a camera at their full size takes minutes.
    """
    sizes = []
    listing = open_source(source, "train", default_cache()).read()
    for item in islice(listing.items(), LOOKED_AT):
        with suppress(Exception), item.open() as image:  # what cannot be read is named when it is packed
            sizes.append(upright_size(image))
    largest = max((side for size in sizes for side in size), default=0)
    if largest <= SHOWN:
        return None
    most = min(SHOWN, room_in_grid(min(n, len(listing.names)), columns))
    height, width = (max(1, round(side * most / largest)) for side in sizes[0])
    if len(set(sizes)) > 1:
        height = width = min(most, round(median(min(size) for size in sizes)))
    how = "--size changes it" if most == SHOWN else FEWER
    events.say(f"Images of up to {largest:,} pixels a side are shown at {height} x {width} (height x width); {how}")
    return height, width


def plot_schedules(processes: dict[str, GaussianDiffusion], path: Path) -> None:
    """Plot alpha_bar and the log signal-to-noise ratio of every schedule against t / T."""
    from matplotlib.figure import Figure

    figure = Figure((10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, process in processes.items():
        u = torch.arange(1, process.T + 1) / process.T
        left.plot(u, process.alpha_bar, label=name)
        right.plot(u, torch.log(process.alpha_bar / (1 - process.alpha_bar)), label=name)
    left.set(xlabel="t / T", ylabel=r"$\bar\alpha_t$", title="signal left")
    right.set(xlabel="t / T", ylabel="log SNR", title=r"log $\bar\alpha_t / (1 - \bar\alpha_t)$")
    left.legend()
    figure.savefig(path, dpi=120)

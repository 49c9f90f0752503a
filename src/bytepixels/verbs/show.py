"""show SOURCE: the forward process on one's own pictures, and the curves of every schedule."""

from pathlib import Path

import torch
from torch import Tensor

from ..codec import PixelCodec
from ..data import Packed
from ..errors import check_range
from ..images import grid, save_png
from ..process import GaussianDiffusion
from ..randomness import SeededNoise
from ..runs.directory import make_folder
from ..schedules import SCHEDULES


def show(packed: Packed, out: Path, n: int = 4, columns: int = 11, timesteps: int = 1000) -> list[Path]:
    """Write forward-SCHEDULE.png (x_0 .. x_T of the first n pictures, one row each) and schedules.png; their paths."""
    check_range("-n", n, 1)
    check_range("--timesteps", timesteps, 1)
    check_range("--columns", columns, 2, timesteps + 1)
    make_folder(out, "--out")
    images = torch.from_numpy(packed.images[:n].copy())
    processes = {name: GaussianDiffusion(timesteps, schedule) for name, schedule in SCHEDULES.items()}
    paths = []
    for name, process in processes.items():
        paths.append(out / f"forward-{name}.png")
        save_png(grid(forward_strip(images, process, columns), columns), paths[-1])
    paths.append(out / "schedules.png")
    plot_schedules(processes, paths[-1])
    return paths


def forward_strip(images: Tensor, process: GaussianDiffusion, columns: int) -> Tensor:
    """uint8 [N, C, H, W] -> [N * columns, C, H, W]: each picture clean, then noisier at even times up to T - 1."""
    codec = PixelCodec()
    x0 = codec.to_model(images)
    noise = SeededNoise(range(len(images)))(x0)
    times = torch.linspace(0, process.T - 1, columns - 1).round().long().tolist()
    states = [x0] + [process.add_noise(x0, torch.full((len(x0),), t), noise)[0] for t in times]
    return torch.stack([codec.to_images(x) for x in states], dim=1).flatten(0, 1)  # [N, columns, ...] -> one list


def plot_schedules(processes: dict[str, GaussianDiffusion], path: Path) -> None:
    """What is left of the picture (alpha_bar) and the log signal-to-noise ratio, against t / T."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, process in processes.items():
        u = torch.arange(1, process.T + 1) / process.T
        left.plot(u, process.alpha_bar, label=name)
        right.plot(u, torch.log(process.alpha_bar / (1 - process.alpha_bar)), label=name)
    left.set(xlabel="t / T", ylabel=r"$\bar\alpha_t$", title="signal left")
    right.set(xlabel="t / T", ylabel="log SNR", title=r"log $\bar\alpha_t / (1 - \bar\alpha_t)$")
    left.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)

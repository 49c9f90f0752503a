"""Images out of small, grey, blurred and torn ones: PSNR, distance and residual beside what needs no model.

    python -m bench.restore cifar10 --source cifar10-jpeg.tar.xz --split test -n 256
    python -m bench.restore emoji --source noto-emoji-128.zip --captions -n 64

It does what `bytepixels edit restore RUN --from IMAGE --task TASK` does with its defaults, batch by batch, to n images
of the source. Upscaling is four times, beside bicubic; blur has a standard deviation of --blur-std pixels; the hole is
the square in the middle with half the sides. Distances: ImageNet's features (bytepixels[features]), the kernel distance
and the Frechet distance from --reference other images, and between each result and its own original.
Intervals are standard errors, of the distances half the 95% interval by the jackknife.
"""

import argparse
import json
import time
from collections import deque
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from bytepixels.codec.codec import PixelCodec
from bytepixels.core.inverse_problems import GREY_LEVEL, ROUNDING, consistent, measured
from bytepixels.core.linear_operators import LinearOperator, blur, downscale, grayscale, masked
from bytepixels.core.samplers import trajectory
from bytepixels.data import pack
from bytepixels.images import grid, save_png
from bytepixels.metrics.distances import kernel_distance
from bytepixels.metrics.frechet import Moments
from bytepixels.metrics.imagenet import ImageNetFeatures
from bytepixels.metrics.sample_metrics import frechet
from bytepixels.randomness import SeededNoise
from bytepixels.sampling.conditioning import text_of
from bytepixels.sampling.trained_model import TrainedModel

FACTOR, BATCH = 4, 32
PIXELS = PixelCodec()


def operators(height: int, width: int, blur_std: float) -> dict[str, LinearOperator]:
    """The measurement of each task."""
    keep = torch.ones(1, height, width)
    keep[:, height // 4 : -height // 4, width // 4 : -width // 4] = 0
    return {
        "upscale": downscale((height, width), FACTOR),
        "colour": grayscale(),
        "deblur": blur((height, width), blur_std),
        "fill": masked(keep),
    }


def without_a_model(task: str, y: Tensor, size: tuple[int, int]) -> Tensor:
    """What there is without one: bicubic, grey, blurred, or grey in the hole; x0 [n, C, H, W]."""
    if task == "upscale":
        return F.interpolate(y, size, mode="bicubic")
    return y.expand(-1, 3, -1, -1)


def restored(model: TrainedModel, operator: LinearOperator, y: Tensor, texts: list[str] | None) -> Tensor:
    """One result for each measurement [n, ...], seeds from 0 on: uint8 [n, C, H, W]."""
    settings = model.settings(
        sampler="dpmpp_sde_2m", guidance=1.0 if texts is None else model.run.config.sample.guidance
    )
    levels, results = model.process.levels(settings.steps, settings.spacing), []
    for start in range(0, len(y), BATCH):
        part = y[start : start + BATCH]
        told = {"label": None, "text": None}
        if texts is not None:
            rows = [text_of(model.run, [0], text, model.device) for text in texts[start : start + BATCH]]
            told["text"] = tuple(pad_sequence([one[0] for one in each], True) for each in zip(*rows, strict=True))
        denoise, step = model.sampling(settings, **told)
        noise = SeededNoise(range(start, start + len(part)))
        states = trajectory(
            model.pure_noise(noise, levels[0]), levels, measured(denoise, operator, part, ROUNDING), step, noise
        )
        (x,) = deque(states, maxlen=1)
        results.append(model.codec.to_images(consistent(x, operator, part)))
    return torch.cat(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--source", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument("--tasks", nargs="+", default=["upscale", "colour", "deblur", "fill"])
    parser.add_argument("--blur-std", type=float, default=1.5)
    parser.add_argument(
        "--captions", action="store_true", help="also with each image's own caption, at the run's guidance"
    )
    parser.add_argument("--out", type=Path, default=Path("restore"))
    asked = parser.parse_args()
    asked.out.mkdir(exist_ok=True)
    model, features = TrainedModel.open(asked.run), ImageNetFeatures()
    size = model.run.shape[1:]
    packed = pack(asked.source, size=size, channels=model.run.shape[0], split=asked.split)
    order = torch.randperm(len(packed), generator=torch.Generator().manual_seed(0))
    rows, others = order[: asked.n], order[asked.n : asked.n + asked.reference]
    images, known = (torch.from_numpy(packed.images[some.numpy()]) for some in (rows, others))
    known = features(known)
    own = features(images)

    def report(task: str, what: str, results: Tensor, y: Tensor, seconds: float = 0.0) -> None:
        error = (results.double() - images.double()).square().mean((1, 2, 3))
        psnr = 10 * torch.log10(255**2 / error.clamp(min=1e-3))
        found = features(results)
        apart = (found - own).norm(dim=1)
        away = (operators(*size, asked.blur_std)[task].apply(PIXELS.to_model(results)) - y).abs() / GREY_LEVEL
        row = {"run": asked.run, "task": task, "what": what, "n": len(images)}
        row |= {"psnr": [psnr.mean().item(), (psnr.std() / len(psnr) ** 0.5).item()]}
        row |= {"kernel": kernel_distance(found, known), "frechet": frechet(found, Moments.of(known))}
        row |= {"own": [apart.mean().item(), (apart.std() / len(apart) ** 0.5).item()]}
        row |= {"residual": [away.mean().item(), away.max().item()], "seconds": seconds}
        print(json.dumps(row), flush=True)
        with open(asked.out / "rows.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    for task in asked.tasks:
        operator = operators(*size, asked.blur_std)[task]
        y = operator.apply(PIXELS.to_model(images))
        if task != "fill":
            y = PIXELS.to_model(PIXELS.to_images(y))  # rounded, as a file is
        plain = PIXELS.to_images(without_a_model(task, y, size))
        report(task, "the images themselves", images, y)
        report(task, "bicubic" if task == "upscale" else "as given", plain, y)
        shown = [plain]
        for texts in [None, *([[packed.captions[k] for k in rows]] if asked.captions else [])]:
            began = time.monotonic()
            results = restored(model, operator, y, texts)
            report(task, "restored" if texts is None else "with its caption", results, y, time.monotonic() - began)
            shown.append(results)
        columns = torch.stack([one[:32] for one in [*shown, images]], 1).flatten(0, 1)
        save_png(grid(columns, 4 * (len(shown) + 1)), asked.out / f"{Path(asked.run).name}-{task}.png")
        torch.save([*shown, images], asked.out / f"{Path(asked.run).name}-{task}.pt")


if __name__ == "__main__":
    main()

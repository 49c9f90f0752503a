"""Draw the denoising trajectory of a few images."""

from io import BytesIO

import torch

from ..images import grid, to_pil
from ..runs.run_directory import Run
from ..sampling.trained_model import TrainedModel

STATES = 10  # columns of the strip
NOISE_STD = 0.6  # the most that is shown, where pixels are -1..1: so that what is in the noise can be seen


def denoising_strip(run: Run, count: int, device_name: str) -> bytes:
    """A PNG with one row per image, from noise to sample, at evenly spaced steps of the run's own sampler."""
    model = TrainedModel.open(run, device=device_name)
    settings, codec = model.settings(), model.codec
    largest = NOISE_STD if run.x0_shape == run.shape else 1.0  # whitened latents are decoded as they are
    wanted = {round(k * settings.steps / (STATES - 1)) for k in range(STATES)}
    states: list[torch.Tensor] = []

    def watch(step: int, x: torch.Tensor) -> None:
        if step in wanted:
            scale = (x.flatten(1).std(1) / largest).clamp(min=1).view(-1, 1, 1, 1)
            states.append(codec.to_images(x / scale if step < settings.steps else x).cpu())

    model.draw(settings, range(count), watch=watch)
    file = BytesIO()
    to_pil(grid(torch.stack(states, 1).flatten(0, 1), len(states))).save(file, "PNG", optimize=True)
    return file.getvalue()

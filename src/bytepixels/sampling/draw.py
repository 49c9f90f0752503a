"""Seeds in, images out: no files."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..build import build_process
from ..config.sampling import SampleConfig
from ..core.losses import evaluating, pure_noise
from ..core.samplers import trajectory
from ..distributed.process_group import World
from ..randomness import SeededNoise
from ..runs.run_directory import Run
from .conditioning import Text, labels_of, text_of
from .first_stage import codec_of
from .settings import build_denoiser, build_sampling, resolved_sampling

Watch = Callable[[int, Tensor], None]  # (step, x_t): every state on the way


def draw_together(world: World, seeds: range, shape: tuple[int, int, int], draw: Callable[[range], Tensor]) -> Tensor:
    """uint8 [B, C, H, W] of these seeds, everywhere; every process draws its share of them."""
    own = seeds[world.rows(len(seeds))]
    if own:
        drawn = draw(own)
    else:  # a sharded network needs everybody, all the same
        drawn = draw(seeds[:1])[:0] if world.sharded else torch.empty(0, *shape, dtype=torch.uint8)
    return world.gather(drawn, len(seeds))


def draw_pictures(
    network: nn.Module,
    run: Run,
    settings: SampleConfig,
    seeds: Sequence[int],
    device: torch.device,
    label: int | Sequence[int] | None = None,
    watch: Watch = lambda step, x: None,
    weak: tuple[Run, nn.Module] | None = None,
    text: Text | None = None,
) -> Tensor:
    """uint8 [B, C, H, W], picture k a function of seeds[k], its label and its text.

    watch(step, x_t) sees every state on the way.
    label: of all of them, or of each; None takes the classes in turn, or none where the run reads text.
    text: of each, as text_of has it; None takes the captions that the run remembers in turn.
    """
    process, codec = build_process(run.config), codec_of(run, device)
    settings = resolved_sampling(settings, run.config, process)
    levels = process.levels(settings.steps, settings.spacing)
    labels = labels_of(run, seeds, label) if label is None or isinstance(label, int) else list(label)
    given = None if labels is None else torch.tensor(labels, device=device)
    text, away = text_of(run, seeds, None, device) if text is None else text, None
    if weak is not None:
        weak_run, weak_network = weak
        known = given if weak_run.classes else None, text if weak_run.text else None
        away = build_denoiser(weak_network, weak_run.config, process, *known)
    denoise, step = build_sampling(network, run.config, settings, process, given, away, codec.bounds, text)
    noise = SeededNoise(seeds)
    x = pure_noise(torch.empty(len(seeds), *run.x0_shape, device=device), levels[0], noise, process.sigma_data)
    with evaluating(network):
        watch(0, x)
        for done, state in enumerate(trajectory(x, levels, denoise, step, noise), 1):
            x = state
            watch(done, x)
    return codec.to_images(x).cpu()

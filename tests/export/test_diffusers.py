"""export --to diffusers: diffusers opens the folder, its network gives our numbers, and its pipeline our images."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from bytepixels.randomness import SeededNoise
from bytepixels.sampling.conditioning import find_label
from bytepixels.sampling.load_weights import open_model
from bytepixels.sampling.trained_model import TrainedModel, in_precision
from tests.export.test_export import with_random_weights
from tests.tiny import cli, plain, train

T = 60
RUNS = {  # flags of the training, and the class that is exported
    "eps, no classes": ("--schedule linear --prediction eps --no-labels".split(), None),
    "v, a class, two levels": ("--multipliers 1 2 --attention 1 --blocks 2 --heads 2".split(), "7"),
    "x0, DDPM's embedding, every level attends": (
        "--prediction x0 --multipliers 1 1 --attention 0 1 --embedding ddpm".split(),
        None,
    ),
    "zero terminal SNR, wide, not square": ("--zero-terminal-snr --width 32 --size 8 4".split(), None),
}


@pytest.fixture(params=RUNS)
def run(request, tmp_path, monkeypatch):
    flags, label = RUNS[request.param]
    assert train(tmp_path / "run", *flags, "--timesteps", T, steps=1) == 0
    return with_random_weights(tmp_path / "run", monkeypatch), tmp_path / "run", label


def exported(path, label, *flags):
    told = () if label is None else ("--label", label)
    assert cli("export", path, "--to", "diffusers", "--out", path.parent / "out", *flags, *told) == 0
    return DiffusionPipeline.from_pretrained(path.parent / "out", low_cpu_mem_usage=False)


def class_of(model, label):
    """What our network is told."""
    return find_label(model.run, label) if label is not None else model.network.null_label


def test_the_network_gives_our_numbers(run):
    model, path, label = run
    unet = exported(path, label).unet
    x, t = torch.randn(3, *model.run.x0_shape), torch.tensor([0, 31, 59])
    own = class_of(model, label)
    told = () if own is None else (torch.full((3,), own),)
    with torch.no_grad():
        torch.testing.assert_close(unet(x, t).sample, model.network(x, t.float(), *told), rtol=0, atol=2e-5)
    assert sum(p.numel() for p in unet.parameters()) == sum(
        p.numel() for name, p in model.network.named_parameters() if name != "label.weight"
    )


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_pipeline_draws_our_images(run, sampler):
    """From the same noise. DDIM's steps divide T: else diffusers steps to levels beside its own grid."""
    model, path, label = run
    steps = T if sampler == "ddpm" else 10
    pipeline = exported(path, label, "--sampler", sampler, "--steps", steps)
    settings = model.settings(sampler=sampler, steps=steps, spacing="trailing", clip=True)
    own = class_of(model, label)
    expected = model.draw(settings, range(5, 7), [own, own] if own is not None else None)
    noise = SeededNoise(range(5, 7))  # both libraries draw what they need of it
    patch = lambda shape, **settings: noise(torch.empty(shape))  # noqa: E731
    module = __import__(type(pipeline).__module__, fromlist=["randn_tensor"])
    schedulers = __import__(type(pipeline.scheduler).__module__, fromlist=["randn_tensor"])
    with pytest.MonkeyPatch.context() as own_noise:
        own_noise.setattr(module, "randn_tensor", patch)
        own_noise.setattr(schedulers, "randn_tensor", patch)
        pipeline.set_progress_bar_config(disable=True)
        own = {} if sampler == "ddpm" else {"use_clipped_model_output": True}  # as DDIM's formula has it
        images = pipeline(batch_size=2, num_inference_steps=steps, output_type="np", **own).images
    found = torch.from_numpy(np.round(images * 255)).permute(0, 3, 1, 2)
    assert expected.float().std() > 10
    assert (found - expected.float()).abs().max() <= 1


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--diffusion flow", "--diffusion flow scales what the network is given"),
        ("--stem haar --size 16 16", "its Haar stem is no layer of UNet2DModel"),
        ("--variance learned --objective hybrid", "UNet2DModel learns no variance"),
        ("--multipliers 1 2 --attention 0 1 --heads 2", "2 heads of several widths are not one attention_head_dim"),
    ],
)
def test_what_it_cannot_carry_is_said(flags, why, tmp_path, capsys):
    assert train(tmp_path / "run", *flags.split(), steps=1) == 0
    assert cli("export", tmp_path / "run", "--to", "diffusers", "--out", tmp_path / "out") == 2
    assert why in plain(capsys.readouterr().err)


def test_a_model_that_comes_along(tmp_path):
    assert cli("export", "digits", "--to", "diffusers", "--label", "3", "--out", tmp_path / "out") == 0
    unet = DiffusionPipeline.from_pretrained(tmp_path / "out", low_cpu_mem_usage=False).unet
    model = TrainedModel.open(in_precision(open_model(tmp_path / "runs/digits"), "float32"), device="cpu")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([20, 700])
    with torch.no_grad():
        torch.testing.assert_close(
            unet(x, t).sample, model.network(x, t.float(), torch.full((2,), 3)), atol=1e-5, rtol=0
        )

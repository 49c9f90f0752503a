"""train --objective flow_map: a plain model at first, then one whose steps lead anywhere."""

from dataclasses import replace

import pytest
import torch

from bytepixels import InputError, Run
from bytepixels import train as train_run
from bytepixels.build import build_process
from bytepixels.codec.codec import PixelCodec
from bytepixels.config.presets import PRESETS, preset_with
from bytepixels.core.samplers import trajectory
from bytepixels.data import pack
from bytepixels.distributed.process_group import ProcessGroup
from bytepixels.events import Progress, listening
from bytepixels.randomness import SeededNoise
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling.trained_model import TrainedModel
from bytepixels.stopping import Stop
from bytepixels.training.autotune.preflight_advice import EPOCHS
from bytepixels.training.autotune.trial import start_trial
from bytepixels.training.diffusion_task import Diffusion, build_loss
from tests.tiny import checkpoints, cli, plain, same_bits, tensors, train

FLAGS = ("--objective", "flow_map", "--diffusion", "flow", "--prediction", "v", "--lr-decay", "none")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight steps, of which the last three have r below 1."""
    path = tmp_path_factory.mktemp("flow_map") / "run"
    assert train(path, *FLAGS, "--dropout", 0.1, "--lr", 0.03, steps=8) == 0
    return path


def drawn(run, steps, sampler="ddim"):
    return Run(run).sample(3, seed=5, steps=steps, sampler=sampler, device="cpu")


@pytest.mark.parametrize("own", [{"backbone": "unet"}, {"backbone": "dit", "width": 32}, {"micro_batch": 16}], ids=str)
def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path, own):
    settings = {"preset": "digits", "objective": "flow_map", "diffusion": "flow", "prediction": "v", "dropout": 0.1}
    settings |= {"images": 256, "batch": 32, "width": 8, "previews": 0, "precision": "float32", "device": "cpu"} | own
    stop = Stop()

    def listen(event):
        if (
            isinstance(event, Progress) and event.what == "train" and event.done >= 6 * 32
        ):  # r is below 1 from the fifth
            stop.ask()

    train_run("digits", tmp_path / "straight", **settings)
    with listening(listen):
        train_run("digits", tmp_path / "stopped", stop=stop, **settings)
    assert checkpoints(tmp_path / "stopped")[-1].name < checkpoints(tmp_path / "straight")[-1].name
    train_run("digits", tmp_path / "stopped", **settings)
    assert same_bits(checkpoints(tmp_path / "straight")[-1], checkpoints(tmp_path / "stopped")[-1]) == []


def test_a_step_of_ddim_leads_to_its_destination(run):
    model = TrainedModel.open(run, weights="model", device="cpu")
    torch.nn.init.normal_(model.network.destination.last.weight)
    settings = model.settings(sampler="ddim", steps=2, clip=False)
    levels = model.process.levels(2, settings.spacing)
    x = SeededNoise(range(2))(torch.empty(2, *model.run.x0_shape))
    label = torch.zeros(2, dtype=torch.int64)
    denoise, step = model.sampling(settings, label)
    first = next(trajectory(x, levels, denoise, step))
    now, nxt = levels[:2]
    x0 = model.denoiser(label)(x, now, nxt)
    expected = nxt.sigma / now.sigma * x + (nxt.alpha - now.alpha * nxt.sigma / now.sigma) * x0
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-6)
    assert (x0 - model.denoiser(label)(x, now)).abs().max() > 1e-3  # the destination counts


def test_auto_steps_to_destinations_in_few_steps_alone(run):
    chosen = {
        n: TrainedModel.open(run, device="cpu").settings(sampler="auto", steps=n).sampler for n in (1, 4, 8, 9, 20)
    }
    assert chosen == {1: "ddim", 4: "ddim", 8: "ddim", 9: "unipc_3", 20: "unipc_3"}


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_few_steps_with_guidance_and_noise_anew(run, steps):
    image = {"seed": 3, "steps": steps, "sampler": "ddim", "device": "cpu", "weights": "model"}
    plain_one = Run(run).sample(2, **image)
    assert plain_one.shape == (2, 1, 8, 8)
    assert not torch.equal(plain_one, Run(run).sample(2, label="3", guidance=3, **image))
    anew = Run(run).sample(2, renoise=1, **image)
    assert torch.equal(anew, plain_one) == (steps == 1)  # a single step has nothing to come back to
    assert torch.equal(Run(run).sample(1, renoise=1, **image | {"seed": 4}), anew[1:])


def test_noise_anew_needs_a_flow_map_and_ddim(run, tmp_path, capsys):
    assert cli("sample", "digits", "-n", 1, "--sampler", "ddim", "--steps", 2, "--renoise", 0.5, "--out", tmp_path) == 2
    assert "--renoise 0.5 needs a run that was trained with --objective flow_map" in plain(capsys.readouterr().err)
    with pytest.raises(InputError, match=r"--renoise 0\.5 needs --sampler ddim, got heun"):
        Run(run).sample(1, sampler="heun", steps=2, renoise=0.5)


def test_old_samplers_and_measures_take_it_as_a_plain_model(run, tmp_path):
    for sampler in ("ddpm", "heun", "unipc_3"):
        assert drawn(run, 3, sampler).shape == (3, 1, 8, 8)
    assert cli("evaluate", "loss", run, "--n", 32) == 0
    assert cli("edit", "vary", run, tmp_path_image(tmp_path), "-n", 1, "--steps", 3, "--out", tmp_path / "vary") == 0


def tmp_path_image(folder):
    from bytepixels.images import save_png

    save_png(torch.full((1, 8, 8), 99, dtype=torch.uint8), folder / "one.png")
    return folder / "one.png"


def test_a_plain_model_becomes_one(tmp_path):
    assert train(tmp_path / "plain", *FLAGS[2:], steps=2) == 0
    assert (
        cli(
            "train",
            "digits",
            "--from",
            tmp_path / "plain",
            "--objective",
            "flow_map",
            "--images",
            32,
            "--run",
            tmp_path / "map",
        )
        == 0
    )
    before, after = (tensors(checkpoints(tmp_path / name)[-1]) for name in ("plain", "map"))
    new = {f"destination.{layer}.{kind}" for layer in ("first", "last") for kind in ("weight", "bias")}
    assert {name for name in after.keys() - before.keys() if name.startswith("ema/")} == {f"ema/{name}" for name in new}
    origin = Run(tmp_path / "map").directory.data["from"]
    assert origin["run"].endswith("plain")


def ratios(run):
    """r of the first, the middle and the last step."""
    one = Diffusion(open_run(run), pack("digits", size=(8, 8), channels=1), ProcessGroup())
    return [float(one.draw(one.budget // 32 * k // 2)[-1][0]) for k in range(3)]


def test_r_falls_in_the_second_half_and_from_the_start_where_the_origin_is_trained(run, tmp_path):
    assert ratios(run) == pytest.approx([1, 1, 1 / 16])
    assert train(tmp_path / "plain", *FLAGS[2:], steps=2) == 0
    grown = train_run(
        "digits", tmp_path / "grown", origin=tmp_path / "plain", objective="flow_map", images=64, batch=32
    )
    assert ratios(grown.path) == pytest.approx([1, 1 / 4, 1 / 16])


def test_the_guidance_of_a_run_is_trained_into_what_becomes_a_flow_map_of_it(tmp_path):
    guided = {"preset": "digits", "diffusion": "flow", "prediction": "v", "guidance": 2.5, "width": 8, "device": "cpu"}
    small = {"previews": 0, "precision": "float32", "batch": 32, "lr_decay": "none"}
    train_run("digits", tmp_path / "plain", images=32, **guided, **small)
    one = train_run("digits", tmp_path / "map", origin=tmp_path / "plain", objective="flow_map", images=64, **small)
    assert (one.config.process.trained_guidance, one.config.sample.guidance, one.config.sample.steps) == (2.5, 1.0, 4)
    other = train_run("digits", tmp_path / "on", origin=one.path, images=64, seed=3, **small)  # goes on as it was
    assert other.config.process.trained_guidance == 2.5
    without = {"origin": tmp_path / "plain", "objective": "flow_map", "trained_guidance": 1, "images": 64}
    same = train_run("digits", tmp_path / "none", **without, **small)
    assert same_bits(checkpoints(same.path)[-1], checkpoints(one.path)[-1]) != []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"objective": "simple", "trained_guidance": 2}, "--trained-guidance 2 needs --objective flow_map, got simple"),
        ({"trained_guidance": 0.5}, r"--trained-guidance must be in 1\.\.20, got 0\.5"),
        ({"trained_guidance": 2, "labels": False}, "--trained-guidance 2 needs class labels"),
        ({"trained_guidance": 2, "label_dropout": 0}, "--trained-guidance 2 needs class labels and a --label-dropout"),
    ],
)
def test_what_guidance_cannot_be_trained_in(settings, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        train_run("digits", tmp_path / "run", **{"preset": "few_steps", "images": 64} | settings)
    assert not (tmp_path / "run").exists()


def test_guidance_by_captions_looks_at_no_words(tmp_path):
    """What it leads away from is the network with an empty mask."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x, t, label=None, destination=None, text=None):
            seen.append(text[1].any().item())
            return x * 0.5

    config = preset_with("few_steps")
    config = replace(config, process=replace(config.process, trained_guidance=2.0))
    config = replace(config, train=replace(config.train, precision="float32"))
    loss = build_loss(config, build_process(config), PixelCodec(), torch.device("cpu"))
    images, t, noise = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0.5, 0.9]), torch.randn(2, 1, 8, 8)
    text = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    loss(Spy(), images, None, t, noise, None, None, *text, torch.tensor([0.5, 1.0]), torch.full((2,), 0.25))
    assert sorted(seen) == [False, True, True, True]  # of four evaluations the one without words, one to be trained


def test_the_preset(capsys):
    config = preset_with("few_steps")
    assert (config.process.objective, config.sample.steps) == ("flow_map", 4)
    assert preset_with("few_steps", "dit").process.objective == "flow_map"


def test_what_is_tried_before_training_steps_like_it(tmp_path):
    """For --batch 0, --compile auto and the doctor's time: with both passes, which cost most."""
    config = preset_with("few_steps")
    config = replace(config, network=replace(config.network, width=8), train=replace(config.train, batch=4))
    trial = start_trial(config, pack("digits", size=(8, 8), channels=1), torch.device("cpu"))
    *_, ratio = batch = trial.draw(0)
    assert ratio.tolist() == [1 / 16] * 4
    assert trial.step(batch).isfinite().all()


def test_the_line_of_the_readme_trains_and_the_doctor_advises_on_it(tmp_path, capsys):
    tiny = "--preset few_steps --width 8 --previews 0 --device cpu --precision float32 --measure 0".split()
    assert cli("train", "digits", *tiny, "--budget", "8s", "--run", tmp_path / "run") == 0
    assert Run(tmp_path / "run").sample(1, steps=2).shape == (1, 1, 8, 8)
    assert cli("data", "doctor", "digits", "--preset", "few_steps", "--quick") == 0


def test_every_preset_has_a_length_that_the_doctor_advises():
    assert EPOCHS.keys() == PRESETS.keys()

"""train autoencoder: a run like any other, what it says of itself, and what can be done with it."""

import json
import math

import numpy as np
import pytest
import torch

from bytepixels.codec.codec import PixelCodec
from bytepixels.codec.reconstruction_losses import kl_divergence, ssim
from bytepixels.data import pack
from bytepixels.distributed.process_group import SINGLE_PROCESS
from bytepixels.images import beside, grid
from bytepixels.metrics import imagenet
from bytepixels.metrics.feature_cache import chosen_rows
from bytepixels.networks import Autoencoder
from bytepixels.runs.run_directory import open_run
from bytepixels.sampling.first_stage import find_first_stage
from bytepixels.training import autoencoder_task as autoencoding
from bytepixels.training.loop import StepResult
from bytepixels.training.nonfinite import NonfiniteBatch, nonfinite_error
from bytepixels.training.perceptual import chosen_perceptual
from tests.processes import run_together
from tests.tiny import checkpoints, cli, log_of, pixels_of, plain, read_json, same_bits, snapshot, tensors, train, words
from tests.training.test_distributed import apart, losses, together
from tests.training.test_perceptual import AtLeast, Features, Halvings, One, scripted

BATCH = 16
STAGE = words(
    f"""
    --width 4 --blocks 1 --factor 2 --latent-channels 2 --batch {BATCH} --precision float32 --device cpu --lr 0.002
    --warmup 0 --lr-decay none --ema-half-life 100000 --log-seconds 0 --previews 1 --preview-images 4 --measure 20
    """
)
KINDS = {
    "kl": words("--kind kl --kl 0.001"),
    "vq": words("--kind vq --codes 8"),
    "both": words("--kind vq --codes 8 --discriminator 0.5 --discriminator-start 32 --error l2 --flip yes"),
}


def stage(run, *flags, steps=2):
    return cli("train", "autoencoder", "digits", *STAGE, "--images", steps * BATCH, *flags, "--run", run)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert stage(path, *KINDS[kind], steps=5) == 0
    return path


def average(run, kind):
    """The autoencoder in the last checkpoint's averages, made by hand."""
    found, start = tensors(checkpoints(run)[-1]), "ema/autoencoder."
    autoencoder = Autoencoder(1, 4, (1, 2), 1, 2, "kl" if kind == "kl" else "vq", 8, residual=True)
    autoencoder.load_state_dict({name.removeprefix(start): found[name] for name in found if name.startswith(start)})
    return autoencoder


def some(count):
    packed = pack("digits")
    return torch.from_numpy(packed.images[chosen_rows(len(packed), count).numpy()].copy())


@torch.no_grad()
def through(autoencoder, images):
    """Latents' moments, and images again."""
    x = PixelCodec().to_model(images)
    return autoencoder.encode(x), PixelCodec().to_images(autoencoder(x))


# ---------------------------------------------------------------------------- a run like any other


def test_a_run_that_stops_and_goes_on_is_bitwise_the_one_that_never_stopped(run, kind, tmp_path):
    """Its settings are the defaults when it goes on."""
    parts = tmp_path / "parts"
    assert stage(parts, *KINDS[kind], steps=2) == 0
    assert cli("train", "autoencoder", "digits", "--run", parts, "--images", 5 * BATCH) == 0
    assert same_bits(checkpoints(run)[-1], checkpoints(parts)[-1]) == []
    assert [line["loss"] for line in log_of(run)] == [line["loss"] for line in log_of(parts)]
    held = tensors(checkpoints(run)[-1])
    if kind == "kl":
        assert not any("memory" in name or "codes" in name for name in held)
        return
    assert held["optimizer/memory: steps"] == 5
    own, memory = held["model/autoencoder.quantizer.codes"], held["optimizer/memory: sums"]
    torch.testing.assert_close(own, memory / held["optimizer/memory: counts"][:, None])
    assert torch.equal(held["ema/autoencoder.quantizer.codes"], own)


def test_micro_batches_add_up(run, kind, tmp_path):
    assert stage(tmp_path / "run", *KINDS[kind], "--micro-batch", 7, steps=5) == 0
    one, other = (tensors(checkpoints(path)[-1]) for path in (run, tmp_path / "run"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=5e-4, rtol=1e-3)


def test_a_seed_and_only_a_seed_makes_another_run(run, kind, tmp_path):
    assert stage(tmp_path / "run", *KINDS[kind], "--seed", 1, steps=5) == 0
    assert "model/autoencoder.encoder.first.weight" in same_bits(
        checkpoints(run)[-1], checkpoints(tmp_path / "run")[-1]
    )


def test_it_learns(tmp_path):
    flags = words("--previews 8 --ema-half-life 100")
    assert stage(tmp_path / "run", *KINDS["vq"], *flags, steps=120) == 0
    found = [line["psnr"] for line in read_lines(tmp_path / "run")]
    assert len(found) == 8
    assert found[-1] > found[0] + 1.5


def test_the_discriminator_counts_from_its_start_on(tmp_path):
    """Until then the autoencoder is bitwise the one that has none."""
    plainly, early, late = (tmp_path / name for name in ("plain", "early", "late"))
    assert stage(plainly) == stage(early, *words("--discriminator 0.5 --discriminator-start 16")) == 0
    assert stage(late, *words("--discriminator 0.5 --discriminator-start 32")) == 0
    one, soon, not_yet = (log_of(path) for path in (plainly, early, late))
    assert soon[0]["loss"] == not_yet[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)
    assert not_yet[1]["loss"] == pytest.approx(one[1]["loss"], rel=1e-5)
    assert abs(soon[1]["loss"] - one[1]["loss"]) > 0.1  # the hinge begins near 1


# ---------------------------------------------------------------------------- what it says of itself


def read_lines(run):
    return [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]


def test_records_are_what_the_checkpoint_does(run, kind):
    images, autoencoder = some(20), average(run, kind)
    (mean, std), again = through(autoencoder, images)
    record = read_lines(run)[-1]
    assert {name: record[name] for name in ("kind", "n", "images", "weights")} == {
        "kind": "reconstruction",
        "n": 20,
        "images": 5 * BATCH,
        "weights": "ema",
    }
    error = ((images.numpy().astype(float) - again.numpy()) ** 2).mean((1, 2, 3))
    assert record["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / error)), abs=1e-3)
    alike = ssim(PixelCodec().to_model(images), PixelCodec().to_model(again)).mean().item()
    assert record["ssim"] == pytest.approx(alike, abs=1e-4)
    if kind == "kl":
        assert record["kl"] == pytest.approx(kl_divergence(mean, std).mean().item() / (2 * 4 * 4), rel=1e-4)
        assert "perplexity" not in record
        return
    index = torch.cdist(mean.movedim(1, -1).reshape(-1, 2).double(), autoencoder.quantizer.codes.double()).argmin(1)
    share = np.bincount(index.numpy(), minlength=8) / len(index)
    assert record["codes_used"] == (share > 0).mean()
    entropy = -sum(p * math.log(p) for p in share if p > 0)
    assert record["perplexity"] == pytest.approx(math.exp(entropy), rel=1e-6)


def test_previews_have_images_left_and_reconstructions_right(run, kind):
    images = some(4)
    _, again = through(average(run, kind), images)
    expected = beside(grid(images), grid(again)).squeeze(0).numpy().astype(int)
    (preview,) = (run / "samples").iterdir()
    assert preview.name == f"images-{5 * BATCH:09}.png"
    assert np.abs(pixels_of(preview) - expected).max() <= 1


def test_what_is_said(tmp_path, capsys):
    run = tmp_path / "run"
    assert stage(run, *KINDS["vq"], steps=1) == 0
    said = plain("".join(capsys.readouterr()))
    record = read_lines(run)[-1]
    codes = f"{record['codes_used']:.0%} of the codes in use, perplexity {record['perplexity']:.0f}"
    assert f"PSNR {record['psnr']:.2f} dB, SSIM {record['ssim']:.4f} (20 training images); {codes}" in said
    assert f"train on its latents with: bytepixels train digits --autoencoder {run}" in said
    assert stage(run, *KINDS["vq"], steps=1) == 0
    assert "is finished: 16 images seen" in capsys.readouterr().out


def test_the_perceptual_loss_is_imagenets_where_it_is_installed(tmp_path, monkeypatch):
    assert chosen_perceptual("auto") == "none"  # as the tests have it
    monkeypatch.setattr(imagenet, "installed", lambda: True)
    path = tmp_path / "run"
    assert stage(path, *KINDS["kl"], steps=1) == 0
    own = open_run(path).config.autoencoder
    assert own.perceptual == "imagenet"
    monkeypatch.setattr(imagenet, "installed", lambda: False)
    assert stage(path, *KINDS["kl"], steps=2) == 0  # a run stays what it is
    assert open_run(path).config.autoencoder.perceptual == "imagenet"
    without = tmp_path / "without"
    assert stage(without, *KINDS["kl"], "--perceptual", "none", steps=1) == 0
    assert log_of(path)[0]["loss"] > log_of(without)[0]["loss"] + 0.05


def test_profile_and_perceptual(run, kind, tmp_path, capsys):
    assert cli("runs", "show", run) == 0
    flags = (*KINDS[kind], "--perceptual", scripted(Features(), tmp_path), "--perceptual-weight", 0.5, "--profile", 2)
    assert stage(tmp_path / "run", *flags, steps=5) == 0
    assert "forward and backward" in capsys.readouterr().out
    first, own = log_of(run)[0]["loss"], log_of(tmp_path / "run")[0]["loss"]
    assert own > first


# ---------------------------------------------------------------------------- as first stage


def test_a_second_stage_trains_on_its_average_and_draws(run, kind, tmp_path):
    second = tmp_path / "second"
    assert train(second, *words("--warmup 0 --lr-decay none"), "--autoencoder", run, steps=2) == 0
    assert open_run(second).x0_shape == (2, 4, 4)
    expected = average(run, kind).state_dict()
    found = find_first_stage(second, torch.device("cpu")).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert cli("sample", second, "-n", 2, "--out", tmp_path / "out") == 0
    assert pixels_of(tmp_path / "out" / "seed-1.png").shape == (8, 8)


# ---------------------------------------------------------------------------- refusals


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    path = tmp_path_factory.mktemp("diffusion") / "run"
    assert train(path, steps=1) == 0
    return path


def test_an_autoencoder_is_no_model_of_images(run, diffusion, tmp_path, capsys):
    def refused(*line):
        assert cli(*line) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return plain(error)

    before, image = snapshot(run), next((run / "samples").iterdir())
    draws = f"{run} is an autoencoder, which draws no images; bytepixels train SOURCE --autoencoder {run} trains a"
    for line in (
        ("sample", run, "--out", tmp_path / "out"),
        ("edit", "vary", run, image, "--out", tmp_path / "out"),
        ("compare", run),
        ("sample", diffusion, "--guidance", 2, "--weak", run, "--out", tmp_path / "out"),
    ):
        assert draws in refused(*line)
    assert "is an autoencoder: bytepixels train autoencoder goes on with it" in refused("train", "digits", "--run", run)
    line = ("train", "autoencoder", "digits", "--run", diffusion)
    assert f"{diffusion} draws images, it is no autoencoder; choose another --run" in refused(*line)
    line = ("train", "autoencoder", "digits", "--run", run, "--ssim", 0.5)
    assert "was begun with other settings (--ssim 0.1 -> 0.5); choose another --run" in refused(*line)
    assert snapshot(run) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--factor 3", "--factor must be one of 1, 2, 4, 8; got 3"),
        ("--size 9 8", "each side of an image must be a multiple of 2, got 9 x 8"),
        ("--factor 8 --size 12 8", "each side of an image must be a multiple of 8, got 12 x 8"),
        ("--discriminator 1 --size 4 4", "the shorter side of an image for --discriminator must be at least 6, got 4"),
        ("--shard --optimizer adam", "--shard needs several processes"),
        ("--perceptual nowhere.pt", "--perceptual takes a TorchScript file; nowhere.pt cannot be read as one"),
        ("--kind vq --codes 1", "--codes must be at least 2, got 1"),
        ("--width 2", "--width must be at least 4, got 2"),
        ("--latent-channels 0", "--latent-channels must be at least 1, got 0"),
        ("--blocks 0", "--blocks must be at least 1, got 0"),
        ("--ssim -1", "--ssim must be at least 0, got -1"),
        ("--kl nan", "--kl must be at least 0, got nan"),
        ("--discriminator-start -5", "--discriminator-start must be at least 0, got -5"),
        ("--measure 3", "--measure must be at least 16, got 3"),
        ("--diffusion edm", "--diffusion"),
    ],
)
def test_one_sentence_for_every_mistake(tmp_path, capsys, flags, said):
    assert stage(tmp_path / "run", *words(flags)) == 2
    error = capsys.readouterr().err
    assert said in plain(error)
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Halvings(), "cannot take images of 8 x 8: Given input size: (3x1x1). Calculated output size: (3x0x0). "),
        (AtLeast(), "cannot take images of 8 x 8: AssertionError: too small"),
        (One(), "must give each image numbers of its own, got [] for 2 images"),
    ],
)
@pytest.mark.parametrize("batch", [1, BATCH])
def test_a_perceptual_network_is_tried_before_a_run_begins(tmp_path, capsys, network, said, batch):
    path = scripted(network, tmp_path)
    assert stage(tmp_path / "run", "--perceptual", path, "--batch", batch) == 2
    error = capsys.readouterr().err
    assert f"--perceptual {path} {said}".strip() in plain(error)
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_too_little_memory_for_a_perceptual_network_is_no_fault_of_it(tmp_path, monkeypatch):
    def full(x, y):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(autoencoding, "open_perceptual", lambda path, device: full)
    with pytest.raises(RuntimeError, match="out of memory"):
        autoencoding.try_perceptual("vgg16.pt", (3, 8, 8), torch.device("cpu"))


# ---------------------------------------------------------------------------- several processes


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """Codes come alive from the whole batch, and one record is written. Where a gradient is rounding, Adam still makes
    a part of a step of lr; a share of the batch forgotten would make several."""
    flags = (*STAGE, *KINDS["both"], "--batch", 15, "--images", 120, "--perceptual", "none")
    assert cli("train", "autoencoder", "digits", *flags, "--run", tmp_path / "one") == 0
    together(2, "train", "autoencoder", "digits", *flags, "--run", tmp_path / "two")
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-3, atol=0)
    assert apart(tmp_path / "one", tmp_path / "two") < 1e-3
    (one,), (two,) = (read_lines(tmp_path / name) for name in ("one", "two"))
    assert two["psnr"] == pytest.approx(one["psnr"], abs=1e-3)
    line = (*flags, "--optimizer", "adam", "--shard", "--run", tmp_path / "shard")
    _, said = run_together(2, "train", "autoencoder", "digits", *line)
    assert "--shard is for networks that draw images; an autoencoder is trained without it" in plain(said)
    assert not (tmp_path / "shard").exists()


def test_a_loss_that_is_not_finite_names_the_image_and_no_time(tmp_path):
    """An autoencoder's batch has no times."""
    result = StepResult(3, torch.tensor([0.5, float("nan")]), torch.tensor(float("nan")), 0.1)
    error = nonfinite_error(tmp_path, SINGLE_PROCESS, result, NonfiniteBatch([7, 9], None, 0))
    assert "(image 9, loss nan, gradient nan)" in str(error)
    assert read_json(tmp_path / "nonfinite.json")["batch"][0] == {"image": 7, "loss": "0.5"}

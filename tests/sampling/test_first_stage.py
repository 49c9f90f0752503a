"""Training, sampling and editing on latents: the same tests as for pixels, and what belongs to latents alone."""

import json
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

from bytepixels.codec import latent_writer as encoding
from bytepixels.codec.codec import LatentCodec, PixelCodec
from bytepixels.console import Console
from bytepixels.data import pack
from bytepixels.distributed.process_group import SINGLE_PROCESS
from bytepixels.errors import InputError
from bytepixels.evaluation.loss_data import drawn_x0, known_of
from bytepixels.events import Work, listening
from bytepixels.networks import Autoencoder
from bytepixels.runs.image_sets import training_set
from bytepixels.runs.packing import Preparation
from bytepixels.runs.run_directory import FIRST_STAGE, open_run
from bytepixels.sampling.first_stage import codec_of, encode, keep_first_stage, kept, read_first_stage
from tests.tiny import checkpoints, cli, log_of, pixels_of, plain, read_json, same_bits, tensors, train, words

CPU = torch.device("cpu")
RUN = words("--warmup 0 --lr-decay none --steps 6 --flip yes --dropout 0.2")


def first_stage(folder, seed=0, channels=1):
    """An autoencoder with random weights, f2, three channels; in a folder that --autoencoder takes."""
    torch.manual_seed(seed)
    folder.mkdir()
    keep_first_stage(Autoencoder(channels, 8, (1, 2), 1, 3), folder)
    return folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return first_stage(tmp_path_factory.mktemp("stage") / "stage")


@pytest.fixture(scope="module", params=["pixels", "latents"])
def flags(request, stage):
    return (*RUN, *(("--autoencoder", stage) if request.param == "latents" else ()))


@pytest.fixture(scope="module")
def run(flags, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train(path, *flags, steps=4) == 0
    return path


def drawn(run, out, *flags):
    assert cli("sample", run, "--out", out, *flags) == 0
    return {path.name: pixels_of(path) for path in out.glob("seed-*.png")}


def test_encoding_that_takes_most_of_the_time_is_said_once_and_early(tmp_path, monkeypatch, capsys):
    """At an image in ten seconds, where three minutes were given."""
    packed = encodable(tmp_path, monkeypatch)
    monkeypatch.setattr(Work, "settled", True)
    monkeypatch.setattr(Work, "rate", 0.1)
    for number, (budget, notes) in enumerate((("3m", 1), ("10h", 0), (None, 0))):
        monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / f"cache-{number}"))
        with listening(Console()):
            encode(packed, Autoencoder(1, 8, (1, 2), 1, 3), False, CPU, Preparation(budget, time.monotonic()))
        said = plain(capsys.readouterr().err)
        assert said.count("note: encoding takes") == notes
        assert ("more, of --budget 3m; what is done is kept" in said) == bool(notes)


def test_encoding_ends_with_the_time_and_goes_on_from_there(tmp_path, monkeypatch):
    packed, autoencoder, seen = encodable(tmp_path, monkeypatch), Autoencoder(1, 8, (1, 2), 1, 3), []
    whole = encode(packed, autoencoder, False, CPU)
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "other"))
    with pytest.raises(
        InputError, match=r"--budget 1s was over .* while encoding .[1-9]\d* of 200 images.; what was done is kept"
    ):
        encode(packed, autoencoder, False, CPU, Preparation("1s", time.monotonic() - 1))
    monkeypatch.setattr(Preparation, "show", lambda self, progress, what, done, total: seen.append(done))
    again = encode(packed, autoencoder, False, CPU)
    assert seen[0] > 50  # where it ended
    assert np.array_equal(again.moments, whole.moments)


def test_ctrl_c_while_encoding_says_that_it_goes_on_from_there(tmp_path, monkeypatch):
    def interrupted(self, *rest):
        raise KeyboardInterrupt

    packed = encodable(tmp_path, monkeypatch)
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Preparation, "show", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        encode(packed, Autoencoder(1, 8, (1, 2), 1, 3), False, CPU)
    assert caught.value.__notes__ == ["stopped while encoding; the same command goes on from there"]


def encodable(folder, monkeypatch):
    """A pack of 200 images that are encoded 50 at a time."""
    np.savez(folder / "some.npz", images=np.arange(200 * 64).astype(np.uint8).reshape(200, 8, 8))
    monkeypatch.setattr(encoding, "PIXELS", 50 * 64)
    return pack(folder / "some.npz")


# ---------------------------------------------------------------------------- as for pixels


def test_a_run_that_stops_and_goes_on_is_bitwise_the_one_that_never_stopped(run, flags, tmp_path):
    parts = tmp_path / "parts"
    assert train(parts, *flags, steps=2) == train(parts, *flags, steps=4) == 0
    assert same_bits(checkpoints(run)[-1], checkpoints(parts)[-1]) == []


def test_micro_batches_add_up(run, flags, tmp_path):
    assert train(tmp_path / "run", *flags, "--micro-batch", 7, steps=4) == 0
    one, other = (tensors(checkpoints(path)[-1]) for path in (run, tmp_path / "run"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-4, rtol=0)


def test_an_image_depends_on_its_seed_alone(run, tmp_path):
    together, alone = drawn(run, tmp_path / "a", "-n", 5), drawn(run, tmp_path / "b", "-n", 1, "--seed", 3)
    assert set(together) == {f"seed-{k}.png" for k in range(5)}
    assert np.abs(together["seed-3.png"].astype(int) - alone["seed-3.png"]).max() <= 1
    assert together["seed-3.png"].shape == (8, 8)


def test_guidance_and_a_gif(run, tmp_path):
    plain_, guided = drawn(run, tmp_path / "a"), drawn(run, tmp_path / "b", "--guidance", 3, "--gif")
    assert any((plain_[name] != guided[name]).any() for name in plain_)
    assert (tmp_path / "b" / "denoising.gif").stat().st_size > 0


def test_edits(run, tmp_path):
    y, x = np.mgrid[:8, :8]
    Image.fromarray((30 * y + 2 * x).astype(np.uint8)).save(tmp_path / "one.png")
    Image.fromarray((250 - 25 * x - y).astype(np.uint8)).save(tmp_path / "two.png")
    Image.fromarray(np.where(y < 3, 255, 0).astype(np.uint8)).save(tmp_path / "top.png")
    one, two, mask = (tmp_path / f"{name}.png" for name in ("one", "two", "top"))
    assert cli("edit", "inpaint", run, one, "--mask", mask, "-n", 2, "--out", tmp_path / "inpaint") == 0
    for seed in range(2):
        painted = pixels_of(tmp_path / "inpaint" / f"seed-{seed}.png")
        assert (painted[3:] == pixels_of(one)[3:]).all()  # what is kept is kept to the last bit
        assert (painted[:3] != pixels_of(one)[:3]).any()
    assert cli("edit", "vary", run, one, "-n", 1, "--out", tmp_path / "vary") == 0
    assert cli("edit", "interpolate", run, one, two, "-n", 3, "--out", tmp_path / "between") == 0
    assert cli("edit", "invert", run, one, "--out", tmp_path / "invert") == 0
    assert pixels_of(tmp_path / "invert" / "noise.png").shape == pixels_of(one).shape


def test_profile_and_report(run, flags, tmp_path, capsys):
    assert train(tmp_path / "run", *flags, "--profile", 2, "--previews", 1, steps=5) == 0
    assert "forward and backward" in capsys.readouterr().out
    assert cli("report", tmp_path / "run") == 0
    assert cli("runs", "show", tmp_path / "run") == 0


# ---------------------------------------------------------------------------- latents alone


@pytest.fixture(scope="module")
def latent(stage, tmp_path_factory):
    path = tmp_path_factory.mktemp("latent") / "run"
    assert train(path, *RUN, "--autoencoder", stage, steps=2) == 0
    return path


def drawn_latents(autoencoder, images):
    """Means of their posteriors, and one draw of each."""
    with torch.no_grad():
        mean, std = autoencoder.encode(PixelCodec().to_model(images))
    return mean, mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))


def test_what_the_network_learns_is_whitened_and_decoded(latent, stage):
    """The codec of the run is the autoencoder's, with the statistics of all its images, mirrored ones included."""
    run, packed = open_run(latent), pack("digits")
    codec, autoencoder = codec_of(run, CPU), read_first_stage(stage / FIRST_STAGE, CPU)
    assert run.shape == (1, 8, 8)
    assert run.x0_shape == (3, 4, 4) == codec.shape(run.shape)
    images = torch.from_numpy(packed.images.copy())
    mean, latents = drawn_latents(autoencoder, torch.cat([images, images.flip(-1)]))
    x0 = codec.to_model(latents)
    torch.testing.assert_close(x0.mean((0, 2, 3)), torch.zeros(3), atol=0.01, rtol=0)
    torch.testing.assert_close(x0.std((0, 2, 3)), torch.ones(3), atol=0.01, rtol=0)
    with torch.no_grad():
        expected = PixelCodec().to_images(autoencoder.decode(mean[:5]))
    assert (codec.to_images(codec.to_model(images[:5])).int() - expected.int()).abs().max() <= 1


def test_a_run_keeps_its_first_stage(latent, stage, tmp_path, capsys):
    """It goes on, and draws, without the folder that --autoencoder named."""
    run = tmp_path / "run"
    shutil.copytree(stage, tmp_path / "stage")
    assert train(run, *RUN, "--autoencoder", tmp_path / "stage", steps=2) == 0
    shutil.rmtree(tmp_path / "stage")
    assert train(run, *RUN, steps=3) == 0
    assert cli("sample", run, "-n", 1) == 0
    assert train(run, *RUN, "--autoencoder", first_stage(tmp_path / "other", seed=1), steps=4) == 2
    assert "was begun with another autoencoder than" in capsys.readouterr().err
    assert train(tmp_path / "again", *RUN, "--autoencoder", run, steps=3) == 0  # a latent run lends its own
    assert same_bits(checkpoints(run)[-1], checkpoints(tmp_path / "again")[-1]) == []
    keep_first_stage(read_first_stage(tmp_path / "other" / FIRST_STAGE, CPU), run)
    kept.cache_clear()  # as in another process
    capsys.readouterr()
    assert cli("sample", run, "-n", 1) == 2
    assert "is not the autoencoder that this run was trained with" in capsys.readouterr().err
    kept.cache_clear()
    (run / FIRST_STAGE).write_bytes(b"cut short")
    assert cli("sample", run, "-n", 1) == 2
    assert f"{FIRST_STAGE} is damaged" in plain(capsys.readouterr().err)


def test_encoded_once(stage, tmp_path, capsys):
    for name in ("one", "two"):
        capsys.readouterr()
        assert train(tmp_path / name, *RUN, "--autoencoder", stage, "--width", 12, steps=1) == 0
    assert "encode" not in capsys.readouterr().err
    assert [line["loss"] for line in log_of(tmp_path / "one")] == [line["loss"] for line in log_of(tmp_path / "two")]


@pytest.mark.parametrize("diffusion", ["edm", "flow"])
def test_every_process_sees_the_deviation_it_expects(stage, tmp_path, diffusion):
    run = tmp_path / "run"
    assert train(run, *RUN, "--autoencoder", stage, "--diffusion", diffusion, steps=1) == 0
    codec = codec_of(open_run(run), CPU)
    assert isinstance(codec, LatentCodec)
    _, latents = drawn_latents(codec.autoencoder.autoencoder, torch.from_numpy(pack("digits").images.copy()))
    assert codec.to_model(latents).std().item() == pytest.approx(0.5 if diffusion == "edm" else 1.0, rel=0.01)
    assert cli("sample", run, "-n", 2) == 0


def test_one_sentence_for_every_mistake(stage, latent, run, tmp_path, capsys):
    def refused(*line):
        assert cli(*line) == 2
        return plain(capsys.readouterr().err)

    said = refused("train", "digits", "--preset", "digits", "--run", tmp_path / "a", "--autoencoder", tmp_path / "no")
    assert "takes a run of bytepixels train autoencoder, or a diffusers folder of an AutoencoderKL" in said
    if "first_stage" not in read_json(run / "config.json")["data"]:
        said = refused("train", "digits", "--preset", "digits", "--run", tmp_path / "a", "--autoencoder", run)
        assert "is a run that draws images, not an autoencoder" in said
    colour = first_stage(tmp_path / "colour", channels=3)
    said = refused("train", "digits", "--preset", "digits", "--run", tmp_path / "a", "--autoencoder", colour)
    assert "the autoencoder takes images of 3 channels, these have 1" in said
    odd = words("--preset digits --size 9 9")
    said = refused("train", "digits", *odd, "--run", tmp_path / "a", "--autoencoder", stage)
    assert "each side of an image must be a multiple of 2, got 9 x 9" in said
    assert "--bits are of pixels" in refused("evaluate", latent, *words("--bits --loss"))
    assert not (tmp_path / "a").exists()


def test_the_card_says_what_the_autoencoder_alone_costs(latent, capsys):
    assert cli("evaluate", latent, "-n", 32) == 0
    record = json.loads((latent / "eval.jsonl").read_text().splitlines()[-1])
    first, floor = record["first_stage"], record["floor"]["measures"]["frechet"]["value"]
    assert first["value"] > 5 * floor  # random weights
    said = capsys.readouterr().out
    assert f"Through the run's autoencoder alone they come to {first['value']:.4g} ± {first['interval']:.2g}" in said


def test_the_loss_is_held_against_the_latents_that_training_draws(latent, capsys):
    assert cli("evaluate", latent, "--loss", "-n", 40) == 0
    run, images = open_run(latent), torch.from_numpy(pack("digits").images.copy())
    codec = codec_of(run, CPU)
    assert run.config.data.flip == "yes"
    known = known_of(run, training_set(run), codec, SINGLE_PROCESS, CPU)
    mean, variance = map(torch.cat, zip(*known.gaussians(CPU), strict=True))
    ways = torch.stack([images, images.flip(-1)], dim=1).flatten(0, 1)
    torch.testing.assert_close(mean, codec.to_model(ways), atol=1e-4, rtol=0)
    draws = torch.stack([drawn_x0(images[:300], codec, seed) for seed in range(64)])
    torch.testing.assert_close(draws.mean(0), mean[:600:2], atol=0.8, rtol=0)  # six standard errors
    torch.testing.assert_close(draws.var(0).mean(0), variance[:600:2].mean(0), rtol=0.05, atol=0)
    record = json.loads((latent / "eval.jsonl").read_text().splitlines()[-1])
    errors = {name: [value for value, _ in curve] for name, curve in record["errors"].items()}
    assert errors["trivial"][0] == pytest.approx(1, rel=0.05)  # all noise: the guess is the mean of what is whitened
    assert errors["ideal"][-1] < 0.01
    assert all(ideal < 1.02 * run for ideal, run in zip(errors["ideal"], errors["training"], strict=True))
    assert all(ideal < 1.02 * guess for ideal, guess in zip(errors["ideal"], errors["trivial"], strict=True))
    assert "Learnt nothing yet" in plain(capsys.readouterr().out)  # after four steps

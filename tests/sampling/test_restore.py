"""edit restore: images that measure what was given, whatever the task, and one sentence for what does not fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bytepixels as bp
from bytepixels import InputError
from bytepixels.codec.codec import PixelCodec
from bytepixels.core.linear_operators import LinearOperator, blur, downscale, grayscale, operator_of
from bytepixels.networks import Autoencoder
from bytepixels.sampling.first_stage import keep_first_stage
from tests.tiny import cli, pixels_of, plain, read_json, snapshot, train, words

RGB = np.random.default_rng(0).integers(0, 256, (64, 8, 12, 3), dtype=np.uint8)
OPERATORS = {"small": downscale((8, 12), 2), "smaller": downscale((8, 12), 4), "blurred": blur((8, 12), 1.0)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """digits: 8 x 8, grey, with classes; rgb: 8 x 12, in colour; latents of such. They sample with 6 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTEPIXELS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("restore")
        np.savez(folder / "rgb.npz", images=RGB)
        (folder / "stage").mkdir()
        keep_first_stage(Autoencoder(1, 8, (1, 2), 1, 3), folder / "stage")
        assert train(folder / "digits", *words("--warmup 0 --steps 6"), steps=20) == 0
        assert train(folder / "rgb", *words("--size 8 12 --steps 6"), source=folder / "rgb.npz") == 0
        assert train(folder / "latents", "--autoencoder", folder / "stage") == 0
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An image of noise, and what is measured of it; a digit, in 8 x 8 and in part."""
    monkeypatch.chdir(tmp_path)
    image = torch.from_numpy(RGB[0]).permute(2, 0, 1)[None].double()
    for name, operator in OPERATORS.items():
        save(operator.apply(image)[0], f"{name}.png")
    save(image[0], "whole.png")
    Image.open("whole.png").convert("L").save("grey.png")
    digit = torch.zeros(1, 8, 8)
    digit[:, 2:6, 3:5] = 255
    for name, part in {"digit": digit, "quarter": digit[:, :4, :4], "odd": digit[:, :3, :4]}.items():
        save(part, f"{name}.png")
    hole = torch.zeros(1, 8, 12)
    hole[:, 2:7, 3:9] = 255
    save(hole, "hole.png")
    Path("text.png").write_text("no image")
    return tmp_path


def save(image, name):
    array = image.permute(1, 2, 0).round().numpy().astype(np.uint8)
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(name)


def restore(run, *flags):
    """The images that were written, float [n, C, H, W], and the manifest."""
    assert cli("edit", "restore", run, *flags, "--out", "out") == 0
    manifest = read_json(Path("out/manifest.json"))
    files = [one["file"] for one in manifest["pictures"]]
    assert {path.name for path in Path("out").iterdir()} == {*files, "grid.png", "manifest.json"}
    images = np.stack([np.atleast_3d(pixels_of(f"out/{file}")) for file in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).double(), manifest


@pytest.mark.parametrize("sampler", ["", "--sampler ddim", "--eta 0.5", "--sampler heun", "--clip False"])
@pytest.mark.parametrize("name", OPERATORS)
def test_what_was_given_is_measured_again_to_a_grey_level(runs, here, name, sampler, capsys):
    task = "deblur --blur-std 1" if name == "blurred" else "upscale"
    images, manifest = restore(runs / "rgb", *words(f"--from {name}.png --task {task} -n 3 {sampler}"))
    given = torch.from_numpy(pixels_of(f"{name}.png").copy()).permute(2, 0, 1)
    away = (OPERATORS[name].apply(images) - given).abs()
    assert images.shape == (3, 3, 8, 12)
    assert away.max() <= 1
    assert (images[0] - images[1]).abs().max() > 1
    for one, own in zip(manifest["pictures"], away, strict=True):
        assert one["residual_mean"] == pytest.approx(own.mean().item(), abs=1e-4)
        assert one["residual_max"] == pytest.approx(own.max().item(), abs=1e-4)
    said = plain(capsys.readouterr().out)
    mean = sum(one["residual_mean"] for one in manifest["pictures"]) / 3
    assert f"measured again, they are {mean:.2g} grey levels of 255 from what was given, " in said
    assert manifest["settings"]["sampler"] == {
        "--sampler ddim": "ddim",
        "--eta 0.5": "ddim",
        "--sampler heun": "heun",
    }.get(sampler, "dpmpp_sde_2m")


def test_colour_is_of_the_grey_that_was_given(runs, here):
    """Pillow's grey, of a grey image and of one in colour."""
    for name in ("grey", "whole"):
        images, manifest = restore(runs / "rgb", *words(f"--from {name}.png --task colour -n 2 --seed 5"))
        away = (grayscale().apply(images) - torch.from_numpy(pixels_of("grey.png").copy())).abs()
        assert away.max() <= 1
        assert images.std(1).max() > 5
        assert (manifest["task"], manifest["pictures"][0]["seed"]) == ("colour", 5)


def test_fill_keeps_what_is_black_in_the_mask_to_the_pixel(runs, here):
    images, manifest = restore(runs / "rgb", *words("--from whole.png --task fill --mask hole.png -n 2"))
    whole = torch.from_numpy(pixels_of("whole.png").copy()).permute(2, 0, 1)
    anew = torch.from_numpy(pixels_of("hole.png").copy()) > 0
    assert (images == whole)[..., ~anew].all()
    assert (images != whole)[..., anew].float().mean() > 0.5
    assert manifest["pictures"][0]["residual_max"] < 1e-3


def test_noise_lets_the_results_differ_from_what_was_given(runs, here):
    _, exact = restore(runs / "rgb", *words("--from small.png --task upscale -n 4"))
    _, loose = restore(runs / "rgb", *words("--from small.png --task upscale -n 4 --noise 40"))
    exact, loose = (np.mean([one["residual_mean"] for one in facts["pictures"]]) for facts in (exact, loose))
    assert exact < 0.5
    assert 5 < loose < 60


def test_a_grey_run_with_a_label_and_guidance(runs, here):
    images, manifest = restore(runs / "digits", *words("--from quarter.png --task upscale -n 1 --label 3 --guidance 2"))
    assert images.shape == (1, 1, 8, 8)
    assert (manifest["label"], manifest["settings"]["guidance"], manifest["evaluations"]) == ("3", 2, 6)
    assert (
        downscale((8, 8), 2).apply(images)[0, 0] - torch.from_numpy(pixels_of("quarter.png").copy())
    ).abs().max() <= 1


def test_the_grid_shows_what_was_given_and_the_bicubic_beside_the_results(runs, here):
    """At the left, one below the other; every pixel is a square of 8 x 8."""
    images, _ = restore(runs / "rgb", *words("--from small.png --task upscale -n 2"))
    grid, small = pixels_of("out/grid.png"), pixels_of("small.png")
    left, right = grid[:, : 12 * 8 + 4], grid[:, 12 * 8 + 4 + 12 :]
    assert (left[2:66, 2:98][::16, ::16] == small).all()
    smooth = left[68:132, 2:98][::8, ::8].astype(float)
    known = np.asarray(Image.fromarray(small).resize((12, 8), Image.BICUBIC)).astype(float)
    assert np.abs(smooth - known)[2:-2, 2:-2].mean() < 12  # of the same kernel, but for its sharpness
    assert (right[2:66, 2:98][::8, ::8] == images[0].permute(1, 2, 0).numpy()).all()


def test_a_result_depends_on_its_seed_alone(runs, here):
    many, _ = restore(runs / "rgb", *words("--from small.png --task upscale -n 3 --seed 5 --batch 2"))
    shutil.rmtree("out")
    one, _ = restore(runs / "rgb", *words("--from small.png --task upscale -n 1 --seed 7"))
    assert (many[2] - one[0]).abs().max() <= 1


def test_default_folders_differ_where_the_images_do(runs, here):
    lines = [
        "--from small.png --task upscale",
        "--from small.png --task upscale --noise 2",
        "--from small.png --task upscale --sampler ddim",
        "--from whole.png --task deblur --blur-std 1",
        "--from whole.png --task deblur --blur-std 2",
        "--from whole.png --task fill --mask hole.png",
        "--from whole.png --task colour",
    ]
    before = set((runs / "rgb/samples").glob("*"))
    for line in lines:
        assert cli("edit", "restore", runs / "rgb", *words(f"{line} -n 1 --steps 2")) == 0
    assert len(set((runs / "rgb/samples").glob("*")) - before) == len(lines)


# ---- from Python


def test_any_linear_operator_from_python(runs, here):
    """The sums of rows and of columns: projections, as in tomography."""
    operator = operator_of(lambda x: torch.cat([x.mean(2), x.mean(3)], -1), (3, 8, 12))
    x0 = PixelCodec().to_model(torch.from_numpy(RGB[:1]).permute(0, 3, 1, 2))
    y = operator.apply(x0)
    run = bp.api.Run.open(runs / "rgb")
    images = run.restore(y[0], operator, n=3, steps=4, out="out")
    away = (operator.apply(PixelCodec().to_model(images)) - y).abs() * 127.5
    assert away.max() <= 1
    assert read_json(Path("out/manifest.json"))["task"] == "operator"
    identity = LinearOperator(lambda x: x, lambda y: y)
    assert (run.restore(x0, identity, n=1, steps=2, out="out")[0] == torch.from_numpy(RGB[0]).permute(2, 0, 1)).all()


def test_a_file_from_python_is_what_the_command_line_makes_of_it(runs, here):
    images = bp.api.Run.open(runs / "rgb").restore("small.png", task="upscale", n=2, out="a")
    assert torch.equal(images.double(), restore(runs / "rgb", *words("--from small.png --task upscale -n 2"))[0])


@pytest.mark.parametrize(
    ("operator", "y", "sentence"),
    [
        (LinearOperator(lambda x: x, lambda y: 2 * y), torch.zeros(3, 8, 12), "its transpose is not its own"),
        (
            OPERATORS["small"],
            torch.zeros(3, 4, 5),
            r"needs a float tensor \[3, 4, 6\], .* got torch.float32 \[3, 4, 5\]",
        ),
        (OPERATORS["small"], torch.zeros(3, 4, 6).byte(), r"needs a float tensor .* got torch.uint8 \[3, 4, 6\]"),
    ],
)
def test_operators_that_are_refused(runs, here, operator, y, sentence):
    with pytest.raises(InputError, match=sentence):
        bp.api.Run.open(runs / "rgb").restore(y, operator)


# ---- mistakes

REFUSED = {
    "no image": ("rgb --task upscale", "edit restore needs --from IMAGE"),
    "no task": ("rgb --from small.png", "edit restore needs --task TASK"),
    "another task": ("rgb --from small.png --task enlarge", "--task must be one of upscale, colour, deblur, fill"),
    "python's task": ("rgb --from small.png --task operator", "--task must be one of upscale, colour, deblur, fill"),
    "missing": ("rgb --from three.png --task upscale", "there is no file three.png"),
    "another spelling": ("rgb --from grey.png --task color", "did you mean 'colour'?"),
    "not an image": ("rgb --from text.png --task upscale", "text.png holds no readable image"),
    "does not divide": (
        "digits --from odd.png --task upscale",
        "--task upscale takes an image of the run's 8 x 8 divided by one whole number, 2 or more; odd.png is 3 x 4",
    ),
    "as large": ("digits --from digit.png --task upscale", "2 or more; digit.png is 8 x 8"),
    "of another shape": ("rgb --from digit.png --task upscale", "8 x 12 divided by one whole number"),
    "grey run": ("digits --from digit.png --task colour", "--task colour takes a run of 3 channels,"),
    "no blur": ("rgb --from whole.png --task deblur", "--task deblur and --blur-std go together"),
    "blur of upscale": ("rgb --from small.png --task upscale --blur-std 2", "--task deblur and --blur-std go together"),
    "no mask": ("rgb --from whole.png --task fill", "--task fill and --mask go together"),
    "no width": ("rgb --from whole.png --task deblur --blur-std 0", "--blur-std must be in 0.1..100, got 0"),
    "noise": ("rgb --from small.png --task upscale --noise -1", "--noise must be in 0..255, got -1"),
    "white mask": ("digits --from digit.png --task fill --mask white.png", "white.png is all white"),
    "black mask": ("digits --from digit.png --task fill --mask black.png", "black.png has no white pixel"),
    "latents": (
        "latents --from digit.png --task deblur --blur-std 1",
        "draws latents, and what was measured are pixels",
    ),
    "guidance": ("digits --from quarter.png --task upscale --guidance 2", "--guidance 2 needs a --label"),
}


@pytest.mark.parametrize(("line", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(runs, here, capsys, line, sentence):
    save(torch.zeros(1, 8, 8), "black.png")
    save(torch.full((1, 8, 8), 255.0), "white.png")
    run, *flags = words(line)
    before = snapshot(here), snapshot(runs)
    assert cli("edit", "restore", runs / run, *flags, "--out", "made") == 2
    said = capsys.readouterr().err
    assert sentence in plain(said)
    assert "Traceback" not in said
    assert (snapshot(here), snapshot(runs)) == before

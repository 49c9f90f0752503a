"""show: strips whose first column is the images themselves and whose last is noise, and the curves."""

import numpy as np
import pytest
import torch
from PIL import Image

from bytepixels.data import pack
from bytepixels.registries import SCHEDULES
from bytepixels.report.forward_process import HEADER, labelled
from tests.tiny import cli, pixels_of, plain, read_json


def column(strip, k, rows, height, width, scale, gap=2):
    """Images [rows, H, W(, C)] of one column of a strip, at their own size."""
    strip = strip[HEADER:]
    left, tops = gap + k * (scale * width + gap), [gap + row * (scale * height + gap) for row in range(rows)]
    return np.stack([strip[top : top + scale * height : scale, left : left + scale * width : scale] for top in tops])


def test_the_strips_begin_with_the_images_and_end_in_noise(tmp_path, capsys):
    assert cli("show", "digits", "--out", tmp_path, "-n", 3, "--columns", 5) == 0
    names = [*(f"forward-{schedule}.png" for schedule in SCHEDULES), "schedules.png"]
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith(".png")] == [
        str(tmp_path / name) for name in names
    ]
    digits = pack("digits").images[:3, 0]
    for schedule in SCHEDULES:
        strip = pixels_of(tmp_path / f"forward-{schedule}.png")
        assert strip.shape == (HEADER + 2 + 3 * 66, 2 + 5 * 66)  # 8 x 8 images, enlarged 8 times
        columns = [column(strip, k, 3, 8, 8, 8) for k in range(5)]
        np.testing.assert_array_equal(columns[0], digits)
        likeness = [np.corrcoef(one.ravel(), digits.ravel())[0, 1] for one in columns]
        assert likeness[1] > 0.99  # t = 0: next to nothing added
        assert abs(likeness[-1]) < 0.3  # t = T - 1
        assert likeness[2] > likeness[3] > likeness[4]


def test_colour_images_of_another_size(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for k, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / "in" / f"{k}.png")
    assert cli("show", tmp_path / "in", "--out", tmp_path / "out", "--columns", 2, "--timesteps", 10) == 0
    strip = pixels_of(tmp_path / "out" / "forward-linear.png")
    assert strip.shape == (HEADER + 2 + 2 * 72, 2 + 2 * 92, 3)  # two rows though four were asked for
    np.testing.assert_array_equal(column(strip, 0, 2, 70, 90, 1), pixels)
    assert cli("show", tmp_path / "in", "--out", tmp_path / "small", "--size", 8, 6, "--channels", 1) == 0
    assert pixels_of(tmp_path / "small" / "forward-cosine.png").shape == (
        HEADER + 2 + 2 * (11 * 8 + 2),
        2 + 11 * (11 * 6 + 2),
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-n", 0], "-n must be at least 1, got 0"),
        (["--columns", 1], "--columns must be in 2..1001, got 1"),
        (["--timesteps", 5], "--columns must be in 2..6, got 11"),
        (["--size", 0, 5], "--size height must be in 1..4096, got 0"),
        (["--channels", 7], "--channels must be in 1..4, got 7"),
        (["--colums", 3], "did you mean --columns?"),
    ],
    ids=lambda value: " ".join(map(str, value))[:20],
)
def test_what_is_refused(tmp_path, capsys, flags, sentence):
    assert cli("show", "digits", "--out", tmp_path / "out", *flags) == 2
    assert sentence in plain(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [(["--timesteps", 0], "--timesteps must be at least 1, got 0"), (["--out", "FILE"], "--out")],
    ids=["timesteps", "out"],
)
def test_what_is_refused_in_its_own_name(tmp_path, capsys, flags, sentence):
    (tmp_path / "FILE").write_text("mine")
    flags = [tmp_path / word if word == "FILE" else word for word in flags]
    assert cli("show", "digits", "--out", tmp_path / "out", *flags) == 2
    assert sentence in plain(capsys.readouterr().err)


def test_no_such_source(tmp_path, capsys):
    assert cli("show", tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "nowhere' is no file, no folder and no known data set" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("sizes", "shown"), [([(300, 400)], (192, 256)), ([(300, 400), (400, 300)], (256, 256))])
def test_large_images_are_made_small_before_they_are_packed(tmp_path, capsys, monkeypatch, sizes, shown):
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    for k in range(4):
        height, width = sizes[k % len(sizes)]
        Image.fromarray(np.full((height, width, 3), 60 * k, np.uint8)).save(tmp_path / "in" / f"{k}.jpg")
    assert cli("show", tmp_path / "in", "--out", tmp_path / "out", "-n", 2) == 0
    height, width = shown
    said = capsys.readouterr().out
    assert f"shown at {height} x {width} (height x width); --size changes it" in said
    strip = pixels_of(tmp_path / "out" / "forward-linear.png")
    assert strip.shape == (HEADER + 2 + 2 * (height + 2), 2 + 11 * (width + 2), 3)
    (pack_,) = (tmp_path / "cache" / "packs").glob("in-*/meta.json")
    assert read_json(pack_)["size"] == list(shown)  # what was decoded is no larger either
    assert cli("show", tmp_path / "in", "--out", tmp_path / "asked", "-n", 1, "--size", 280, 280) == 0
    assert pixels_of(tmp_path / "asked" / "forward-linear.png").shape == (HEADER + 2 + 282, 2 + 11 * 282, 3)


def test_images_that_have_no_room_are_drawn_smaller_and_it_is_said(tmp_path, capsys, monkeypatch):
    """At the size that there is room for, not at the half of theirs."""
    monkeypatch.setenv("BYTEPIXELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bytepixels.images.MOST_ACROSS", 1 << 11)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((400, 300, 3), np.uint8)).save(tmp_path / "in" / "one.png")
    flags = ("show", tmp_path / "in", "--columns", 21, "--out", tmp_path / "out")
    assert cli(*flags) == 0
    said = capsys.readouterr().out  # 2048 / 21 are 97 pixels, with the gap
    assert "shown at 95 x 71 (height x width); fewer --columns or a smaller -n show them larger" in said
    assert "note" not in said
    assert pixels_of(tmp_path / "out" / "forward-linear.png").shape == (HEADER + 2 + 97, 2 + 21 * 73, 3)
    assert cli(*flags, "--size", 180, 190) == 0
    said = "note: 1 x 21 images have room for 90 x 95 pixels each (height x width), not for their 180 x 190; fewer"
    assert said in capsys.readouterr().out
    assert pixels_of(tmp_path / "out" / "forward-linear.png").shape == (HEADER + 2 + 92, 2 + 21 * 97, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [12, 66, 300])
def test_each_column_has_a_label_as_far_as_there_is_room(channels, width):
    sheet = torch.zeros(channels, 5, 11 * width, dtype=torch.uint8)
    whole = labelled(sheet, "cosine", ["image", *(f"t = {t}" for t in range(990, 1000))])
    assert torch.equal(whole[:, HEADER:], sheet)
    ink = (whole[0, HEADER // 2 : HEADER] < 128).any(dim=0)
    inked = [bool(ink[k * width : (k + 1) * width].any()) for k in range(11)]
    assert all(inked) if width > 60 else any(inked)
    if channels in (2, 4):
        assert (whole[-1, :HEADER] == 255).all()

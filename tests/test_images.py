"""Grids, PNGs and GIFs against what Pillow reads back."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from bytepixels.errors import InputError
from bytepixels.images import MODES, MOST_ACROSS, beside, grid, save_extra, save_gif, save_png, save_pngs


def some_images(n, channels=3, height=70, width=64):
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_reads_back_as_it_was_in_its_own_mode(tmp_path, channels):
    image = some_images(1, channels, 5, 7)[0]
    save_png(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert read.mode == MODES[channels]
        assert read.size == (7, 5)
        pixels = torch.from_numpy(np.array(read)).reshape(5, 7, channels)
    assert torch.equal(pixels.permute(2, 0, 1), image)


def test_five_channels_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="1 to 4 channels, got 5"):
        save_png(some_images(1, 5)[0], tmp_path / "a.png")


def test_many_pngs_keep_their_names(tmp_path):
    images = some_images(9, 1, 4, 4)
    paths = [tmp_path / f"{k}.png" for k in range(9)]
    save_pngs(images, paths)
    for image, path in zip(images, paths, strict=True):
        with Image.open(path) as read:
            assert np.array_equal(np.array(read), image[0])


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (16, 4, 4), (100, 10, 10)])
def test_a_grid_is_as_near_a_square_as_it_can_be_and_every_image_is_in_its_place(n, columns, rows):
    images = some_images(n)
    sheet = grid(images, gap=2)
    assert sheet.shape == (3, rows * 72 + 2, columns * 66 + 2)
    for k in range(n):
        top, left = 2 + k // columns * 72, 2 + k % columns * 66
        assert torch.equal(sheet[:, top : top + 70, left : left + 64], images[k])


def test_the_empty_places_of_a_grid_are_white():
    assert (grid(torch.zeros(3, 1, 64, 64, dtype=torch.uint8), columns=2)[:, -60:, -60:] == 255).all()


def test_small_images_are_enlarged_pixel_for_pixel():
    image = torch.tensor([[[[0, 100], [200, 50]]]], dtype=torch.uint8)
    sheet = grid(image, gap=0, least=64)
    assert sheet.shape == (1, 64, 64)
    assert (sheet[0, :32, 32:] == 100).all()
    assert (sheet[0, 32:, :32] == 200).all()


def test_beside_puts_white_between():
    left, right = some_images(2)
    both = beside(left, right, gap=3)
    assert both.shape == (3, 70, 131)
    assert (both[:, :, 64:67] == 255).all()
    assert torch.equal(both[:, :, 67:], right)


def test_a_gif_has_every_frame_and_holds_the_last(tmp_path):
    frames = [torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (0, 90, 180)]
    save_gif(frames, tmp_path / "a.gif", milliseconds=50, hold=1000)
    with Image.open(tmp_path / "a.gif") as read:
        shown = [
            (frame.info["duration"], frame.convert("L").getpixel((3, 3))) for frame in ImageSequence.Iterator(read)
        ]
        assert read.info["loop"] == 0
    assert [duration for duration, _ in shown] == [50, 50, 1000]
    assert [value for _, value in shown] == [0, 90, 180]


@pytest.mark.parametrize("n", [1, 4, 16, 64, 400])
@pytest.mark.parametrize("columns", [None, 10])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1024), (1024, 1), (1, 4096), (2, 300), (16, 1), (1, 1), (8, 512), (1024, 64)]
)
def test_a_grid_of_thin_images_is_bounded_and_nearly_square(n, columns, height, width):
    channels, high, wide = grid(torch.zeros(n, 1, height, width, dtype=torch.uint8), columns).shape
    assert channels == 1
    assert max(high, wide) <= MOST_ACROSS
    assert high * wide <= 1 << 26
    if columns is None and n >= 64 and min(height, width) > 1:
        assert max(high, wide) < 5 * min(high, wide)


def test_a_grid_of_many_large_images_is_shrunk_and_each_is_still_there():
    images = torch.arange(0, 250, 10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(25, 3, 60, 90)
    sheet = grid(images, pixels=40_000)
    assert sheet.shape[1] * sheet.shape[2] <= 40_000
    assert {10 * k for k in range(25)} | {255} == set(sheet.unique().tolist())


def test_a_gif_of_signals_can_be_written(tmp_path):
    save_gif([grid(some_images(25, 1, 1, 4096)) for _ in range(2)], tmp_path / "a.gif")
    assert (tmp_path / "a.gif").exists()


def test_an_extra_that_fails_is_one_sentence_and_leaves_no_half_file(tmp_path):
    def broken(path):
        path.write_text("half")
        raise OverflowError("too wide")

    with pytest.raises(OSError, match=r"a\.gif could not be written \(too wide\); the images themselves and manifest"):
        save_extra(tmp_path / "a.gif", broken)
    assert not (tmp_path / "a.gif").exists()

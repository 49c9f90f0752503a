"""One image file -> uint8 [C, H, W], against pixel values worked out by hand or with numpy."""

import io

import numpy as np
import pytest
from PIL import Image

from bytepixels.data.sources.decode import open_image, read_header, to_pixels
from bytepixels.data.sources.fit import Layout

WHITE = (255, 255, 255)


def decode(image, size=None, channels=3, fit="crop", background=WHITE, file_format="PNG", **save):
    """Save the image, read it back through the decoder: int [H, W, C]."""
    return decoded(image, size, channels, fit, background, file_format, **save).pixels.transpose(1, 2, 0).astype(int)


def decoded(image, size=None, channels=3, fit="crop", background=WHITE, file_format="PNG", **save):
    file = io.BytesIO()
    image.save(file, file_format, **save)
    header = read_header(open_image(file))
    height, width = size or (header.height, header.width)
    return to_pixels(open_image(file), Layout(height, width, channels, fit, background))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(height, width):
    """Colours that change slowly, so that JPEG and resizing keep them: [H, W, 3]."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.round(255 * np.stack([x, y, (x + y) / 2], -1)).astype(np.uint8)


def grey_of(rgb):
    return np.round(np.asarray(rgb, float) @ [0.299, 0.587, 0.114])


def test_rgb_and_grey_come_back_exactly():
    rgb, grey = noise(5, 7, 3), noise(5, 7)
    assert np.array_equal(decode(Image.fromarray(rgb)), rgb)
    assert np.array_equal(decode(Image.fromarray(grey), channels=1)[..., 0], grey)
    assert np.array_equal(decode(Image.fromarray(grey)), np.repeat(grey[..., None], 3, -1))
    assert np.abs(decode(Image.fromarray(rgb), channels=1)[..., 0] - grey_of(rgb)).max() <= 1


def test_one_bit_is_black_and_white():
    bits = noise(6, 9) > 127
    assert np.array_equal(decode(Image.fromarray(bits), channels=1)[..., 0], bits * 255)


def test_palette_colours():
    indices, palette = noise(4, 4) % 3, np.array([[10, 20, 30], [200, 100, 0], [7, 255, 9]], np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(palette.tobytes())
    assert image.mode == "P"
    assert np.array_equal(decode(image), palette[indices])
    # colour 1 transparent, on a background of its own
    assert np.array_equal(
        decode(image, background=(1, 2, 3), transparency=1),
        np.where(indices[..., None] == 1, [1, 2, 3], palette[indices]),
    )


def test_palette_with_partial_transparency():
    indices, palette = np.array([[0, 1, 2]], np.uint8), np.array([[0, 0, 0], [200, 100, 0], [7, 255, 9]], np.uint8)
    image = Image.fromarray(indices, "L")
    image.putpalette(palette.tobytes())
    alpha = np.array([255, 128, 0])[:, None] / 255
    expected = palette * alpha + 255 * (1 - alpha)
    assert np.abs(decode(image, transparency=bytes([255, 128, 0]))[0] - expected).max() <= 1


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (200, 30, 90)])
def test_alpha_is_composed_on_the_background(background):
    rgba = noise(8, 8, 4)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + np.array(background) * (1 - alpha)
    result = decoded(Image.fromarray(rgba), background=background)
    assert result.composed
    assert np.abs(result.pixels.transpose(1, 2, 0) - expected).max() <= 1
    grey = decode(Image.fromarray(rgba), channels=1, background=background)[..., 0]
    assert np.abs(grey - grey_of(expected)).max() <= 1.5


def test_grey_with_alpha_is_composed_too():
    la = noise(8, 8, 2)
    alpha = la[..., 1] / 255
    expected = la[..., 0] * alpha + 255 * (1 - alpha)
    assert np.abs(decode(Image.fromarray(la), channels=1)[..., 0] - expected).max() <= 1
    assert np.abs(decode(Image.fromarray(la)) - expected[..., None]).max() <= 1


def test_one_transparent_colour_of_an_image_without_alpha():
    rgb = noise(3, 3, 3)
    rgb[1, 1] = (9, 8, 7)
    expected = rgb.copy()
    expected[1, 1] = (0, 0, 255)
    assert np.array_equal(decode(Image.fromarray(rgb), background=(0, 0, 255), transparency=(9, 8, 7)), expected)


def test_opaque_alpha_changes_nothing_and_is_not_mentioned():
    rgba = noise(4, 4, 4)
    rgba[..., 3] = 255
    result = decoded(Image.fromarray(rgba), background=(0, 0, 0))
    assert not result.composed
    assert np.array_equal(result.pixels.transpose(1, 2, 0), rgba[..., :3])


def test_alpha_is_kept_when_asked():
    rgba, la = noise(4, 4, 4), noise(4, 4, 2)
    assert np.array_equal(decode(Image.fromarray(rgba), channels=4), rgba)
    assert np.array_equal(decode(Image.fromarray(la), channels=2), la)
    opaque = decode(Image.fromarray(noise(4, 4, 3)), channels=4)
    assert np.array_equal(opaque, np.dstack([noise(4, 4, 3), np.full((4, 4), 255)]))
    assert np.array_equal(decode(Image.fromarray(la), channels=4), np.dstack([la[..., :1]] * 3 + [la[..., 1:]]))


def red_disc_with_hidden_green(size):
    """Opaque red in a disc; outside it fully transparent, with green hidden under the transparency."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = (x**2 + y**2 < (size / 3) ** 2)[..., None]
    return Image.fromarray(np.where(inside, [255, 0, 0, 255], [0, 255, 0, 0]).astype(np.uint8))


@pytest.mark.parametrize("size", [(9, 9), (50, 50)])
def test_hidden_colours_do_not_bleed_into_resized_edges(size):
    # on red, a red disc must vanish: any green or dark rim comes from colours that cannot be seen
    composed = decode(red_disc_with_hidden_green(30), size=size, background=(255, 0, 0))
    assert np.abs(composed - [255, 0, 0]).max() <= 1
    kept = decode(red_disc_with_hidden_green(30), size=size, channels=4)
    assert kept[kept[..., 3] > 30][:, 1].max() <= 2
    assert kept[kept[..., 3] > 30][:, 0].min() >= 250


def test_cmyk_and_ycbcr():
    cmyk = Image.fromarray(noise(4, 4, 4), "CMYK")
    c, m, y, k = np.moveaxis(noise(4, 4, 4) / 255, -1, 0)
    expected = 255 * np.stack([(1 - c) * (1 - k), (1 - m) * (1 - k), (1 - y) * (1 - k)], -1)
    assert np.abs(decode(cmyk, file_format="TIFF") - expected).max() <= 2
    rgb = smooth(16, 16)
    ycbcr = decode(Image.fromarray(rgb).convert("YCbCr"), file_format="TIFF")
    assert np.abs(ycbcr - rgb).max() <= 3
    jpeg = decode(Image.fromarray(rgb).convert("CMYK"), file_format="JPEG", quality=98)
    assert np.abs(jpeg - rgb.astype(int)).max() <= 12


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_is_scaled_not_clipped(file_format):
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    result = decode(Image.fromarray(deep), channels=1, file_format=file_format)[..., 0]
    assert np.array_equal(result, np.round(deep / 257))


def test_16_bit_with_a_transparent_value():
    deep = np.array([[0, 30000, 65535]], np.uint16)
    result = decode(Image.fromarray(deep), channels=1, transparency=30000)[..., 0]
    assert result.tolist() == [[0, 255, 255]]


def test_32_bit_integers_and_floats():
    integers = Image.fromarray(np.array([[0, 257, 65535]], np.int32))
    assert decode(integers, channels=1, file_format="TIFF").ravel().tolist() == [0, 1, 255]
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert decode(unit, channels=1, file_format="TIFF").ravel().tolist() == [0, 128, 255]
    bytes_ = Image.fromarray(np.array([[0, 100.4, 255]], np.float32))
    assert decode(bytes_, channels=1, file_format="TIFF").ravel().tolist() == [0, 100, 255]


@pytest.mark.parametrize("values", [[-0.5, 0.5], [0, 300.0], [0, np.nan]])
def test_floats_of_no_known_range_are_unreadable(values):
    with pytest.raises(ValueError, match=r"outside 0\.\.255"):
        decode(Image.fromarray(np.array([values], np.float32)), file_format="TIFF")


TURNED = {  # what an upright image looks like when it is stored with this EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation(orientation, file_format):
    upright = smooth(24, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNED[orientation](upright)))
    options = {"quality": 98} if file_format == "JPEG" else {}
    result = decode(stored, file_format=file_format, exif=exif, **options)
    assert result.shape == upright.shape  # so the header knows about the rotation, too
    assert np.abs(result - upright).max() <= (12 if file_format == "JPEG" else 0)


def test_damaged_exif_leaves_the_image_readable():
    rgb = noise(4, 4, 3)
    assert np.array_equal(decode(Image.fromarray(rgb), exif=b"Exif\x00\x00nonsense"), rgb)


def test_damage_beside_the_orientation_does_not_stop_the_rotation():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    damaged = exif.tobytes().replace(b"\x01\x1a\x00\x05", b"\x01\x17\x00\x05")  # a fraction of a byte count
    assert damaged != exif.tobytes()
    upright = noise(4, 6, 3)
    assert np.array_equal(decode(Image.fromarray(TURNED[6](upright).copy()), exif=damaged), upright)


def test_crop_keeps_the_centre_pixel_for_pixel():
    wide, tall = noise(6, 11, 3), noise(13, 6, 3)
    assert np.array_equal(decode(Image.fromarray(wide), (6, 6)), wide[:, 2:8])
    assert np.array_equal(decode(Image.fromarray(tall), (6, 6)), tall[3:9])
    assert np.array_equal(decode(Image.fromarray(tall), (4, 6)), tall[4:8])


def bands(height, width, axis):
    """Thirds of red, green and blue along an axis."""
    third = np.arange((height, width)[axis]) * 3 // (height, width)[axis]
    line = np.eye(3, dtype=np.uint8)[third] * 255
    return Image.fromarray(np.broadcast_to(line[:, None] if axis == 0 else line, (height, width, 3)).copy())


def test_crop_scales_to_cover():
    for image in (bands(30, 90, 1), bands(90, 30, 0)):
        result = decode(image, (10, 10))
        assert np.abs(result - [0, 255, 0]).max() <= 20  # the filter sees a little of what lies beyond the edge
        assert np.abs(result[2:-2, 2:-2] - [0, 255, 0]).max() <= 1


@pytest.mark.parametrize("axis", [0, 1])
def test_pad_scales_to_fit_and_fills_with_the_background(axis):
    shape = (20, 40) if axis == 1 else (40, 20)
    image = Image.new("RGB", shape[::-1], (10, 200, 30))
    result = decode(image, (20, 20), fit="pad", background=(1, 2, 3))
    expected = np.full((20, 20, 3), [1, 2, 3])
    expected[(slice(5, 15), slice(None))[:: 1 if axis == 1 else -1]] = [10, 200, 30]
    assert np.array_equal(result, expected)


def test_pad_keeps_the_image_and_is_transparent_where_alpha_is_kept():
    rgba = noise(4, 8, 4)
    result = decode(Image.fromarray(rgba), (8, 8), channels=4, fit="pad")
    assert np.array_equal(result[2:6], rgba)
    assert not result[:2, :, 3].any()
    assert not result[6:, :, 3].any()
    assert decode(Image.new("RGB", (1000, 1)), (8, 8), fit="pad").shape == (8, 8, 3)  # a side never shrinks to 0


def test_squash_keeps_everything():
    result = decode(bands(30, 90, 1), (9, 9), fit="squash")
    assert result[4, 1].argmax() == 0
    assert result[4, 4].argmax() == 1
    assert result[4, 7].argmax() == 2


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_shrinking_averages_instead_of_picking(file_format):
    # a fine checkerboard is grey from afar; nearest neighbours would give black, white or moire
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    result = decode(Image.fromarray(board), (16, 16), channels=1, file_format=file_format)
    assert np.abs(result[2:-2, 2:-2] - 127.5).max() <= 4
    big = smooth(700, 700)
    small = big.reshape(14, 50, 14, 50, 3).mean((1, 3))
    result = decode(Image.fromarray(big), (14, 14), file_format=file_format)
    assert np.abs(result - small)[1:-1, 1:-1].max() <= 4


def test_what_had_to_be_done_is_reported():
    square, wide = Image.new("RGB", (20, 20)), Image.new("RGB", (30, 20))
    assert decoded(square, (10, 10))[1:] == (False, False, False)
    assert decoded(wide, (10, 10))[1:] == (False, True, False)
    assert decoded(square, (40, 40))[1:] == (False, False, True)


def test_grey_is_told_from_the_header():
    def grey(image, file_format="PNG"):
        file = io.BytesIO()
        image.save(file, file_format)
        return read_header(open_image(file)).grey

    assert all(grey(Image.new(mode, (4, 4))) for mode in ("1", "L", "LA", "I;16"))
    assert grey(Image.new("F", (4, 4)), "TIFF")
    assert not any(grey(Image.new(mode, (4, 4))) for mode in ("RGB", "RGBA"))
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L")
    palette.putpalette([0, 0, 0, 90, 90, 90])
    assert grey(palette)
    palette.putpalette([0, 0, 0, 90, 90, 91])
    assert not grey(palette)


def test_postscript_is_never_run():
    with pytest.raises(OSError, match="cannot identify"):
        open_image(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"))

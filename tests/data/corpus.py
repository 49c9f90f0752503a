"""Images in every format and mode that Pillow writes, with the colours that a reader must find in them."""

import io
import warnings

import numpy as np
from PIL import Image

Image.init()
SIDE = 16
NOT_READ = {"EPS", "PDF", "PALM", "WMF", "BUFR", "GRIB", "HDF5"}  # no pixels, or a program would have to be run

_y, _x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
RGB = np.round(255 * np.stack([_x, _y, (_x + _y) / 2], -1)).astype(np.uint8)
GREY = np.round(255 * (_x + _y) / 2).astype(np.uint8)
ALPHA = np.round(255 * _x).astype(np.uint8)
INDICES = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 7).astype(np.uint8)
PALETTE = np.random.default_rng(1).integers(0, 256, (7, 3), np.uint8)
CMYK = np.dstack([RGB, GREY // 2])


def _grey(values):
    return np.repeat(values[..., None], 3, -1).astype(float)


def _on_white(colours, alpha):
    return colours * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)


def _palette():
    image = Image.fromarray(INDICES)
    image.putpalette(PALETTE.tobytes())
    return image


# mode -> (image, its colours on white: float [H, W, 3] in 0..255)
MODES = {
    "1": (Image.fromarray(GREY > 127), _grey((GREY > 127) * 255)),
    "L": (Image.fromarray(GREY), _grey(GREY)),
    "P": (_palette(), PALETTE[INDICES].astype(float)),
    "PA": (_palette().convert("PA"), PALETTE[INDICES].astype(float)),
    "LA": (Image.fromarray(np.dstack([GREY, ALPHA])), _on_white(_grey(GREY), ALPHA)),
    "RGB": (Image.fromarray(RGB), RGB.astype(float)),
    "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), _on_white(RGB.astype(float), ALPHA)),
    "CMYK": (Image.fromarray(CMYK, "CMYK"), 255 * (1 - CMYK[..., :3] / 255) * (1 - CMYK[..., 3:] / 255)),
    "YCbCr": (Image.fromarray(RGB).convert("YCbCr"), RGB.astype(float)),
    "I": (Image.fromarray(GREY.astype(np.int32) * 257), _grey(GREY)),
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), _grey(GREY)),
    "F": (Image.fromarray(GREY.astype(np.float32)), _grey(GREY)),
}

# What the formats hold without loss, as far as Pillow writes it: within 1 of the image's colours, YCbCr within 3.
EXACT = {
    "PNG": "1 L P LA RGB RGBA I;16",
    "TIFF": "1 L P PA LA RGB RGBA CMYK YCbCr I I;16 F",
    "GIF": "1 L P RGB F",
    "BMP": "1 L P RGB",
    "DIB": "1 L P RGB",
    "JPEG2000": "L LA RGB RGBA CMYK YCbCr I;16",
    "PPM": "1 L RGB I I;16 F",
    "TGA": "1 L P LA RGB RGBA",
    "ICO": "1 L P LA RGB RGBA I;16",
    "IM": "1 L P PA LA RGB RGBA CMYK YCbCr I I;16 F",
    "DDS": "L LA RGB RGBA",
    "SGI": "L RGB RGBA",
    "PCX": "1 L P RGB",
    "QOI": "RGB RGBA",
    "BLP": "P",
    "MSP": "1",
    "XBM": "1",
    "SPIDER": "1 L F",
}
# Within 3 on average, for smooth images.
LOSSY = {
    "JPEG": "1 L RGB CMYK YCbCr",
    "MPO": "1 L RGB CMYK YCbCr",
    "WEBP": "1 L LA RGB RGBA CMYK YCbCr F",
    "AVIF": "1 L LA RGB RGBA CMYK YCbCr F",
}


def files():
    """{(format, mode): content} of every file that Pillow writes here."""
    written = {}
    for file_format in sorted(Image.SAVE):
        for mode, (image, _) in MODES.items():
            file = io.BytesIO()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a format that Pillow will drop
                    image.save(file, file_format)
            except Exception:  # Pillow does not write this mode in this format
                continue
            written[file_format, mode] = file.getvalue()
    return written


def suffix(file_format):
    """A suffix that a reader takes for an image. (SPIDER has none; its content tells.)"""
    if file_format == "SPIDER":
        return ".png"
    return next((ending for ending, name in Image.EXTENSION.items() if name == file_format), f".{file_format.lower()}")

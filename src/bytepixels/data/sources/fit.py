"""Fit an image of any size to the common size of a pack."""

from dataclasses import dataclass

from PIL import Image

REDUCING_GAP = 3.0  # shrink coarsely to 3 x the size, then finely: many times faster, the same to the eye


@dataclass(frozen=True)
class Layout:
    """The layout of every packed image; `background` is RGB in 0..255."""

    height: int
    width: int
    channels: int
    fit: str
    background: tuple[int, int, int]


def fit(image: Image.Image, layout: Layout) -> Image.Image:
    """Fit an image to the layout's size by crop, pad or squash."""
    # Pillow's resize weighs colours by alpha, so RGBA and LA keep clean edges too.
    target = (layout.width, layout.height)
    if image.size == target:
        return image
    if layout.fit == "squash" or image.width * layout.height == image.height * layout.width:
        return _resize(image, target)
    return _crop(image, target) if layout.fit == "crop" else _pad(image, target, layout.background)


def _resize(image: Image.Image, size: tuple[int, int], box: tuple[float, ...] | None = None) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)  # type: ignore[arg-type]


def _crop(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Scale to cover and keep the centre; the offset is in whole pixels, so that a mere crop changes no value."""
    shrink = min(image.width / target[0], image.height / target[1])
    width, height = target[0] * shrink, target[1] * shrink
    left, top = int((image.width - width) / 2), int((image.height - height) / 2)
    return _resize(image, target, (left, top, min(left + width, image.width), min(top + height, image.height)))


def _pad(image: Image.Image, target: tuple[int, int], background: tuple[int, int, int]) -> Image.Image:
    """Scale to fit inside, centred on the background; where alpha is kept, the padding is transparent."""
    scale = min(target[0] / image.width, target[1] / image.height)
    inner = _resize(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    below = Image.new("RGBA", target, (*background, 0 if image.mode in ("LA", "RGBA") else 255)).convert(image.mode)
    below.paste(inner, ((target[0] - inner.width) // 2, (target[1] - inner.height) // 2))
    return below

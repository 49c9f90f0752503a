"""Images to be encoded, and what becomes of them, for the tests of latents."""

from bytepixels.codec import latent_writer as encoding
from bytepixels.codec.codec import encoder_of
from bytepixels.codec.latent_cache import store_latents
from bytepixels.data import pack
from tests.codec.autoencoders import Uneven
from tests.data.fixtures import write_all

NAMES = [f"{kind}/{number:02d}.png" for kind in ("cat", "dog") for number in range(10)]


def packed_of(folder, names=NAMES, channels=None, **options):
    write_all(folder / "in", names, height=6, width=8, **options)
    return pack(folder / "in", cache=folder / "packs", channels=channels)


def in_small_parts(monkeypatch):
    """In calls of three images."""
    monkeypatch.setattr(encoding, "PIXELS", 3 * 48 + 40)


CALLS = [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 18), (18, 20)]


class Counted:
    """An encoder that remembers how many images each call had."""

    def __init__(self, autoencoder):
        self.encode, self.calls = encoder_of(autoencoder), []

    def __call__(self, images):
        self.calls.append(len(images))
        return self.encode(images)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def whole(cache):
    return sorted(path for path in (cache / "latents").glob("*") if not path.name.startswith("."))


def drafts(cache):
    return sorted((cache / "latents").glob(".packing-*"))


def uninterrupted(packed, tmp_path, flips=True):
    return contents(store_latents(packed, encoder_of(Uneven()), "a", flips, cache=tmp_path / "reference").path)

"""What telephones make, HEIC and AVIF: read where a package can, else named, with what to install."""

import sys

import numpy as np
import pytest
from PIL import Image

from bytepixels.data import pack
from bytepixels.data.sources import decode
from bytepixels.errors import InputError
from bytepixels.requests.check_data import Doctor
from bytepixels.training.autotune.preflight import doctor
from tests.data.fixtures import write, write_all


@pytest.fixture
def photographs(tmp_path):
    """A folder of one PNG, one HEIC and one AVIF of a green meadow."""
    decode.image_formats()  # Pillow knows them from here on
    folder = tmp_path / "photos"
    write_all(folder, ["a.png"], height=32, width=48)
    meadow = np.full((32, 48, 3), (40, 160, 60), np.uint8)
    for name in ("b.heic", "c.avif"):
        write(folder / name, meadow)
    return folder


@pytest.fixture
def without_packages(monkeypatch):
    """As on a machine with an older Pillow and without pillow-heif."""
    decode.image_formats()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("HEIF", "AVIF"):
        monkeypatch.delitem(Image.OPEN, name)
    caches = decode.image_formats, decode.image_suffixes, decode.lacking_suffixes
    for one in caches:
        one.cache_clear()
    yield
    monkeypatch.undo()
    for one in caches:
        one.cache_clear()


def test_they_are_read(photographs, tmp_path):
    packed = pack(photographs, cache=tmp_path / "cache")
    assert packed.images.shape == (3, 3, 32, 48)
    for image in packed.images[1:]:
        assert np.abs(image.mean(axis=(1, 2)) - (40, 160, 60)).max() < 6  # they are lossy
    assert not any("Left out" in note for note in packed.notes)


def test_without_packages_each_is_named_with_what_to_install(photographs, tmp_path, without_packages):
    packed = pack(photographs, cache=tmp_path / "cache")
    assert len(packed) == 1
    said = " ".join(packed.notes)
    assert "Left out 1 image (.avif); to read such files: pip install 'pillow>=11.3'" in said
    assert "Left out 1 image (.heic); to read such files: pip install 'bytepixels[heif]'" in said
    assert "Ignored" not in said


def test_a_pack_made_without_the_package_is_not_taken_with_it(photographs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["bytepixels.data.pack"], "image_formats", lambda: ("PNG",))
        patch.setattr(sys.modules["bytepixels.data.sources.folder_labels"], "image_suffixes", lambda: {".png"})
        assert len(pack(photographs, cache=tmp_path / "cache")) == 1
    assert len(pack(photographs, cache=tmp_path / "cache")) == 3


@pytest.mark.parametrize("name", ["b.heic", "c.avif"])
def test_a_folder_of_nothing_else_and_a_single_one_say_so(photographs, tmp_path, without_packages, name):
    with pytest.raises(InputError, match="pip install") as found:
        pack(photographs / name, cache=tmp_path / "cache")
    assert str(photographs / name) in str(found.value)
    (photographs / "a.png").unlink()
    with pytest.raises(InputError, match=r"holds no image\. Left out 1 image .*pip install"):
        pack(photographs, cache=tmp_path / "cache")


def test_the_doctor_names_them_first(photographs, without_packages):
    found = doctor(Doctor(str(photographs), quick=True)).findings
    assert [one.kind for one in found[:2]] == ["missing_package"] * 2
    lacking = "Left out 1 image (.heic); to read such files: pip install 'bytepixels[heif]'"
    assert lacking in [one.advice for one in found[:2]]

"""What the doctor sees in a source, against files made by hand, numpy, and what packing does with the same files."""

import io

import numpy as np
import pytest
from PIL import Image

from bytepixels.data import pack
from bytepixels.data.inspection.statistics import Leak, PixelStatistics, dataset_statistics
from bytepixels.data.inspection.survey import inspect_image, inspect_images, read_headers
from bytepixels.data.sources.decode import ImageHeader, Layout
from bytepixels.data.sources.folder_labels import printable
from bytepixels.data.sources.open_source import open_source
from bytepixels.training.autotune.preflight_page import class_lines, copy_lines, file_lines, image_lines, pixel_lines
from tests.data.fixtures import as_tar, as_zip, colours, write, write_all

WHITE = (255, 255, 255)


def seen(source, size=(16, 16), channels=3, fit="crop", split="train", cache=None):
    """(headers, inspection, layout) of a source."""
    layout = Layout(*size, channels, fit, WHITE)
    images = open_source(str(source), split, cache or source.parent).read()
    return read_headers(images), inspect_images(images, layout), layout


def statistics(source, splits=("train",), **options):
    """Those of a source; the first split is the one looked at."""
    found = {split: seen(source, split=split, **options) for split in splits}
    headers, _, layout = found[splits[0]]
    return dataset_statistics(str(source), {split: one[1] for split, one in found.items()}, headers, layout)


def cut(path, pixels, file_format):
    """An image file that ends in its middle."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


@pytest.fixture(scope="module")
def defects(tmp_path_factory):
    """A folder with one of everything."""
    root = tmp_path_factory.mktemp("set") / "defects"
    write_all(root, [f"cat/{k}.png" for k in range(6)], height=20, width=20)
    write_all(root, [f"dog/{k}.png" for k in range(4)], height=20, width=20, seed=1)
    noise = colours(1, 40, 40, seed=2)[0]
    cut(root / "cat" / "cut.jpg", noise, "JPEG")
    cut(root / "cat" / "cut.png", noise, "PNG")
    (root / "dog" / "text.png").write_text("no image")
    (root / "dog" / "empty.webp").write_bytes(b"")
    (root / "dog" / "notes.txt").write_text("no image either")
    Image.new("1", (13500, 13500)).save(root / "dog" / "bomb.png")
    write(root / "cat" / "wide.png", colours(1, 10, 70, seed=3)[0])
    write(root / "cat" / "small.png", colours(1, 9, 9, seed=4)[0])
    write(root / "dog" / "flat.png", np.full((20, 20, 3), 7, np.uint8))
    write(root / "dog" / "grey.png", colours(1, 20, 20, seed=5)[0][..., 0])
    clear = np.concatenate([colours(1, 20, 20, seed=6)[0], np.full((20, 20, 1), 255, np.uint8)], axis=2)
    write(root / "dog" / "opaque.png", clear)
    clear[:5, :, 3] = 0
    write(root / "dog" / "clear.png", clear)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours(1, 20, 30, seed=7)[0]).save(root / "dog" / "turned.jpg", exif=exif)
    frames = [Image.fromarray(image) for image in colours(3, 20, 20, seed=8)]
    frames[0].save(root / "dog" / "moves.gif", save_all=True, append_images=frames[1:])
    return root


def test_every_defect_is_counted(defects):
    found = statistics(defects)
    assert (found.files, found.images) == (23, 18)
    assert found.kinds == {"PNG RGB": 13, "PNG RGBA": 2, "PNG L": 1, "JPEG RGB": 1, "GIF P": 1}
    assert (found.different_sizes, found.smallest, found.median, found.largest) == (4, (9, 9), (20, 20), (10, 70))
    assert (found.commonest_ratio, found.other_ratios) == (1.0, 2)
    assert found.tallest == ("dog/turned.jpg", 30, 20)
    assert found.widest == ("cat/wide.png", 10, 70)
    said = dict(image_lines(found))
    ends = "from 0.667 (30 x 20, dog/turned.jpg) to 7 (10 x 70, cat/wide.png)"
    assert said["aspect ratio"] == f"1 (width / height) is the commonest, 2 are others, {ends}"
    assert said["images"] == "18 of 23 files"
    assert found.counts == {
        "grey": 1,
        "transparent": 1,
        "rotated": 1,
        "several_frames": 1,
        "composed": 1,
        "reshaped": 2,
        "enlarged": 1,
        "much_cropped": 1,  # 6 / 7 of wide.png; only a third of turned.jpg
    }


def test_unreadable_files_are_named_as_packing_names_them(defects, tmp_path):
    found = statistics(defects)
    packed = pack(defects, size=(16, 16), channels=3, cache=tmp_path / "cache")
    assert found.unreadable == [(name, reason) for name, reason in packed.meta["skipped"]]
    assert "Ignored 1 other file (.txt)." in found.notes
    lines = file_lines(found)
    assert lines[0] == ("cannot be read", "2 not images, 3 damaged or truncated")
    said = "\n".join(text for _, text in lines)
    assert all(f"{name}: " in said for name in ("cat/cut.jpg", "cat/cut.png", "dog/text.png", "dog/bomb.png"))


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_packing_does_to_them_and_the_pixels_it_gets(defects, tmp_path, fit, channels):
    _, inspection, _ = seen(defects, size=(12, 16), channels=channels, fit=fit)
    found = statistics(defects, size=(12, 16), channels=channels, fit=fit)
    packed = pack(defects, size=(12, 16), channels=channels, fit=fit, cache=tmp_path / "cache")
    pixels = found.pixels
    assert found.images == len(packed)
    notes = " ".join(packed.notes)
    for mark, said in (("composed", "transparent parts"), ("reshaped", "another aspect"), ("enlarged", "are smaller")):
        phrase = f"{found.counts[mark]:,} of {len(packed):,} images"
        assert (f"{phrase} have {said}" in notes or f"{phrase} {said}" in notes) == bool(found.counts[mark])
    values = packed.images.astype(np.float64)
    assert pixels.mean == pytest.approx(values.mean(axis=(0, 2, 3)), abs=1e-9)
    assert pixels.std == pytest.approx(values.std(axis=(0, 2, 3)), abs=1e-9)
    x0 = values[:, 0] / 127.5 - 1
    assert pixel_lines(pixels)[0][1].endswith(f"in -1..1: {x0.mean():+.3f}, {x0.std():.3f}")
    colour = values[:, : 1 if channels < 3 else 3]
    assert pixels.black == pytest.approx((colour == 0).all(axis=1).mean())
    assert pixels.white == pytest.approx((colour == 255).all(axis=1).mean())
    assert pixels.one_colour == (["dog/flat.png"] if fit != "pad" else [])
    assert all(np.array_equal(pixels, packed.images[k]) for k, pixels in enumerate(_in_order(inspection)))


def _in_order(found):
    """The sample, which is all of so few images, in the order of packing."""
    return [found.sample[k] for k in found.readable.tolist()]


def test_an_image_is_the_same_in_every_format_and_no_other_is():
    picture = Image.fromarray(colours(1, 7, 9)[0])
    layout = Layout(8, 8, 3, "crop", WHITE)

    def digest(image, file_format, **options):
        file = io.BytesIO()
        image.save(file, file_format, **options)
        with Image.open(file) as again:
            return inspect_image(again, layout).digest

    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = picture.transpose(Image.Transpose.ROTATE_180)
    once = digest(picture, "PNG")
    assert once == digest(picture, "BMP") == digest(picture.convert("RGBA"), "PNG") == digest(picture, "TIFF")
    assert once == digest(upside_down, "PNG", exif=exif)
    changed = picture.copy()
    changed.putpixel((0, 0), tuple(value ^ 1 for value in picture.getpixel((0, 0))))
    assert once != digest(changed, "PNG")
    assert once != digest(upside_down, "PNG")
    assert digest(Image.new("RGB", (4, 9)), "PNG") != digest(Image.new("RGB", (9, 4)), "PNG")  # as many bytes


@pytest.mark.parametrize("make", [lambda root, path: root, as_zip, as_tar], ids=["folder", "zip", "tar"])
def test_copies_within_the_split_across_classes_and_across_splits(tmp_path, make):
    root = tmp_path / "set"
    images = colours(12, 24, 24)
    for k, image in enumerate(images[:8]):
        write(root / "train" / "ab"[k % 2] / f"{k}.png", image)
    write(root / "train" / "a" / "again-0.bmp", images[0])
    write(root / "train" / "b" / "again-0.tiff", images[0])
    write(root / "train" / "a" / "mirror-2.png", images[2][:, ::-1])
    write(root / "test" / "a" / "same-4.png", images[4])
    write(root / "test" / "b" / "mirror-5.png", images[5][:, ::-1])
    write(root / "test" / "b" / "new.png", images[9])
    write(root / "val" / "a" / "new.png", images[10])
    source = make(root, tmp_path / "set.tar.gz" if make is as_tar else tmp_path / "set.zip")
    data = statistics(source, ("train", "val", "test"), cache=tmp_path)
    found, prefix = data.copies, "train/"
    assert found.distinct == 9
    exact = [f"{prefix}a/0.png", f"{prefix}a/again-0.bmp", f"{prefix}b/again-0.tiff"]
    assert found.exact == [exact]
    assert found.near == [[f"{prefix}a/2.png", f"{prefix}a/mirror-2.png"]]
    assert found.exact_across_classes == [[exact[0], exact[2]]]
    assert found.near_across_classes == []
    assert found.across_splits["val"] == Leak(1, [], [])
    assert found.across_splits["test"] == Leak(
        3,
        [[f"{prefix}a/4.png", "test/a/same-4.png (test)"]],
        [[f"{prefix}b/5.png", "test/b/mirror-5.png (test)"]],
    )
    said = copy_lines(data)
    assert ("exact copies", "1 group of 3 images, 2 to spare") in said
    assert ("also in test", "1 exactly, 1 nearly, of 3") in said
    assert ("across classes", "1 group of exact and 0 of near copies") in said


def test_copies_among_unreadable_files_bear_the_right_names(tmp_path):
    """What cannot be read is left out, and nothing moves up into its place."""
    root, images = tmp_path / "set", colours(3, 24, 24)
    cut(root / "0.png", images[0], "PNG")
    write(root / "1.png", images[1])
    cut(root / "2.png", images[0], "PNG")
    write(root / "3.png", images[2])
    write(root / "4.png", images[1])
    data = statistics(root)
    assert data.copies.exact == [["1.png", "4.png"]]
    assert data.copies.across_splits == {}
    assert "across classes" not in dict(copy_lines(data))


def test_classes_and_their_balance(tmp_path):
    root = tmp_path / "set"
    write_all(root, [f"many/{k}.png" for k in range(60)] + ["two/0.png", "two/1.png"])
    cut(root / "none" / "0.png", colours(1, 30, 30)[0], "PNG")
    classes = statistics(root).classes
    assert classes == {"many": 60, "none": 0, "two": 2}
    assert class_lines(classes)[1] == ("balance", "smallest none (0), largest many (60), no end; 2 with fewer than 50")
    (root / "none" / "0.png").unlink()
    said = class_lines(statistics(root).classes)[1][1]
    assert said == "smallest two (2), largest many (60), 1 to 30; 1 with fewer than 50"
    assert statistics(root / "many").classes is None


def test_arrays_have_images_but_no_files(tmp_path):
    images = colours(5, 9, 8)
    np.savez(tmp_path / "set.npz", images_train=images, images_test=images[:2, ::-1])
    found = statistics(tmp_path / "set.npz")
    assert found.kinds == {"array RGB": 5}
    assert (found.different_sizes, found.smallest, found.median, found.largest) == (1, (9, 8), (9, 8), (9, 8))
    assert dict(image_lines(found))["sizes"] == "9 x 8, all of them"
    assert found.counts["grey"] == 0


def test_the_sample_is_spread_over_the_source_and_bounded(tmp_path, monkeypatch):
    np.save(tmp_path / "set.npy", colours(100, 8, 8))
    assert sorted(seen(tmp_path / "set.npy", size=(8, 8))[1].sample) == list(range(100))
    monkeypatch.setattr("bytepixels.data.inspection.survey.SAMPLE", 8)
    assert sorted(seen(tmp_path / "set.npy", size=(8, 8))[1].sample) == list(range(0, 100, 13))
    monkeypatch.setattr("bytepixels.data.inspection.survey.SAMPLE_BYTES", 8 * 8 * 3 * 2)
    assert sorted(seen(tmp_path / "set.npy", size=(8, 8))[1].sample) == [0, 50]


def test_a_sample_is_found_where_the_chosen_ones_cannot_be_read(tmp_path, monkeypatch):
    root = tmp_path / "set"
    for k in range(6):
        cut(root / f"{k}.png", colours(1, 30, 30)[0], "PNG")
    write(root / "3.png", colours(1)[0])
    monkeypatch.setattr("bytepixels.data.inspection.survey.SAMPLE", 1)
    assert list(seen(root)[1].sample) == [3]


def test_headers_of_files_that_have_none_are_left_out(defects):
    found, _, _ = seen(defects)
    assert all(isinstance(one, ImageHeader) for one in found.values())
    names = open_source(str(defects), "train", defects).read().names
    missing = {names[k] for k in range(len(names)) if k not in found}
    assert missing == {"dog/text.png", "dog/empty.webp", "dog/bomb.png"}


def test_names_of_any_kind_are_said(tmp_path):
    root = tmp_path / "set"
    names = ["猫.png", "two words.png", "a'b\"c.png"]
    write_all(root, names)
    for k, name in enumerate(names):
        write(root / f"copy-{k}.png", np.asarray(Image.open(root / name)))
    said = {name for group in statistics(root).copies.exact for name in group}
    assert {printable(name) for name in names} <= said


def test_words_for_pixels():
    assert pixel_lines(PixelStatistics(["grey"], [127.5], [51.0], 0.25, 0.5, ["a.png"], [])) == [
        ("grey", "mean 127.5, standard deviation 51.0 of 255; in -1..1: +0.000, 0.400"),
        ("pure pixels", "black 25.00%, white 50.00%"),
        ("of one colour", "1: a.png"),
        ("nearly black", "0"),
    ]

"""Bad images and odd ones: nothing escapes the source, nothing ends without a sentence, what can be read is right."""

import gzip
import io
import os
import socket
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from bytepixels.data import pack
from bytepixels.data.sources import source as images
from bytepixels.data.sources import tar as tars
from bytepixels.errors import InputError
from tests.data import corpus
from tests.data.fixtures import as_tar, colours, peak, stacked, write, write_all

FILES = corpus.files()
GOOD = colours(1, 4, 4)[0]


@pytest.fixture
def packed(tmp_path):
    return lambda source, **options: pack(source, cache=tmp_path / "cache", **options)


@pytest.fixture
def refused(packed):
    def check(match, source, **options):
        with pytest.raises(InputError, match=match) as caught:
            packed(source, **options)
        assert "\n" not in str(caught.value)

    return check


@pytest.fixture
def quiet(capfd):
    """Nothing is printed and no warning given, by Pillow's libraries neither."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert capfd.readouterr() == ("", "")


def reasons(result):
    return dict(result.meta["skipped"])


def content(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


# formats and modes


def test_every_format_and_mode_that_pillow_writes(tmp_path, packed, quiet):
    """All in one folder, which also holds a good image."""
    names = {key: f"{number}{corpus.suffix(key[0])}" for number, key in enumerate(FILES)}
    (tmp_path / "in").mkdir()
    for key, name in names.items():
        (tmp_path / "in" / name).write_bytes(FILES[key])
    write(tmp_path / "in/9999.png", GOOD)
    result = packed(tmp_path / "in", size=(corpus.SIDE, corpus.SIDE), channels=3)
    to_read = [key for key in FILES if key[0] not in corpus.NOT_READ]
    assert len(to_read) > 120
    assert len(result) == len(to_read) + 1 - len(reasons(result))
    assert set(reasons(result)) <= {names["ICNS", "P"], names["SPIDER", "I"], names["SPIDER", "I;16"]}


@pytest.mark.parametrize("file_format", [*corpus.EXACT, *corpus.LOSSY])
def test_what_can_be_read_is_read_right(tmp_path, packed, quiet, file_format):
    modes = (corpus.EXACT.get(file_format) or corpus.LOSSY[file_format]).split()
    (tmp_path / "in").mkdir()
    for number, mode in enumerate(modes):
        (tmp_path / f"in/{number}{corpus.suffix(file_format)}").write_bytes(FILES[file_format, mode])
    result = packed(tmp_path / "in", channels=3, strict=True)
    assert result.images.shape[2:] == (corpus.SIDE, corpus.SIDE)
    for mode, image in zip(modes, result.images, strict=True):
        error = np.abs(image.transpose(1, 2, 0) - corpus.MODES[mode][1])
        if file_format in corpus.LOSSY:
            assert error.mean() <= 3, mode
        else:
            assert error.max() <= (3 if mode == "YCbCr" else 1), mode


def test_formats_that_are_no_pixels_are_not_opened(tmp_path, packed, refused):
    for number, (key, raw) in enumerate(FILES.items()):
        if key[0] in corpus.NOT_READ:
            path = tmp_path / f"in/{number}.png"  # a name that is looked into
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(raw)
    assert len(list((tmp_path / "in").iterdir())) > 5
    refused("holds no readable image: .*not an image that Pillow can read", tmp_path / "in")


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_the_first_frame_of_what_moves(tmp_path, packed, quiet, file_format):
    frames = [Image.fromarray(np.full((8, 8, 3), grey, np.uint8)) for grey in (40, 120, 200)]
    path = tmp_path / f"in/a{corpus.suffix(file_format)}"
    path.parent.mkdir()
    frames[0].save(path, file_format, save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.abs(packed(path.parent).images.astype(int) - 40).max() <= 2


def test_the_content_decides_not_the_suffix(tmp_path, packed):
    (tmp_path / "in").mkdir()
    jpeg = content(Image.fromarray(corpus.RGB), "JPEG", quality=95)
    (tmp_path / "in/a.png").write_bytes(jpeg)
    (tmp_path / "in/b.jpg").write_bytes(content(Image.fromarray(corpus.RGB)))
    (tmp_path / "in/c.PnG").write_bytes(content(Image.fromarray(corpus.RGB), "TIFF"))
    (tmp_path / "in/d.txt").write_bytes(jpeg)  # says that it is no image
    (tmp_path / "in/e.png").write_bytes(gzip.compress(jpeg))
    (tmp_path / "in/f.png").mkdir()
    result = packed(tmp_path / "in")
    assert np.abs(result.images[0].transpose(1, 2, 0) - corpus.RGB.astype(int)).mean() < 3
    for image in result.images[1:]:
        assert np.array_equal(image.transpose(1, 2, 0), corpus.RGB)
    assert len(result) == 3
    assert list(reasons(result)) == ["e.png"]
    assert any("Ignored 1 other file (.txt)" in note for note in result.notes)


@pytest.mark.parametrize("profile", [b"", b"no profile at all", bytes(1 << 16)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colour_profiles_leave_the_values_as_they_are_stored(tmp_path, packed, quiet, profile, file_format):
    options = {"quality": 98} if file_format == "JPEG" else {"lossless": True} if file_format == "WEBP" else {}
    path = tmp_path / "in/a.png"
    path.parent.mkdir()
    path.write_bytes(content(Image.fromarray(corpus.RGB), file_format, icc_profile=profile, **options))
    result = packed(path.parent).images[0].transpose(1, 2, 0).astype(int)
    assert np.abs(result - corpus.RGB).mean() <= (3 if file_format == "JPEG" else 0)


# sizes


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_hostile_sizes(tmp_path, packed, quiet, fit, channels):
    shapes = [(1, 1), (1, 10_000), (20_000, 1), (2, 3), (1, 2), (5000, 2)]
    (tmp_path / "in").mkdir()
    for number, (height, width) in enumerate(shapes):
        for kind, image in (("L", 0), ("RGB", 1), ("LA", 2), ("RGBA", 3)):
            Image.new(kind, (width, height), 0 if kind == "L" else (7,) * len(kind)).save(
                tmp_path / f"in/{number}{image}.png"
            )
        Image.fromarray(np.zeros((height, width), np.uint16)).save(tmp_path / f"in/{number}4.png")
    (tmp_path / "in/empty.png").write_bytes(b"")
    result = packed(tmp_path / "in", size=(8, 5), fit=fit, channels=channels)
    assert result.images.shape == (30, channels, 8, 5)
    assert reasons(result) == {"empty.png": "not an image that Pillow can read"}


def test_sizes_that_have_nothing_in_common(tmp_path, packed):
    for number, (height, width) in enumerate([(1, 10_000), (20_000, 1), (1, 1)]):
        write(tmp_path / f"in/{number}.png", np.full((height, width), 9, np.uint8))
    result = packed(tmp_path / "in")
    assert result.images.ravel().tolist() == [9, 9, 9]


def png(width, height, depth=8, kind=0, data=b"", extra=b""):
    """A PNG of any announced size."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def text_bomb(name, start):
    """64 MB in a compressed chunk."""
    body = start + zlib.compress(bytes(1 << 26), 1)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def bombs():
    """Images in a few kilobytes that announce gigabytes, or hold many megabytes."""
    tag = struct.Struct("<HHII")
    sides = struct.pack(">8I", *[2**31] * 2, 0, 0, *[2**31] * 2, 0, 0)
    return {
        "wide.png": png(2**31 - 1, 2**31 - 1),
        "large.png": png(60_000, 60_000, 16, 6),
        "just.png": png(13370, 13370, 16),  # as many as Pillow decodes; there are none in it
        "full.png": png(1, 10_000_000, 16, data=bytes(30_000_000)),  # there are
        "wide.bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "wide.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";",
        "wide.ppm": b"P6 100000 100000 255\n",
        "wide.tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65535, 65535, 32, 0),
        "wide.tif": b"II*\0\x08\0\0\0\x02\0" + tag.pack(256, 4, 1, 2**31) + tag.pack(257, 4, 1, 2**31) + bytes(4),
        "wide.webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6 + b"VP8L\0\0\0\0",
        "wide.qoi": b"qoif" + struct.pack(">IIBB", 2**32 - 1, 2**32 - 1, 4, 0),
        "wide.jp2": b"\xff\x4f\xff\x51\0\x29\0\0" + sides + b"\0\1\7\1\1",
        "text.png": png(4, 4, data=bytes(20), extra=text_bomb(b"zTXt", b"x\0\0")),
        "words.png": png(4, 4, data=bytes(20), extra=text_bomb(b"iTXt", b"x\0\1\0\0\0")),
        "profile.png": png(4, 4, data=bytes(20), extra=text_bomb(b"iCCP", b"p\0\0")),
    }


def test_decompression_bombs_in_images(tmp_path, packed, quiet):
    (tmp_path / "in").mkdir()
    for name, raw in bombs().items():
        (tmp_path / "in" / name).write_bytes(raw)
        assert len(raw) < 400_000
    write(tmp_path / "in/good.png", GOOD)

    def work():
        result = packed(tmp_path / "in", size=(4, 4))
        assert "good.png" not in reasons(result)
        assert {name for name in bombs() if "wide" in name or name in ("large.png", "just.png")} <= set(reasons(result))
        assert all(len(reason.splitlines()) == 1 for reason in reasons(result).values())

    assert peak(work) < 900  # one of 179 million pixels of 16 bits, and what comes of it


def test_bombs_in_archives(tmp_path, packed, refused, monkeypatch):
    for module in (images, tars):
        monkeypatch.setattr(module, "MAX_FILE_BYTES", 8 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("good.png", content(Image.fromarray(GOOD)))
        archive.writestr("bomb.png", bytes(128 << 20))
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", compresslevel=1) as archive:
        add(archive, "good.png", content(Image.fromarray(GOOD)))
        add(archive, "bomb.png", bytes(128 << 20))
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 128 << 20
    facts = tarfile.TarInfo("facts")
    facts.type, facts.size = tarfile.XHDTYPE, 128 << 20
    for kind, member in (("name", name), ("facts", facts)):
        with gzip.open(tmp_path / f"{kind}.tar.gz", "wb", compresslevel=1) as file:
            file.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(128 << 20))
    (tmp_path / "zeros.tar.gz").write_bytes(gzip.compress(bytes(128 << 20), 1))

    def work():
        for archive in ("x.zip", "x.tar.gz"):
            result = packed(tmp_path / archive)
            assert reasons(result) == {"bomb.png": "128 MiB is too large for an image file"}
            assert np.array_equal(result.images[0], GOOD.transpose(2, 0, 1))
        for kind in ("name", "facts"):
            refused("damaged or cut short: a name or comment of 134,217,728 bytes", tmp_path / f"{kind}.tar.gz")
        refused("holds no image: it is empty", tmp_path / "zeros.tar.gz")

    assert peak(work) < 60


def add(archive, name, raw=b"", kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(raw), kind, target
    archive.addfile(member, io.BytesIO(raw))


def array_header(*shape):
    np.lib.format.write_array_header_1_0(head := io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": shape})
    return head.getvalue()


def test_bombs_in_arrays(tmp_path, refused, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("images.npy", array_header(128, 1024, 1024) + bytes(128 << 20))
    monkeypatch.setattr("bytepixels.data.sources.arrays.free_memory", lambda: 2e8)
    match = "a.npz needs 0.1 GB of memory when unpacked, of 0.2 GB that are free; save its images as .npy"
    assert peak(lambda: refused(match, tmp_path / "a.npz")) < 60
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("images.npy", array_header(10**6, 10**6, 10**6))
    refused("b.npz is no readable array file: ", tmp_path / "b.npz")
    (tmp_path / "c.npy").write_bytes(array_header(10**6, 10**6, 10**6))
    refused("c.npy is no readable array file: ", tmp_path / "c.npy")


def test_floats_are_scaled_one_image_at_a_time(tmp_path, packed):
    path = tmp_path / "a.npy"
    images = np.lib.format.open_memmap(path, "w+", np.float32, (64, 512, 512))
    images[:] = (np.arange(64) / 63)[:, None, None]
    del images
    assert peak(lambda: packed(path, size=(4, 4))) < 100  # of which the pages of the map are 64
    expected = np.round(255 * np.arange(64) / 63)
    assert np.array_equal(
        packed(path, size=(4, 4)).images, np.broadcast_to(expected[:, None, None, None], (64, 1, 4, 4))
    )


# what leads outside


@pytest.fixture
def secret(tmp_path):
    """An image outside, which no archive may bring in; and a look at whether anything was written outside."""
    outside = write(tmp_path / "outside/secret.png", colours(1, 4, 4, seed=99)[0])
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    yield outside
    after = {path: path.read_bytes() for path in sorted((tmp_path / "outside").rglob("*")) if path.is_file()}
    assert {path: raw for path, raw in before.items() if path in after} == after


def test_names_and_links_in_archives_lead_nowhere(tmp_path, packed, secret):
    names = ["../a.png", "/b.png", "x/../../c.png", "C:\\d.png", "x\\..\\e.png", "//host/f.png", "~/g.png", "./h.png"]
    pixels = dict(zip(names, colours(len(names), 4, 4), strict=True))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, one in pixels.items():
            archive.writestr(name, content(Image.fromarray(one)))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, one in pixels.items():
            add(archive, name, content(Image.fromarray(one)))
        for number, target in enumerate([str(secret), "../outside/secret.png", "link1.png", "b.png", "/dev/zero"]):
            add(archive, f"link{number}.png", kind=tarfile.SYMTYPE, target=target)
            add(archive, f"hard{number}.png", kind=tarfile.LNKTYPE, target=target)
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE):
            add(archive, f"device{kind[0]}.png", kind=kind)
        add(archive, "folder.png", kind=tarfile.DIRTYPE)
    for name in ("x.zip", "x.tar"):
        result = packed(tmp_path / name)
        assert sorted(map(bytes, result.images)) == sorted(
            bytes(one.transpose(2, 0, 1).copy()) for one in pixels.values()
        )
    assert "Ignored 10 links in the archive." in result.notes


def test_links_and_devices_in_a_folder(tmp_path, packed, refused):
    root = tmp_path / "in"
    made = write_all(root, ["a/1.png", "b/1.png"])
    os.symlink(root, root / "a/up")
    os.symlink(root / "b", root / "a/across")
    os.symlink("self.png", root / "self.png")
    os.symlink("two.png", root / "one.png")
    os.symlink("one.png", root / "two.png")
    os.symlink("1.png/x.png", root / "a/through.png")
    os.symlink("/dev/zero", root / "zero.png")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(root / "s.png"))
    result = packed(root)
    assert sorted(map(bytes, result.images)) == sorted(map(bytes, stacked(made, made)))
    refused("pipe.png is neither a file nor a folder", root / "pipe.png")
    refused("zero.png is neither a file nor a folder", root / "zero.png")
    refused("s.png is neither a file nor a folder", root / "s.png")
    refused("is no file, no folder", root / "self.png")
    os.symlink("loop", tmp_path / "loop")
    refused("is no file, no folder", tmp_path / "loop")
    refused("is no file, no folder", root / "a/1.png" / "b.png")
    refused("cannot be read: File name too long", root / ("x" * 300))


# names

SCRIPTS = "Ünïcödé кошка 猫 قطة חתול แมว बिल्ली 🐈\u200d⬛ ﬁ e\u0301 \u202etxt %s{} '\"`$(x) -n".split()
LONG = ["x" * 251, "猫" * 83, "🐈" * 62]  # with .png up to 255 bytes
ODD = ["new\nline", "tab\tbell\a", "escape\x1b[31m", "*?", "#", " ", "a b", "a.b.c", "nul", "COM1", "\x7f", "\u2028"]
NO_UTF8 = [b"\xff\xfe", b"caf\xe9", b"\xf0\x9f", b"\x80" * 251]


def named_images(folder, names):
    """{file name as bytes: pixels}, one image each."""
    folder.mkdir(parents=True)
    made = {}
    for name, pixels in zip(names, colours(len(names), 4, 4), strict=True):
        raw = (name.encode() if isinstance(name, str) else name) + b".png"
        with open(os.fsencode(folder) + b"/" + raw, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
        made[raw] = pixels
    return made


def test_names_in_any_script_and_in_none(tmp_path, packed, quiet):
    made = named_images(tmp_path / "in", [*SCRIPTS, *LONG, *ODD, *NO_UTF8])
    expected = sorted(bytes(pixels.transpose(2, 0, 1).copy()) for pixels in made.values())
    for source in (
        tmp_path / "in",
        as_tar(tmp_path / "in", tmp_path / "x.tar"),
        as_tar(tmp_path / "in", tmp_path / "x.tar.gz"),
    ):
        result = packed(source)
        assert sorted(map(bytes, result.images)) == expected
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in [*SCRIPTS, *LONG, *ODD]:
            archive.writestr(f"{name}.png", content(Image.fromarray(made[f"{name}.png".encode()])))
    assert len(packed(tmp_path / "x.zip")) == len(made) - len(NO_UTF8)


def test_classes_with_such_names_have_one_line_each_and_stay_apart(tmp_path, packed):
    names = [*SCRIPTS, *ODD, b"\xff", b"\xfe"]
    for name in names:
        named_images(tmp_path / "in" / os.fsdecode(name), ["1"])
    result = packed(tmp_path / "in")
    assert len(set(result.classes)) == len(result.classes) == len(names)
    assert {"猫", "बिल्ली", "🐈\u200d⬛", " "} <= set(result.classes)
    assert {"new\\nline", "escape\\x1b[31m", "\\xff", "\\xfe", "\\u202etxt"} <= set(result.classes)
    for text in (*result.classes, *result.notes):
        assert len(text.splitlines()) == 1
        text.encode()  # can be printed


def test_what_cannot_be_read_is_named_on_one_line(tmp_path, packed):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate([*ODD[:3], *NO_UTF8[:2]]):
        path = os.fsencode(folder) + f"/{number}".encode() + (name if isinstance(name, bytes) else name.encode())
        with open(path + b".png", "wb") as file:
            file.write(b"no image")
    write(folder / "good.png", GOOD)
    note = next(note for note in packed(folder).notes if note.startswith("Skipped"))
    assert "0new\\nline.png (not an image that Pillow can read), 1tab\\tbell\\x07.png" in note
    assert "2escape\\x1b[31m.png" in note
    assert "4caf\\xe9.png" in note
    with pytest.raises(InputError) as caught:
        packed(folder, strict=True)
    assert len(str(caught.value).splitlines()) == 1


def test_such_names_on_a_command_line_that_prints_ascii_only(tmp_path):
    source = os.fsencode(tmp_path) + b"/caf\xe9 \xe7\x8c\xab\n"
    for name in ("\xff猫", "c\nd"):
        named_images(tmp_path / os.fsdecode(os.path.basename(source)) / name, ["1"])
    command = [sys.executable, "-m", "bytepixels", "show", source, "--out", tmp_path / "猫", "--columns", "2"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=600)
    assert done.returncode == 0, done.stderr
    assert b"2 classes from the subfolders: c\\nd, " in done.stdout

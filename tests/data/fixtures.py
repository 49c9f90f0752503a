"""Images on disk for the tests of sources and packing."""

import gzip
import io
import multiprocessing
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

FORK = multiprocessing.get_context("fork")  # a fresh process would import torch for seconds
TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tar.xz": "w:xz", ".tar.bz2": "w:bz2"}


def colours(count, height=6, width=6, seed=0):
    """Images that differ from each other: uint8 [N, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_all(root, names, **options):
    """One image per name; returns {name: uint8 [H, W, 3]}."""
    images = dict(zip(names, colours(len(names), **options), strict=True))
    for name, pixels in images.items():
        write(root / name, pixels)
    return images


def stacked(images, names):
    """What `pack` should hold for these names: uint8 [N, 3, H, W]."""
    return np.stack([images[name] for name in names]).transpose(0, 3, 1, 2)


def files_below(root):
    return [path for path in sorted(root.rglob("*"), reverse=True) if path.is_file()]  # not the order of packing


def as_zip(root, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in files_below(root):
            archive.write(file, prefix + file.relative_to(root).as_posix())
    return path


def as_tar(root, path, prefix=""):
    with tarfile.open(path, TAR_MODES["." + path.name.split(".", 1)[1]]) as archive:
        for file in files_below(root):
            archive.add(file, prefix + file.relative_to(root).as_posix())
    return path


def tar_of(path, contents):
    """A .tar.gz of {name: bytes}."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def idx(path, array):
    """MNIST's format: 0, 0, type, number of axes, big-endian lengths, bytes."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def python2_pickle(data, labels):
    """The very opcodes of CIFAR-10's batches, which Python 2 wrote: its strings are bytes, its arrays carry one."""

    def text(content):
        return (
            b"U" + bytes([len(content)]) + content
            if len(content) < 256
            else b"T" + struct.pack("<i", len(content)) + content
        )

    number = b"".join(b"K" + bytes([label]) for label in labels)
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"J" + struct.pack("<i", data.shape[0]) + b"J" + struct.pack("<i", data.shape[1]) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    pairs = text(b"batch_label") + text(b"a batch") + text(b"labels") + b"](" + number + b"e" + text(b"data") + array
    return b"\x80\x02}(" + pairs + b"u."


def python3_pickle(data, labels):
    return pickle.dumps({"data": data, "labels": labels.tolist() if hasattr(labels, "tolist") else labels}, protocol=2)


def cifar(path, images, labels, dump=python2_pickle):
    """Six batches as in cifar-10-python.tar.gz; images: uint8 [12, 32, 32, 3]."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    batches = {
        f"cifar-10-batches-py/{name}": dump(flat[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2])
        for i, name in enumerate(names)
    }
    order = sorted(batches, reverse=True)  # the real archive is not in order, either
    return tar_of(path, {"cifar-10-batches-py/readme.html": b"<p>", **{name: batches[name] for name in order}})


def unpack(archive: Path, folder: Path):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from 3.11.4 on
    return folder


def peak(work):
    """MB that `work()` needs at most, in a process of its own."""
    results = FORK.SimpleQueue()

    def child():
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # forget the peak that came before the fork
        before = resident("VmRSS")
        work()
        results.put(resident("VmHWM") - before)

    process = FORK.Process(target=child)
    process.start()
    process.join(600)
    assert process.exitcode == 0
    return results.get()


def resident(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith(kind))

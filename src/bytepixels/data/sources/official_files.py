"""Read the official files of CIFAR-10 (pickles in a tar) and MNIST (idx) without executing or trusting them."""

import codecs
import gzip
import io
import math
import pickle
import posixpath
import struct
import zlib
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...memory import free_memory
from .source import ImageList, array_images
from .tar import read_tar

CIFAR_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
TWO_SPLITS = ("train", "test", "all")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NUMBERS = ("u1", "i1", "i2", "i4", "i8")  # what CIFAR's arrays may hold


class _Dtype:
    """A stand-in for numpy.dtype, which would trust the state in a pickle, pointers included."""

    def __init__(self, kind: str, *_: object):
        if kind not in _NUMBERS:
            raise pickle.UnpicklingError(f"it asks for an array of {kind!r}")
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A stand-in for numpy.ndarray: exactly the bytes that are there, in the requested shape."""

    def __init__(self, *_: object):
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote it
        self.array = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if fortran else "C")


# All that an array of numbers needs; numpy moved its module in 2.0, and both names stand in files.
_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): codecs.encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles dicts, lists, numbers, strings and numeric arrays; refuses anything that could run code.

    numpy's own classes are not among them: their __setstate__ takes a crafted pickle's word and crashes, or worse.
    """

    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return _ALLOWED[module, name]


def _numbers(value: object, kind: type) -> np.ndarray:
    return np.asarray(value.array if isinstance(value, _Array) else value, kind)


def read_cifar(path: Path, split: str) -> ImageList:
    """Read CIFAR-10's python version, a .tar.gz or its unpacked folder: 32 x 32 RGB, 10 classes."""
    wanted = [batch for name, batches in CIFAR_BATCHES.items() if split in (name, "all") for batch in batches]
    try:
        contents = _batches(path, wanted)
        batches = [_unpickled(contents[name]) for name in wanted if name in contents]
        images, labels = map(np.concatenate, zip(*batches, strict=True))
        if len(images) != len(labels) or not 0 <= labels.min() <= labels.max() < len(CIFAR_CLASSES):
            raise ValueError(f"{len(images)} images with {len(labels)} labels in {labels.min()}..{labels.max()}")
    except InputError:
        raise
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is no readable CIFAR-10 archive: {error}") from error
    except Exception as error:  # a pickle that is none may raise nearly anything
        raise InputError(f"{path} is no CIFAR-10 archive, its batches do not hold data and labels: {error}") from error
    note = f"Packed {', '.join(wanted)}."
    return array_images(images.transpose(0, 2, 3, 1), labels=labels, classes=CIFAR_CLASSES, notes=(note,))


def _unpickled(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read one batch: images uint8 [N, 3, 32, 32], labels int64 [N]."""
    batch = _ArrayUnpickler(io.BytesIO(raw), encoding="latin1").load()
    return _numbers(batch["data"], np.uint8).reshape(-1, 3, 32, 32), _numbers(batch["labels"], np.int64).reshape(-1)


def _batches(path: Path, wanted: list[str]) -> dict[str, bytes]:
    """The wanted batches by name, wherever they lie in the archive."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in wanted if (path / name).is_file()}
    members = read_tar(path, lambda number, member: posixpath.basename(member.name) in wanted)
    return {posixpath.basename(member.name): content for _, member, content in members}


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of bytes, gzipped or not: uint8 with the given number of axes."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes([0, 0, 8, dimensions]):  # 8: unsigned bytes
                raise InputError(f"{path} is no idx file of bytes with {dimensions} axes")
            shape = list(struct.unpack(f">{dimensions}I", head[4:]))
            size = math.prod(shape)
            if size > free_memory() / 2:
                raise InputError(f"{path} is damaged: it announces {size / 1e9:,.1f} GB of images")
            values = np.frombuffer(file.read(size + 1), np.uint8)  # one more, to see that this is all
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged or cut short: {error}") from error
    if values.size != size or not size:
        raise InputError(f"{path} is damaged or cut short: {values.size:,} values for shape {shape}")
    return values.reshape(shape)

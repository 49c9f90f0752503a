"""Open known data sets by name or from their official files: digits, CIFAR-10, MNIST, Fashion-MNIST."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...errors import InputError, check_choice
from .official_files import CIFAR_BATCHES, TWO_SPLITS, read_cifar, read_idx
from .source import ImageList, Source, array_images, file_key, only_split

NAMED = ("digits", "cifar10", "mnist", "fashion-mnist")
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_FILE = ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")
_IDX_URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
_IDX_FILES = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_FASHION_LABELS = {md5 for file, md5 in _IDX_FILES["fashion-mnist"].items() if "labels" in file}
_IDX_IMAGES = re.compile(r"(.*)images[-.]idx3-ubyte(\.gz)?")


def open_named(name: str, split: str, cache: Path) -> Source:
    """Open one of NAMED; all but digits (part of scikit-learn) are downloaded once and verified."""
    if name == "digits":
        only_split(name, split)
        return Source(name, "scikit-learn digits", _read_digits)
    folder = cache / "downloads" / name
    check_choice("split", split, TWO_SPLITS)
    if name == "cifar10":
        file, md5 = _CIFAR_FILE
        return Source(name, md5, lambda: read_cifar(_fetch(name, _CIFAR_URL, file, md5, folder), split))
    prefixes = {"train": "train", "test": "t10k", "all": ""}
    files = {file: md5 for file, md5 in _IDX_FILES[name].items() if file.startswith(prefixes[split])}

    def read() -> ImageList:
        paths = [_fetch(name, _IDX_URLS[name], file, md5, folder) for file, md5 in files.items()]
        return _read_idx_pairs(_pairs_of_split(paths, split))

    return Source(name, " ".join(files.values()), read)


def open_official(path: Path, split: str) -> Source | None:
    """Open CIFAR-10's unpacked folder or MNIST's idx files at a path; None for anything else."""
    if path.is_dir() and (path / CIFAR_BATCHES["test"][0]).is_file():
        check_choice("split", split, TWO_SPLITS)
        files = [path / batch for batches in CIFAR_BATCHES.values() for batch in batches if (path / batch).is_file()]
        return Source(str(path), file_key(*files), lambda: read_cifar(path, split))
    if path.is_file() and _IDX_IMAGES.fullmatch(path.name):
        pairs = [(path, _labels_beside(path))]
    elif path.is_dir() and (images := [entry for entry in sorted(path.iterdir()) if _IDX_IMAGES.fullmatch(entry.name)]):
        pairs = _pairs_of_split(images, check_choice("split", split, TWO_SPLITS))
    else:
        return None
    key = file_key(*(file for pair in pairs for file in pair if file))
    return Source(str(path), key, lambda: _read_idx_pairs(pairs))


def _pairs_of_split(files: list[Path], split: str) -> list[tuple[Path, Path | None]]:
    """The image files of the split, each with its labels; a plain file and its .gz twin count once."""
    images = {match[1]: file for file in files if (match := _IDX_IMAGES.fullmatch(file.name))}
    is_test = {file: "t10k" in prefix or "test" in prefix for prefix, file in images.items()}
    kept = [file for file, test in is_test.items() if split == "all" or test == (split == "test")]
    if not kept:
        found = ", ".join(file.name for file in is_test)
        raise InputError(f"{files[0].parent} has no idx file of the {split} split, only {found}")
    return [(file, _labels_beside(file)) for file in sorted(kept, reverse=True)]


def _labels_beside(images: Path) -> Path | None:
    stem = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    return next((file for file in (images.with_name(stem), images.with_name(stem + ".gz")) if file.is_file()), None)


def _read_idx_pairs(pairs: list[tuple[Path, Path | None]]) -> ImageList:
    images = np.concatenate([read_idx(file, 3) for file, _ in pairs])
    label_files = [file for _, file in pairs if file]
    notes = (f"Packed {' and '.join(file.name for file, _ in pairs)}.",)
    if len(label_files) < len(pairs):
        return array_images(images, notes=(*notes, "No labels file lies beside it: packed without class labels."))
    labels = np.concatenate([read_idx(file, 1) for file in label_files]).astype(np.int64)
    if len(labels) != len(images):
        raise InputError(f"{pairs[0][1]} holds {len(labels):,} labels for {len(images):,} images")
    fashion = hashlib.md5(label_files[0].read_bytes()).hexdigest() in _FASHION_LABELS
    names = _FASHION if fashion else tuple(str(value) for value in range(int(labels.max()) + 1))
    return array_images(images, labels=labels, classes=names, notes=notes)


def _read_digits() -> ImageList:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return array_images(images, labels=digits.target.astype(np.int64), classes=tuple("0123456789"))


def _fetch(name: str, url: str, file: str, md5: str, folder: Path) -> Path:
    """Return the verified file in `folder`, downloading it if necessary."""
    import pooch

    retrieve: Callable[..., str] = pooch.retrieve
    try:
        return Path(retrieve(url + file, known_hash=f"md5:{md5}", fname=file, path=folder))
    except Exception as error:  # requests, urllib3, OSError, ValueError on a wrong checksum: no common ancestor
        raise InputError(
            f"{name} could not be downloaded from {url}{file} ({type(error).__name__}); "
            f"put {file} into {folder} by hand, or give its path as the source"
        ) from error

"""Find duplicate images: exact ones, and near ones (recompressed, resized, mirrored, slightly brighter).

An image is known by 64 bits: the signs of the lowest frequencies of its grey thumbnail (a discrete cosine transform,
as in the perceptual hashes of Zauner 2010). Two images are nearly the same when at most 7 bits differ and their
colour thumbnails of 8 x 8 correlate by at least 0.95, one of them mirrored or not. Hashes that differ in at most 7 bits
share one of their 8 bytes, so only images that share a byte are compared.

Groups of images are int64 [N]: of each image, the first one of its group.
"""

from collections.abc import Iterator

import numpy as np
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .survey import THUMB

BITS = 64
NEAR_BITS = 7  # the most that may differ, one less than there are bytes
NEAR_CORRELATION = 0.95
FAINT = 0.1  # of the frequencies' root mean square: what is not above it is minus, as its sign would be chance
FLAT = 1.0  # grey levels of contrast, below which a thumbnail has no shape
PAIRS = 1 << 21  # of hashes that are compared at a time
CHUNK = 1 << 12  # thumbnails, or pairs of them, in floating point at a time
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
WAVES = sorted(((y, x) for y in range(THUMB) for x in range(THUMB)), key=lambda wave: (sum(wave), wave))
DOWN, ACROSS = np.array(WAVES[1 : BITS + 1]).T  # the lowest frequencies but the mean


def equal_images(digests: list[bytes]) -> np.ndarray:
    """Groups of images that are equal pixel for pixel."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, k) for k, digest in enumerate(digests)], np.int64)


def near_copies(equal: np.ndarray, thumbs: np.ndarray) -> np.ndarray:
    """Groups of images that are equal or linked by a chain of near duplicates.

    equal: the groups of those that are equal; thumbs: uint8 [N, 3, 16, 16], of the whole image.
    """
    parts = [fingerprints(thumbs[k : k + CHUNK]) for k in range(0, max(1, len(thumbs)), CHUNK)]
    return near_groups(equal, *map(np.concatenate, zip(*parts, strict=True)))


def fingerprints(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of images uint8 [N, 3, 16, 16] and of their mirror images, and thumbnails uint8 [N, 3, 8, 8]."""
    squares = thumbs.reshape(-1, 3, THUMB // 2, 2, THUMB // 2, 2)
    small = np.round(squares.mean(axis=(3, 5), dtype=np.float32)).astype(np.uint8)
    return perceptual_hash(thumbs), perceptual_hash(thumbs[..., ::-1]), small


def perceptual_hash(thumbs: np.ndarray) -> np.ndarray:
    """The perceptual hash of images uint8 [N, 3, 16, 16]: int8 [N, 64], each -1 or 1."""
    grey = np.einsum("nchw,c->nhw", thumbs.astype(np.float32), LUMA)
    waves = dctn(grey, axes=(1, 2))[:, DOWN, ACROSS]  # [N, 64]
    faint = FAINT * np.sqrt(np.square(waves).mean(axis=1, keepdims=True))
    return np.where(waves > faint, 1, -1).astype(np.int8)


def near_groups(equal: np.ndarray, bits: np.ndarray, mirrored: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Groups of near duplicates from fingerprints: bits and mirrored int8 [N, 64], small uint8 [N, 3, 8, 8]."""
    centred = small - small.mean(axis=(2, 3), keepdims=True, dtype=np.float32)
    length = np.sqrt(np.square(centred).sum(axis=(1, 2, 3)))
    shapes = centred / np.maximum(length, 1e-6)[:, None, None, None]
    has_shape = length >= FLAT * np.sqrt(np.prod(small.shape[1:]))
    chosen = np.flatnonzero((equal == np.arange(len(equal))) & has_shape)
    both = np.concatenate([bits[chosen], mirrored[chosen]])  # the mirror image of chosen[k] is n + k
    groups, n = equal.copy(), len(chosen)
    for rows, others in _blocks(both, n):
        own, theirs = groups[chosen[rows]], groups[chosen[others % n]]
        if (theirs == own[0]).all():
            continue
        agree = both[rows].astype(np.float32) @ both[others].astype(np.float32).T  # equal bits less unequal ones
        pairs = np.flatnonzero((agree >= BITS - 2 * NEAR_BITS) & (own[:, None] != theirs))
        i, j = np.divmod(pairs, len(others))
        one, other, turned = chosen[rows[i]], chosen[others[j] % n], others[j] >= n
        near = _correlations(shapes, one, other, turned) >= NEAR_CORRELATION
        if near.any():
            groups = joined(groups, one[near], other[near])
    return groups


def _blocks(both: np.ndarray, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidate pairs (rows, others) whose hashes share a byte; both are [2n, 64], of the first n and of all.

    A byte is every eighth bit: low frequencies and high ones, of which the latter alone are the same in smooth images.
    """
    for byte in np.packbits(both.reshape(-1, 8, 8) > 0, axis=1)[:, 0].T:
        order = np.argsort(byte, kind="stable")
        for others in np.split(order, np.flatnonzero(np.diff(byte[order])) + 1):
            originals, step = others[others < n], max(1, PAIRS // max(1, len(others)))
            yield from ((originals[k : k + step], others) for k in range(0, len(originals), step))


def _correlations(shapes: np.ndarray, one: np.ndarray, other: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Correlation of each pair of images, the second one mirrored where `turned`: float32 [P]."""
    found = np.empty(len(one), np.float32)
    for start in range(0, len(one), CHUNK):
        part = slice(start, start + CHUNK)
        second = shapes[other[part]]
        second = np.where(turned[part][:, None, None, None], second[..., ::-1], second)
        found[part] = np.einsum("nchw,nchw->n", shapes[one[part]], second)
    return found


def joined(groups: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Merge the group of one[i] with that of other[i], for every i."""
    labels, ends = np.unique(groups[np.stack([one, other])], return_inverse=True)
    edges = ends.reshape(2, -1)
    graph = coo_array((np.ones(len(one)), (edges[0], edges[1])), shape=(len(labels), len(labels)))
    _, part = connected_components(graph, directed=False)
    _, first = np.unique(part, return_index=True)
    renamed = np.arange(len(groups))
    renamed[labels] = labels[first[part]]
    return renamed[groups]


def members(groups: np.ndarray) -> list[np.ndarray]:
    """The groups of two or more images, each in order."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [part for part in parts if len(part) > 1]

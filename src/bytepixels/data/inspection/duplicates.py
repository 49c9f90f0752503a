"""The same image twice: exactly, or nearly so (compressed again, resized, mirrored, a little brighter).

An image is known by 64 bits: the signs of the lowest frequencies of its grey thumbnail (a discrete cosine transform,
as in the perceptual hashes of Zauner 2010). Two images are nearly the same when at most 7 bits differ and their
colour thumbnails of 8 x 8 correlate by at least 0.95, one of them mirrored or not. Hashes that differ in at most 7 bits
share one of their 8 bytes, so only images that share a byte are compared.
"""

from collections.abc import Iterator

import numpy as np

THUMB = 16  # side of the thumbnails that the bits come from
BITS = 64
NEAR_BITS = 7  # the most that may differ, one less than there are bytes
NEAR_CORRELATION = 0.95
FAINT = 0.1  # of the frequencies' root mean square: what is not above it is minus, as its sign would be chance
FLAT = 1.0  # grey levels of contrast, below which a thumbnail has no shape
ROWS, WINDOW = 256, 8192  # how many images are compared at a time, and with how many at most that share a byte
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def fingerprints(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 [N, 3, 16, 16] -> bits int8 [N, 64] (-1 and 1), those of the mirror images, uint8 [N, 3, 8, 8]."""
    grey = np.einsum("nchw,c->nhw", thumbs.astype(np.float32), LUMA)
    basis = _cosines(THUMB)
    spectrum = basis @ grey @ basis.T  # [N, 16, 16]
    down, across = _lowest()
    waves = spectrum[:, down, across]  # [N, 64]
    faint = FAINT * np.sqrt(np.square(waves).mean(axis=1, keepdims=True))
    turned = waves * np.where(across % 2, -1, 1)  # a mirror image has the odd ones across with the other sign
    bits, mirrored = (np.where(w > faint, 1, -1).astype(np.int8) for w in (waves, turned))
    half = THUMB // 2
    small = thumbs.reshape(len(thumbs), 3, half, 2, half, 2).mean(axis=(3, 5), dtype=np.float32)
    return bits, mirrored, np.round(small).astype(np.uint8)


def _cosines(n: int) -> np.ndarray:
    """The discrete cosine transform (type 2) as a matrix [n, n], float32."""
    k, x = np.arange(n)[:, None], np.arange(n)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * n)).astype(np.float32)


def _lowest() -> tuple[np.ndarray, np.ndarray]:
    """The 64 lowest frequencies but the mean: (down, across), int64 [64] each."""
    waves = [(down, across) for down in range(THUMB) for across in range(THUMB)][1:]
    chosen = np.array(sorted(waves, key=lambda wave: (sum(wave), wave))[:BITS])
    return chosen[:, 0], chosen[:, 1]


class Groups:
    """A partition of n images; `of[k]` is the first image of k's group."""

    def __init__(self, n: int):
        self.of = np.arange(n)

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Put the group of a[i] and that of b[i] together, for every i."""
        parent = self.of
        while True:
            one, other = parent[a], parent[b]  # each is the first of its group
            apart = one != other
            if not apart.any():
                return
            a, b = a[apart], b[apart]
            one, other = one[apart], other[apart]
            np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
            while not np.array_equal(shorter := parent[parent], parent):
                parent[:] = shorter

    def members(self) -> list[np.ndarray]:
        """The groups of two or more, each in order, the first one first."""
        order = np.argsort(self.of, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.of[order])) + 1)
        return [part for part in parts if len(part) > 1]


def same(digests: list[bytes]) -> Groups:
    """Groups of images that are equal, pixel for pixel."""
    groups = Groups(len(digests))
    first: dict[bytes, int] = {}
    for k, digest in enumerate(digests):
        groups.of[k] = first.setdefault(digest, k)
    return groups


def nearly_same(exact: Groups, bits: np.ndarray, mirrored: np.ndarray, thumbs: np.ndarray) -> tuple[Groups, bool]:
    """Groups of images that are equal or nearly so, and whether all that share a byte were compared.

    bits, mirrored: int8 [N, 64]; thumbs: uint8 [N, 3, 8, 8]. A group holds whatever a chain of near copies connects.
    """
    shapes, contrast = _shapes(thumbs)
    chosen = np.flatnonzero((exact.of == np.arange(len(exact.of))) & (contrast >= FLAT))
    groups, complete, n = Groups(len(exact.of)), True, len(chosen)
    groups.of = exact.of.copy()
    both = np.concatenate([bits[chosen], mirrored[chosen]])  # the mirror image of chosen[k] is n + k
    keys = np.packbits(both > 0, axis=1)  # [2n, 8]
    for byte, rows, others, whole in _blocks(keys):
        complete &= whole
        one, other = (groups.of[chosen[part % n]] for part in (rows, others))
        if (other == one[0]).all():
            continue
        agree = both[rows].astype(np.float32) @ both[others].astype(np.float32).T  # equal bits less unequal ones
        i, j = np.nonzero((agree >= BITS - 2 * NEAR_BITS) & (one[:, None] != other))
        a, b = rows[i], others[j]
        new = ~(keys[a, :byte] == keys[b, :byte]).any(axis=1)  # else an earlier byte brought them together
        new &= (a < n) | (b < n)  # else it is a pair of mirror images
        a, b = a[new], b[new]
        near = _correlations(shapes, chosen[a % n], chosen[b % n], (a < n) != (b < n)) >= NEAR_CORRELATION
        if near.any():
            groups.join(chosen[a[near] % n], chosen[b[near] % n])
    return groups, complete


def _shapes(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails without each channel's mean, of length 1, float32 [N, 3, 8, 8]; their contrast in grey levels [N]."""
    centred = thumbs - thumbs.mean(axis=(2, 3), keepdims=True, dtype=np.float32)
    length = np.sqrt(np.square(centred).sum(axis=(1, 2, 3)))
    return centred / np.maximum(length, 1e-6)[:, None, None, None], length / np.sqrt(np.prod(thumbs.shape[1:]))


def _correlations(shapes: np.ndarray, one: np.ndarray, other: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Of pairs of images, one of them mirrored where `turned`: float32 [P]."""
    found = np.empty(len(one), np.float32)
    for start in range(0, len(one), 1 << 15):
        part = slice(start, start + (1 << 15))
        second = shapes[other[part]]
        second = np.where(turned[part][:, None, None, None], second[..., ::-1], second)
        found[part] = np.einsum("nchw,nchw->n", shapes[one[part]], second)
    return found


def _blocks(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray, bool]]:
    """(byte, rows, others, whole) for rows of keys uint8 [M, 8] that share this byte with the others; `whole` says
    whether those are all of them that were not compared before, or only the WINDOW most similar ones."""
    for byte in range(keys.shape[1]):
        turned = np.ascontiguousarray(np.roll(keys, -byte, axis=1)).view(">u8")[:, 0]  # similar ones lie side by side
        order = np.argsort(turned, kind="stable")
        ends = np.flatnonzero(np.diff(keys[order, byte])) + 1
        for members in np.split(order, ends):
            for start in range(0, len(members), ROWS):
                others = members[start : start + ROWS + WINDOW]
                yield byte, members[start : start + ROWS], others, start + len(others) == len(members)

"""Pictures that look the same, found without comparing every one with every other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

BITS_APART = 6  # of 64, at most
LEVELS_APART = (2.5, 16)  # of 255 between thumbnails: the mean, and the largest
_SIDE = 8
_FLAT = 2  # grey levels that count as no difference, so that a plain area has one hash


def thumbnail(image: Image.Image) -> np.ndarray:
    """An RGB picture as (8, 8, 3) uint8."""
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX))


def difference_hash(image: Image.Image) -> int:
    """64 bits: whether each of 8 x 8 places is darker than the one to its right (dHash).

    It stays nearly the same when a picture is scaled, compressed or brightened.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX))
    darker = np.diff(grey.astype(np.int16), axis=1) > _FLAT  # (8, 8)
    return int.from_bytes(np.packbits(darker).tobytes(), "big")


def near(hashes: list[int], thumbnails: list[np.ndarray]) -> list[list[int]]:
    """Groups of numbers of pictures that look alike; each pair both by hash and by colour.

    Two hashes that differ in 6 of 64 bits agree in at least one of 8 bytes. So only pictures with a
    byte in common and nearly the same brightness are compared.
    """
    if len(hashes) < 2:
        return []
    codes = np.array(hashes, np.uint64)
    small = np.stack(thumbnails)  # (N, 8, 8, 3)
    brightness = small.mean((1, 2, 3))
    parent = list(range(len(codes)))
    for one, other in _candidates(codes, brightness):
        bits = _count_bits(codes[one] ^ codes[other])
        one, other = one[bits <= BITS_APART], other[bits <= BITS_APART]
        apart = np.abs(small[one].astype(np.int16) - small[other]).reshape(len(one), small[0].size)
        mean, most = LEVELS_APART
        alike = (apart.mean(1) <= mean) & (apart.max(1, initial=0) <= most)
        for a, b in zip(one[alike].tolist(), other[alike].tolist()):
            parent[_root(parent, a)] = _root(parent, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(codes)):
        groups.setdefault(_root(parent, i), []).append(i)
    return sorted(group for group in groups.values() if len(group) > 1)


def _candidates(
    codes: np.ndarray, brightness: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs, as two arrays of numbers, that agree in a byte and nearly in brightness."""
    for shift in range(0, 64, 8):
        part = (codes >> np.uint64(shift)) & np.uint64(255)
        order = np.lexsort((brightness, part))
        part, light = part[order], brightness[order]
        for ahead in range(1, len(order)):
            close = (part[ahead:] == part[:-ahead]) & (
                light[ahead:] - light[:-ahead] <= LEVELS_APART[0]
            )
            if not close.any():
                break
            yield order[:-ahead][close], order[ahead:][close]


def _count_bits(codes: np.ndarray) -> np.ndarray:
    """(N,) uint64 -> how many bits of each are set."""
    return np.unpackbits(codes.view(np.uint8).reshape(len(codes), 8), axis=1).sum(1)


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i

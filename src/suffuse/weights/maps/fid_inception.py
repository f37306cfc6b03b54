"""Inception-v3 as torchvision names its parts; the published FID weights have the same names.

`pt_inception-2015-12-05-6726825d.pth` (pytorch-fid) is the file; the last digits are the beginning
of its SHA-256.
"""

from __future__ import annotations

from suffuse.networks.inception import BLOCKS
from suffuse.weights.mapping import KeyMap, Row

PUBLISHED = "6726825d"
SIGN = "Mixed_5b.branch1x1.conv.weight"  # a name that no other network has

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"branch{name}_{i + 1}" for i in range(count))


_TRIPLE = _numbered("3x3dbl", 3)
_FINE = (("branch1x1",), _numbered("5x5", 2), _TRIPLE)
_CROSSES = (("branch1x1",), _numbered("7x7", 3), _numbered("7x7dbl", 5))
_FORKS = ("branch3x3_1", "branch3x3_2a", "branch3x3_2b")
_LONG_FORKS = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b")
_COARSE = (("branch1x1",), _FORKS, _LONG_FORKS)
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("5b", "5c", "5d"), _FINE),
    "6a": (("branch3x3",), _TRIPLE),
    **dict.fromkeys(("6b", "6c", "6d", "6e"), _CROSSES),
    "7a": (_numbered("3x3", 2), _numbered("7x7x3", 4)),
    **dict.fromkeys(("7b", "7c"), _COARSE),
}


def _convolutions() -> list[tuple[str, str]]:
    """Every convolution by our name and theirs."""
    found = [(f"stem.{i}", name) for i, name in enumerate(_STEM)]
    for i, (block, branches) in enumerate(_NAMES.items()):
        for j, names in enumerate(branches):
            for k, name in enumerate(names):
                found.append((f"mixed.{i}.branches.{j}.{_place(k, name)}", f"Mixed_{block}.{name}"))
        if BLOCKS[block].project is not None:
            found.append((f"mixed.{i}.projection", f"Mixed_{block}.branch_pool"))
    return found


def _place(k: int, name: str) -> str:
    """Where a convolution stands in its branch; arms of a fork end in a and b."""
    if name[-1] not in "ab":
        return str(k)
    arm = "ab".index(name[-1])
    return f"{k - arm}.arms.{arm}"


_LEAVES = (
    ("conv.weight", "conv.weight"),
    ("norm.weight", "bn.weight"),
    ("norm.bias", "bn.bias"),
    ("norm.mean", "bn.running_mean"),
    ("norm.variance", "bn.running_var"),
)

FID_INCEPTION = KeyMap(
    (
        *(Row(f"{a}.{x}", f"{b}.{y}") for a, b in _convolutions() for x, y in _LEAVES),
        Row("head.weight", "fc.weight"),
    ),
    # The bias has no part in any score; the counter is one of training.
    ignore=("fc.bias", *(f"{name}.bn.num_batches_tracked" for _, name in _convolutions())),
)

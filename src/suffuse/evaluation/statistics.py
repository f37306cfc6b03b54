"""Mean and covariance of features, and the .npz files in which they are passed around.

A file has `mu` and `sigma`, as pytorch-fid and clean-fid write them, and `mu_s` and `sigma_s` of
the spatial features, as ADM's reference batches do. Ours say in `network` and `count` what they
were made with, so that they cannot be compared with something else by mistake.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from suffuse.errors import SuffuseError


@dataclass(frozen=True)
class Gaussian:
    """mean (D,) and covariance (D, D), float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Gaussian:
        """Of features (N, D), N at least 2; unbiased."""
        moments = Moments()
        moments.add(features)
        return moments.gaussian()


class Moments:
    """Mean and covariance of what comes in pieces (Chan, Golub and LeVeque 1979, eq. 2.1)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._scatter = torch.zeros((), dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """features (n, D)"""
        x = features.double()
        mean, count = x.mean(0), self.count + len(x)
        rest = x - mean
        apart = mean - self._mean  # of the means, so far and here
        between = torch.outer(apart, apart) * (self.count * len(x) / count)
        self._scatter = self._scatter + rest.T @ rest + between
        self._mean = self._mean + apart * (len(x) / count)
        self.count = count

    def gaussian(self) -> Gaussian:
        """Of everything that came, two rows at least."""
        return Gaussian(self._mean, self._scatter / (self.count - 1))


@dataclass(frozen=True)
class Statistics:
    """What a set of pictures comes down to, for FID and sFID.

    network: the identity of what they were seen by, None where a file does not say
    count: of the pictures, None where a file does not say
    """

    points: Gaussian
    places: Gaussian | None = None
    network: str | None = None
    count: int | None = None

    def save(self, path: Path) -> None:
        """Writes the .npz, whole or not at all. Raises SuffuseError."""
        arrays: dict[str, Any] = _arrays(self.points, "")
        if self.places is not None:
            arrays |= _arrays(self.places, "_s")
        if self.network is not None:
            arrays["network"] = self.network
        if self.count is not None:
            arrays["count"] = self.count
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            with fresh.open("wb") as file:
                np.savez(file, **arrays)
            fresh.replace(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise SuffuseError(f"cannot write '{path}': {error.strerror}") from None

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """What `save` wrote, or another program. Raises SuffuseError."""
        arrays = read_arrays(path, ("mu", "sigma", "mu_s", "sigma_s", "network", "count"))
        points = _gaussian(arrays, "", path)
        if points is None:
            raise SuffuseError(f"'{path}' holds no statistics: they are called mu and sigma")
        network, count = arrays.get("network"), arrays.get("count")
        return cls(
            points,
            _gaussian(arrays, "_s", path),
            None if network is None else str(network),
            None if count is None else int(count),
        )


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an .npz has; never pickled ones. Raises SuffuseError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise SuffuseError(f"'{path}' is one array; an .npz with names was expected")
            return {name: file[name] for name in names if name in file.files}
    except FileNotFoundError:
        raise SuffuseError(f"there is no file '{path}'") from None
    except OSError as error:
        raise SuffuseError(f"cannot read '{path}': {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile, AttributeError) as error:
        line = " ".join(str(error).split())[:120]
        raise SuffuseError(f"'{path}' is no .npz that can be read: {line}") from None


def _arrays(gaussian: Gaussian, ending: str) -> dict[str, Any]:
    mean, covariance = gaussian.mean.numpy(), gaussian.covariance.numpy()
    return {f"mu{ending}": mean, f"sigma{ending}": covariance}


def _gaussian(arrays: dict[str, np.ndarray], ending: str, path: Path) -> Gaussian | None:
    mean, covariance = arrays.get(f"mu{ending}"), arrays.get(f"sigma{ending}")
    if mean is None or covariance is None:
        return None
    fits = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
    if not fits or mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise SuffuseError(
            f"'{path}': mu{ending} {mean.shape} and sigma{ending} {covariance.shape} are no mean "
            "and covariance"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise SuffuseError(f"'{path}': mu{ending} or sigma{ending} has numbers that are not finite")
    return Gaussian(torch.from_numpy(mean).double(), torch.from_numpy(covariance).double())

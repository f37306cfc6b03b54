"""Opens Inception-v3 with the weights that FID is defined by."""

from __future__ import annotations

import hashlib

from suffuse.networks.inception import Inception
from suffuse.weights.maps.fid_inception import FID_INCEPTION, SIGN
from suffuse.weights.parts import Info, Place, build, files_of
from suffuse.weights.tensorfile import TensorFile


def is_inception(file: TensorFile) -> bool:
    """Whether a file holds an Inception-v3, by its names."""
    return SIGN in file


def open_inception(file: TensorFile) -> Inception:
    """The network with the file's weights.

    Raises SuffuseError naming what is missing, unknown or of another shape, as it is of
    torchvision's own weights with their 1000 classes.
    """
    return build(Inception, FID_INCEPTION, file, Place()).requires_grad_(False)


def digest(file: TensorFile) -> str:
    """SHA-256 of what a file's weights lie in, in hex; reads it. Raises SuffuseError."""
    found = Info(file.path.name, file.container, file.path, files_of(file)).hash()
    return found or hashlib.sha256().hexdigest()  # a file without weights

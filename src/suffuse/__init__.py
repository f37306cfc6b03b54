"""Suffuse: a latent-diffusion workbench.

`suffuse.load(path).generate(prompt)` is all most programs need. Names are resolved on first use so
that `import suffuse` costs nothing: torch is imported when a model is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suffuse.systems.clip import Clip, load_clip
    from suffuse.systems.ddpm import DDPM
    from suffuse.systems.latent import LatentDiffusion
    from suffuse.systems.registry import load
    from suffuse.systems.request import Request
    from suffuse.systems.score_sde import ScoreSDE

__version__ = "0.1.0"
__all__ = [
    "Clip",
    "DDPM",
    "LatentDiffusion",
    "Request",
    "ScoreSDE",
    "__version__",
    "load",
    "load_clip",
]

_HOME = {
    "load": "suffuse.systems.registry",
    "load_clip": "suffuse.systems.clip",
    "Clip": "suffuse.systems.clip",
    "DDPM": "suffuse.systems.ddpm",
    "LatentDiffusion": "suffuse.systems.latent",
    "Request": "suffuse.systems.request",
    "ScoreSDE": "suffuse.systems.score_sde",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'suffuse' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

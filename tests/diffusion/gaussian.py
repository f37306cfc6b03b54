"""Gaussian data: the score, and the density of every marginal, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from suffuse.diffusion.prediction import Prediction, eps_to_x0
from suffuse.diffusion.schedule import Level


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Images (B, C, H, W) whose numbers are normal with this mean (D,) and covariance (D, D)."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def correlated(cls, dims: int, spread: float = 0.3, mean: float = 0.0) -> Gaussian:
        """A fixed covariance that no axis is free of."""
        root = torch.randn(dims, dims, generator=torch.Generator().manual_seed(3)).double()
        root = spread * (torch.eye(dims) + root / dims**0.5)
        return cls(torch.full((dims,), mean).double(), root @ root.T)

    def marginal(self, level: Level) -> MultivariateNormal:
        noise = level.sigma.double() ** 2 * torch.eye(len(self.mean)).double()
        return MultivariateNormal(
            level.alpha * self.mean, level.alpha.double() ** 2 * self.covariance + noise
        )

    def denoise(self, x: Tensor, level: Level) -> Prediction:
        """The optimal prediction: `eps = -sigma grad log p_t(x)`."""
        m = self.marginal(level)
        away = (x.flatten(1) - m.mean.to(x)) @ torch.linalg.inv(m.covariance_matrix).to(x)
        eps = (level.sigma * away).reshape(x.shape)
        return Prediction(eps_to_x0(x, eps, level), eps, eps)

"""The losses of stage one against taming's and latent diffusion's values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import deviation
from torch import Tensor
from torch.nn.functional import conv2d

from suffuse.networks.autoencoder import DiagonalGaussian
from suffuse.networks.discriminator import DiscriminatorConfig
from suffuse.training.reconstruction import Critics, Losses, laplacian_loss
from suffuse.weights.perceptual import open_perceptual

GOLDEN = Path(__file__).parents[1] / "parity" / "taming" / "gan_losses"
IO = load_file(GOLDEN / "io.safetensors")
SMALL = DiscriminatorConfig(width=8, layers=2)
VQ = Losses(perceptual=1.0, adversarial=0.75, start=100, discriminator=SMALL)
KL = replace(VQ, reduction="sum", kl=1e-3, logvar=0.2, adversarial=0.5)


def made() -> tuple[Tensor, Tensor]:
    """A picture, and the last layer it came from."""
    last = torch.load(GOLDEN / "last_layer.pt")
    weight = last["weight"].requires_grad_()
    return conv2d(IO["in.h"], weight, last["bias"], padding=1), weight


def critics(losses: Losses) -> Critics:
    found = Critics(losses, open_perceptual(GOLDEN / "perceptual.pt"))
    assert found.discriminator is not None
    found.discriminator.load_state_dict(torch.load(GOLDEN / "discriminator.pt"))
    found.discriminator.eval()
    return found


def agree(numbers: dict[str, Tensor], prefix: str) -> None:
    for name, got in numbers.items():
        assert deviation(got.detach(), IO[f"out.{prefix}.{name}"]) < 1e-5, name


@pytest.mark.parametrize("step", [99, 100])
@pytest.mark.parametrize(("kind", "losses"), [("vq", VQ), ("kl", KL)])
def test_agrees_with_taming(kind, losses, step):
    (image, last), judges = made(), critics(losses)
    terms = judges.terms(image, IO["in.x"])
    nll = judges.nll(image, terms)
    numbers = {"t_nll_loss": nll, "t_rec_loss": terms["l1"] + terms["perceptual"]}
    if kind == "kl":
        kl = DiagonalGaussian.of(IO["in.moments"]).kl().mean()
        regular, numbers["t_kl_loss"] = losses.kl * kl, kl
    else:
        regular, numbers["t_p_loss"] = IO["in.codebook_loss"].mean(), terms["perceptual"]
    push, more = judges.persuade(image, nll, last)
    numbers |= {"t_g_loss": more["adversarial"], "t_d_weight": more["weight"]}
    assert judges.active(step) == (step == 100)
    numbers["loss"] = nll + regular + (push if judges.active(step) else 0)
    agree(numbers, f"{kind}_g_{step}")
    judgement, more = judges.judge(image, IO["in.x"])
    agree({"t_logits_real": more["real"], "t_logits_fake": more["fake"]}, f"{kind}_d_{step}")
    if judges.active(step):
        agree({"loss": judgement, "t_disc_loss": judgement}, f"{kind}_d_{step}")


def test_the_weight_makes_both_pull_alike():
    (image, last), judges = made(), critics(replace(VQ, adversarial=1.0))
    nll = judges.nll(image, judges.terms(image, IO["in.x"]))
    push, _ = judges.persuade(image, nll, last)
    pulls = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (nll, push)]
    assert pulls[1] == pytest.approx(pulls[0].item(), rel=2e-2)  # but for the 1e-4


def test_terms_add_up_by_their_weights():
    image, target = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    judges = critics(replace(VQ, pixels="l2", bands=0.25, perceptual=0.5, style=3.0))
    terms = judges.terms(image, target)
    assert set(terms) == {"l2", "bands", "perceptual", "style"}
    assert torch.allclose(terms["l2"], torch.nn.functional.mse_loss(image, target))
    assert torch.equal(terms["bands"], laplacian_loss(image, target))
    weighted = terms["l2"] + terms["bands"] / 4 + terms["perceptual"] / 2 + 3 * terms["style"]
    assert torch.allclose(judges.nll(image, terms), weighted)
    whole = Critics(Losses(reduction="sum"))
    assert torch.allclose(
        whole.nll(image, whole.terms(image, target)), (image - target).abs().sum((1, 2, 3)).mean()
    )


def test_learned_variance_finds_the_distance():
    """d / v + log v is least at v = d."""
    image, target = torch.rand(2, 2, 3, 8, 8)
    judges = Critics(Losses(logvar=0.0))
    assert judges.logvar is not None
    optimizer = torch.optim.Adam(judges.logvar.parameters(), lr=0.05)
    for _ in range(200):
        terms = judges.terms(image, target)
        optimizer.zero_grad()
        judges.nll(image, terms).backward()
        optimizer.step()
    assert judges.logvar[0].exp().item() == pytest.approx(terms["l1"].item(), rel=1e-2)


def test_a_term_that_compares_needs_a_network():
    with pytest.raises(ValueError, match="compares"):
        Critics(Losses(style=1.0))

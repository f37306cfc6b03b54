"""The classifier of noisy pictures, and guidance by it: closed forms, every sampler, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import deviation, randomise

import suffuse
from suffuse.diffusion.classifier_guidance import gradient
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import diffuse
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError
from suffuse.networks.classifier import Classifier, ClassifierConfig, classifier
from suffuse.networks.pixel import ADMConfig, DDPMConfig, ddpm
from suffuse.systems.classifier import NoisyClassifier, load_classifier
from suffuse.systems.ddpm import DDPM
from suffuse.systems.metadata import Origin, describe
from suffuse.weights.adm import Heads
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.save import save_pixel

FILES = Path(__file__).parents[1] / "parity" / "gd" / "classifier"
NET = ADMConfig(
    out_channels=3, width=32, channels=(32, 64), blocks=1, attends=(False, True), heads=(1, 2)
)
SCHEDULER = {"_class_name": "DDPMScheduler"}


def reader(
    classes: tuple[str, ...] = ("a", "b", "c"), seed: int = 1, **changes: Any
) -> PixelModel[Classifier]:
    """A classifier of random numbers, 8 x 8."""
    net = replace(NET, out_channels=len(classes), **changes)
    config = ClassifierConfig(net, size=8, pool_heads=2)
    made = classifier(config).eval()
    randomise(made, seed)
    return PixelModel(made, config, Info("reader", "test"), None, dict(SCHEDULER), (8, 8), classes)


def drawer(classes: int = 3, **scheduler: Any) -> DDPM:
    """A DDPM of random numbers, 8 x 8."""
    config = DDPMConfig(
        channels=(8, 16), blocks=1, attends=(False, True), heads=(1, 1), groups=4, classes=classes
    )
    net = ddpm(config).eval()
    randomise(net, 5)
    names = ("a", "b", "c")[:classes]
    told = {**SCHEDULER, **scheduler}
    return DDPM(
        PixelModel(net, config, Info("tiny", "t"), None, told, (8, 8), names, Defaults(4, 2.0))
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("classifiers") / "reader"
    save_pixel(reader(), folder)
    return str(folder)


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


@torch.no_grad()
def test_probabilities_and_accuracy_by_level(path: str) -> None:
    judge = load_classifier(path)
    assert judge.model.classes == ("a", "b", "c") and not judge.net.stem.weight.requires_grad
    x0, labels, eps = pictures(4), torch.tensor([0, 1, 2, 0]), torch.randn(4, 3, 8, 8)
    assert judge.schedule is not None
    t = torch.tensor([0, 10, 500, 999])
    level = judge.schedule.at(t)
    logits = judge.net(diffuse(x0, eps, level), t)
    want = logits.softmax(1)[torch.arange(4), labels].log()
    noisy = diffuse(x0, eps, level)
    assert torch.allclose(judge.log_prob(noisy, level, labels), want, atol=1e-5)
    assert torch.allclose(judge.loss(x0, labels, t, eps), -want, atol=1e-5)
    every = torch.tensor([250] * 4), torch.tensor([750] * 4)
    right = [(judge.logits(x0, t, eps).argmax(1) == labels).float().mean() for t in every]
    assert judge.accuracy(x0, labels, eps, levels=2).tolist() == [float(r) for r in right]


@pytest.mark.parametrize("pool", ["adaptive", "attention"])
def test_gradients_of_guided_diffusions_files(pool: str) -> None:
    io = load_file(FILES / "io.safetensors")
    judge = load_classifier(FILES / f"classifier_{pool}.pt", heads=Heads(width=16))
    level = Level(torch.ones(()), torch.ones(()), io["in.t"])
    got = gradient(lambda x, level: judge.log_prob(x, level, io["in.y"]), io["in.x"], level)
    assert deviation(2.5 * got, io[f"out.{pool}_grad"]) < 1e-5
    assert judge.model.classes[:2] == ("0", "1") and judge.schedule is None
    size = judge.model.size
    assert size == ((16, 16) if pool == "attention" else None)
    with pytest.raises(SuffuseError, match="does not tell the schedule of its noise"):
        judge.loss(io["in.x"], io["in.y"], io["in.t"], io["in.x"])


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_guided(name: str, path: str) -> None:
    """`ddpm` shifts its mean, all others the noise; pictures that are more likely come out."""
    system, judge = drawer(), load_classifier(path)
    asked = system.resolve(
        suffuse.Request("b", steps=6, sampler=name, seed=0, guidance=1.0, grid="trailing")
    )
    sampling, grid = system._sampling(asked), system._grid(asked)
    labels = torch.tensor([1, 1, 1]), torch.tensor([-1, -1, -1])

    def run(scale: float) -> torch.Tensor:
        noise = Noise([0, 1, 2], (3, 8, 8))
        x = noise() * grid.start
        steer = judge.steer(labels[0], scale)
        with torch.inference_mode():
            *_, last = system.sample(x, noise, grid, sampling, labels, steer=steer)
        return last.x

    found = [run(scale) for scale in (0.0, 1.0)]
    assert found[1].isfinite().all()
    clean = Level(torch.ones(()), torch.zeros(()), torch.tensor(0))
    plain, guided = (judge.log_prob(x, clean, labels[0]).mean() for x in found)
    assert guided > plain


def test_a_guided_picture_is_the_same_alone_and_among_others(path: str) -> None:
    for system in (drawer(), drawer(classes=0)):
        fields: dict[str, Any] = {"classifier": path, "classifier_scale": 3.0}
        several = system.generate("b", seed=5, n=3, **fields)
        (alone,) = system.generate("b", seed=6, **fields)
        assert np.array_equal(several[1], alone)
        together = system.generate("b", seed=5, n=3, together=3, **fields)
        for one, other in zip(several, together):
            assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1
        (other,) = system.generate("c", seed=6, **fields)
        assert not np.array_equal(other, alone)


def test_scale_0_is_no_guidance_and_the_classifier_replaces_the_other_kind(path: str) -> None:
    system = drawer()
    asked = system.resolve(suffuse.Request("b", classifier=path))
    assert asked.guidance == 1.0 and system.resolve(suffuse.Request("b")).guidance == 2.0
    off = system.generate("b", seed=1, classifier=path, classifier_scale=0)[0]
    assert np.array_equal(off, system.generate("b", seed=1, guidance=1.0)[0])
    both = system.resolve(suffuse.Request("b", classifier=path, guidance=3.0))
    assert both.guidance == 3.0


def test_metadata_bring_the_picture_back(path: str, tmp_path: Path) -> None:
    system = drawer()
    fields: dict[str, Any] = {"classifier_scale": 2.5, "guidance_interval": "0.5,20"}
    asked = system.resolve(suffuse.Request("b", seed=4, classifier=path, **fields))
    stored = describe(asked, Origin("tiny"))
    assert f"Classifier: {path}, Classifier scale: 2.5" in stored.chunks()["parameters"]
    again = stored.to_request()
    assert (again.classifier, again.classifier_scale) == (path, 2.5)
    assert again == asked and again.guidance_interval == (0.5, 20.0)
    # The text alone, as other programs keep it, has the interval too.
    assert replace(stored, request=None).to_request().guidance_interval == (0.5, 20.0)
    save_pixel(reader(), tmp_path / "mine")
    used = suffuse.Request("b", classifier=str(tmp_path / "mine")).to_json()
    save_pixel(reader(seed=2), tmp_path / "mine")
    with pytest.raises(SuffuseError, match=r"the classifier .* has changed since it was used"):
        suffuse.Request.from_json(used)


def test_a_classifier_that_changed_is_opened_anew(tmp_path: Path) -> None:
    system, folder = drawer(), tmp_path / "mine"
    drawn = []
    for seed in (1, 2):
        save_pixel(reader(seed=seed), folder)
        drawn += system.generate("b", seed=1, classifier=str(folder), classifier_scale=5.0)
    assert not np.array_equal(*drawn)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (reader(("a", "b", "d")), r"reader knows other classes than tiny: 3 \(a, b, d\); not 3"),
        (reader(tuple("abcd")), r"reader knows other classes than tiny: 4 \(a, b, c \.\.\.\);"),
        (reader(in_channels=1), "reads pictures of 1 channels, tiny draws them with 3"),
        (
            replace(reader(), scheduler={**SCHEDULER, "beta_schedule": "squaredcos_cap_v2"}),
            "was trained on another noise schedule than tiny",
        ),
        (replace(reader(), size=(16, 16)), "reads pictures of 16 x 16 pixels, not 8 x 8"),
    ],
)
def test_classifiers_that_do_not_fit(
    made: PixelModel[Classifier], message: str, tmp_path: Path
) -> None:
    save_pixel(made, tmp_path / "reader")
    with pytest.raises(SuffuseError, match=message):
        drawer().resolve(suffuse.Request("b", classifier=str(tmp_path / "reader")))


@pytest.mark.parametrize(
    ("classes", "fields", "message"),
    [
        (3, {"prompt": ""}, "a classifier guides to a class: name one as the prompt"),
        (0, {"prompt": ""}, "a classifier guides to a class: name one as the prompt"),
        (3, {"prompt": "7"}, "this model has no class '7'"),
        (0, {"prompt": "7"}, "reader has no class '7': its 3 classes are a, b, c"),
        (0, {"prompt": "a", "guidance": 2.0}, "nothing to guide to: this model has no classes"),
        (0, {"prompt": "a", "negative": "b"}, "this model has no classes to choose 'b' from"),
        (3, {"prompt": "a", "width": 16, "height": 16}, "8 x 8 pixels, not 16 x 16"),
        (3, {"prompt": "a", "classifier": "nowhere"}, "there is no classifier 'nowhere'"),
    ],
)
def test_requests_that_cannot_be_met(
    classes: int, fields: dict[str, Any], message: str, path: str
) -> None:
    with pytest.raises(SuffuseError, match=message):
        drawer(classes).resolve(suffuse.Request(**{"classifier": path, **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classifier_scale": -1}, "classifier_scale must be 0 or more, not -1"),
        ({"classifier": 3}, "a classifier is named by its file, not by 3"),
        ({"guidance_interval": "5"}, "guidance_interval must be two numbers LOW,HIGH, not '5'"),
        ({"guidance_interval": "5,1"}, "guidance_interval needs 0 <= LOW < HIGH, not 5,1"),
        ({"guidance_interval": (0, float("nan"))}, "guidance_interval needs 0 <= LOW < HIGH"),
        ({"guidance_interval": (1, 2, 3)}, "guidance_interval must be two numbers"),
    ],
)
def test_values_that_are_refused_at_once(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SuffuseError, match=message):
        suffuse.Request("a", **fields)


def test_what_is_no_classifier(tmp_path: Path) -> None:
    save_pixel(drawer().model, tmp_path / "model")
    with pytest.raises(SuffuseError, match="model: is no classifier of noisy pictures"):
        load_classifier(tmp_path / "model")
    with pytest.raises(SuffuseError, match="is a diffusion model, not a classifier"):
        load_classifier(FILES.parent / "unet" / "64x64_diffusion.pt")
    assert isinstance(NoisyClassifier(reader()).label("b"), int)

"""How variations and edits are scored, by systems that do well and badly on purpose."""

import numpy as np
import pytest
import torch
from PIL import Image

from suffuse.data.captions import plain
from suffuse.data.emoji import World
from suffuse.diffusion.grid import GridSpec, make_grid
from suffuse.diffusion.prediction import Prediction, x0_to_eps
from suffuse.diffusion.schedule import Discrete, betas
from suffuse.evaluation.variations import Asked, case, evaluate_variations, work
from suffuse.systems.generate import to_picture, to_tensor
from suffuse.systems.manipulation import How

WORLD = World(objects=16, shapes=False)
N, SEED = 4, 1
SCHEDULE = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012), zero_snr=True)


class Oracle:
    """Knows every scene and caption by a place of its own in a space with an axis for each, and
    draws the picture of the place nearest to an embedding, whatever the noise."""

    size, shape, upsamplers = (128, 128), (3, 128, 128), ()

    def __init__(self, obeys=True):
        self.decoder = self.clean = self
        self.obeys = obeys
        cases = [case(WORLD, i, SEED) for i in range(N)]
        scenes = [scene for pair in cases for scene in pair[:2]]
        self.words = {plain(scene, "en"): i for i, scene in enumerate(scenes)}
        assert len(self.words) == len(scenes)
        self.pictures = [to_tensor(Image.fromarray(scene.draw())) for scene in scenes]

    def embed_text(self, text):
        return torch.eye(len(self.pictures))[self.words[text]][None]

    def embed_image(self, picture):
        pixels = to_tensor(picture)
        near = [float((pixels - p).abs().mean()) for p in self.pictures]
        return torch.eye(len(near))[int(np.argmin(near))][None]

    def encode(self, picture):
        return to_tensor(picture)

    def picture(self, x0):
        return to_picture(x0[0])

    def grid(self, steps):
        return make_grid(SCHEDULE, steps, GridSpec("linspace"))

    def denoiser(self, z, texts, guidance):
        # An edit a third of the way stands as near to the scene as to what it is to become.
        weight = torch.arange(z.shape[1]) % 2 if self.obeys else 1 - torch.arange(z.shape[1]) % 2
        places = (z + 0.1 * weight * (z > 0.1)).argmax(1)
        mean = torch.cat([self.pictures[int(place)] for place in places])

        def denoise(x, level):
            eps = x0_to_eps(x, mean, level)
            return Prediction(mean, eps, eps)

        return denoise


@pytest.mark.parametrize("obeys", [True, False])
def test_scores_are_those_of_the_pictures(obeys):
    asked = Asked(How(steps=3, rounds=2), amounts=(0.0, 1 / 3, 1.0), seed=SEED)
    kept, ticks = [], []
    found = evaluate_variations(
        Oracle(obeys), WORLD, N, asked, batch=3, tick=lambda: ticks.append(1),
        keep=lambda i, row: kept.append((i, len(row))),
    )  # fmt: skip
    assert len(ticks) == work(N, asked, 3)
    assert kept == [(i, 6) for i in range(N)]
    assert found.kept == 1.0 and found.psnr > 50 and found.worst > 50
    still, third, far = found.edits
    assert (still.changed, still.left) == (0.0, 1.0)
    assert third.changed == far.changed * obeys
    assert far.changed == far.background == far.thing == far.left == 1.0


def test_a_case_changes_what_it_says():
    world = World(objects=12)
    for i in range(40):
        scene, wanted, attribute = case(world, i)
        assert (scene, wanted, attribute) == case(world, i)
        assert scene.kind == "single" and world.allowed(scene, "test")
        same = scene.things == wanted.things, scene.background.top == wanted.background.top
        assert same == ((True, False) if attribute == "background" else (False, True))

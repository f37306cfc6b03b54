"""Variations, blends and text diffs, with a decoder whose pictures are known in closed form."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import suffuse
from suffuse.data.emoji import World
from suffuse.diffusion.grid import GridSpec, make_grid
from suffuse.diffusion.prediction import Prediction
from suffuse.diffusion.schedule import Discrete, betas
from suffuse.errors import SuffuseError
from suffuse.networks.unclip import ImageProjection
from suffuse.systems import manipulate
from suffuse.systems.generate import to_picture, to_tensor
from suffuse.systems.manipulation import How, Manipulation
from suffuse.systems.metadata import (
    Origin,
    describe_manipulation,
    png_bytes,
    read_parameters,
    write_png,
)
from suffuse.systems.unclip_decoder import LatentDecoder

SPREAD = 0.2  # of what z leaves open
SCHEDULE = Discrete.from_betas(betas("scaled_linear", 1000, 0.00085, 0.012), zero_snr=True)
WORDS = {"red": 0, "green": 1, "blue": 2}
QUICK = How(steps=12, rounds=20)


@dataclass(frozen=True)
class Coloured:
    """p(x0 | z) is normal around the colour that z is: z is the mean colour, and one number more
    that keeps its length 1. CLIP and decoder in one."""

    size: tuple[int, int] = (8, 6)
    shape: tuple[int, int, int] = (3, 6, 8)
    upsamplers: tuple[()] = ()

    @property
    def decoder(self):
        return self

    clean = decoder

    def embed_image(self, picture):
        colour = 0.5 * to_tensor(picture).mean((2, 3))  # (1, 3)
        return torch.cat([colour, (1 - colour.square().sum(1, keepdim=True)).sqrt()], 1)

    def embed_text(self, text):
        z = torch.full((1, 4), 0.1)
        z[0, WORDS[text]] = 1.0
        return z / z.norm()

    def encode(self, picture):
        return to_tensor(picture)

    def picture(self, x0):
        return to_picture(x0[0])

    def grid(self, steps):
        return make_grid(SCHEDULE, steps, GridSpec("linspace"))

    def denoiser(self, z, texts, guidance):
        mean = 2 * z[:, :3, None, None]

        def denoise(x, level):
            variance = (level.alpha * SPREAD) ** 2 + level.sigma**2
            eps = level.sigma * (x - level.alpha * mean) / variance
            x0 = mean + level.alpha * SPREAD**2 / variance * (x - level.alpha * mean)
            return Prediction(x0, eps, eps)

        return denoise


SYSTEM = Coloured()


def picture(seed, size=(8, 6)):
    levels = np.random.default_rng(seed).integers(60, 190, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels)


def levels(image):
    return np.asarray(image).astype(int)


# ---- a picture and what it is made of ------------------------------------------------------------


def test_inversion_and_decoding_give_the_picture_back():
    """Among others and alone, though the noisiest level holds no signal."""
    given_ = [picture(0), picture(1)]
    pair = manipulate.inverted(SYSTEM, given_, QUICK)
    for one, back in zip(given_, manipulate.decoded(SYSTEM, pair, QUICK)):
        assert np.abs(levels(one) - levels(back)).max() <= 1
    alone = manipulate.inverted(SYSTEM, given_[1:], QUICK)
    torch.testing.assert_close(alone.noise, pair.noise[1:], atol=1e-5, rtol=0)


def test_a_latent_model_gives_back_what_its_autoencoder_does():
    """The bundled model, which has no level to spare: the noisiest holds no signal."""
    model = suffuse.load(device="cpu", dtype="float32")
    config = model.parts.unet_config
    torch.manual_seed(0)
    decoder = LatentDecoder(model, ImageProjection(4, config.context, config.embedding))
    system = SimpleNamespace(decoder=decoder, embed_image=SYSTEM.embed_image, upsamplers=())
    one = Image.fromarray(World().scene_at(1, split="test").draw())
    want = levels(decoder.picture(decoder.encode(one)))
    how = How(steps=6, rounds=6)
    (back,) = manipulate.decoded(system, manipulate.inverted(system, [one], how), how)
    assert np.square(levels(back) - want).mean() < 6  # 40 dB


def test_variations_leave_the_picture_the_more_the_more_noise():
    one = picture(0)
    (same,) = manipulate.vary(SYSTEM, one, 1, eta=0.0, seed=3, how=QUICK)
    assert np.abs(levels(one) - levels(same)).max() <= 1
    far = []
    for eta in (0.2, 0.6, 1.0):
        made = list(manipulate.vary(SYSTEM, one, 2, eta, seed=3, how=QUICK))
        far.append(np.abs(levels(made[0]) - levels(one)).mean())
        # What z says stays: the mean colour, to what 48 free pixels of spread 0.2 leave of it.
        drift = levels(made[0]).mean((0, 1)) - levels(one).mean((0, 1))
        assert np.abs(drift).max() < 4 * 127.5 * SPREAD / 48**0.5
        # Picture i has seed + i, whatever n is.
        (again,) = manipulate.vary(SYSTEM, one, 1, eta, seed=4, how=QUICK)
        assert (levels(again) == levels(made[1])).all()
        assert (levels(made[0]) != levels(made[1])).any()
    assert far == sorted(far) and far[0] > 1


def test_a_blend_goes_from_one_to_the_other():
    one, other = picture(0), picture(1)
    made = list(manipulate.blend(SYSTEM, one, other, 5, how=QUICK))
    assert len(made) == 5
    assert np.abs(levels(made[0]) - levels(one)).max() <= 1
    assert np.abs(levels(made[-1]) - levels(other)).max() <= 1
    near = [np.abs(levels(m) - levels(one)).mean() for m in made]
    assert near == sorted(near)
    # With a seed the ends are no longer the pictures, but what they show stays.
    seeded = list(manipulate.blend(SYSTEM, one, other, 3, seed=1, how=QUICK))
    assert np.abs(levels(seeded[0]) - levels(one)).max() > 10
    assert np.abs(levels(seeded[0]).mean((0, 1)) - levels(one).mean((0, 1))).max() < 15


def test_words_change_what_they_name():
    one = picture(0)
    same = manipulate.edit(SYSTEM, one, "red", "blue", 0.0, how=QUICK)
    assert np.abs(levels(one) - levels(same)).max() <= 1
    before = levels(one).mean((0, 1))
    for amount in (0.2, 0.4):
        after = levels(manipulate.edit(SYSTEM, one, "red", "blue", amount, how=QUICK))
        change = after.mean((0, 1)) - before
        assert change[0] < -5 and change[2] > 5
        assert abs(change[1]) < min(-change[0], change[2])
        before = after.mean((0, 1))
    with pytest.raises(SuffuseError, match="sees no difference between 'red' and 'red '"):
        manipulate.difference(_Same(), "red", "red ")


class _Same(Coloured):
    def embed_text(self, text):
        return torch.ones(1, 4) / 2


@given(st.integers(0, 500), st.floats(0, 1), st.floats(0.5, 12))
@settings(max_examples=30, deadline=None)
def test_turning_keeps_the_length_and_goes_straight(seed, share, length):
    z, d = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(seed)).double()
    direction = (d / d.norm(dim=1, keepdim=True))[:1]
    z = length * z / z.norm(dim=1, keepdim=True)
    found = manipulate.turned(z, direction, share)
    torch.testing.assert_close(found.norm(dim=1), z.norm(dim=1))
    angle = lambda a: (a @ direction[0] / a.norm(dim=1)).clamp(-1, 1).acos()  # noqa: E731
    torch.testing.assert_close(angle(found), (1 - share) * angle(z), atol=1e-5, rtol=0)


# ---- what is asked for ---------------------------------------------------------------------------


def test_pictures_of_any_size_mode_and_rotation(tmp_path):
    tall = picture(0, (30, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    tall.save(tmp_path / "turned.jpg", exif=exif)
    for name, image in (("grey.png", tall.convert("L")), ("clear.png", tall.convert("LA"))):
        image.save(tmp_path / name)
    for name in ("turned.jpg", "grey.png", "clear.png"):
        (made,) = manipulate.vary(SYSTEM, tmp_path / name, 1, seed=0, how=QUICK)
        assert made.size == SYSTEM.size
    assert manipulate.note_of(tmp_path / "turned.jpg", SYSTEM.size) == (
        f"'{tmp_path / 'turned.jpg'}' is 60 x 30 pixels: its middle is taken at 8 x 6"
    )
    assert manipulate.note_of(picture(0), SYSTEM.size) is None


@given(
    kind=st.sampled_from(["vary", "blend", "edit"]),
    n=st.integers(1, 5),
    seed=st.none() | st.integers(0, 2**40),
    eta=st.floats(0, 2),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    steps=st.integers(1, 200),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_down_comes_back(tmp_path_factory, kind, n, seed, eta, shares, steps):
    folder = tmp_path_factory.getbasetemp()
    paths = [str(folder / f"{i}.png") for i in range(2)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    other = paths[1] if kind == "blend" else None
    asked = Manipulation(
        kind, paths[0], other, "red", "blue", tuple(shares), n, eta, seed, How(steps)
    ).resolve()
    assert Manipulation.from_json(asked.to_json()) == asked
    assert asked.count == (n if kind == "vary" else len(shares))
    last = asked.alone(asked.count - 1)
    assert last.count == 1
    assert last.seed == (asked.seed + n - 1 if kind == "vary" else asked.seed)


def test_a_picture_says_how_it_was_made(tmp_path):
    picture(0).save(tmp_path / "a.png")
    asked = Manipulation(
        "edit", str(tmp_path / "a.png"), before="red", after="blue", shares=(0.2, 0.4)
    )
    about = describe_manipulation(asked, Origin("m", "folder", "0123456789ab", "float32"))
    write_png(picture(1), tmp_path / "b.png", about, frames=[picture(2), picture(3)])
    found = read_parameters(tmp_path / "b.png")
    assert Manipulation.from_json(found.manipulation) == asked and found.origin == about.origin
    assert found.parameters.prompt == "blue" and found.parameters.fields["Manipulation"] == "edit"
    with Image.open(tmp_path / "b.png") as made:
        assert made.n_frames == 3
        made.seek(2)
        assert (levels(made.convert("RGB")) == levels(picture(3))).all()
    with pytest.raises(SuffuseError, match="was made by `suffuse edit`"):
        found.to_request()
    picture(2).save(tmp_path / "a.png")
    with pytest.raises(SuffuseError, match="has changed since"):
        Manipulation.from_json(found.manipulation)
    assert len(png_bytes(picture(1), about)) < (tmp_path / "b.png").stat().st_size


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "spoil"}, "kind must be one of vary, blend, edit"),
        ({"kind": "vary", "n": 0}, "n must be at least 1"),
        ({"kind": "vary", "eta": -1}, "eta must be"),
        ({"kind": "vary", "seed": 2**63 - 1, "n": 2}, "seed must be at most"),
        ({"kind": "blend", "shares": (0.5,)}, "a blend needs two pictures"),
        ({"kind": "edit", "before": "a", "after": "b"}, "say how far to edit"),
        ({"kind": "edit", "before": " ", "after": "b", "shares": (1,)}, "before is empty"),
        ({"kind": "edit", "before": "a b", "after": " a  b", "shares": (1,)}, "nothing would"),
        ({"kind": "edit", "before": "a", "after": "b", "shares": (1.1,)}, "share must be"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(SuffuseError, match=message):
        Manipulation(image="a.png", **fields)

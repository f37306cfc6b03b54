"""What A1111's fields become, without a server."""

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from suffuse.diffusion.samplers import SAMPLERS
from suffuse.studio.a1111_asked import Asked, AskedFromPicture
from suffuse.studio.a1111_options import DEFAULTS, checked
from suffuse.studio.a1111_request import WITH_ETA, requests_of, tags, words_in
from suffuse.studio.problems import Problem
from suffuse.studio.settings import Settings
from suffuse.systems.request import Request


def encoded(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def only(asked, **options):
    (found,) = requests_of(asked, {**DEFAULTS, **options}, Settings())
    return found


def test_the_web_uis_defaults():
    found = only(Asked(prompt="a", seed=3))
    assert found == Request("a", steps=50, guidance=7.0, sampler="Euler", seed=3)


@pytest.mark.parametrize("depth", [250, 900, 100_000])
def test_options_that_cannot_be_sent_back_are_refused(depth):
    value = []
    for _ in range(depth):
        value = [value]
    with pytest.raises(Problem, match="JSON does not know") as refused:
        checked({**DEFAULTS, "x": value})
    assert refused.value.status == 422


def test_iterations_go_on_where_the_seeds_of_the_last_one_ended():
    found = requests_of(Asked(prompt="a", seed=7, batch_size=2, n_iter=3), DEFAULTS, Settings())
    assert [(r.seed, r.n) for r in found] == [(7, 2), (9, 2), (11, 2)]
    first, second = requests_of(Asked(prompt="a", n_iter=2), DEFAULTS, Settings())
    assert second.seed == first.seed + 1 < 2**32 + 1
    with pytest.raises(Problem, match="is 18 pictures: at most 16"):
        requests_of(Asked(batch_size=9, n_iter=2), DEFAULTS, Settings())


@pytest.mark.parametrize(
    ("sampler", "scheduler", "grid"),
    [
        ("Euler a", "Karras", "karras"),
        ("DPM++ 2M Karras", "automatic", None),  # its name says it
        ("DPM++ 2M", "sgm_uniform", "trailing"),
        ("Euler", "Normal", "linspace"),
        ("DDIM", None, None),
    ],
)
def test_samplers_and_schedulers(sampler, scheduler, grid):
    found = only(Asked(prompt="a", sampler_name=sampler, scheduler=scheduler))
    assert (found.sampler, found.grid) == (sampler, grid)
    found = only(Asked(prompt="a", sampler_index=sampler, scheduler=scheduler))
    assert (found.sampler, found.grid) == (sampler, grid)


def test_eta_counts_for_the_samplers_that_have_one():
    for name, entry in SAMPLERS.items():
        takes = "eta" in entry.takes and (entry.stochastic or name == "ddim")
        assert (name in WITH_ETA) == takes, name
    assert only(Asked(prompt="a", sampler_name="DPM++ 2M", eta=1)).eta is None
    assert only(Asked(prompt="a", sampler_name="DDIM", eta=1)).eta == 1


@pytest.mark.parametrize(
    ("fields", "says", "status"),
    [
        ({"enable_hr": True}, "enable_hr True: there is no second, enlarging pass", 422),
        ({"restore_faces": True}, "restore_faces True", 422),
        ({"subseed_strength": 0.3}, "there are no variation seeds", 422),
        ({"s_churn": 2}, "s_churn 2", 422),
        ({"script_name": "X/Y/Z plot"}, "there are no scripts", 422),
        (
            {"alwayson_scripts": {"ControlNet": {}}},
            "alwayson_scripts ControlNet: there are no",
            422,
        ),
        ({"sampler_name": "Eulerish"}, "unknown sampler 'Eulerish'", 404),
        ({"scheduler": "kl_optimal"}, "unknown scheduler 'kl_optimal'", 404),
        ({"prompt": "<lora:none:1>"}, "there is no LoRA .none. in the studio", 400),
        ({"prompt": "<hypernet:x:1>"}, "only <lora:…> is known", 422),
        ({"prompt": "<lora:x:much>"}, "its scale is not a number", 422),
        ({"prompt": "<lora:x:1:0.5>"}, "one scale holds", 422),
    ],
)
def test_what_there_is_not_is_refused_by_name(fields, says, status):
    with pytest.raises(Problem, match=says) as caught:
        only(Asked(**{"prompt": "a", **fields}))
    assert caught.value.status == status


def test_what_clients_send_along_is_taken():
    nothing = {
        "s_noise": 1,
        "s_tmin": 0,
        "tiling": False,
        "seed_resize_from_w": 0,
        "script_args": [],
    }
    assert only(Asked(prompt="a", seed=1, **nothing)) == only(Asked(prompt="a", seed=1))


def test_tags_name_loras_and_leave_the_prompt():
    found = tags("a cat <lora:pixel:0.8><lora:ink> in snow, <b> (red:1.2)")
    assert found == ("a cat  in snow, <b> (red:1.2)", [("pixel", 0.8), ("ink", 1.0)])


@given(st.text())
def test_prompts_without_tags_stay_as_they_are(prompt):
    if "<" not in prompt:
        assert tags(prompt) == (prompt, [])


def test_words_are_found_as_words():
    assert words_in("A Rex, t-rex and <rex>", ["rex", "<rex>", "cat", "r"]) == ["rex", "<rex>"]


def test_a_picture_is_stretched_or_cropped_to_the_size():
    wide = Image.new("RGB", (24, 8), "white")
    wide.paste("black", (8, 0, 16, 8))
    fields = {"prompt": "a", "init_images": [encoded(wide)], "width": 8, "height": 8}
    assert len(only(AskedFromPicture(**fields)).image.getcolors()) > 1
    assert only(AskedFromPicture(resize_mode=1, **fields)).image.getcolors() == [(64, (0, 0, 0))]
    whole = only(AskedFromPicture(prompt="a", init_images=fields["init_images"]))
    assert (whole.image.size, whole.width, whole.strength) == ((24, 8), None, 0.75)


def masked(**fields):
    picture = Image.new("RGB", (16, 16), "white")
    picture.paste("black", (0, 0, 8, 16))
    mask = Image.new("L", (8, 8))
    mask.paste(255, (0, 0, 4, 8))
    sent = {"init_images": [encoded(picture)], "mask": encoded(mask), "width": 8, "height": 8}
    return only(AskedFromPicture(prompt="a", **{**sent, **fields}))


def test_masks_are_white_where_it_is_repainted_and_may_be_inverted():
    assert masked().mask.getbbox() == (0, 0, 8, 16)  # enlarged to the picture
    assert masked(inpainting_mask_invert=1).mask.getbbox() == (8, 0, 16, 16)
    painted = Image.new("RGBA", (16, 16))
    painted.paste((0, 0, 0, 255), (2, 2, 5, 5))
    assert masked(mask=encoded(painted)).mask.getbbox() == (2, 2, 5, 5)


def test_only_masked_keeps_the_pictures_size():
    assert masked().image.size == (16, 16)
    small = masked(inpaint_full_res=False)
    assert small.image.size == small.mask.size == (8, 8)


def test_the_hole_is_filled_unless_what_was_there_is_wanted():
    assert masked().image.getcolors() == [(256, (255, 255, 255))]
    assert len(masked(inpainting_fill=1).image.getcolors()) == 2


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"init_images": None}, 404),
        ({"init_images": []}, 404),
        ({"resize_mode": 3}, 422),
        ({"inpainting_fill": 2}, 422),
        ({"init_images": ["no base64!"]}, 400),
        ({"width": 10**9}, 400),
    ],
)
def test_pictures_that_cannot_be_are_refused(fields, status):
    with pytest.raises(Problem) as caught:
        masked(**fields)
    assert caught.value.status == status


def test_clip_skip_is_a_setting():
    assert only(Asked(prompt="a"), CLIP_stop_at_last_layers=2).clip_skip == 1

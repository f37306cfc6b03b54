"""Files that change presets: what they may say, and how a wrong field is named."""

import json
from dataclasses import fields, replace

import pytest

from suffuse.errors import SuffuseError
from suffuse.training.config import read_config
from suffuse.training.presets import AUTOENCODERS, LATENTS
from suffuse.weights.fields import configured, plain

TOY = AUTOENCODERS["toy"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "[plan]\nlr = 0.5\nbetas = [0.5, 0.9]\n[config]\nlatent = 6\n"),
        ("a.yaml", "plan:\n  lr: 0.5\n  betas: [0.5, 0.9]\nconfig:\n  latent: 6\n"),
        ("a.json", '{"plan": {"lr": 0.5, "betas": [0.5, 0.9]}, "config": {"latent": 6}}'),
    ],
)
def test_three_formats_say_the_same(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    ours = configured(TOY, read_config(tmp_path / name), name)
    assert (ours.plan.lr, ours.plan.betas, ours.config.latent) == (0.5, (0.5, 0.9), 6)
    assert (ours.plan.batch, ours.world) == (TOY.plan.batch, TOY.world)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plan": {"lrr": 1}}, r"c.json: there is no field plan.lrr: choose one of accumulate, "),
        ({"pan": 1}, r"c.json: there is no field pan: choose one of about, average, config"),
        ({"plan": {"lr": "fast"}}, r"c.json: plan.lr: input should be a valid number.*'fast'"),
        ({"plan": {"steps": 1.5}}, r"c.json: plan.steps: input should be a valid integer"),
        ({"plan": {"steps": 0}}, r"c.json: plan: steps must be at least 1, not 0"),
        ({"plan": {"precision": "half"}}, r"c.json: plan.precision: input should be 'float32' or"),
        ({"config": {"channels": [8, "x"]}}, r"c.json: config.channels\[1\]: input should be"),
        ({"plan": 3}, r"c.json: plan: input should be"),
        ({"preprocess": {"crop": "none"}}, r"c.json: preprocess.crop: input should be"),
        ({"preprocess": {"buckets": {"steps": 8}}}, r"no field preprocess.buckets.steps"),
    ],
)
def test_a_wrong_field_is_named(values, message):
    with pytest.raises(SuffuseError, match=message):
        configured(TOY, values, "c.json")


def test_fields_that_are_unset_and_tables_that_are_open():
    ours = configured(TOY, {"preprocess": {"buckets": {"step": 32}}}, "c.json")
    assert ours.preprocess.buckets.step == 32 and ours.preprocess.size == 64
    scheduler = {"prediction_type": "epsilon"}
    latent = configured(LATENTS["toy"], {"scheduler": scheduler}, "c.json")
    assert latent.scheduler["prediction_type"] == "epsilon"
    assert latent.scheduler["num_train_timesteps"] == 1000


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "a = ", "a.toml: "),
        ("a.yaml", "a: [", "a.yaml: "),
        ("a.json", "{", "a.json: "),
        ("a.json", "[1]", "names no fields"),
        ("a.ini", "", "a config is a .toml, .yaml or .json file"),
    ],
)
def test_files_that_are_no_config(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(SuffuseError, match=message) as caught:
        read_config(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(SuffuseError, match="cannot read the config"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize("table", [AUTOENCODERS, LATENTS])
def test_what_is_recorded_reads_back_as_the_same_preset(table):
    """`config` in the `run.json` of a run is a config for the next."""
    toy = table["toy"]
    for preset in table.values():
        values = json.loads(json.dumps(plain(preset)))
        other = replace(preset, plan=toy.plan, world=toy.world, target=None, about="")
        assert configured(other, values, "run.json") == preset


def test_presets_say_what_they_aim_at():
    for table in (AUTOENCODERS, LATENTS):
        for name, preset in table.items():
            assert preset.about
            assert name == "toy" or preset.target is not None
            assert {field.name for field in fields(preset)} >= {"plan", "world", "preprocess"}

"""`suffuse train`: what it shows and what it refuses."""

import json

import pytest


def test_list_shows_presets_with_targets_and_costs(run):
    status, out, err = run("train", "--list")
    assert (status, err) == (0, "")
    for words in (
        ("autoencoder", "ldm-f8", "rFID 0.90", "246,803"),
        ("autoencoder", "ldm-vq-f4", "29 V100-days"),
        ("latent", "sd1", "6,250 A100-days", "FID-30k 9.62"),
        ("latent", "toy"),
        ("finetune", "dreambooth", "prior preservation"),
    ):
        assert any(all(word in line for word in words) for line in out.splitlines()), words


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--steps", "0"), "steps must be at least 1, not 0"),
        (("--batch", "-3"), "batch must be at least 1, not -3"),
        (("--preset", "huge"), "unknown preset 'huge': choose one of emoji, toy, ldm-f4"),
        (("--config", "none.toml"), "cannot read the config none.toml"),
        (("--config", "wrong.json"), "wrong.json: plan.lr: input should be a valid number"),
        (("--resume",), "there is nothing to resume"),
        (("--preset", "toy", "--data", "nowhere"), "there is no folder or file 'nowhere'"),
        (("--preset", "toy", "--stream"), "only data can be streamed: name them with --data"),
    ],
)
def test_one_line_and_nothing_begun(args, message, tmp_path, refusal):
    (tmp_path / "wrong.json").write_text(json.dumps({"plan": {"lr": "fast"}}))
    assert refusal("train", "autoencoder", "-o", "out", *args).startswith(message)
    assert not (tmp_path / "out").exists()

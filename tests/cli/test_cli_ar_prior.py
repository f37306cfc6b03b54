"""`suffuse train ar-prior`: from a CLIP to a prior that imagines in its space."""

import json
from dataclasses import replace

import pytest
import torch

from suffuse.errors import SuffuseError
from suffuse.systems.ar_prior import load_ar_prior
from suffuse.systems.clip import load_clip
from suffuse.training.ar_prior import AR_PRIORS, ar_prior_stage
from suffuse.training.clip_presets import CLIPS
from suffuse.training.clip_stage import clip_stage


@pytest.fixture
def clips(tmp_path):
    """Two CLIPs of the toy preset, which nothing was taught."""
    preset = replace(CLIPS["toy"], plan=replace(CLIPS["toy"].plan, steps=1))
    for seed in range(2):
        stage = clip_stage(preset, tmp_path / f"run-{seed}", seed)
        stage.export(stage.nets, tmp_path / f"clip-{seed}")


def test_a_run_and_its_prior(clips, run, refusal, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"scenes": 24, "coordinates": 4}))
    train = ("train", "ar-prior", "-o", "out", "--clip", "clip-0", "--preset", "toy")
    status, out, err = run(*train, "--config", "c.json", "--steps", "2", "--batch", "4")
    assert status == 0 and out.strip() == "out/model", err
    assert "4 of " in err and "coordinates in 16 buckets lose" in err
    said = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (said["stage"], said["clip"], said["config"]["scenes"]) == ("ar-prior", "clip-0", 24)

    clip = load_clip(tmp_path / "clip-0", "cpu", "float32")
    prior = load_ar_prior(tmp_path / "out" / "model", clip)
    both = prior.imagine(["a dog", "a red apple"], [3, 4])
    assert both.shape == (2, clip.width)
    torch.testing.assert_close(both.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(prior.imagine(["a red apple"], [4]), both[1:], atol=1e-5, rtol=0)
    with pytest.raises(SuffuseError, match="was trained with another CLIP than clip-1"):
        load_ar_prior(tmp_path / "out" / "model", load_clip(tmp_path / "clip-1", "cpu", "float32"))

    # What was looked at is kept, and may be named as data; what does not fit is refused.
    kept = tmp_path / "out" / "embeddings.safetensors"
    toy, lines = AR_PRIORS["toy"], []
    folder, where = str(tmp_path / "clip-0"), str(kept)
    stage = ar_prior_stage(toy, tmp_path, 0, clip=folder, data=where, note=lines.append)
    assert len(stage.data.z) == 24 and "looking at the pictures" not in lines
    weights = tmp_path / "clip-0" / "model.safetensors"
    message = refusal("train", "ar-prior", "-o", "no", "--clip", "clip-0", "--data", weights)
    assert message.endswith("has no tensor 'z'; needed are z and ids")
    assert not (tmp_path / "no").exists()

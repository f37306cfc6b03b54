"""transformers' CLIPModel, CLIPVisionModel and CLIPVisionModelWithProjection.

As with text towers, transformers 5.6 and later save a CLIPVisionModel without its prefix.
"""

from __future__ import annotations

from suffuse.weights.mapping import KeyMap, Row, nest
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT, LAYERS

_VISION = (
    Row("patch.weight", "embeddings.patch_embedding.weight"),
    Row("cls", "embeddings.class_embedding"),
    Row("position.weight", "embeddings.position_embedding.weight"),
    Row("pre.*", "pre_layrnorm.*"),  # spelt so
    *LAYERS,
    Row("norm.*", "post_layernorm.*"),
)

HF_CLIP_VISION = KeyMap(
    (
        *nest("", "vision_model", _VISION),
        *_VISION,
        Row("projection.weight", "visual_projection.weight"),
    ),
    ignore=("vision_model.embeddings.position_ids", "embeddings.position_ids"),
)

HF_CLIP = KeyMap(
    (
        Row("logit_scale", "logit_scale"),
        *nest("text", "", HF_CLIP_TEXT.rows),
        *nest("image", "", HF_CLIP_VISION.rows),
    ),
    ignore=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
)

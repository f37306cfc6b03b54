"""transformers' CLIPTextModel and CLIPTextModelWithProjection.

Published files begin every name with `text_model.`; transformers 5.6 and later save CLIPTextModel
without it, and some merged single files lost it. All forms are read.
"""

from __future__ import annotations

from suffuse.weights.mapping import KeyMap, Row, nest

# The blocks, which a vision tower has as well.
LAYERS = (
    Row("blocks.{i}.norm{n}.*", "encoder.layers.{i}.layer_norm{n}.*"),
    Row("blocks.{i}.attn.q.*", "encoder.layers.{i}.self_attn.q_proj.*"),
    Row("blocks.{i}.attn.k.*", "encoder.layers.{i}.self_attn.k_proj.*"),
    Row("blocks.{i}.attn.v.*", "encoder.layers.{i}.self_attn.v_proj.*"),
    Row("blocks.{i}.attn.out.*", "encoder.layers.{i}.self_attn.out_proj.*"),
    Row("blocks.{i}.mlp.fc{n}.*", "encoder.layers.{i}.mlp.fc{n}.*"),
)

_TOWER = (
    Row("token.weight", "embeddings.token_embedding.weight"),
    Row("position.weight", "embeddings.position_embedding.weight"),
    *LAYERS,
    Row("norm.*", "final_layer_norm.*"),
)

HF_CLIP_TEXT = KeyMap(
    (
        *nest("", "text_model", _TOWER),
        *_TOWER,
        Row("projection.weight", "text_projection.weight"),
    ),
    # 0, 1, 2 …: a buffer of older versions.
    ignore=("text_model.embeddings.position_ids", "embeddings.position_ids"),
)

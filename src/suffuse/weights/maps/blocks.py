"""Rows that several formats share: residual blocks and transformers, from within.

diffusers kept the names that latent diffusion gave the inside of its transformers.
"""

from __future__ import annotations

from suffuse.weights.mapping import POINTWISE, Row

# A spatial transformer. Version 1 projects with 1 x 1 convolutions, version 2 with linear layers.
TRANSFORMER = (
    Row("norm.*", "norm.*"),
    Row("proj_in.weight", "proj_in.weight", POINTWISE),
    Row("proj_in.bias", "proj_in.bias"),
    Row("blocks.{k}.norm{n}.*", "transformer_blocks.{k}.norm{n}.*"),
    Row("blocks.{k}.self_attn.q.*", "transformer_blocks.{k}.attn1.to_q.*"),
    Row("blocks.{k}.self_attn.k.*", "transformer_blocks.{k}.attn1.to_k.*"),
    Row("blocks.{k}.self_attn.v.*", "transformer_blocks.{k}.attn1.to_v.*"),
    Row("blocks.{k}.self_attn.out.*", "transformer_blocks.{k}.attn1.to_out.0.*"),
    Row("blocks.{k}.cross_attn.q.*", "transformer_blocks.{k}.attn2.to_q.*"),
    Row("blocks.{k}.cross_attn.k.*", "transformer_blocks.{k}.attn2.to_k.*"),
    Row("blocks.{k}.cross_attn.v.*", "transformer_blocks.{k}.attn2.to_v.*"),
    Row("blocks.{k}.cross_attn.out.*", "transformer_blocks.{k}.attn2.to_out.0.*"),
    Row("blocks.{k}.ff.fc1.*", "transformer_blocks.{k}.ff.net.0.proj.*"),
    Row("blocks.{k}.ff.fc2.*", "transformer_blocks.{k}.ff.net.2.*"),
    Row("proj_out.weight", "proj_out.weight", POINTWISE),
    Row("proj_out.bias", "proj_out.bias"),
)

# diffusers' residual block; autoencoders have no `time`.
DIFFUSERS_RES = (
    Row("norm1.*", "norm1.*"),
    Row("conv1.*", "conv1.*"),
    Row("time.*", "time_emb_proj.*"),
    Row("norm2.*", "norm2.*"),
    Row("conv2.*", "conv2.*"),
    Row("skip.*", "conv_shortcut.*"),
)

# diffusers' attention over pixels. Folders of 2022 name its layers differently; where two rows fit,
# the first is how it is written today.
DIFFUSERS_ATTENTION = (
    Row("norm.*", "group_norm.*"),
    Row("q.*", "to_q.*"),
    Row("k.*", "to_k.*"),
    Row("v.*", "to_v.*"),
    Row("out.*", "to_out.0.*"),
    Row("q.*", "query.*"),
    Row("k.*", "key.*"),
    Row("v.*", "value.*"),
    Row("out.*", "proj_attn.*"),
)

# Its attention over pixels and a text at once.
DIFFUSERS_JOINT = (
    Row("norm.*", "group_norm.*"),
    Row("q.*", "to_q.*"),
    Row("k.*", "to_k.*"),
    Row("v.*", "to_v.*"),
    Row("text_k.*", "add_k_proj.*"),
    Row("text_v.*", "add_v_proj.*"),
    Row("out.*", "to_out.0.*"),
)

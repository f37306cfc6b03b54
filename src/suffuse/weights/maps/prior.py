"""unCLIP: diffusers' PriorTransformer, and UnCLIPTextProjModel before its decoder."""

from __future__ import annotations

from suffuse.weights.mapping import KeyMap, Op, Row

# A vector (N,) or a table (L, N) that they keep with a batch before it.
VECTOR = Op("vector", lambda w: w.reshape(-1), lambda w: w[None])
TOKEN = Op("token", lambda w: w.reshape(-1), lambda w: w[None, None])
TABLE = Op("table", lambda w: w.flatten(0, 1), lambda w: w[None])

DIFFUSERS_PRIOR = KeyMap(
    (
        Row("states.*", "encoder_hidden_states_proj.*"),
        Row("text.*", "embedding_proj.*"),
        Row("time.fc{n}.*", "time_embedding.linear_{n}.*"),
        Row("image.*", "proj_in.*"),
        Row("query", "prd_embedding", TOKEN),
        Row("position", "positional_embedding", TABLE),
        Row("blocks.{i}.norm1.*", "transformer_blocks.{i}.norm1.*"),
        Row("blocks.{i}.attn.q.*", "transformer_blocks.{i}.attn1.to_q.*"),
        Row("blocks.{i}.attn.k.*", "transformer_blocks.{i}.attn1.to_k.*"),
        Row("blocks.{i}.attn.v.*", "transformer_blocks.{i}.attn1.to_v.*"),
        Row("blocks.{i}.attn.out.*", "transformer_blocks.{i}.attn1.to_out.0.*"),
        Row("blocks.{i}.norm2.*", "transformer_blocks.{i}.norm3.*"),
        Row("blocks.{i}.mlp.fc1.*", "transformer_blocks.{i}.ff.net.0.proj.*"),
        Row("blocks.{i}.mlp.fc2.*", "transformer_blocks.{i}.ff.net.2.*"),
        Row("norm.*", "norm_out.*"),
        Row("out.*", "proj_to_clip_embeddings.*"),
        Row("mean", "clip_mean", VECTOR),
        Row("std", "clip_std", VECTOR),
    )
)


def by_token(tokens: int) -> Op:
    """Rows that lie by channel first, [channel][token], as ours: [token][channel]."""
    return Op(
        f"by {tokens} tokens",
        lambda w: w.unflatten(0, (-1, tokens)).transpose(0, 1).flatten(0, 1),
        lambda w: w.unflatten(0, (tokens, -1)).transpose(0, 1).flatten(0, 1),
    )


def text_projection(tokens: int) -> KeyMap:
    """The rows of a projection that makes so many tokens of an image."""
    order = by_token(tokens)
    return KeyMap(
        (
            Row("image.null", "learned_classifier_free_guidance_embeddings"),
            Row("image.vector.*", "clip_image_embeddings_project_to_time_embeddings.*"),
            Row("image.tokens.weight", "clip_extra_context_tokens_proj.weight", order),
            Row("image.tokens.bias", "clip_extra_context_tokens_proj.bias", order),
            Row("vector.*", "embedding_proj.*"),
            Row("states.*", "encoder_hidden_states_proj.*"),
            Row("norm.*", "text_encoder_hidden_states_norm.*"),
        )
    )

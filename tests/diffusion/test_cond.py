"""The conditioning container: rows stay whole, lengths are reconciled by masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suffuse.diffusion.cond import DOORS, Cond


def make(batch: int, length: int, seed: int, masked: bool = False) -> Cond:
    """Every door filled with normal numbers."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, length, generator=g) < 0.7 if masked else None
    return Cond(
        vector=torch.randn(batch, 5, generator=g),
        tokens=torch.randn(batch, length, 3, generator=g),
        mask=mask,
        concat=torch.randn(batch, 2, 4, 4, generator=g),
        ground=torch.randn(batch, 6, 3, generator=g),
    )


def seen(cond: Cond, i: int) -> dict[str, torch.Tensor]:
    """What image i is conditioned on: its rows, its tokens without the masked ones."""
    assert cond.tokens is not None
    rows = {door: getattr(cond, door)[i] for door in DOORS}
    if cond.mask is not None:
        rows["tokens"] = cond.tokens[i][cond.mask[i]]
    return rows


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for door in a:
        assert torch.equal(a[door], b[door]), door


lengths = st.integers(1, 6)


@given(lengths, lengths, st.booleans(), st.booleans(), st.lists(st.booleans(), min_size=1))
@settings(max_examples=60, deadline=None)
def test_where_gives_each_image_its_own_or_the_null(la, lb, mask_a, mask_b, keep):
    cond, null = make(len(keep), la, 1, mask_a), make(1, lb, 2, mask_b)
    mixed = cond.where(torch.tensor(keep), null)
    for i, kept in enumerate(keep):
        assert_same(seen(mixed, i), seen(cond, i) if kept else seen(null, 0))


@given(st.lists(st.tuples(st.integers(1, 3), lengths, st.booleans()), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_cat_keeps_every_image_as_it_was(parts):
    conds = [make(n, length, i, masked) for i, (n, length, masked) in enumerate(parts)]
    joined = Cond.cat(conds)
    expected = [seen(c, i) for c in conds for i in range(c.batch or 0)]
    assert joined.batch == len(expected)
    for i, rows in enumerate(expected):
        assert_same(seen(joined, i), rows)


def test_no_mask_is_made_where_none_is_needed():
    assert Cond.cat([make(1, 4, 0), make(2, 4, 1)]).mask is None
    assert make(2, 4, 0).where(torch.tensor([True, False]), make(1, 4, 1)).mask is None


def test_a_learned_null_receives_gradients_only_where_it_is_used():
    null = Cond(vector=torch.zeros(1, 3, requires_grad=True))
    cond = Cond(vector=torch.ones(4, 3))
    mixed = cond.where(torch.tensor([True, False, True, False]), null)
    assert mixed.vector is not None and null.vector is not None
    mixed.vector.sum().backward()
    assert torch.equal(null.vector.grad, torch.full((1, 3), 2.0))


@given(lengths, lengths, st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_merge_joins_what_shares_a_door(la, lb, mask_a, mask_b):
    a, b = make(2, la, 0, mask_a), make(1, lb, 1, mask_b)
    merged = a.merge(b)
    for i in range(2):
        mine, theirs, both = seen(a, i), seen(b, 0), seen(merged, i)
        for door in DOORS:
            assert torch.equal(both[door], torch.cat([mine[door], theirs[door]])), door


def test_merge_of_different_doors():
    text, image = Cond(tokens=torch.rand(1, 4, 3)), Cond(concat=torch.rand(2, 1, 8, 8))
    merged = text.merge(image)
    assert merged.batch == 2
    assert torch.equal(merged.concat, image.concat)
    assert torch.equal(merged.tokens, text.tokens.expand(2, 4, 3))
    assert merged.mask is None and merged.vector is None


def test_merge_with_nothing():
    cond = make(2, 3, 0, masked=True)
    for merged in (cond.merge(Cond()), Cond().merge(cond)):
        for i in range(2):
            assert_same(seen(merged, i), seen(cond, i))


def test_expand_repeats_without_copying():
    cond = make(1, 4, 0, masked=True)
    wide = cond.expand(5)
    assert wide.batch == 5
    assert wide.tokens is not None and cond.tokens is not None
    assert wide.tokens.data_ptr() == cond.tokens.data_ptr()
    for i in range(5):
        assert_same(seen(wide, i), seen(cond, 0))
    assert wide.expand(5) is wide
    assert Cond().expand(3).batch is None


def test_to_leaves_the_mask_boolean():
    cond = make(2, 3, 0, masked=True).to(dtype=torch.bfloat16)
    assert cond.mask is not None and cond.mask.dtype == torch.bool
    assert all(getattr(cond, door).dtype == torch.bfloat16 for door in DOORS)
    assert cond.to("cpu").vector.dtype == torch.bfloat16


def test_what_does_not_fit_is_refused():
    tokens = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="share a batch size"):
        Cond(vector=torch.zeros(3, 1), tokens=tokens)
    with pytest.raises(ValueError, match="mask"):
        Cond(mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask"):
        Cond(tokens=tokens, mask=torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="bool"):
        Cond(tokens=tokens, mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match="same doors"):
        Cond.cat([Cond(tokens=tokens), Cond(vector=torch.zeros(2, 1))])
    with pytest.raises(ValueError, match="same doors"):
        Cond(tokens=tokens).where(torch.tensor([True, False]), Cond())
    with pytest.raises(ValueError, match="expand a batch of 2 to 3"):
        Cond(tokens=tokens).expand(3)

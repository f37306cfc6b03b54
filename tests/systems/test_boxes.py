"""Boxes as a field of `Request`: what is taken, what is refused, what is written down."""

import json
import math

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from suffuse.errors import SuffuseError
from suffuse.systems.boxes import Box
from suffuse.systems.request import Request

shares = st.floats(0, 1, allow_subnormal=False)
pairs = st.tuples(shares, shares).filter(lambda p: p[0] != p[1]).map(sorted)
labels = st.text("ab :,é한1.-\u200d", min_size=1, max_size=20).filter(str.strip)


@st.composite
def drawn(draw):
    (x0, x1), (y0, y1) = draw(pairs), draw(pairs)
    return Box(draw(labels), x0, y0, x1, y1)


@given(st.lists(drawn(), min_size=1, max_size=5))
def test_every_way_to_say_a_box_means_the_same(boxes):
    request = Request("a room", boxes=tuple(boxes))
    assert request.boxes == tuple(boxes)
    for said in (map(str, boxes), map(list, boxes), [box._asdict() for box in boxes]):
        assert Request("a room", boxes=said).boxes == tuple(boxes)
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request
    hash(request.boxes)


@given(drawn(), st.sampled_from(["x0", "y0", "x1", "y1"]), st.sampled_from([-0.1, 1.1, math.nan]))
def test_sides_outside_of_the_picture_are_named(box, side, value):
    with pytest.raises(SuffuseError, match=f"^{side} of the box"):
        Request(boxes=[box._replace(**{side: value})])


@given(drawn())
def test_an_empty_box_is_refused(box):
    for wrong in (box._replace(x1=box.x0), box._replace(y0=box.y1), box._replace(label=" ")):
        with pytest.raises(SuffuseError, match=r"is empty|needs a label"):
            Request(boxes=[wrong])


def test_a_label_may_hold_colons_and_none_is_no_box():
    assert Request(boxes=["clock: 12:00:.1,0,1,0.5"]).boxes == (
        Box("clock: 12:00", 0.1, 0, 1, 0.5),
    )
    assert Request(boxes=[]).boxes is None
    assert Request().boxes is None


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("a cat:0,0,1,1", "must be a list"),
        (["a cat"], "LABEL:X0,Y0,X1,Y1"),
        (["a cat:0,0,1"], "LABEL:X0,Y0,X1,Y1"),
        (["a cat:0,0,1,x"], "y1 of the box 'a cat' must be a number"),
        (["a cat:0,0,1,nan"], "y1 of the box 'a cat' must be a number"),
        ([[1, 0, 0, 1, 1]], "the label of a box must be text"),
        ([["a cat", 0, 0, True, 1]], "x1 of the box 'a cat' must be a number"),
        ([{"label": "a cat", "x": 0}], "a box has label"),
        ([7], "LABEL:X0,Y0,X1,Y1"),
        (7, "must be a list"),
    ],
)
def test_what_is_no_box(boxes, message):
    with pytest.raises(SuffuseError, match=message):
        Request("a cat", boxes=boxes)


def test_models_without_boxes_refuse_them(tmp_path):
    from test_ddpm import model
    from test_score_sde import made
    from test_sr3 import model as upscaler

    import suffuse
    from suffuse.systems.ddpm import DDPM
    from suffuse.systems.sr3 import SuperResolution

    tiny.pipeline().save_pretrained(tmp_path)
    systems = [suffuse.load(tmp_path), DDPM(model()), made("Vp"), SuperResolution(upscaler())]
    for system in systems:
        with pytest.raises(SuffuseError) as refused:
            system.resolve(Request("", boxes=["a cat:0,0,1,1"]))
        assert str(refused.value) == (
            f"boxes are for grounded models; {system.info.name} takes none"
        )

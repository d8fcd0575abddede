"""Label text <-> label array: what is read, clipped, refused; nothing is lost on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saistudy.data import boxes

MICRO = 1_000_000


@st.composite
def _micro_boxes(draw):
    """Distinct boxes inside the image, in whole millionths (what six decimals can say)."""
    found = set()
    for _ in range(draw(st.integers(0, 8))):
        w, h = draw(st.integers(1, MICRO // 2)), draw(st.integers(1, MICRO // 2))
        xc = draw(st.integers((w + 1) // 2, MICRO - (w + 1) // 2))
        yc = draw(st.integers((h + 1) // 2, MICRO - (h + 1) // 2))
        found.add((draw(st.integers(0, 1)), xc, yc, w, h))
    return sorted(found)


@given(_micro_boxes())
def test_array_to_text_to_array_is_exact(micro):
    array = np.array([[c, *(v / MICRO for v in rest)] for c, *rest in micro]).reshape(-1, 5)
    text = boxes.format(array)
    # Each line is what integer arithmetic writes, independently of float formatting.
    expected = "".join(
        f"{c} " + " ".join(f"{v // MICRO}.{v % MICRO:06d}" for v in rest) + "\n" for c, *rest in micro
    )
    assert text == expected
    back, findings = boxes.parse(text)
    assert findings == []
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.text(alphabet="01 .-+enaif_x\t", max_size=25), max_size=10))
def test_every_line_is_a_box_or_a_finding(lines):
    array, findings = boxes.parse("\n".join(lines))
    dropped = [found for found in findings if found.reason != "clipped"]
    assert len(array) + len(dropped) == sum(1 for line in lines if line.strip())
    assert np.isfinite(array).all()
    assert ((array[:, 3:] > 0) & (array[:, 3:] <= 1 + 2e-6)).all()


@pytest.mark.parametrize(
    ("start", "end", "reasons"),
    [("", "\n", []), ("\ufeff", "\n", ["bom"]), ("", "\r\n", ["crlf"]), ("\ufeff", "\r", ["bom", "crlf"])],
)
def test_bom_crlf_and_blank_lines_are_read_and_noted(start, end, reasons):
    first = "0 0.5 0.5 0.2 0.4"
    array, findings = boxes.parse(start + end.join([first, "1 0.25 0.5 0.1 0.1", "", "", ""]))
    assert findings == [boxes.Finding(1, reason, first) for reason in reasons]
    assert array.dtype == np.float64
    assert array.tolist() == [[0, 0.5, 0.5, 0.2, 0.4], [1, 0.25, 0.5, 0.1, 0.1]]


def test_empty_text_is_a_negative():
    array, findings = boxes.parse("")
    assert array.shape == (0, 5) and findings == []
    assert boxes.format(array) == ""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "columns"),
        ("0 0.5 0.5 0.2 0.2 0.9", "columns"),
        ("smoke 0.5 0.5 0.2 0.2", "not-a-number"),
        ("0 nan 0.5 0.2 0.2", "not-a-number"),
        ("0 inf 0.5 0.2 0.2", "not-a-number"),
        ("0 0.5 0.5 0.2 1_0", "not-a-number"),
        ("7 0.5 0.5 0.2 0.2", "class"),
        ("0.5 0.5 0.5 0.2 0.2", "class"),
        ("-1 0.5 0.5 0.2 0.2", "class"),
        ("0 1.02 0.5 0.2 0.2", "range"),
        ("0 0.5 0.5 -0.2 0.2", "range"),
        ("0 0.5 0.95 0.2 0.2", "range"),
        ("0 0.5 0.5 0 0.2", "zero-area"),
        ("0 0.5 0.5 0.2 0.0000001", "zero-area"),
        ("1 0.5 0.5 0.20 0.2", "duplicate"),
    ],
)
def test_refused_line_keeps_its_number_reason_and_text(line, reason):
    array, findings = boxes.parse(f"1 0.5 0.5 0.2 0.2\n\n{line}\n")
    assert findings == [boxes.Finding(3, reason, line)]
    assert len(array) == 1


def test_overflow_of_one_pixel_is_clipped_and_more_is_refused():
    # 100 x 50 px: x from -1 to 39 px is centre 19, side 40; clipped to 0..39 is centre 19.5, side 39.
    array, findings = boxes.parse("0 0.19 0.5 0.4 0.2", size=(100, 50))
    assert findings == [boxes.Finding(1, "clipped", "0 0.19 0.5 0.4 0.2")]
    np.testing.assert_allclose(array, [[0, 0.195, 0.5, 0.39, 0.2]], atol=1e-12)
    # Two pixels: x from -2 to 38.
    assert boxes.parse("0 0.18 0.5 0.4 0.2", size=(100, 50))[1][0].reason == "range"
    # The same single pixel without a known size.
    assert boxes.parse("0 0.19 0.5 0.4 0.2")[1][0].reason == "range"


def test_a_side_that_is_clipped_to_nothing_has_no_area():
    # A pixel wide and just outside on the left: x from -1 to 0 px.
    array, findings = boxes.parse("0 -0.005 0.5 0.01 0.2", size=(100, 50))
    assert findings == [boxes.Finding(1, "zero-area", "0 -0.005 0.5 0.01 0.2")] and len(array) == 0


def test_rounding_of_six_decimals_is_no_overflow():
    # Edges 0 and 1/3 written with six decimals: 0.166667 - 0.333333 / 2 is 5e-7 off, as published.
    array, findings = boxes.parse("0 0.166666 0.5 0.333333 1.000000")
    assert findings == []
    assert array.tolist() == [[0, 0.166666, 0.5, 0.333333, 1.0]]


def test_corners_by_hand():
    # 0.5 +- 0.1 of 200 px and 0.25 +- 0.25 of 100 px.
    corners = boxes.to_xyxy_px(np.array([[1, 0.5, 0.25, 0.2, 0.5]]), 200, 100)
    np.testing.assert_allclose(corners, [[80, 0, 120, 50]])
    assert boxes.to_xyxy_px(np.empty((0, 5)), 200, 100).shape == (0, 4)

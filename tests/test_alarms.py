"""Recall under a ration of false alarms, and events in time: worked by hand, and properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saistudy.evaluation import alarms, events, metrics
from saistudy.evaluation.cocoeval import BOX
from saistudy.paths import Refusal

HERE, THERE = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def frames(positives: dict, negatives: dict):
    """Truth, predictions and images from image name -> scores; scores of a positive lie on its box."""
    truth = pd.DataFrame([(name, 0, *HERE) for name in positives], columns=["image", "class", *BOX])
    rows = [(name, 0, s, *HERE) for name, scores in (positives | negatives).items() for s in scores]
    predictions = pd.DataFrame(rows, columns=["image", "class", "score", *BOX]).astype({"score": float})
    images = pd.DataFrame({"image": [*positives, *negatives], "width": 100, "height": 100})
    return truth, predictions, images


def at(three, frames_per_day, budget):
    truth, predictions, images = three
    return alarms.recall_at(truth, metrics.match(*three), images, frames_per_day, budget)


# Four negatives, best scores .9, .6, .6 and none; at 8 frames a day one false alarm is 2 a day.
BY_HAND = frames(
    {"p1": [0.95], "p2": [0.7, 0.2], "p3": [0.6], "p4": [0.1], "p5": []},
    {"n1": [0.9, 0.3], "n2": [0.6], "n3": [0.6], "n4": []},
)


@pytest.mark.parametrize(
    ("budget", "threshold", "found_n", "false_n"),
    [
        (0, 0.95, 1, 0),  # .9 itself would raise one
        (1.9, 0.95, 1, 0),
        (2, 0.7, 2, 1),  # just at the budget; below .7 come two at .6 together
        (4, 0.7, 2, 1),  # 4 a day would be two, but a cut never parts equal scores
        (5.9, 0.7, 2, 1),
        (6, 0.1, 4, 3),  # all three; the lowest score of all is then the threshold
        (100, 0.1, 4, 3),
    ],
)
def test_recall_at_a_budget_by_hand(budget, threshold, found_n, false_n):
    seen = at(BY_HAND, 8, budget)
    assert (seen["threshold"], seen["found_n"], seen["false_alarms_n"]) == (threshold, found_n, false_n)
    assert seen["recall"] == pytest.approx(found_n / 5)
    assert seen["rate_per_day"] == pytest.approx(false_n / 4 * 8) and seen["rate_per_day"] <= budget
    assert seen["step_per_day"] == 2 and seen["why"] is None
    assert (seen["negatives_n"], seen["positives_n"], seen["boxes_n"]) == (4, 5, 5)
    # the images are those of image_rates at that threshold
    rates = metrics.image_rates(*BY_HAND, threshold)
    assert (rates["recall"], rates["false_positive_rate"]) == (seen["recall"], false_n / 4)


def test_boxes_are_found_where_they_lie():
    truth, predictions, images = BY_HAND
    # p1's detection lies elsewhere: the image is found, the box is not; one of p2's two boxes is found
    moved = predictions.copy()
    moved.loc[moved["image"] == "p1", BOX] = THERE
    truth = pd.concat([truth, pd.DataFrame([("p2", 0, *THERE)], columns=truth.columns)], ignore_index=True)
    seen = at((truth, moved, images), 8, 2)
    assert (seen["found_n"], seen["boxes_found_n"], seen["boxes_n"]) == (2, 1, 6)
    assert (seen["recall"], seen["box_recall"]) == (pytest.approx(2 / 5), pytest.approx(1 / 6))


@pytest.mark.parametrize(
    ("positives", "negatives", "why"),
    [
        ({"p": [0.5]}, {"n": [0.9]}, "even at the highest score there are 8 false alarms a day"),
        # a tie at the top: no threshold parts them
        ({"p": [0.9]}, {"n": [0.9]}, "even at the highest"),
        ({"p": [0.5]}, {}, "no image without boxes"),
        ({"p": []}, {"n": []}, "no detection"),
    ],
)
def test_no_threshold_says_why(positives, negatives, why):
    seen = at(frames(positives, negatives), 8, 1)
    assert why in seen["why"]
    keys = ("threshold", "recall", "box_recall", "rate_per_day", "false_alarms_n", "found_n", "boxes_found_n")
    assert [seen[key] for key in keys] == [None] * 7
    assert seen["positives_n"] == len(positives) and seen["negatives_n"] == len(negatives)


def test_without_positives_there_is_no_recall():
    seen = at(frames({}, {"n": [0.9]}), 8, 8)
    assert (seen["threshold"], seen["recall"], seen["box_recall"]) == (0.9, None, None)


@pytest.mark.parametrize(("day", "budget"), [(0, 1), (-1, 1), (8, -1), (np.nan, 1), (8, np.nan)])
def test_refuses_days_that_are_none(day, budget):
    with pytest.raises(Refusal, match="a day"):
        at(BY_HAND, day, budget)


scores = st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.5, 0.8, 0.9]), max_size=3)
many = st.lists(scores, max_size=8)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(many, many, st.lists(st.sampled_from([0, 0.5, 1, 2, 3, 8, 20]), min_size=2, max_size=2))
def test_a_larger_budget_never_finds_less(positives, negatives, budgets):
    three = frames(
        {f"p{i}": s for i, s in enumerate(positives)}, {f"n{i}": s for i, s in enumerate(negatives)}
    )
    small, large = (at(three, 8, budget) for budget in sorted(budgets))
    for key in ("found_n", "boxes_found_n", "false_alarms_n"):
        assert (small[key] or 0) <= (large[key] or 0)
    if small["threshold"] is not None:
        assert large["threshold"] <= small["threshold"]
        # it is the lowest of all scores that keep to the budget, counted one by one
        fits = [
            t
            for t in set(three[1]["score"])
            if metrics.image_rates(*three, t)["false_positive_rate"] * 8 <= sorted(budgets)[0]
        ]
        assert small["threshold"] == min(fits)


def sequence(*rows: tuple) -> tuple:
    """(image, group, event, time, positive, score) as truth, predictions and images."""
    names = ["image", "group", "event", "time", "positive", "score"]
    table = pd.DataFrame(rows, columns=names)
    truth = pd.DataFrame([(n, 0, *HERE) for n in table["image"][table["positive"]]])
    truth = truth.reindex(columns=range(6)).set_axis(["image", "class", *BOX], axis=1)
    shown = table[table["score"] > 0]
    rows = [(n, 0, s, *THERE) for n, s in zip(shown["image"], shown["score"], strict=True)]
    predictions = pd.DataFrame(rows, columns=["image", "class", "score", *BOX]).astype({"score": float})
    return truth, predictions, table[names[:4]].assign(width=100, height=100)


# Camera a, out of order: nothing at 1, smoke at 2, 3, 4 (alarm at 4), nothing at 5, smoke at 6 (alarm).
# Camera b: smoke at 1, 2 (no alarm), then after a pause, in another sequence, at 9 (alarm).
EVENTS = sequence(
    ("a4", "a", "a-e0", 4, True, 0.9),
    ("a2", "a", "a-e0", 2, True, 0.4),
    ("a1", "a", "a-e0", 1, False, 0.9),
    ("a3", "a", "a-e0", 3, True, 0.0),
    ("a5", "a", "a-e0", 5, False, 0.0),
    ("a6", "a", "a-e0", 6, True, 0.5),
    ("b1", "b", "b-e0", 1, True, 0.1),
    ("b2", "b", "b-e0", 2, True, 0.0),
    ("b9", "b", "b-e1", 9, True, 0.6),
)


def test_runs_by_hand():
    truth, _, images = EVENTS
    found = events.runs(truth, images)
    assert found.to_numpy().tolist() == [
        *[[0, "a2", 0], [0, "a3", 1], [0, "a4", 2]],
        [1, "a6", 0],
        *[[2, "b1", 0], [2, "b2", 1]],
        [3, "b9", 0],
    ]


def test_events_by_hand():
    # at .5: a2-a4 found at its third frame, a6 at once, b1-b2 missed, b9 at once
    assert events.detected(*EVENTS, 0.5) == {
        "recall": 0.75,
        "frames_to_detect": 0.0,  # the median of 2, 0, 0
        "frames_to_detect_max": 2,
        "events_n": 4,
        "found_n": 3,
        "missed_n": 1,
        "onset_unseen_n": 2,  # those of b open their sequences; a's begins with a frame without smoke
        "undated_n": 0,
        "why": None,
    }
    # at .95 nothing is found: there is no time to detect, and it is not 0
    none = events.detected(*EVENTS, 0.95)
    assert (none["recall"], none["frames_to_detect"], none["missed_n"]) == (0.0, None, 4)
    # at .05 every event but none at a later frame: a2 and b1 alarm at once
    assert events.detected(*EVENTS, 0.05)["frames_to_detect_max"] == 0


def test_equal_times_go_by_name_and_dates_work():
    truth, predictions, images = EVENTS
    dated = images.assign(time=pd.Timestamp("2024-01-25T14:14:42") + pd.to_timedelta(images["time"], "s"))
    assert events.detected(truth, predictions, dated, 0.5) == events.detected(*EVENTS, 0.5)
    same = images.assign(time=0)
    assert events.runs(truth, same)["image"].tolist() == ["a2", "a3", "a4", "a6", "b1", "b2", "b9"]


def test_images_without_time_are_left_out_and_counted():
    truth, predictions, images = EVENTS
    images = images.assign(time=images["time"].where(images["group"] == "a"))
    seen = events.detected(truth, predictions, images, 0.5)
    assert (seen["events_n"], seen["found_n"], seen["undated_n"]) == (2, 2, 3)
    nothing = events.detected(truth, predictions, images.assign(time=np.nan), 0.5)
    assert (nothing["recall"], nothing["events_n"], nothing["undated_n"]) == (None, 0, 7)
    assert "no positive image has a time" in nothing["why"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from("xy"), st.booleans(), st.sampled_from([0, 0.3, 0.6, 0.9])
        ),
        max_size=20,
    ),
    st.permutations(range(20)),
    st.sampled_from([0.2, 0.5, 0.95]),
)
def test_events_equal_a_walk_through_the_frames(rows, order, threshold):
    table = [(f"i{99 - t}", g, g + e, t, positive, score) for t, (g, e, positive, score) in enumerate(rows)]
    walked = []
    for group in "ab":
        last, counting = None, False
        for _, _, event, _, positive, score in (row for row in table if row[1] == group):
            if positive and (not counting or event != last):
                walked.append({"n": 0, "found": None})
            if positive:
                if walked[-1]["found"] is None and score >= threshold:
                    walked[-1]["found"] = walked[-1]["n"]
                walked[-1]["n"] += 1
            last, counting = event, positive
    shuffled = [table[i] for i in order if i < len(table)]
    seen = events.detected(*sequence(*shuffled), threshold)
    times = [w["found"] for w in walked if w["found"] is not None]
    assert (seen["events_n"], seen["found_n"]) == (len(walked), len(times))
    assert seen["frames_to_detect"] == (float(np.median(times)) if times else None)

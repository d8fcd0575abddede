"""What a comparison holds fixed, on records worked by hand."""

import pandas as pd
import pytest

from saistudy.study import fixed

WIDE = pd.DataFrame({"width": [1280, 1280, 1280], "height": [720, 720, 960]})


def side(imgsz=(640, 640), epochs=160, patience=30, trained=(160, 160), seconds=(1000, 1000)):
    """A case and its two records: tensor, planned epochs, patience, epochs and seconds of each seed."""
    runs = [
        {
            "run": "r",
            "conditions": {"imgsz": list(imgsz), "epochs": epochs},
            "stops": [{"model": "other", "epochs_n": 0, "train_s": 0}]
            + [{"model": "m", "epochs_n": n, "train_s": s}],
        }
        for n, s in zip(trained, seconds, strict=True)
    ]
    return {"model": "m", "patience": patience, "runs": runs}


def held(mine: dict, base: dict) -> str:
    pairs = list(zip(mine["runs"], base["runs"], strict=True))
    return fixed.holds_fixed(mine, base, pairs, lambda run: WIDE)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "pixels, scale, epochs, hours"),
        # 1280 x 720 into 640 x 640 and into 384 x 640: .5 both, less than two thirds of the pixels
        ({"imgsz": (384, 640)}, "scale, epochs, hours"),
        # 512 x 800 has the pixels of 640 x 640; the factor is .625 against .5
        ({"imgsz": (512, 800)}, "pixels, epochs, hours"),
        # 640 x 672: a twentieth more pixels is the bound; .525 against .5, too
        ({"imgsz": (640, 672)}, "pixels, scale, epochs, hours"),
        ({"imgsz": (640, 704)}, "epochs, hours"),
        ({"epochs": 110}, "pixels, scale, hours"),
        # another patience is another number of epochs, unless nothing stopped
        ({"patience": 10, "trained": (40, 160)}, "pixels, scale, hours"),
        ({"patience": 10}, "pixels, scale, epochs, hours"),
        # of one patience an arm may stop where it will
        ({"trained": (40, 160)}, "pixels, scale, epochs, hours"),
        # the mean of the seeds: 1100 against 1000 is the bound, 909 below it
        ({"seconds": (1200, 1000)}, "pixels, scale, epochs, hours"),
        ({"seconds": (1204, 1000)}, "pixels, scale, epochs"),
        ({"seconds": (818, 1000)}, "pixels, scale, epochs"),
        ({"imgsz": (320, 320), "epochs": 110, "seconds": (200, 200)}, "nothing"),
    ],
)
def test_holds_fixed(changed, expected):
    mine, base = side(**changed), side()
    assert held(mine, base) == held(base, mine) == expected

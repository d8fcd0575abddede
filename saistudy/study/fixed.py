"""What a comparison holds fixed, read off the records of both sides: what its difference is not due to."""

from collections.abc import Callable

import numpy as np
import pandas as pd

NEAR_FRAC, NEAR_HOURS_FRAC = 0.05, 0.10
NONE = "nothing"


def holds_fixed(case: dict, base: dict, pairs: list[tuple[dict, dict]], images: Callable) -> str:
    """Words, joined by commas, for what both sides of a comparison share; `NONE` where it is nothing.

    `pixels`: area of the tensor, within `NEAR_FRAC`. `scale`: how large an object stands in the tensor, the
    median over the test images of the factor by which they are resized, within `NEAR_FRAC`. `epochs`: the
    planned ones, and either the patience that may end them or, in every pair, those trained. `hours`: those
    of training up to the stop, mean over the pairs, within `NEAR_HOURS_FRAC`.

    Args:
        case, base: as `comparisons.cases` has them; pairs: the records compared.
        images: run name to its test images, with width and height in pixels.
    """
    cases, sides = (case, base), list(zip(*pairs, strict=True))
    firsts = [side[0] for side in sides]
    stops = [[_stop(r, c["model"]) for r in side] for side, c in zip(sides, cases, strict=True)]
    areas = [np.prod(r["conditions"]["imgsz"]) for r in firsts]
    scales = [_scale(r["conditions"]["imgsz"], images(r["run"])) for r in firsts]
    planned = [r["conditions"]["epochs"] for r in firsts]
    trained = [[stop["epochs_n"] for stop in side] for side in stops]
    held = {
        "pixels": _near(areas, NEAR_FRAC),
        "scale": _near(scales, NEAR_FRAC),
        "epochs": _same(planned) and (_same([c["patience"] for c in cases]) or _same(trained)),
        "hours": _near([np.mean([stop["train_s"] for stop in side]) for side in stops], NEAR_HOURS_FRAC),
    }
    return ", ".join(word for word, same in held.items() if same) or NONE


def _same(values: list) -> bool:
    return values[0] == values[1]


def _near(values: list[float], frac: float) -> bool:
    """Whether the ratio of two positive values lies within a share of 1, whichever stands first."""
    return max(values) <= min(values) * (1 + frac)


def _scale(imgsz: list[int], images: pd.DataFrame) -> float:
    """Median factor by which images are resized into a tensor of height x width without being distorted."""
    height, width = imgsz
    return float(np.minimum(height / images["height"], width / images["width"]).median())


def _stop(record: dict, model: str) -> dict:
    """Where a model stopped."""
    return next(stop for stop in record["stops"] if stop["model"] == model)

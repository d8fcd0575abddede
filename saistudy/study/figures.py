"""The figures of a profile: frames from its records, and each frame drawn and saved beside its picture.

results/<profile>/figures/<name>.csv and .png; the csv holds all that the picture shows, and the same records
give the same bytes.
"""

import io
import os

import matplotlib.pyplot as plt
import pandas as pd

from saistudy.paths import results, write_text
from saistudy.study import comparisons
from saistudy.study.charts import testing as tested
from saistudy.study.charts import training as trained
from saistudy.study.forecast import AS_MEANT
from saistudy.study.frames import cases, sized, testing, training
from saistudy.study.record import read_records

CHARTS = {
    "learning": trained.learning,
    "learning-stage2": trained.learning,
    "patience": trained.patience,
    "ap-by-size": tested.ap_by_size,
    "precision-recall": tested.precision_recall,
    "alarms-per-day": tested.alarms_per_day,
    "forest": tested.forest,
    "cost": trained.cost,
    "sizes": tested.sizes,
}
OF_STAGE = {"learning": 1, "learning-stage2": 2, "cost": 1, "alarms-per-day": 2}
FOREST = ["label", "delta", "delta_low", "delta_high", "verdict"]


def frames(
    profile: str, table: pd.DataFrame, resamples_n: int, bootstrap_seed: int
) -> dict[str, pd.DataFrame]:
    """The frame behind each figure by name, from records, epochs.csv and saved predictions alone.

    Args:
        table: of `tables.of`.
        resamples_n, bootstrap_seed: of the bands over groups of test images, as of the table's intervals.

    Raises:
        Refusal: a record or a file beside one is missing.
    """
    found = cases.longest(read_records(profile), table)
    weights = comparisons.Weights(resamples_n, bootstrap_seed)
    return {
        "learning": training.learning(profile, found, stage=1),
        "learning-stage2": training.learning(profile, found, stage=2),
        "patience": training.patiences(profile, found),
        "ap-by-size": sized.ap_by_size(found),
        "precision-recall": testing.precision_recall(profile, found, weights),
        "alarms-per-day": testing.alarms_per_day(profile, found, weights),
        "forest": forest(table),
        "cost": training.cost(found),
        "sizes": sized.sizes(found),
    }


def forest(table: pd.DataFrame) -> pd.DataFrame:
    """The comparisons of a table in its order: label, delta, delta_low, delta_high, verdict."""
    mine = table[table["delta"].notna()].reset_index(drop=True)
    return mine.assign(label=[_compared(row) for row in mine.to_dict("records")])[FOREST]


def _compared(row: dict) -> str:
    """What a row of the table is: its arm or class handling, and its patience."""
    second = "" if row["stage2_arm"] in (None, AS_MEANT) else f"{row['stage2_arm']} "
    what = row["arm"] if row["stage"] == 1 else f"stage 2 {second}{row['handling']} from {row['arm']}"
    return f"{what}, patience {row['patience']}"


def note(profile: str) -> str:
    """What every figure of a profile says of itself: profile, synthetic or not, seeds."""
    records = read_records(profile)
    synthetic = any(record["data"]["provenance"] == "synthetic" for record in records)
    kind = "SYNTHETIC twin data" if synthetic else "published-format data"
    whose = [(r["notebook"], comparisons.experiment(r), comparisons.stage2_arm(r)) for r in records]
    low, high = pd.Series(whose).value_counts().agg(["min", "max"])
    return f"profile {profile}, {kind}, n={low if low == high else f'{low} to {high}'} seeds"


def draw(name: str, frame: pd.DataFrame, told: str) -> plt.Figure:
    """One figure of `frames` by its name, `told` (of `note`) above it."""
    stage = f", stage {OF_STAGE[name]}" if name in OF_STAGE else ""
    return CHARTS[name](frame, told + stage)


def write(profile: str, drawn: dict[str, pd.DataFrame]) -> None:
    """Write each frame as <name>.csv and its figure as <name>.png into results/<profile>/figures."""
    folder, told = results(profile) / "figures", note(profile)
    for name, frame in drawn.items():
        write_text(folder / f"{name}.csv", csv(frame))
        _write_bytes(folder / f"{name}.png", _png(name, frame, told))


def csv(frame: pd.DataFrame) -> str:
    """A figure's frame as its file has it."""
    return frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def _png(name: str, frame: pd.DataFrame, told: str) -> bytes:
    """A figure as PNG in Matplotlib's own style, whatever a notebook has set, and without its version."""
    buffer = io.BytesIO()
    with plt.style.context("default"):
        figure = draw(name, frame, told)
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        plt.close(figure)
    return buffer.getvalue()


def _write_bytes(path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    os.replace(part, path)

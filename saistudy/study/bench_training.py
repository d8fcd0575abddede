"""What a training step costs on the machine at hand: each arm on a generated twin, and what fits.

On an H200, `python -m saistudy bench training --json` settles what the seeds say of memory and rate at batch
128; the same command on a CPU runs the demo's arms and shows that it works.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from saistudy import hardware, params, paths
from saistudy.data import fasdd, shm, sources, tree, twin
from saistudy.paths import PARAMS, Refusal
from saistudy.training.fit import fit

ARMS = ("896", "1440x808", "1184x672", "1440")
SIZES = {"h200": {"images_n": 2560, "epochs_n": 3}, "demo": {"images_n": 60, "epochs_n": 2}}
LADDER = 8  # times the arm's batch: more than an H200 holds of YOLOv8s at 896 px, and fewer than the images
SEEN = ["gpu_peak_gib", "gpu_reserved_gib", "shm_gib", "gpu_util", "wait_frac", "images_per_s"]


def measure(profile: str = "", images_n: int = 0, epochs_n: int = 0, work: Path | None = None) -> dict:
    """A row per arm, each trained in a process of its own; on a GPU also what batch auto and the ladder do.

    A row: arm, imgsz [height, width] px, batch, gpu_peak_gib and gpu_reserved_gib (torch's peaks),
    images_per_s while training (median of the epochs after the first, which warms up), wait_frac (of that
    time, waiting for images), gpu_util (NVML), epoch_s, note (why there are no figures). `auto`: batch, peak
    of the trial and the peak that occurred. `ladder`: the attempts of a training begun with LADDER times the
    batch.

    Args:
        profile: h200 where a GPU is seen, else demo; images_n, epochs_n: by SIZES.
        work: folder for the twin and the runs, removed again; the images are staged in /dev/shm.

    Raises:
        Refusal: no room for the images.
    """
    gpu = bool(hardware.gpus())
    profile = profile or ("h200" if gpu else "demo")
    images_n, epochs_n = images_n or SIZES[profile]["images_n"], epochs_n or SIZES[profile]["epochs_n"]
    base = work or paths.work("bench")
    base.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=base) as folder, TemporaryDirectory(dir="/dev/shm") as memory:
        data = staged(profile, images_n, Path(folder), Path(memory) / "twin")
        asked = {"data": data, "folder": Path(folder) / "run", "epochs_n": epochs_n}
        found = {"rows": [_apart(_arm, profile, arm, {}, asked) for arm in ARMS]}
        if gpu:
            found["auto"] = _apart(_arm, profile, ARMS[0], {"batch": "auto"}, asked)
            found["ladder"] = _apart(_arm, profile, ARMS[0], {"batch": LADDER}, asked)
    return found | {
        "profile": profile,
        "images_n": images_n,
        "epochs_n": epochs_n,
        "environment": hardware.environment(),
    }


def staged(profile: str, images_n: int, folder: Path, target: Path) -> Path:
    """The data.yaml of a generated twin of FASDD in memory; at published sizes for h200."""
    style = {} if profile == "h200" else sources.SMALL["fasdd_cv"]
    twin.write_fasdd(folder / "twin", images_n, 0, faults="none", **style)
    tree.build(fasdd.read(folder / "twin"), folder / "tree")
    shm.stage(folder / "tree", target)
    return target / "data.yaml"


def _apart(function, *arguments):
    """What a call returns in a new process, whose memory nobody used before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _arm(profile: str, arm: str, change: dict, asked: dict) -> dict:
    """The row of one training: of an arm, of batch auto, or of one that has to climb down."""
    files = [PARAMS / profile / "stage1.yaml", PARAMS / profile / "arms" / f"{arm}.yaml"]
    p = params.read("stage1", files, {})
    train = p["train"] | p["change"] | {"epochs": asked["epochs_n"], "close_mosaic": 0}
    climbs = change.get("batch") == LADDER
    if change:
        train["batch"] = LADDER * train["batch"] if climbs else change["batch"]
    if climbs:
        train["nbs"] = train["batch"]  # else the weight decay would not be the one that was asked for
    kept = {"patiences": [asked["epochs_n"]], "declared": p["effective"], "oom_recovery": climbs}
    row = {"arm": arm, "imgsz": train["imgsz"], "batch": train["batch"], "note": ""}
    try:
        with redirect_stdout(sys.stderr):  # standard output is the result's
            run = fit(p["weights"], asked["data"], asked["folder"], seed=0, **kept, **train)
    except Refusal as refusal:
        return row | dict.fromkeys(SEEN) | {"note": str(refusal)}
    return row | _figures(run) | ({"attempts": run.attempts} if change else {})


def _figures(run) -> dict:
    """What a training cost, the first epoch left out of its rate."""
    rows = pd.read_csv(run.folder / "telemetry.csv")
    later = rows.iloc[1:] if len(rows) > 1 else rows
    seen = {key: run.telemetry[key] for key in SEEN} | {"images_per_s": float(later["images_per_s"].median())}
    seen["wait_frac"] = float(later["wait_s"].sum() / later[["wait_s", "compute_s"]].sum().sum())
    seen |= {"imgsz": run.conditions["imgsz"], "batch": run.conditions["batch"]}
    found = run.cost.get("batch_found")
    return seen | {"epoch_s": rows["epoch_s"].tolist()} | ({"batch_found": found} if found else {})


def sentences(result: dict) -> str:
    """A line for each arm, and for what batch auto and the ladder did."""
    environment = result["environment"]
    device = ", ".join(gpu["name"] for gpu in environment["gpus"] or []) or environment["cpu"]
    head = f"profile {result['profile']} on {device}: {result['images_n']} generated images,"
    lines = [f"{head} {result['epochs_n']} epochs each"]
    lines += [_line(row) for row in result["rows"]]
    for name in ("auto", "ladder"):
        if name in result:
            lines.append(f"{name}: {_line(result[name])}")
    return "\n".join(lines)


def _line(row: dict) -> str:
    if row["note"]:
        return f"{row['arm']}: {row['note']}"
    size = " x ".join(map(str, row["imgsz"]))
    peak = f"{row['gpu_peak_gib']:.1f} GiB at the peak, " if row["gpu_peak_gib"] else ""
    rate = f"{row['images_per_s']:.0f} images/s, {row['wait_frac']:.0%} of the time waiting for images"
    steps = [one["step"] for one in row.get("attempts", []) if one["step"]]
    given = "".join(f", {s['key']} {s['before']} became {s['after']}" for s in steps)
    return f"{row['arm']} ({size}), batch {row['batch']}: {peak}{rate}{given}"

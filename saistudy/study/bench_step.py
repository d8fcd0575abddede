"""A training step fed by each input against one batch that never leaves the GPU: what feeding still costs.

On an H200, `python -m saistudy bench step --json` fills results/h200-bench/; on a CPU it runs a small cell,
which shows that it works and says nothing of a GPU.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

from saistudy import hardware, paths
from saistudy.paths import Refusal, write_json
from saistudy.study.bench import apart
from saistudy.study.bench_staging import environment
from saistudy.study.bench_training import staged

RESIDENT = "resident"
FIRST = (RESIDENT, "deferred", "stock")
GOALS = {
    "step_ratio": 1.05,
    "render_frac": 0.03,
    "end_to_end": 2.3,
}  # at most, at most, at least: the issue's
PASSES_N = 2  # A B A B: every input again, after all have run


class Cell(NamedTuple):
    """One measured training: network, tensor [height, width] px, batch, workers, source of its pixels."""

    model: str
    hw: tuple[int, int]
    batch: int
    workers: int
    way: str


def cells(gpu: bool, workers: int) -> list[Cell]:
    """In the order of their worth: YOLOv8s at 896 first, other tensors, other networks, other workers."""
    if not gpu:
        return [Cell("yolov8n.yaml", (64, 96), 8, 0, way) for way in (*FIRST, "store")] * PASSES_N
    sizes = [((896, 896), 128), ((832, 1440), 64), ((1440, 1440), 32)]
    found = [Cell("yolov8s.yaml", hw, batch, workers, way) for hw, batch in sizes for way in FIRST * PASSES_N]
    found += [Cell(f"yolov8{size}.yaml", (896, 896), 128, workers, way) for size in "mn" for way in FIRST]
    return found + [Cell("yolov8s.yaml", (896, 896), 128, n, way) for n in (2, 4, 8) for way in FIRST[1:]]


def measure(minutes: float = 25.0, work: Path | None = None, kept: Path | None = None) -> dict:
    """A row per cell, each in a process of its own, as far as the minutes reach; each is kept as it ends.

    A row: the Cell's fields, images_per_s over the steady batches (median of a batch's seconds), wait_frac
    and render_frac (shares of that time: waiting for the loader, and from its batch to the network's input),
    gpu_util, gpu_peak_gib, input (what really ran), note (why there are no figures). `ratios`: of each
    network, tensor and workers, medians over passes: step_ratio (time of a deferred step / a resident one)
    and end_to_end (images/s deferred / stock); `goals` beside them.

    Args:
        minutes: cells that would not end within them, by the longest so far, are left out and named.
        work: folder for a generated twin; its images and stores stand in /dev/shm.
        kept: the file that is written after each cell; by default results/h200-bench/step.json on an H200.

    Raises:
        Refusal: no room for the images.
    """
    gpus, started, longest = hardware.gpus() or [], monotonic(), 0.0
    asked = cells(bool(gpus), min(12, hardware.environment()["cores_n"]))
    base = work or paths.work("bench")
    base.mkdir(parents=True, exist_ok=True)
    known = {"environment": environment(), "gpus": gpus, "goals": GOALS, "minutes": minutes}
    rows, left = [], []
    with TemporaryDirectory(dir=base) as folder, TemporaryDirectory(dir="/dev/shm") as memory:
        data = staged("h200" if gpus else "demo", 2560 if gpus else 60, Path(folder), Path(memory) / "twin")
        for cell in asked:
            if monotonic() - started + longest > 60 * minutes:
                left.append(cell._asdict())
                continue
            began = monotonic()
            rows.append(_row(cell, data, Path(folder) / "run", Path(memory) / "stores"))
            longest = max(longest, monotonic() - began)
            result = known | {"rows": rows, "left_out": left, "ratios": ratios(rows)}
            if kept := kept or _kept(gpus):
                write_json(kept, result)
    return known | {"rows": rows, "left_out": left, "ratios": ratios(rows)}


def _kept(gpus: list[dict]) -> Path | None:
    """Where an H200's figures are committed; nobody else's stand there."""
    if gpus and "H200" in gpus[0]["name"]:
        return paths.results("h200-bench") / "step.json"
    return None


def _row(cell: Cell, data: Path, folder: Path, stores: Path) -> dict:
    """The figures of one cell, or why there are none."""
    row = cell._asdict() | {"hw": list(cell.hw)}
    try:
        [seen] = apart("spawn", _figures, cell, data, folder, stores)
    except (Refusal, RuntimeError) as error:
        return row | {"note": " ".join(str(error).split())}
    return row | seen | {"note": ""}


def _figures(cell: Cell, data: Path, folder: Path, stores: Path):
    """Steps of stage 1's training with this cell's network, tensor, batch, workers and input."""
    from saistudy.training import sanity

    gpu = bool(hardware.gpus())
    train = {"imgsz": list(cell.hw), "batch": cell.batch, "nbs": cell.batch, "workers": cell.workers}
    train |= {"device": 0 if gpu else "cpu", "amp": gpu, "mosaic": 1.0, "mixup": 0.15, "optimizer": "SGD"}
    how = {"input": "deferred" if cell.way == RESIDENT else cell.way, "stores": [stores]}
    steps_n, warmup_n = (60, 20) if gpu else (6, 2)
    resident = cell.way == RESIDENT
    lr = {"lr0": 0.001, "warmup_epochs": 0.0, "momentum": 0.9}
    seen = sanity.take(cell.model, data, folder, steps_n, warmup_n, resident=resident, **how, **(train | lr))
    steady = seen.steady
    whole = steady["wait_s"] + steady["transfer_s"] + steady["step_s"]
    shares = {"wait_frac": "wait_s", "render_frac": "transfer_s"}
    yield {
        "images_per_s": float((steady["images_n"] / whole).median()),
        **{name: float(steady[column].sum() / whole.sum()) for name, column in shares.items()},
        **{key: value if isinstance(value, float) else None for key, value in seen.gpu.items()},
        "input": seen.conditions["input"],
        "images_n": int(steady["images_n"].sum()),
    }


def ratios(rows: list[dict]) -> list[dict]:
    """Of each network, tensor, batch and workers: time of a step over a resident one, and against stock."""
    kinds: dict[tuple, dict[str, list]] = {}
    for row in rows:
        if not row["note"]:
            key = row["model"], tuple(row["hw"]), row["batch"], row["workers"]
            kinds.setdefault(key, {}).setdefault(row["way"], []).append(row)
    found = []
    for (model, hw, batch, workers), ways in kinds.items():
        rate = {way: median(row["images_per_s"] for row in seen) for way, seen in ways.items()}
        one = {"model": model, "hw": list(hw), "batch": batch, "workers": workers, "images_per_s": rate}
        if "deferred" in rate:
            one["render_frac"] = median(row["render_frac"] for row in ways["deferred"])
            one["step_ratio"] = rate[RESIDENT] / rate["deferred"] if RESIDENT in rate else None
            one["end_to_end"] = rate["deferred"] / rate["stock"] if "stock" in rate else None
        found.append(one)
    return found


def sentences(result: dict) -> str:
    """A line per network and tensor, and what was left out."""
    device = ", ".join(gpu["name"] for gpu in result["gpus"]) or result["environment"]["cpu"]
    lines = [f"steps on {device}; goals for an H200: {result['goals']}"]
    for one in result["ratios"]:
        size, rate = " x ".join(map(str, one["hw"])), one["images_per_s"]
        rates = ", ".join(f"{way} {value:.1f}" for way, value in rate.items())
        ratio = one.get("step_ratio")
        told = f"; a deferred step takes {ratio:.2f} of a resident one" if ratio else ""
        told += f", {one['end_to_end']:.2f} times stock's images/s" if one.get("end_to_end") else ""
        lines.append(f"{one['model']} {size}, batch {one['batch']}, {one['workers']} workers: {rates}{told}")
    lines += [
        f"{row['model']} {row['hw']} {row['way']}: {row['note']}" for row in result["rows"] if row["note"]
    ]
    if result["left_out"]:
        lines.append(f"{len(result['left_out'])} cells left out: {result['minutes']} minutes were given")
    return "\n".join(lines)

"""What a study would run and why, and what each run will take: as its like took before, else as forecast."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from saistudy import params
from saistudy.paths import results, work
from saistudy.study import estimates, forecast, record, slots, stamps

SHOWN_N = 3  # changed values that a line names
# Values of a training that decide what it takes, and those of its notebook.
TRAIN = ("epochs", "imgsz", "batch", "device", "amp", "workers", "cache", "optimizer")
COSTLY = ("patiences", "weights", "model", "dataset", "negatives", "handlings", "input", "eval_sizes")


@dataclass(frozen=True)
class Outlook:
    """A run that would be executed: why; hours and GiB on the disk (None: unknown); whence these figures."""

    name: str
    why: str
    hours: float | None
    gpus_n: int
    disk_gib: float | None
    source: str

    @property
    def gpu_hours(self) -> float:
        """Hours of all its GPUs."""
        return (self.hours or 0.0) * self.gpus_n


def rows(profile: str, runs: dict[str, forecast.Run], full: bool) -> list[Outlook]:
    """Every run that is not done, in order, each with its reason and what it will take.

    Args:
        runs: `forecast.runs`.
    """
    again: list[str] = []
    found, known, said = [], _records(profile), _forecast(profile, full)
    for name, run in runs.items():
        if stamps.done(profile, run) and not set(run.needs) & set(again):
            continue
        values = params.read(run.notebook, list(run.files), dict(run.overrides))
        asked = _like(run.notebook, values)
        like = [one for one in known if _like(one["notebook"], one["params"]) == asked]
        estimate = said.get(_key(run.notebook, values), (None, None, "-"))
        hours, disk_gib, source = _measured(profile, like) if like else estimate
        gpus_n = slots.wanted_n(profile, run.notebook)
        found.append(Outlook(name, why(profile, run, again), hours, gpus_n, disk_gib, source))
        again.append(name)
    return found


def why(profile: str, run: forecast.Run, again: list[str]) -> str:
    """Why a run is not done: nothing of it is here, something that it reads changed, or its results are gone.

    Args:
        again: the runs before it that will be executed.
    """
    kept, stood = _record(profile, run.name), list(stamps.folder(profile).glob(f"{run.name}.*"))
    before = [name for name in run.needs if name in again]
    after = f"after {before[0]}{f' and {len(before) - 1} more' if before[1:] else ''}" if before else ""
    if stamps.done(profile, run):  # Snakemake goes by the time of the stamps before it
        return after
    if stamps.of(profile, run).exists() and kept is None:
        return "its results were removed"
    if kept is None:
        return "; ".join(filter(None, ["not run here yet", after]))
    if kept["run_id"] == run.identity:
        return "not run here, though its record stands"
    changed = _changed(kept, run)
    if not stood and not changed:
        return "; ".join(filter(None, ["not run here, its record is of other code, data or machine", after]))
    return "; ".join(filter(None, [*changed, after])) or "code, lock or data changed"


def _changed(kept: dict, run: forecast.Run) -> list[str]:
    """What of a run's own is not as its record has it: values of parameters, its notebook."""
    values = params.read(run.notebook, list(run.files), dict(run.overrides))
    told = [f"{key} {before} -> {now}" for key, before, now in _differing(kept["params"], values)]
    more = [f"{len(told) - SHOWN_N} more"] if len(told) > SHOWN_N else []
    same = kept["source"]["blob"] == record.blob(params.source(run.notebook).read_bytes())
    return [*told[:SHOWN_N], *more, *([] if same else ["the notebook changed"])]


def _differing(before: dict, now: dict, above: str = "") -> Iterator[tuple[str, object, object]]:
    """Key (with those above it), value before and now, of each value that is another; None for one absent."""
    for key in sorted(before.keys() | now.keys()):
        old, value = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            yield from _differing(old, value, f"{above}{key}.")
        elif old != value:
            yield f"{above}{key}", old, value


def _like(notebook: str, values: dict) -> tuple:
    """What runs must share for one to tell the other's cost: the arm, and every value that costs time."""
    train = values.get("train", {}) | values.get("change", {})
    costly = [str(train.get(key)) for key in TRAIN] + [str(values.get(key)) for key in COSTLY]
    return *_key(notebook, values), *costly


def _key(notebook: str, values: dict) -> tuple:
    """What a row of the forecast stands for: notebook, arm, arm of stage 2."""
    return notebook, values.get("arm"), values.get("stage2_arm")


def _record(profile: str, name: str) -> dict | None:
    try:
        return json.loads((results(profile) / name / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _records(profile: str) -> list[dict]:
    """The records of a profile, those that hold a cost in seconds."""
    names = [path.parent.name for path in sorted(results(profile).glob("*/record.json"))]
    found = [_record(profile, name) for name in names]
    return [one for one in found if one and one["cost"].get("train_s") is not None]


def _measured(profile: str, like: list[dict]) -> tuple[float, float, str]:
    """Mean hours of training and largest GiB on the disk of earlier runs, and which these are."""
    disk = [_bytes(results(profile) / r["run"]) + _bytes(work(profile) / r["run"]) for r in like]
    devices = sorted({str(one["cost"].get("device")) for one in like})
    names = like[0]["run"] + (f" and {len(like) - 1} more" if like[1:] else "")
    hours = mean(one["cost"]["train_s"] for one in like) / 3600
    return hours, max(disk) / 2**30, f"as {names}, {', '.join(devices)}"


def _bytes(folder: Path) -> int:
    """Bytes that a folder fills on the disk."""
    return sum(512 * path.lstat().st_blocks for path in folder.rglob("*"))


def _forecast(profile: str, full: bool) -> dict[tuple, tuple[float, float, str]]:
    """Hours, GiB and their source of every training, from the throughput in study.yaml."""
    estimate = estimates.trainings(profile, full)
    run_gib = forecast.study(profile)["forecast"]["run_gib"]
    return {row["key"]: (row["hours"], run_gib, "study.yaml") for row in estimate["rows"]}


def sentences(profile: str, found: list[Outlook], price_per_h: float | None) -> list[str]:
    """The runs to come as a table, and their sum; without one, nothing.

    Args:
        price_per_h: US dollars an hour of a GPU, or of the machine where a run has none; None: study.yaml's.
    """
    if not found:
        return []
    price = forecast.study(profile)["forecast"]["price_per_h"] if price_per_h is None else price_per_h
    lines = [f"{'run':<26}{'hours':>8}{'GPU h':>8}{'GiB':>7}{'USD':>8}  why | whence the figures"]
    for one in found:
        gpu_hours = one.gpu_hours if one.gpus_n and one.hours else None
        shown = (_number(one.hours, 3), _number(gpu_hours, 3), _number(one.disk_gib, 3))
        money = _number(None if one.hours is None else _paid_hours(one) * price, 2)
        figures = "".join(f"{text:>{n}}" for text, n in zip((*shown, money), (8, 8, 7, 8), strict=True))
        lines.append(f"{one.name:<26}{figures}  {one.why} | {one.source}")
    hours, paid = sum(one.hours or 0 for one in found), sum(_paid_hours(one) for one in found)
    gpu_hours, gib = sum(one.gpu_hours for one in found), sum(one.disk_gib or 0 for one in found)
    lines.append(
        f"{len(found)} runs to come: {hours:.2f} hours of training one after the other, {gpu_hours:.2f} GPU"
        f" hours, {gib:.1f} GiB on the disk, {paid * price:.2f} US dollars at {price:g} an hour"
    )
    return lines


def _paid_hours(one: Outlook) -> float:
    return one.gpu_hours if one.gpus_n else one.hours or 0.0


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"

"""The runs of a profile in their order, and what they will cost before anything is spent."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from saistudy import params
from saistudy.data import shm, sources
from saistudy.paths import PARAMS, ROOT, Refusal, results, work, write_text


@dataclass(frozen=True)
class Run:
    """One execution of a notebook: files and overrides as Papermill takes them, and the runs it reads."""

    name: str
    notebook: str
    files: tuple[Path, ...]
    overrides: tuple[tuple[str, object], ...]
    needs: tuple[str, ...]
    identity: str

    @property
    def command(self) -> list[str]:
        """The command line that executes it."""
        files = [part for path in self.files for part in ("-f", str(path.relative_to(ROOT)))]
        pairs = [part for key, value in self.overrides for part in ("-p", key, json.dumps(value))]
        return ["python", "-m", "saistudy", "run", self.notebook, *files, *pairs]


def study(profile: str) -> dict:
    """The profile's study.yaml: arms, seeds, stage2_arms, jobs_n, tolerance and, for h200, the full grid.

    Raises:
        Refusal: there is no such profile.
    """
    path = PARAMS / profile / "study.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in PARAMS.glob("*/study.yaml")))
        raise Refusal(f"there is no profile '{profile}': choose one of {known}.")
    return yaml.safe_load(path.read_text())


def runs(profile: str, full: bool = False) -> dict[str, Run]:
    """Every run of a profile by name, each after those that it needs.

    A run's identity covers its own parameters, notebook, code and lock, its data and all runs before it,
    so one edited value changes that run and what follows, and nothing else.
    """
    plan = study(profile)
    plan |= plan.get("full", {}) if full else {}
    keys = {name: sources.key(profile, name) for name in sources.VARIABLES}
    found: dict[str, Run] = {}
    add = _adder(profile, found)
    add("data", "data", {"data": keys})
    add("setup-shm", "setup-shm", {"data": keys}, needs=["data"])
    for arm in plan["arms"]:
        for seed in plan["seeds"]:
            add(
                f"{arm}-s{seed}",
                "stage1",
                {"data": keys["fasdd_cv"]},
                arm,
                {"seed": seed},
                ["setup-shm"],
            )
    for arm in plan["stage2_arms"]:
        for seed in plan["seeds"]:
            first = f"{arm}-s{seed}"
            inputs = {"data": keys, "stage1": found[first].identity}
            add(f"stage2-{first}", "stage2", inputs, None, {"arm": arm, "seed": seed}, [first])
    trained = [name for name in found if found[name].notebook.startswith("stage")]
    add(
        "ablation",
        "ablation",
        {"runs": [found[n].identity for n in sorted(trained)]},
        needs=trained,
    )
    return found


def _adder(profile: str, found: dict[str, Run]):
    """A function that appends one run to `found`; `inputs` is what its notebook passes to params.identity."""

    def add(name, notebook, inputs, arm=None, overrides=None, needs=()):
        files = [PARAMS / profile / f"{notebook}.yaml"]
        files += [PARAMS / profile / "arms" / f"{arm}.yaml"] if arm else []
        values = params.read(notebook, files, overrides or {})
        identity = params.identity(notebook, values, inputs)
        found[name] = Run(
            name, notebook, tuple(files), tuple((overrides or {}).items()), tuple(needs), identity
        )

    return add


def estimate(profile: str, full: bool = False) -> dict:
    """Images, hours, money and bytes of a profile's trainings, from the throughput in its study.yaml.

    Hours are epochs x images / images_per_s, where the throughput of an arm is the stated one divided by
    its pixels relative to 896 x 896. Nothing stops early in an estimate: it is an upper bound at that rate.
    """
    plan = study(profile)
    plan |= plan.get("full", {}) if full else {}
    cost = plan["forecast"]
    rows = []
    for arm in plan["arms"]:
        values = _merged(profile, "stage1", arm)
        rows.append(_row(f"stage 1, {arm}", values["train"] | values["change"], cost, "fasdd_cv"))
    for arm in plan["stage2_arms"]:
        stage1 = _merged(profile, "stage1", arm)
        stage2 = params.read("stage2", [PARAMS / profile / "stage2.yaml"], {})
        train = stage2["train"] | {"imgsz": (stage1["train"] | stage1["change"])["imgsz"]}
        row = _row(f"stage 2, {arm}", train, cost, "pyro-sdis")
        rows.append(row | {"hours": row["hours"] * len(stage2["handlings"])})
    seeds_n = len(plan["seeds"])
    hours = sum(row["hours"] for row in rows) * seeds_n
    return {
        "rows": rows,
        "seeds_n": seeds_n,
        "hours": hours,
        "money": hours * cost["price_per_h"],
        "shm_gib": sum(cost["tree_gib"].values()),
        "loader_gib": max(_loader_gib(_merged(profile, "stage1", arm)) for arm in plan["arms"]),
        "disk_gib": 2 * sum(cost["tree_gib"].values()) + len(rows) * seeds_n * cost["run_gib"],
        "source": cost["source"],
    }


def _merged(profile: str, notebook: str, arm: str) -> dict:
    """Parameters of a notebook with an arm laid over them."""
    return params.read(
        notebook,
        [PARAMS / profile / f"{notebook}.yaml", PARAMS / profile / "arms" / f"{arm}.yaml"],
        {},
    )


def _loader_gib(values: dict) -> float:
    """What the loaders of a training may put into /dev/shm, GiB; prefetch is Ultralytics' own 4."""
    train = values["train"] | values["change"]
    return shm.loader_bytes(train["batch"], side_px(train["imgsz"]), train["workers"]) / 2**30


def side_px(imgsz) -> int:
    """Side in pixels of the square with the area of an imgsz."""
    height, width = imgsz if isinstance(imgsz, list) else (imgsz, imgsz)
    return round((height * width) ** 0.5)


def _row(name: str, train: dict, cost: dict, dataset: str) -> dict:
    """Hours of one training."""
    rate = cost["images_per_s"] * cost["pixels_n"] / side_px(train["imgsz"]) ** 2
    return {"run": name, "hours": train["epochs"] * cost["train_images_n"][dataset] / rate / 3600}


def sentences(profile: str, full: bool = False) -> str:
    """The forecast as text: one line per training, then the sums beside what this machine has free."""
    cost = estimate(profile, full)
    lines = [f"{row['run']:<22} {60 * row['hours']:7.0f} min a seed" for row in cost["rows"]]
    free = {name: shutil.disk_usage(path).free / 2**30 for name, path in _places().items()}
    lines += [
        f"{cost['seeds_n']} seed(s): at most {cost['hours']:.1f} hours, {cost['money']:.0f} US dollars",
        f"/dev/shm: {cost['shm_gib']:.1f} GiB of images and {cost['loader_gib']:.1f} GiB for the loader"
        f" at the largest arm (free: {free['shm']:.1f})",
        f"disk: {cost['disk_gib']:.1f} GiB (free: {free['disk']:.1f})",
        f"rate: {cost['source']}",
    ]
    return "\n".join(lines)


def _places() -> dict[str, Path]:
    """Existing folders whose free space a study uses."""
    shm = Path("/dev/shm")
    return {"shm": shm if shm.is_dir() else ROOT, "disk": ROOT}


def stamp_folder(profile: str) -> Path:
    """Where the stamps of finished runs stand: in the git-ignored work folder."""
    return work(profile) / "stamps"


def stamp(profile: str, run: Run) -> Path:
    """The file that says a run is done: named by its identity."""
    return stamp_folder(profile) / f"{run.name}.{run.identity}"


def done(profile: str, run: Run) -> bool:
    """Whether a run is done: its stamp stands, and its folder still holds the record of that very run."""
    try:
        record = json.loads((results(profile) / run.name / "record.json").read_text())
    except (OSError, ValueError):
        return False
    return stamp(profile, run).exists() and record.get("run_id") == run.identity


def drop_stale_stamps(profile: str, runs: dict[str, Run]) -> None:
    """Remove stamps of runs whose results were replaced or removed by hand."""
    for run in runs.values():
        if not done(profile, run):
            stamp(profile, run).unlink(missing_ok=True)


def write_stamp(path: Path) -> None:
    """Say that a run is done, and that no other identity of it is: results hold one run of a name."""
    name = path.name.rpartition(".")[0]
    for old in path.parent.glob(f"{name}.*"):
        old.unlink()
    write_text(path, "")


def output(profile: str, run: Run) -> Path:
    """Where the executed notebook of a run is kept."""
    return results(profile) / run.name / "run.ipynb"

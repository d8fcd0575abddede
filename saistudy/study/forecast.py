"""The runs of a profile in their order, and what they will cost before anything is spent."""

import json
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

from saistudy import params
from saistudy.data import joint, shm, sources
from saistudy.paths import PARAMS, ROOT, Refusal, results, work, write_text
from saistudy.study import gate
from saistudy.study.ledger.rows import inputs as claims_inputs

SPEED = ("throughput", "large-batch")  # run beside the gate where all notebooks are asked for
AS_MEANT = "as-meant"  # the arm of stage 2 that is stage2.yaml itself
POOLED = list(sources.VARIABLES)  # what the joint pool is made of


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
    """The profile's study.yaml: arms, seeds, few_seeds, stage2_from, stage2_arms, jobs_n, tolerance and
    the full grid of h200.

    Raises:
        Refusal: there is no such profile.
    """
    path = PARAMS / profile / "study.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in PARAMS.glob("*/study.yaml")))
        raise Refusal(f"there is no profile '{profile}': choose one of {known}.")
    return yaml.safe_load(path.read_text())


def runs(profile: str, full: bool = False, speed: bool = False) -> dict[str, Run]:
    """Every run of a profile by name, each after those that it needs; with `speed` the speed notebooks too.

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
    gated = speed or profile in gate.GUARDED
    if gated:
        add("gate", "gate", gate.inputs(profile), needs=["setup-shm"])
    for arm, seeds in seeds_by_arm(plan).items():
        _refuse_other_data(profile, arm)
        for seed in seeds:
            inputs = {"data": keys["fasdd_cv"]}
            add(f"{arm}-s{seed}", "stage1", inputs, arm, {"seed": seed}, ["gate" if gated else "setup-shm"])
    for arm, stage2_arm, seed in product(plan["stage2_from"], plan["stage2_arms"], plan["seeds"]):
        first = f"{arm}-s{seed}"
        inputs = {"data": keys, "stage1": found[first].identity}
        name = stage2_name(arm, stage2_arm, seed)
        add(name, "stage2", inputs, stage2_arm, {"arm": arm, "seed": seed}, [first])
    beside = {"finetune": {"data": keys["fasdd_cv"]}, "claims": claims_inputs()}
    for name in plan.get("beside", []):
        add(name, name, beside[name], needs=["setup-shm"])
    for name in SPEED if speed else ():
        add(name, name, {}, needs=["setup-shm"])
    trained = [name for name in found if found[name].notebook.startswith("stage")]
    add(
        "ablation",
        "ablation",
        {"runs": [found[n].identity for n in sorted(trained)]},
        needs=trained,
    )
    return found


def _refuse_other_data(profile: str, arm: str) -> None:
    """Raise Refusal where an arm of the study is trained on other images than all."""
    dataset = _merged(profile, "stage1", arm)["dataset"]
    if sources.base(dataset) != "fasdd_cv":
        raise Refusal(
            f"arm {arm} trains on {dataset}, and the study compares runs on the same images only: take it out"
            " of study.yaml and execute stage1 with it alone."
        )


def seeds_by_arm(plan: dict) -> dict[str, list[int]]:
    """The seeds of each arm of stage 1: those of the grid, or an arm's own few."""
    return {arm: plan["seeds"] for arm in plan["arms"]} | plan.get("few_seeds", {})


def stage2_name(arm: str, stage2_arm: str, seed: int) -> str:
    """Name of a run of stage 2: stage2-896-s0, and of an arm beside as-meant stage2-896-as-written-s0."""
    return "-".join(["stage2", arm, *([stage2_arm] if stage2_arm != AS_MEANT else []), f"s{seed}"])


def arm_files(profile: str, notebook: str, arm: str | None) -> list[Path]:
    """The parameter files of a run in their order: the notebook's, and that of its arm where it has one."""
    folder = PARAMS / profile / {"stage1": "arms", "stage2": "stage2-arms"}.get(notebook, "")
    own = [folder / f"{arm}.yaml"] if arm not in (None, AS_MEANT) else []
    return [PARAMS / profile / f"{notebook}.yaml", *own]


def _adder(profile: str, found: dict[str, Run]):
    """A function that appends one run to `found`; `inputs` is what its notebook passes to params.identity."""

    def add(name, notebook, inputs, arm=None, overrides=None, needs=()):
        files = arm_files(profile, notebook, arm)
        values = params.read(notebook, files, overrides or {})
        identity = params.identity(notebook, values, inputs)
        found[name] = Run(
            name, notebook, tuple(files), tuple((overrides or {}).items()), tuple(needs), identity
        )

    return add


def estimate(profile: str, full: bool = False, price_per_h: float | None = None) -> dict:
    """Images, hours, money and bytes of a profile's trainings, from the throughput in its study.yaml.

    Hours are epochs x images / images_per_s, where the throughput of an arm is the stated one divided by
    its pixels relative to 896 x 896. Nothing stops early in an estimate: it is an upper bound at that rate.
    A run of stage 2 trains once per class handling, joint on the train images of both data sets. The
    downloads and every tree lie on the disk, the joint one too; only the other two are staged. A row's key
    is notebook, arm and arm of stage 2; price_per_h in US dollars, None: study.yaml's.
    """
    plan = study(profile)
    plan |= plan.get("full", {}) if full else {}
    cost = plan["forecast"]
    rows, grid = [], plan["seeds"]
    for arm, seeds in seeds_by_arm(plan).items():
        values = _merged(profile, "stage1", arm)
        row = _row(f"stage 1, {arm}", values["train"] | values["change"], cost, ["fasdd_cv"])
        rows.append(row | {"seeds_n": len(seeds), "key": ("stage1", arm, None)})
    for arm, stage2_arm in product(plan["stage2_from"], plan["stage2_arms"]):
        stage1, stage2 = _merged(profile, "stage1", arm), _merged(profile, "stage2", stage2_arm)
        train = {"imgsz": (stage1["train"] | stage1["change"])["imgsz"]} | stage2["train"] | stage2["change"]
        name = f"stage 2{'' if stage2_arm == AS_MEANT else f' {stage2_arm}'}, {arm}"
        read = [POOLED if handling == joint.NAME else ["pyro-sdis"] for handling in stage2["handlings"]]
        row = _row(name, train, cost, sum(read, []))
        rows.append(row | {"seeds_n": len(grid), "key": ("stage2", arm, stage2_arm)})
    staged_gib = sum(cost["tree_gib"][name] for name in POOLED)
    runs_n = sum(row["seeds_n"] for row in rows)
    hours = sum(row["hours"] * row["seeds_n"] for row in rows)
    return {
        "rows": rows,
        "seeds_n": len(grid),
        "hours": hours,
        "money": hours * (cost["price_per_h"] if price_per_h is None else price_per_h),
        "shm_gib": staged_gib,
        "loader_gib": max(_loader_gib(_merged(profile, "stage1", arm)) for arm in plan["arms"]),
        "store_gib": max(_store_gib(_merged(profile, "stage1", arm), cost) for arm in plan["arms"]),
        "disk_gib": staged_gib + sum(cost["tree_gib"].values()) + runs_n * cost["run_gib"],
        "source": cost["source"],
    }


def _merged(profile: str, notebook: str, arm: str) -> dict:
    """Parameters of a notebook with an arm laid over them."""
    return params.read(notebook, arm_files(profile, notebook, arm), {})


def _loader_gib(values: dict) -> float:
    """What the loaders of a training may put into /dev/shm, GiB; prefetch is Ultralytics' own 4."""
    train = values["train"] | values["change"]
    return shm.loader_bytes(train["batch"], side_px(train["imgsz"]), train["workers"]) / 2**30


def _store_gib(values: dict, cost: dict) -> float:
    """What the decoded train images of stage 1 fill at most, GiB: each the whole tensor."""
    train = values["train"] | values["change"]
    images_n = cost["train_images_n"]["fasdd_cv"] if values["input"] != "stock" else 0
    return images_n * 3 * side_px(train["imgsz"]) ** 2 / 2**30


def side_px(imgsz) -> int:
    """Side in pixels of the square with the area of an imgsz."""
    height, width = imgsz if isinstance(imgsz, list) else (imgsz, imgsz)
    return round((height * width) ** 0.5)


def _row(name: str, train: dict, cost: dict, datasets: list[str]) -> dict:
    """Hours of a run that reads the train images of these data sets in every epoch."""
    rate = cost["images_per_s"] * cost["pixels_n"] / side_px(train["imgsz"]) ** 2
    images_n = sum(cost["train_images_n"][dataset] for dataset in datasets)
    return {"run": name, "hours": train["epochs"] * images_n / rate / 3600}


def sentences(profile: str, full: bool = False, price_per_h: float | None = None) -> str:
    """The forecast as text: one line per training, then the sums beside what this machine has free."""
    cost = estimate(profile, full, price_per_h)
    shape = "{run:<23} {minutes:7.0f} min a seed, {seeds_n} of them"
    lines = [shape.format(minutes=60 * row["hours"], **row) for row in cost["rows"]]
    free = {name: shutil.disk_usage(path).free / 2**30 for name, path in _places().items()}
    lines += [
        f"{cost['seeds_n']} seed(s): at most {cost['hours']:.1f} hours, {cost['money']:.0f} US dollars",
        f"/dev/shm: {cost['shm_gib']:.1f} GiB of images and {cost['loader_gib']:.1f} GiB for the loader"
        f" at the largest arm (free: {free['shm']:.1f}); decoded images, there or on the disk:"
        f" {cost['store_gib']:.1f} GiB at most",
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

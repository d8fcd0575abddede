"""The runs of a profile in their order, foretold from its parameters, code and data."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

from saistudy import params
from saistudy.data import sources
from saistudy.paths import PARAMS, ROOT, Refusal, results
from saistudy.study import gate
from saistudy.study.ledger.rows import inputs as claims_inputs

SPEED = ("throughput", "large-batch")  # run beside the gate where all notebooks are asked for
AS_MEANT = "as-meant"  # the arm of stage 2 that is stage2.yaml itself


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


def study(profile: str, full: bool = False) -> dict:
    """The profile's study.yaml: arms, seeds, few_seeds, stage2_from, stage2_arms, jobs_n, tolerance and
    the full grid of h200, with `full` laid over the rest.

    Raises:
        Refusal: there is no such profile.
    """
    path = PARAMS / profile / "study.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.parent.name for p in PARAMS.glob("*/study.yaml")))
        raise Refusal(f"there is no profile '{profile}': choose one of {known}.")
    plan = yaml.safe_load(path.read_text())
    return plan | plan.get("full", {}) if full else plan


def runs(profile: str, full: bool = False, speed: bool = False) -> dict[str, Run]:
    """Every run of a profile by name, each after those that it needs; with `speed` the speed notebooks too.

    A run's identity covers its own parameters, notebook, code and lock, its data and all runs before it,
    so one edited value changes that run and what follows, and nothing else.
    """
    plan = study(profile, full)
    keys = {name: sources.key(profile, name) for name in sources.VARIABLES}
    found: dict[str, Run] = {}
    add = _adder(profile, found)
    add("data", "data", {"data": keys})
    add("setup-shm", "setup-shm", {"data": keys}, needs=["data"])
    gated = speed or profile in gate.GUARDED
    if gated:
        add("gate", "gate", gate.inputs(profile), needs=["setup-shm"])
    _add_stage1(add, profile, plan, keys, "gate" if gated else "setup-shm")
    _add_stage2(add, found, plan, keys)
    beside = {"finetune": {"data": keys["fasdd_cv"]}, "claims": claims_inputs()} | dict.fromkeys(SPEED, {})
    for name in [*plan.get("beside", []), *(SPEED if speed else ())]:
        add(name, name, beside[name], needs=["setup-shm"])
    trained = [name for name in found if found[name].notebook.startswith("stage")]
    add("ablation", "ablation", {"runs": [found[n].identity for n in sorted(trained)]}, needs=trained)
    return found


def _add_stage1(add, profile: str, plan: dict, keys: dict, after: str) -> None:
    for arm, seeds in seeds_by_arm(plan).items():
        _refuse_other_data(profile, arm)
        for seed in seeds:
            add(f"{arm}-s{seed}", "stage1", {"data": keys["fasdd_cv"]}, arm, {"seed": seed}, [after])


def _add_stage2(add, found: dict[str, Run], plan: dict, keys: dict) -> None:
    for arm, second, seed in product(plan["stage2_from"], plan["stage2_arms"], plan["seeds"]):
        first = f"{arm}-s{seed}"
        inputs = {"data": keys, "stage1": found[first].identity}
        add(stage2_name(arm, second, seed), "stage2", inputs, second, {"arm": arm, "seed": seed}, [first])


def _refuse_other_data(profile: str, arm: str) -> None:
    """Raise Refusal where an arm of the study is trained on other images than all."""
    dataset = merged(profile, "stage1", arm)["dataset"]
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


def merged(profile: str, notebook: str, arm: str) -> dict:
    """Parameters of a notebook with an arm laid over them."""
    return params.read(notebook, arm_files(profile, notebook, arm), {})


def output(profile: str, run: Run) -> Path:
    """Where the executed notebook of a run is kept."""
    return results(profile) / run.name / "run.ipynb"

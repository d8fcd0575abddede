"""Notebooks, params and package hold to each other and to the house rules."""

import ast
import json
import re
import statistics
import subprocess

import pytest
import yaml

from saistudy import params
from saistudy.paths import NOTEBOOKS, PARAMS, ROOT

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
PROFILES = ["demo", "mini", "h200"]
# Within a floor, a module imports only modules before it; a floor imports only floors before it.
FLOORS = [
    ["paths", "hardware", "schema", "wording", "cells", "params"],
    [
        *["data.boxes", "data.photographs", "data.known", "data.index", "data.split", "data.joint"],
        "data.archives",
        *["data.listings", "data.crosscheck", "data.fasdd", "data.shards", "data.pyrosdis", "data.yolo"],
        *["data.kinds", "data.duplicates", "data.check", "data.filling", "data.tree"],
        *["data.painted.plumes", "data.painted.scenes", "data.painted.lookalikes", "data.painted.placing"],
        *["data.painted.footage", "data.painted.layouts", "data.painted.faults", "data.painted.casting"],
        *["data.painted.writing", "data.twin", "data.room", "data.staging.transfer", "data.staging.pace"],
        *["data.staging.origin", "data.staging.manifest", "data.staging.mirror", "data.shm"],
        *["data.pixels", "data.storing", "data.store", "data.keys", "data.sources"],
    ],
    [
        *["training.patience", "training.ladder", "training.checkpoints", "training.footprint"],
        *["training.loading", "training.dataset", "training.rect", "training.resume", "training.telemetry"],
        *[
            "training.lean",
            "training.batching",
            "training.plans",
            "training.rendering",
            "training.kernel",
            "training.feed",
        ],
        *[
            "training.rates",
            "training.decay",
            "training.cutouts",
            "training.paste",
            "training.memory",
            "training.conditions",
        ],
        *["training.request", "training.live", "training.progress", "training.curves", "training.attempts"],
        *[
            "training.engines",
            "training.clocks",
            "training.stopping",
            "training.sanity",
            "training.trainers",
            "training.recovery",
            "training.finished",
            "training.fit",
        ],
        *["training.export", "training.finetune"],
        *["training.behaviour", "training.drawn", "training.bilstm", "training.described"],
        *["training.stripes", "training.residual", "training.checkpointing", "training.jpegs"],
        *["training.settings", "training.networks", "training.steps", "training.accelerators"],
        *["training.inspected", "training.lessons"],
        *["training.confusion", "training.sequences", "training.batches"],
        *["training.accumulation", "training.trial", "training.limits"],
    ],
    [
        *["evaluation.stats", "evaluation.layers", "evaluation.cocoeval", "evaluation.sizes"],
        *["evaluation.metrics", "evaluation.alarms", "evaluation.events", "evaluation.truth"],
        *["evaluation.predict", "evaluation.score", "evaluation.latency"],
        *["evaluation.shots", "evaluation.pictures"],
    ],
    [
        *["study.commands", "study.ledger.quantities", "study.ledger.rows"],
        "study.locks",
        *["study.transcript", "study.kernel", "study.front", "study.prereg", "study.saved"],
        *["study.model_card", "study.record"],
        *["study.causes", "study.verdicts", "study.gate"],
        *["study.run", "study.bench"],
        *["study.bench_staging", "study.bench_loader", "study.bench_index", "study.bench_training"],
        *["study.bench_step", "study.forecast", "study.estimates", "study.stamps"],
        *["study.begun", "study.session"],
        *["study.slots", "study.prologue", "study.outlook"],
        *["study.status", "study.logs"],
        "study.bundle",
        *["study.planned", "study.comparisons", "study.fixed", "study.paired", "study.described"],
        *["study.tables", "study.agreement", "study.plots", "study.views"],
        "study.drawings",
        *["study.speedups", "study.lossless", "study.speed_plots"],
        *["study.batch_arms", "study.batch_results", "study.batch_plots", "study.costs"],
        "study.batch_claims",
        *["study.frames.cases", "study.frames.sized", "study.frames.testing", "study.frames.training"],
        *[
            "study.charts.panels",
            "study.charts.steps",
            "study.charts.testing",
            "study.charts.training",
            "study.figures",
        ],
        *["study.looking", "study.catalogue", "study.sheets", "study.controls", "study.explore"],
        *["study.ledger.published", "study.ledger.arithmetic", "study.ledger.contradictions"],
        "study.ledger.known",
        *["study.ledger.settings", "study.ledger.tried", "study.ledger.built", "study.ledger.recorded"],
        *["study.ledger.speeds", "study.ledger.batches"],
        *["study.ledger.page", "study.claims"],
        *["study.audit.executed", "study.audit.replay", "study.audit.recomputed", "study.audit.manifest"],
        *["study.audit.chain", "study.audit.report"],
        *["study.pages", "study.printed", "study.filtered", "study.report"],
    ],
]
ORDER = [module for floor in FLOORS for module in floor]


def cells(name: str, kind: str) -> list[dict]:
    book = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    return [cell | {"source": "".join(cell["source"])} for cell in book["cells"] if cell["cell_type"] == kind]


def imported(path) -> set[str]:
    """Names of the project's modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules():
    for path in sorted((ROOT / "saistudy").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "saistudy").with_suffix("").parts)
        if not name.endswith("__init__") and name != "__main__":
            yield name, path


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(name for name, _ in modules())


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=[n for n, _ in modules()])
def test_a_module_imports_only_what_stands_before_it(name, path):
    before = set(ORDER[: ORDER.index(name)])
    own = {m.removeprefix("saistudy.") for m in imported(path) if m.startswith("saistudy.")}
    assert own & set(ORDER) <= before


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=[n for n, _ in modules()])
def test_only_the_engine_and_evaluation_import_torch_or_ultralytics(name, path):
    heavy = {m.split(".")[0] for m in imported(path)} & {"torch", "ultralytics"}
    assert not heavy or name.split(".")[0] in ("training", "evaluation")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs(name):
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(name, "code"))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_with_its_question(name):
    title, rest = cells(name, "markdown")[0]["source"].split("\n", 1)
    assert title.startswith("# ") and rest.strip().startswith("> ") and rest.strip().endswith("?")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_states_its_rule_before_its_parameters(name):
    book = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    first_code = next(i for i, cell in enumerate(book) if cell["cell_type"] == "code")
    assert "Decision rule, fixed before the run" in "".join(sum((c["source"] for c in book[:first_code]), []))
    assert "parameters" in book[first_code]["metadata"].get("tags", [])


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_reads_like_a_study(name):
    code = [cell["source"] for cell in cells(name, "code")]
    asked = [
        cell["source"] for cell in cells(name, "code") if "parameters" in cell["metadata"].get("tags", [])
    ]
    lines = [
        len([line for line in source.splitlines() if line.strip()]) for source in code if source not in asked
    ]
    words = sum(len(cell["source"].split()) for cell in cells(name, "markdown"))
    assert statistics.median(lines) <= 5 and max(lines) <= 25
    assert 20 <= len(code) + len(cells(name, "markdown")) <= 60 and 300 <= words <= 1_500
    assert sum(len(re.findall(r"^def ", source, re.M)) for source in code) <= 3
    assert not any(re.search(r"^class ", source, re.M) for source in code)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_of_a_notebook_are_the_demo_profile(name):
    values = yaml.safe_load((PARAMS / "demo" / f"{name}.yaml").read_text())
    assert params.validate(name, values) == params.validate(name, params.defaults(name))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", NAMES)
def test_every_profile_has_valid_parameters_for_every_notebook(profile, name):
    values = params.read(name, [PARAMS / profile / f"{name}.yaml"], {})
    assert values["profile"] == profile


@pytest.mark.parametrize(
    "path", sorted(PARAMS.glob("*/arms/*.yaml")), ids=lambda p: f"{p.parts[-3]}-{p.stem}"
)
def test_an_arm_changes_exactly_one_thing(path):
    arm = yaml.safe_load(path.read_text())
    base = yaml.safe_load((path.parents[1] / "stage1.yaml").read_text())
    changed = [key for key in arm.keys() - {"arm", "question", "change"} if arm[key] != base[key]]
    assert arm["arm"] == path.stem and arm["question"]
    if path.stem == "again":  # the baseline once more
        assert not changed and not arm["change"]
    elif path.stem == "as-printed":  # the seed's configuration as printed: the one that may change several
        assert changed and len(arm["change"]) > 1
    else:
        assert len(changed) + len(arm["change"]) == 1


@pytest.mark.parametrize(
    "path", sorted(PARAMS.glob("*/stage2-arms/*.yaml")), ids=lambda p: f"{p.parts[-3]}-{p.stem}"
)
def test_an_arm_of_stage_2_changes_exactly_one_thing(path):
    arm, base = yaml.safe_load(path.read_text()), path.parents[1] / "stage2.yaml"
    assert arm["stage2_arm"] == path.stem != params.read("stage2", [base], {})["stage2_arm"]
    assert arm["question"] and len(arm["change"]) == 1
    # beside the change only which handlings are trained, and what it is declared to do
    assert arm.keys() <= {"stage2_arm", "question", "change", "handlings", "effective"}
    values = params.read("stage2", [base, path], {})
    assert values["profile"] == path.parts[-3] and values["train"] | values["change"] != values["train"]
    assert set(values["handlings"]) <= set(params.read("stage2", [base], {})["handlings"])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_arms_of_every_profile_keep_the_order_of_the_pixels_of_the_study(profile):
    arms = ["1184x672", "896", "1440x808", "1440"]
    sizes = [
        yaml.safe_load((PARAMS / profile / "arms" / f"{arm}.yaml").read_text())["change"]["imgsz"]
        for arm in arms
    ]
    pixels = [s[0] * s[1] if isinstance(s, list) else s * s for s in sizes]
    assert pixels == sorted(pixels)
    assert all(side % 32 == 0 for s in sizes for side in (s if isinstance(s, list) else [s]))


def test_h200_holds_the_seed_configuration_value_by_value():
    """The figures are typed from the first seed document, L47-L85 and L93-L110."""
    stage1 = params.read("stage1", [PARAMS / "h200" / "stage1.yaml"], {})
    seed = dict(
        epochs=160, single_cls=False, optimizer="SGD", lr0=0.01, lrf=0.01, cos_lr=True, warmup_epochs=5
    )
    seed |= dict(momentum=0.937, weight_decay=0.0005, box=7.5, cls=0.5, dfl=1.5, mosaic=1.0, mixup=0.15)
    seed |= dict(copy_paste=0.05, hsv_h=0.015, hsv_s=0.7, hsv_v=0.4, batch=128, workers=12, cache=False)
    seed |= dict(device=0, amp=True, save_period=3)
    assert seed.items() <= stage1["train"].items() and max(stage1["patiences"]) == 30
    # beside them only what its contradictions force: the square of L167, and nbs for the weight decay
    assert stage1["train"].keys() - seed.keys() == {"imgsz", "nbs"}
    stage2 = params.read("stage2", [PARAMS / "h200" / "stage2.yaml"], {})
    seed = dict(epochs=60, lr0=0.001, mosaic=0.5, mixup=0.1, copy_paste=0.0, hsv_s=0.5, hsv_v=0.3)
    assert (seed | dict(batch=128, workers=12)).items() <= stage2["train"].items()
    assert max(stage2["patiences"]) == 20 and "single_cls" in stage2["handlings"]


def test_no_committed_file_names_a_home_or_an_index():
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    marks = [str(ROOT) + "/", "/" + "root/", "/" + "home/", "index" + "-url", "/sim" + "ple/"]
    for name in tracked.stdout.split("\n"):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".ipynb", ".json", ".csv", ".txt", ".lock", ".toml"}:
            text = path.read_text() if path.is_file() else ""
            assert not [mark for mark in marks if mark in text], name

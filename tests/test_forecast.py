"""The order of the runs, what an edit runs again, and what a study will cost."""

import json
import os
import subprocess
import sys

import copied
import pytest
import yaml

from saistudy.data import sources
from saistudy.paths import PARAMS, Refusal
from saistudy.study import estimates, forecast, stamps

STAGE2 = [f"stage2-896{arm}-s{seed}" for arm in ("", "-as-written") for seed in (0, 1)]
LIST = "import json; from saistudy.study import forecast as f; "
LIST += "print(json.dumps({n: r.identity for n, r in f.runs('demo').items()}))"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project in a scratch folder, to be edited."""
    return copied.project(tmp_path_factory.mktemp("copy"))


def identities(folder) -> dict[str, str]:
    environ = os.environ | {"PYTHONPATH": str(folder), "SAISTUDY_WORK": str(folder / "work")}
    done = subprocess.run(
        [sys.executable, "-c", LIST], capture_output=True, text=True, env=environ, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # a busy machine tells of its progress before


@pytest.fixture(scope="module")
def before(copy):
    return identities(copy)


def edit(path, old: str, new: str):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "again"),
    [
        ("params/demo/arms/1440.yaml", "160", "192", {"1440-s0", "1440-s1", "ablation"}),
        (
            "params/demo/arms/896.yaml",
            "96}",
            "128}",
            {"896-s0", "896-s1", *STAGE2, "ablation"},
        ),
        ("params/demo/stage2.yaml", "lr0: 0.004", "lr0: 0.002", {*STAGE2, "ablation"}),
        ("params/demo/stage2-arms/as-written.yaml", "0.002", "0.003", {*STAGE2[2:], "ablation"}),
        ("params/demo/ablation.yaml", "resamples_n: 300", "resamples_n: 400", {"ablation"}),
        ("saistudy/study/plots.py", "figsize=(7, 3.5)", "figsize=(7, 4)", {"ablation", "claims"}),
        ("params/demo/finetune.yaml", "epochs: 4", "epochs: 5", {"finetune"}),
        ("params/claims.csv", "Batch 128 needs 10 GB", "Batch 128 takes 10 GB", {"claims"}),
        ("params/demo/stage1.yaml", "# Stage 1", "# The first stage", set()),
        ("saistudy/training/rect.py", '"""Training and', '"""Now training and', set()),
    ],
)
def test_an_edit_runs_again_what_it_touches_and_what_follows(copy, before, file, old, new, again):
    text = (copy / file).read_text()
    edit(copy / file, old, new)
    after = identities(copy)
    (copy / file).write_text(text)
    assert {name for name in before if before[name] != after[name]} == again


def test_every_run_comes_after_those_it_needs():
    seen = set()
    for name, run in forecast.runs("demo").items():
        assert set(run.needs) <= seen
        seen.add(name)
    assert {"data", "setup-shm", "ablation", *STAGE2} <= seen and len(seen) == 20
    assert set(STAGE2) <= set(forecast.runs("demo")["ablation"].needs)


def test_a_run_of_an_arm_of_stage_2_is_told_its_file():
    runs = forecast.runs("demo")
    files = {name: [path.name for path in runs[name].files] for name in STAGE2[1:3]}
    assert files == {
        "stage2-896-s1": ["stage2.yaml"],
        "stage2-896-as-written-s0": ["stage2.yaml", "as-written.yaml"],
    }
    assert "params/demo/stage2-arms/as-written.yaml" in runs[STAGE2[2]].command
    assert runs[STAGE2[2]].needs == ("896-s0",)


def test_a_stamp_replaces_the_one_of_the_run_before(tmp_path):
    for identity in ("0" * 16, "f" * 16):
        stamps.write(tmp_path / f"896-s0.{identity}")
    assert [path.name for path in tmp_path.iterdir()] == [f"896-s0.{'f' * 16}"]


def test_a_run_is_done_only_while_its_results_are_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))
    run = forecast.Run("896-s0", "stage1", (), (), (), "a" * 16)
    record = tmp_path / "results/demo/896-s0/record.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"run_id": "a" * 16}))
    # committed results alone are never "done"
    assert not stamps.done("demo", run)
    stamps.write(stamps.of("demo", run))
    stamps.drop_stale("demo", {"896-s0": run})
    assert stamps.done("demo", run)
    # another run of that name was executed by hand
    record.write_text(json.dumps({"run_id": "b" * 16}))
    stamps.drop_stale("demo", {"896-s0": run})
    assert not stamps.of("demo", run).exists()


def test_the_forecast_of_the_study_is_epochs_times_images_over_the_stated_rate():
    """By hand: 160 epochs x 63_546 images / 298 a second at 896; 832 x 1440 has 1.4924 times the pixels."""
    rows = {row["run"]: row["hours"] for row in estimates.trainings("h200")["rows"]}
    hours = 160 * 63_546 / 298 / 3600
    assert rows["stage 1, 896"] == pytest.approx(hours, rel=1e-3)
    assert rows["stage 1, 1440x808"] == pytest.approx(hours * 832 * 1440 / 896**2, rel=2e-3)
    # stage 2 trains three times, once per class handling, joint on the train images of both data sets
    images_n = 26_600 + 26_600 + 26_600 + 63_546
    assert rows["stage 2, 896"] == pytest.approx(60 * images_n / 298 / 3600, rel=1e-3)
    assert rows["stage 2 as-written, 896"] == pytest.approx(60 * 26_600 / 298 / 3600, rel=1e-3)


def test_the_joint_tree_needs_disk_and_no_memory():
    """By hand: 11.5 + 3.2 GiB staged; downloads and trees of both, 10.9 of the pool, 4 runs of 0.5."""
    cost = estimates.trainings("h200")
    assert cost["shm_gib"] == pytest.approx(14.7)
    assert cost["store_gib"] == pytest.approx(63_546 * 3 * 1440 * 832 / 2**30, rel=0.01)
    assert cost["disk_gib"] == pytest.approx(2 * 14.7 + 10.9 + 4 * 0.5)


def test_the_forecast_says_that_its_rate_is_a_claim():
    told = estimates.sentences("h200")
    assert "not measured here" in told and "US dollars" in told and "/dev/shm" in told
    assert all(word in estimates.sentences("h200", full=True) for word in ("as-printed", "8 seed(s)"))


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(Refusal, match="demo, h200, mini"):
        forecast.study("h100")


def test_the_full_grid_names_existing_arms():
    for profile in ("demo", "mini", "h200"):
        plan = yaml.safe_load((PARAMS / profile / "study.yaml").read_text())
        for arm in plan["arms"] + plan.get("full", {}).get("arms", []):
            assert (PARAMS / profile / "arms" / f"{arm}.yaml").is_file()
        assert plan["stage2_arms"][0] == forecast.AS_MEANT and set(plan["stage2_from"]) <= set(plan["arms"])
        for arm in plan["stage2_arms"][1:]:
            assert (PARAMS / profile / "stage2-arms" / f"{arm}.yaml").is_file()


def test_the_speed_notebooks_run_where_all_are_asked_for(monkeypatch):
    """The gate before any training of stage 1; at h200, whose trainings wait for it, always."""
    assert not {"gate", *forecast.SPEED} & set(forecast.runs("demo"))
    runs = forecast.runs("demo", speed=True)
    assert set(runs) - set(forecast.runs("demo")) == {"gate", *forecast.SPEED}
    assert runs["896-s0"].needs == ("gate",) and runs["gate"].needs == ("setup-shm",)
    assert runs["896-s0"].identity == forecast.runs("demo")["896-s0"].identity
    monkeypatch.setattr(sources, "key", lambda *_: "downloads that are not here")
    assert forecast.runs("h200")["896-s0"].needs == ("gate",)


def test_an_arm_on_other_images_is_refused_before_anything_runs(copy):
    arm, plan = copy / "params/demo/arms/other.yaml", copy / "params/demo/study.yaml"
    before = plan.read_text()
    arm.write_text('arm: other\nquestion: "other images"\nchange: {}\ndataset: pyro-sdis\n')
    edit(
        copy / "saistudy/schema.py",
        'dataset: Literal["fasdd_cv",',
        'dataset: Literal["pyro-sdis", "fasdd_cv",',
    )
    edit(plan, 'arms: ["896"', 'arms: [other, "896"')
    environ = os.environ | {"PYTHONPATH": str(copy), "SAISTUDY_WORK": str(copy / "work")}
    words = [sys.executable, "-m", "saistudy", "plan", "--profile", "demo"]
    done = subprocess.run(words, capture_output=True, text=True, env=environ, cwd=copy)
    assert done.returncode and "arm other trains on pyro-sdis" in done.stderr
    assert "Traceback" not in done.stderr
    plan.write_text(before)
    arm.unlink()
    edit(copy / "saistudy/schema.py", 'Literal["pyro-sdis", "fasdd_cv",', 'Literal["fasdd_cv",')

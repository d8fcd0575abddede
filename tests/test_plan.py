"""What would run, why, and what it will take: from records where there are any, else from study.yaml."""

import json
import subprocess
from pathlib import Path

import pytest

from saistudy import params
from saistudy.__main__ import main
from saistudy.data import sources
from saistudy.paths import ROOT, results, work
from saistudy.study import forecast, outlook, stamps

TREE_BYTES = 3 << 20


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """Nothing was run; data that nobody has to make."""
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(sources, "key", lambda *_: "the same data")


def blob(notebook: str) -> str:
    """What git calls the notebook."""
    words = ["git", "hash-object", "--no-filters", str(ROOT / "notebooks" / f"{notebook}.ipynb")]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def executed(
    run: forecast.Run, train_s: float, profile: str = "demo", stamped: bool = True, **change
) -> Path:
    """The record of a run that took so long, with some of its parameters or its other parts changed."""
    values = params.read(run.notebook, list(run.files), dict(run.overrides))
    record = {"run": run.name, "notebook": run.notebook, "run_id": run.identity, "params": values}
    record |= {"source": {"blob": blob(run.notebook)}, "cost": {"train_s": train_s, "device": "H200"}}
    path = results(profile) / run.name / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record | change))
    if stamped:
        stamps.write(stamps.folder(profile) / f"{run.name}.{(record | change)['run_id']}")
    return path


def seen(profile: str = "demo") -> dict[str, outlook.Outlook]:
    return {one.name: one for one in outlook.rows(profile, forecast.runs(profile), full=False)}


def test_without_any_record_the_hours_are_those_of_study_yaml():
    """By hand: 8 epochs of 166 images at 50 a second; the GiB as stated; of the others nothing."""
    found = seen()
    assert list(found) == list(forecast.runs("demo"))
    first = found["896-s0"]
    assert (first.hours, first.disk_gib) == (pytest.approx(8 * 166 / 50 / 3600), 0.05)
    assert (first.why, first.source) == ("not run here yet; after setup-shm", "study.yaml")
    assert found["data"].hours is None and found["data"].why == "not run here yet"
    assert found["ablation"].why == "not run here yet; after 896-s0 and 14 more"


def test_earlier_runs_of_an_arm_tell_what_it_takes():
    runs = forecast.runs("demo")
    for name in ("data", "setup-shm"):
        executed(runs[name], 0.0)
    executed(runs["896-s0"], 3600.0)
    executed(runs["1440-s0"], 7200.0)
    (work("demo") / "896-s0").mkdir(parents=True)
    (work("demo") / "896-s0/best.pt").write_bytes(b"1" * TREE_BYTES)
    found = seen()
    assert {"data", "setup-shm", "896-s0", "1440-s0"}.isdisjoint(found)
    other, larger = found["896-s1"], found["1440-s1"]
    assert (other.hours, larger.hours, other.why) == (1.0, 2.0, "not run here yet")
    assert other.disk_gib * 2**30 == pytest.approx(TREE_BYTES, rel=0.02)
    assert other.source == "as 896-s0, H200" and found["again-s0"].source == "study.yaml"


def test_a_run_of_other_length_or_device_tells_nothing_of_the_cost():
    """A trial of one epoch, and a run on a GPU: what comes costs what study.yaml says."""
    runs = forecast.runs("demo")
    values = params.read("stage1", list(runs["896-s0"].files), {"seed": 0})
    executed(runs["896-s0"], 3.0, params=values | {"train": values["train"] | {"epochs": 1}}, run_id="0" * 16)
    executed(runs["896-s1"], 5.0, params=values | {"train": values["train"] | {"device": 0}}, run_id="0" * 16)
    found = seen()["896-s0"]
    assert found.source == "study.yaml" and found.hours == pytest.approx(8 * 166 / 50 / 3600)


def test_the_mean_of_all_earlier_runs_of_an_arm_counts():
    runs = forecast.runs("demo")
    for name, train_s in (("896-s0", 3600.0), ("896-s1", 10800.0)):
        executed(runs[name], train_s, run_id="0" * 16)
    found = seen()
    assert found["896-s0"].hours == found["896-s1"].hours == 2.0
    assert found["896-s0"].source == "as 896-s0 and 1 more, H200"


def test_why_names_the_values_that_changed():
    runs = forecast.runs("demo")
    values = params.read("stage1", list(runs["1440-s0"].files), {"seed": 0})
    changed = values | {"train": values["train"] | {"lr0": 0.01}, "weights": "yolov8s.yaml"}
    executed(runs["1440-s0"], 60.0, params=changed, run_id="0" * 16)
    executed(runs["896-s0"], 60.0, source={"blob": "0" * 40}, run_id="0" * 16)
    executed(runs["896-s1"], 60.0, run_id="0" * 16)
    executed(runs["1440-s1"], 60.0, run_id="0" * 16, stamped=False)
    for name in ("data", "setup-shm"):
        executed(runs[name], 0.0)
    found = seen()
    assert found["1440-s0"].why == "train.lr0 0.01 -> 0.004; weights yolov8s.yaml -> yolov8n.yaml"
    assert found["896-s0"].why == "the notebook changed"
    assert found["896-s1"].why == "code, lock or data changed"
    assert found["1440-s1"].why == "not run here, its record is of other code, data or machine"
    assert found["stage2-896-s0"].why == "not run here yet; after 896-s0"


def test_why_says_that_results_were_removed_and_what_follows_runs_again():
    runs = forecast.runs("demo")
    for run in runs.values():
        executed(run, 60.0)
    assert seen() == {}
    (results("demo") / "896-s0/record.json").unlink()
    found = seen()
    assert found["896-s0"].why == "its results were removed"
    stage2 = [name for name in runs if name.startswith("stage2-896") and name.endswith("s0")]
    assert list(found) == ["896-s0", *stage2, "ablation"]
    assert {found[name].why for name in stage2} == {"after 896-s0"}
    assert found["ablation"].why == "after 896-s0 and 2 more"


def test_the_plan_of_a_gpu_profile_counts_gpu_hours_and_money(monkeypatch):
    runs = forecast.runs("h200")
    executed(runs["896-s0"], 9 * 3600.0, "h200", run_id="0" * 16)
    found = outlook.rows("h200", runs, full=False)
    known = {one.name: one for one in found}
    assert known["896-s0"].gpu_hours == 9.0 and known["ablation"].gpus_n == known["data"].gpus_n == 0
    lines = outlook.sentences("h200", found, 2.0)
    row = next(line for line in lines if line.startswith("896-s0 ")).split()
    assert row[1:3] == ["9.000", "9.000"] and row[4] == "18.00"
    hours = sum(one.hours or 0.0 for one in found)
    assert f"{hours:.2f} GPU hours" in lines[-1]
    assert f"{2 * hours:.2f} US dollars at 2 an hour" in lines[-1]


def test_the_price_of_the_command_line_goes_over_study_yaml(capsys):
    assert main(["plan", "--profile", "h200", "--price-per-h", "7"]) == 0
    dear = capsys.readouterr().out
    assert main(["plan", "--profile", "h200"]) == 0
    assert "US dollars at 7 an hour" in dear and "US dollars at 3.5 an hour" in capsys.readouterr().out
    assert not work("h200").exists() and not results("h200").exists()


def test_costs_are_told_before_anything_is_downloaded(monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.delenv("SAISTUDY_FASDD", raising=False)
    assert main(["plan", "--profile", "h200"]) == 2
    told = capsys.readouterr()
    assert "US dollars" in told.out and "/dev/shm" in told.out
    assert "SAISTUDY_FASDD is not set" in told.err

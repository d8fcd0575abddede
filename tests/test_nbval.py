"""The committed notebooks of the demo against the code at hand, by nbval.

The ablation is a function of committed records: executed again, every output must be the same. The training
notebooks really train again: their tagged cells must be the same, their AP50 within the profile's tolerance.
Both in a scratch folder, with the results of the last commit, so that a study that has just rewritten
results/ changes nothing here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import copied
import pytest

from saistudy.paths import ROOT
from saistudy.study import agreement

FIRST = ["data", "896-s0"]
# each of these takes minutes; CI executes them all in the study from a fresh clone and compares their figures
LONGER = [[*FIRST, "stage2-896-s0"], ["gate"], ["large-batch"]]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The code at hand with the committed results of the demo."""
    folder = copied.project(tmp_path_factory.mktemp("checkout"), "README.md")
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD", "results/demo"], capture_output=True)
    if archive.returncode:
        pytest.skip("no git checkout with committed demo results: nothing to compare with")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def nbval(checkout: Path, out: Path, *words: str) -> subprocess.CompletedProcess:
    """nbval in a process of its own: results and work go to `out`."""
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("SAISTUDY", "PYTEST", "MPL"))
    }
    environ |= {
        "PYTHONPATH": str(checkout),
        "SAISTUDY_RESULTS": str(out / "results"),
        "SAISTUDY_WORK": str(out / "work"),
        "SAISTUDY_SHM": str(out / "shm"),
    }
    call = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--nbval-current-env",
    ]
    return subprocess.run(
        [*call, "-c", os.devnull, "--rootdir", str(checkout), *words],
        env=environ,
        cwd=checkout,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("runs", [FIRST, *(pytest.param(runs, marks=pytest.mark.full) for runs in LONGER)])
def test_notebooks_that_train_give_the_same_again(checkout, tmp_path, runs):
    paths = [f"results/demo/{run}/run.ipynb" for run in runs]
    done = nbval(checkout, tmp_path, "--nbval-lax", *paths)
    assert done.returncode == 0, done.stdout[-3000:]
    # every run was trained again, not found
    fresh = [json.loads((tmp_path / "results/demo" / run / "record.json").read_text()) for run in runs]
    banded = [record for record in fresh if record["notebook"] in ("stage1", "stage2")]
    rows = agreement.compare(banded, json.loads((checkout / "results/demo/expected.json").read_text()))
    assert len(rows) == sum(len(record["metrics"]) for record in banded)
    assert not banded or rows["inside"].all(), rows.to_string()


def test_the_ablation_gives_every_committed_output_again(checkout, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(checkout / "results", results)
    done = nbval(checkout, tmp_path, "--nbval", "results/demo/ablation/run.ipynb")
    assert done.returncode == 0, done.stdout[-3000:]
    # the table and the frames that it has just written are the committed ones, byte for byte
    frames = [path.relative_to(results) for path in results.glob("demo/figures/*.csv")]
    assert len(frames) >= 8
    for name in ("demo/table.csv", "demo/table.md", *frames):
        assert (results / name).read_bytes() == (checkout / "results" / name).read_bytes()

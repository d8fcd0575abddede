"""The study on a real Slurm of two shapes: equal to the local one whatever happens to its jobs."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import copied
import psutil
import pytest
import slurm
import torch
import yaml

from saistudy.paths import ROOT
from saistudy.study import forecast

pytestmark = [pytest.mark.full, pytest.mark.skipif(bool(slurm.lacking()), reason=slurm.lacking())]
TRAIN = ("stage1", "stage2", "finetune")  # notebooks
TRAININGS = ("896-s0", "1184x672-s0", "stage2-896-s0")
GPUS = {f"{gpu} of {node}" for gpu in "01" for node in slurm.NODES}
EPOCHS_N = 10
LONG_N = 90  # of stage 2: Slurm looks for exceeded limits twice a minute, and none is below a minute
QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2")
# a study of minutes: two arms and what follows, one node for each of them
SMALL = {
    "study.yaml": {
        "arms": ["896", "1184x672"],
        "seeds": [0],
        "few_seeds": {},
        "stage2_arms": ["as-meant"],
        "beside": [],
        "job": {"gpus_n": 1, "cpus_n": 2, "mem_gib": 4, "runtime_h": 1},
    },
    "data.yaml": {"fasdd_n": 120, "pyrosdis_n": 90},
    "setup-shm.yaml": {"passes_n": 2, "batches_n": 4, "images_n": 16, "workers_tried": [0]},
    "stage1.yaml": {"eval_sizes": [96], "patiences": [EPOCHS_N]},
    "stage2.yaml": {"eval_sizes": [96], "patiences": [LONG_N], "handlings": ["named"]},
    "ablation.yaml": {"resamples_n": 50},
}


# the demo study itself, each of its runs on what is called a GPU
WHOLE = {"study.yaml": {"job": {"gpus_n": 1, "cpus_n": 1, "mem_gib": 4, "runtime_h": 1}}}


class Study:
    """A copy of the project with a study of its own, its work and results in one folder."""

    def __init__(self, folder: Path, changes: dict[str, dict]):
        self.folder, self.work, self.results = folder / "copy", folder / "work/demo", folder / "results/demo"
        copied.project(self.folder, "profiles", "Snakefile", "README.md")
        for file, change in changes.items():
            path = self.folder / "params/demo" / file
            values = yaml.safe_load(path.read_text()) | change
            if "patiences" in change:
                values["train"]["epochs"] = values["patiences"][0]
            path.write_text(yaml.safe_dump(values))
        scripts = Path(sys.executable).parent
        places = {"SAISTUDY_WORK": folder / "work", "SAISTUDY_RESULTS": folder / "results"}
        places |= {"SAISTUDY_SHM": folder / "shm", "SAISTUDY_SLOTS": folder / "slots"}
        self.environ = os.environ | {name: str(place) for name, place in places.items()}
        self.environ["PATH"] = f"{scripts}:{os.environ['PATH']}"

    def begin(self, *words: str, attended=False, **environ: str) -> subprocess.Popen:
        """Snakemake, at work on the study; `attended` by the door that notes, compares and seals."""
        door = [sys.executable, "-m", "saistudy", "study", "--profile", "demo", "--"]
        command = [*(door if attended else []), "snakemake", *words, "--config", "profile=demo"]
        log = (self.folder / "snakemake.log").open("ab")
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environ | environ, stdout=log, stderr=subprocess.STDOUT
        )

    def log(self) -> str:
        return (self.folder / "snakemake.log").read_text()

    def said(self, run: str) -> str:
        """What the jobs of a run wrote on the cluster."""
        logs = (self.folder / "work/slurm").glob(f"rule_run/{run}_*/*.log")
        return "".join(path.read_text() for path in sorted(logs))

    def gpu(self, run: str) -> str:
        """GPU and node of a run's last attempt, as its log names them."""
        return re.findall("GPU (.*), by the batch system", self.said(run))[-1]

    def epochs_n(self, run: str) -> int:
        """Epochs of a training that are kept."""
        table = next((self.work / run).glob("*/results.csv"), None)
        return len(table.read_text().splitlines()) - 1 if table else 0

    def numbers(self) -> dict[str, tuple]:
        """What two executions must share: each stop's weights bit by bit, its epochs, all metrics.

        The file of the weights holds a date and seconds besides, so its own hash is no help.
        """
        found = {}
        for path in sorted(self.results.glob("*/record.json")):
            record = json.loads(path.read_text())
            if stops := record.get("stops"):
                kept = [(_bits(self.folder / stop["weights"]), stop["epochs_n"]) for stop in stops]
                found[path.parent.name] = (kept, record["metrics"])
        return found

    def forget(self) -> None:
        """As if nothing had been trained: data and staging are done, all that follows is not."""
        for run in (*TRAININGS, "ablation"):
            shutil.rmtree(self.results / run)
            shutil.rmtree(self.work / run)
            for stamp in (self.work / "stamps").glob(f"{run}.*"):
                stamp.unlink()


def until(true, what: str, s: float = 900) -> None:
    """Wait for something that has to come."""
    end = time.monotonic() + s
    while not true():
        assert time.monotonic() < end, f"it never came: {what}"
        time.sleep(0.2)


def _bits(weights: Path) -> str:
    """Hash of every tensor of a checkpoint's model, in order."""
    model = torch.load(weights, map_location="cpu", weights_only=False)["model"]
    tensors = [value.numpy().tobytes() for value in model.state_dict().values()]
    return hashlib.sha256(b"".join(tensors)).hexdigest()


def executed_here(study: Study) -> dict[str, tuple]:
    """The numbers of a study that two GPUs of this machine execute."""
    process = study.begin("--cores", "2", "--nolock", CUDA_VISIBLE_DEVICES="0,1")
    assert process.wait(3600) == 0, study.log()
    assert set(re.findall(r"GPU (\d) is this run's", study.log())) == {"0", "1"}
    return study.numbers()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The study executed here, on two GPUs by name, and its numbers; then forgotten."""
    folder = tmp_path_factory.mktemp("slurm")
    study = Study(folder, SMALL)
    numbers = executed_here(study)
    study.forget()
    yield study, numbers
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("SAISTUDY_WORK") == study.environ["SAISTUDY_WORK"]:
            process.kill()


@pytest.fixture
def cluster(tmp_path_factory):
    with slurm.Slurm(tmp_path_factory.mktemp("cluster") / "slurm") as started:
        yield started


def running(cluster, run: str) -> dict[str, str] | None:
    """The job of a run that is at work now."""
    mine = (job for job in cluster.jobs() if f"_{run}_" in job["comment"])
    return next((job for job in mine if job["state"] == "RUNNING"), None)


HOLD = "import time; from saistudy.study import slots\nwith slots.taken(): time.sleep(5)"


def test_four_jobs_at_a_time_have_a_gpu_each_and_wait_for_no_lock(cluster):
    """Two of them are called GPU 0 on two nodes: a lock by that name would make one wait for the other."""
    words = ["srun", "-N1", "-n1", "-c1", "--gres=gpu:1", sys.executable, "-c", HOLD]
    environ = os.environ | {"SLURM_CONF": str(slurm.CONF)}
    jobs = [
        subprocess.Popen(words, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE) for _ in range(4)
    ]
    said = [job.communicate(timeout=120)[0] for job in jobs]
    expected = {f"GPU {gpu}, by the batch system\n" for gpu in GPUS}
    assert set(said) == expected


def test_four_nodes_of_one_gpu_change_no_number(local, tmp_path):
    study, expected = local
    with slurm.Slurm(tmp_path / "slurm", slurm.FOUR, gpus_n=1):
        assert study.begin("--profile", "profiles/slurm", *QUICK).wait(1800) == 0, study.log()
    assert study.numbers() == expected
    assert {study.gpu(run).split()[0] for run in TRAININGS} == {"0"}
    assert len({study.gpu(run) for run in TRAININGS[:2]}) == 2, "two at a time, a node each"
    assert "the memory of node" in "".join(study.said(run) for run in TRAININGS)
    study.forget()


def test_the_demo_study_on_two_nodes_has_the_numbers_of_the_local_one(cluster, tmp_path):
    """All trainings of the demo, seeds, sizes and both stages: weights bit by bit, and metrics."""
    here, there = Study(tmp_path / "here", WHOLE), Study(tmp_path / "there", WHOLE)
    (there.folder / "results/demo").mkdir(parents=True)  # the band stands in the project, wherever results go
    shutil.copy(ROOT / "results/demo/expected.json", there.folder / "results/demo")
    process = there.begin("--profile", "profiles/slurm", *QUICK, attended=True)
    assert process.wait(3600) == 0, there.log()
    assert re.search(r"demo: (\d+) of \1 AP50 figures lie in the band", there.log()), there.log()
    numbers = there.numbers()
    trained = {name for name, run in forecast.runs("demo").items() if run.notebook in TRAIN}
    assert set(numbers) == trained
    assert {there.gpu(run) for run in trained} == GPUS
    assert numbers == executed_here(here)


def test_what_happens_to_jobs_changes_no_number(local, cluster):
    """A lost node, an eviction, a time limit and a restarted controller: the numbers of the local run."""
    study, expected = local
    first, second, third = TRAININGS
    process = study.begin("--profile", "profiles/slurm", *QUICK)

    def further(run: str, n: int):
        return lambda: process.poll() is not None or (running(cluster, run) and study.epochs_n(run) >= n)

    until(further(first, 2), "two epochs of the first arm")
    until(further(second, 2), "two epochs of the second arm")
    lost, evicted = running(cluster, first), running(cluster, second)
    assert {lost["node"], evicted["node"]} == set(slurm.NODES), study.log()
    cluster.lose(lost["node"])
    kept_n = study.epochs_n(second)
    cluster.says(
        "sbatch", "-p", "urgent", "-w", evicted["node"], "--exclusive", "-o", "/dev/null", "--wrap=sleep 3"
    )
    until(lambda: not running(cluster, second), "the eviction")
    cluster.kill("slurmctld")
    time.sleep(2)
    cluster.controller()
    cluster.node(lost["node"])
    until(further(second, kept_n + 1), "the evicted training goes on")
    until(further(third, 1), "an epoch of stage 2")
    cluster.says("scontrol", "update", f"jobid={running(cluster, third)['id']}", "TimeLimit=1")
    assert process.wait(1800) == 0, study.log()

    assert study.numbers() == expected
    for run in TRAININGS:
        table = next((study.results / run).rglob("epochs.csv")).read_text().splitlines()[1:]
        epochs_n = LONG_N if run == third else EPOCHS_N
        assert [int(float(line.split(",")[0])) for line in table] == list(range(1, epochs_n + 1)), run
        assert len(list((study.work / "stamps").glob(f"{run}.*"))) == 1
    assert "stopped by SIGUSR1" in study.said(second)
    assert re.search("DUE TO TIME LIMIT|stopped by SIGUSR1", study.said(third))
    assert all("resumed with epoch" in study.said(run) for run in TRAININGS)
    assert {study.gpu(run) for run in TRAININGS} <= GPUS

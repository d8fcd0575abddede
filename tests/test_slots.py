"""A GPU for each run of a machine, and a node's memory shared by its runs: real processes, killed too."""

import os
import subprocess
import sys

import pytest
from test_run import CHECK, notebook, outputs

from saistudy.__main__ import main
from saistudy.data import shm, sources
from saistudy.paths import PARAMS, ROOT, Refusal
from saistudy.study import prologue, slots
from saistudy.training import stopping

HOLD = """
import os, sys
from saistudy.study import slots
with slots.taken() as name:
    print(name, "sees", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.readline()
"""
STAY = """
import os, pathlib, sys
from saistudy.data import sources
from saistudy.study import prologue
sources.PARAMS = pathlib.Path(os.environ["SAISTUDY_WORK"]).with_name("params")
with prologue.staged("stage1", {"profile": "demo", "dataset": "fasdd_cv", "negatives": True}):
    print("staged", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """Locks, results and work of the test's own, on no cluster."""
    for name in ("SLOTS", "WORK", "RESULTS", "SHM"):
        monkeypatch.setenv(f"SAISTUDY_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def begin():
    """Begins a process that holds something until it is told a line or killed."""
    begun = []

    def start(code: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def taken(process: subprocess.Popen) -> str:
    """The GPU that a process has got, which is all that it sees."""
    name = process.stdout.readline().removeprefix("GPU ").removesuffix(" is this run's\n")
    assert process.stdout.readline() == f"{name} sees {name}\n"
    return name


def test_a_gpu_is_one_runs_and_free_again_however_that_ends(begin, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    first, second = begin(HOLD), begin(HOLD)
    names = [taken(process) for process in (first, second)]
    assert sorted(names) == ["0", "3"]
    third = begin(HOLD)
    assert third.stdout.readline() == "each of 2 GPU(s) is in the hands of another run: waiting\n"
    first.kill()
    assert taken(third) == names[0]
    fourth = begin(HOLD)
    assert "waiting" in fourth.stdout.readline()
    second.communicate("\n")
    assert taken(fourth) == names[1]


def test_the_kernel_of_a_run_sees_its_gpu_alone(tmp_path, begin, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    other = begin(HOLD)
    assert taken(other) == "4"
    path = notebook(tmp_path, CHECK, "import os\nprint('sees', os.environ['CUDA_VISIBLE_DEVICES'])")
    output = tmp_path / "results/demo/one/run.ipynb"
    assert main(["run", str(path), "--gpu", "--output", str(output)]) == 0
    assert '"sees 5' in outputs(output)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_without_a_gpu_a_run_that_wants_one_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    output = tmp_path / "run.ipynb"
    assert main(["run", str(notebook(tmp_path, CHECK)), "--gpu", "--output", str(output)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "wants a GPU" in sentence and "gpus_n: 0" in sentence and not output.exists()


def test_a_batch_system_chooses_by_itself(monkeypatch):
    """Each job of a node may call its own GPU 0: a lock of that name would make them wait for each other."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with slots.taken() as one, slots.taken() as two:
        assert one is None and two is None and os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_of_several_gpus_of_one_batch_job_each_run_has_its_own(begin, monkeypatch):
    """Another job's GPU 0 may be another one: its lock is apart."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert sorted(taken(begin(HOLD)) for _ in range(2)) == ["0", "1"]
    assert "waiting" in begin(HOLD).stdout.readline()
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert taken(begin(HOLD)) == "0"


def test_a_batch_job_that_hides_all_gpus_is_refused(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    with pytest.raises(Refusal, match="wants a GPU"), slots.taken():
        pass


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ("-1", []),
        ("-1,0", []),
        ("NoDevFiles", []),
        ("0, 2,-1,3", ["0", "2"]),
        ("GPU-8932f937,MIG-2f9a", ["GPU-8932f937", "MIG-2f9a"]),
    ],
)
def test_the_first_name_that_is_none_ends_the_list(named, names, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert slots.gpus() == names


def test_a_run_that_waits_for_a_gpu_heeds_a_stop(tmp_path, begin, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(stopping.PLACE, str(tmp_path / "stop"))
    assert taken(begin(HOLD)) == "0"
    words = ["run", str(notebook(tmp_path, CHECK)), "--gpu", "--output", str(tmp_path / "run.ipynb")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "saistudy", *words], cwd=ROOT, **pipes) as waits:
        try:
            assert "waiting" in waits.stdout.readline()
            (tmp_path / "stop").write_text(stopping.EPOCH)
            error = waits.communicate(timeout=10)[1]
        finally:
            waits.kill()
    assert waits.returncode == 75 and error.splitlines() == [
        "saistudy: run not begun: a stop was asked for while it waited for a GPU"
    ]


@pytest.mark.parametrize(
    ("profile", "visible", "jobs_n"), [("demo", "0,1,2", 2), ("h200", "0,1,2", 3), ("h200", "", 1)]
)
def test_a_profile_that_trains_on_gpus_has_a_job_for_each(profile, visible, jobs_n, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert main(["jobs", "--profile", profile]) == 0
    assert capsys.readouterr().out == f"{jobs_n}\n"


def test_what_trains_nothing_takes_no_gpu():
    wanted = {path.stem: slots.wanted_n("h200", path.stem) for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name for name, n in wanted.items() if not n} == {"data", "ablation", "claims"}
    assert slots.wanted_n("demo", "stage1") == 0


@pytest.fixture
def two_small_sets(tmp_path, monkeypatch):
    """A demo whose twins are as small as they may be."""
    for path in PARAMS.rglob("*.yaml"):
        copy = tmp_path / "params" / path.relative_to(PARAMS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = (
            path.read_text()
            .replace("fasdd_n: 264", "fasdd_n: 72")
            .replace("pyrosdis_n: 120", "pyrosdis_n: 72")
        )
        copy.write_text(text)
    monkeypatch.setattr(sources, "PARAMS", tmp_path / "params")


def staged() -> set[str]:
    return {name for name in sources.READERS if shm.staged(sources.staging_target("demo", name))}


VALUES = {"profile": "demo", "dataset": "fasdd_cv", "negatives": True}


def test_the_last_run_on_a_node_gives_its_memory_back(two_small_sets, monkeypatch, begin, capsys):
    sources.build("demo", "fasdd_cv")
    with prologue.staged("stage1", VALUES):  # a machine of one's own: nothing is staged, nothing given back
        assert staged() == set()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with prologue.staged("stage1", VALUES):
        before = sources.staging_target("demo", "fasdd_cv").stat().st_ino
        with prologue.staged("stage2", VALUES | {"dataset": "pyro-sdis"}):
            assert staged() == {"fasdd_cv", "pyro-sdis"}
        assert staged() == {"fasdd_cv", "pyro-sdis"}  # another run is still here
        assert sources.staging_target("demo", "fasdd_cv").stat().st_ino == before
    assert staged() == set() and "given back" in capsys.readouterr().out
    killed = begin(STAY)
    assert "staged\n" in iter(killed.stdout.readline, "")
    killed.kill()
    killed.wait()
    assert staged() == {"fasdd_cv"}  # nobody could give it back
    with prologue.staged("ablation", {"profile": "demo"}):
        assert staged() == {"fasdd_cv"}
    assert staged() == set()


def test_what_does_not_fit_is_read_from_the_disk(two_small_sets, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(sources, "beside", lambda profile: (2**60, 0))  # a loader of an exbibyte
    with prologue.staged("stage1", VALUES):
        assert staged() == set()
    assert "fasdd_cv is read from the disk: " in capsys.readouterr().out


def test_memory_that_is_another_users_is_neither_waited_for_nor_read(two_small_sets, monkeypatch, capsys):
    """A directory in the lock's place cannot be opened for writing, not even by root."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    users, place = sources.staging_target("demo", prologue.USERS), os.environ["SAISTUDY_SHM"]
    users.mkdir(parents=True)
    tree = sources.build("demo", "fasdd_cv")
    shm.stage(tree.folder, sources.staging_target("demo", "fasdd_cv"), *sources.beside("demo"))
    with prologue.staged("stage1", VALUES):
        assert sources.prepare("demo", "fasdd_cv").folder == tree.folder
    assert os.environ["SAISTUDY_SHM"] == place and users.is_dir() and staged() == {"fasdd_cv"}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if str(users) in line]
    assert line.startswith("images are read from the disk: ")


def test_memory_that_holds_more_than_was_staged_is_left_and_the_run_is_done(
    two_small_sets, monkeypatch, capsys
):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with prologue.staged("stage1", VALUES):
        (sources.staging_target("demo", "fasdd_cv") / "notes.txt").write_text("somebody's own")
    assert "not given back: " in capsys.readouterr().out
    assert (sources.staging_target("demo", "fasdd_cv") / "notes.txt").read_text() == "somebody's own"


def test_a_run_that_fails_gives_back_too(two_small_sets, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(Refusal, match="a wrong parameter"), prologue.staged("stage1", VALUES):
        assert staged() == {"fasdd_cv"}
        raise Refusal("a wrong parameter")
    assert staged() == set()

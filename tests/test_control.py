"""A study that outlives its terminal: real processes, real signals, real Snakemake, a real training."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import nbformat
import painted
import pandas as pd
import psutil
import pytest
from test_resume import assert_same
from test_run import alive, command, notebook

from saistudy import paths
from saistudy.__main__ import main
from saistudy.paths import ROOT, work, write_json
from saistudy.study import begun, forecast, locks, status
from saistudy.training import attempts, checkpoints, stopping
from saistudy.training.fit import fit

# Snakemake's part: it says a line for every tick, ends at SIGTERM when it may, and with status 3 by itself,
# so that nothing follows the runs
TICKS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
print("[data] first\\n[896-s0] other", flush=True)
for i in range({n}):
    print(f"[data] tick {{i}}", flush=True)
    time.sleep(0.2)
print("[data] the end", end="")
sys.exit(3)
"""
ENDLESS = 1000


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """Runs and results of the test's own; whatever it began ends with it."""
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))
    names = ("data", "896-s0", "896-s1", "1440-s0")
    begun.note_runs("demo", {name: forecast.Run(name, "", (), (), (), "0" * 16) for name in names})
    yield
    for process in psutil.process_iter(["environ"]):
        mine = (process.info["environ"] or {}).get("SAISTUDY_WORK") == str(tmp_path / "work")
        if mine and process.pid != os.getpid():
            process.kill()


def ticks(n: int = ENDLESS) -> list[str]:
    return [sys.executable, "-c", TICKS.format(n=n)]


def study(*words: str, run: list[str]) -> list[str]:
    """The command line of a study whose runs are executed by `run`."""
    return [sys.executable, "-m", "saistudy", "study", *words, "--", *run]


def detached(capsys, run: list[str]) -> str:
    """What the command says that begins a study and returns."""
    assert main(study("--detach", run=run)[3:]) == 0
    return capsys.readouterr().out


def until(true, s: float = 240) -> None:
    """Wait for something that has to come."""
    end = time.monotonic() + s
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def log() -> str:
    return Path(begun.state("demo")["log"]).read_text()


def gone() -> bool:
    return begun.holder("demo") is None


def refused(capsys, *words: str) -> str:
    """The one sentence of a refused command."""
    assert main(list(words)) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    return sentence


def in_a_terminal(line: str) -> tuple[int, int]:
    """Pid of an interactive shell in a terminal of its own that was given a line, and the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    os.write(terminal, f"cd {shlex.quote(str(ROOT))}; {line}\n".encode())
    return pid, terminal


@pytest.mark.parametrize("detach", [True, False])
def test_a_closed_terminal(detach):
    """The detached study goes on to its end; the other one does not, and nobody calls it running.

    It dies of the shell's SIGHUP, or a moment earlier its run can no longer write to the terminal.
    """
    words = study(*(["--detach"] if detach else []), run=ticks(15 if detach else ENDLESS))
    shell, terminal = in_a_terminal(shlex.join(words))
    until(lambda: not gone() and begun.state("demo"))
    began = begun.state("demo")
    if detach:  # the command has returned: what it says comes after the study noted itself
        seen = b""
        while b"stop --profile demo" not in seen.partition(b"goes on without")[2]:
            seen += os.read(terminal, 4096)
    os.close(terminal)
    os.waitpid(shell, 0)
    until(gone)
    if detach:
        assert os.getsid(0) != began["pid"] and log().endswith("[data] tick 14\n[data] the end")
        assert "ended with exit status 3" in status.study("demo")
    else:
        told = status.study("demo")
        killed = f"process {began['pid']}" in told and "killed, or the machine went down" in told
        assert killed or "ended with exit status 1" in told


def test_a_killed_study_is_never_called_running(capsys):
    detached(capsys, ticks())
    began = begun.state("demo")
    assert "study demo: running since" in status.study("demo")
    os.kill(began["pid"], signal.SIGKILL)
    until(lambda: not begun.attended(began))
    # what it began goes on: a second one is refused, and it can be stopped
    assert f"process {began['pid']}, which attended it, was killed; what it began" in status.study("demo")
    again = refused(capsys, *study("--detach", run=ticks())[3:])
    assert "a study of profile demo runs already" in again
    assert main(["stop"]) == 0
    assert gone() and not alive(began["child"])
    assert "killed, or the machine went down" in status.study("demo")
    # both at once, as a machine goes down
    detached(capsys, ticks())
    both = begun.state("demo")
    os.kill(both["pid"], signal.SIGKILL)
    os.kill(both["child"], signal.SIGKILL)
    until(gone)
    assert f"process {both['pid']}, begun {both['since']}, is gone" in status.study("demo")
    # the number is another process's now: this one's
    write_json(begun.folder("demo") / "state.json", both | {"pid": os.getpid()})
    assert f"process {os.getpid()}, begun {both['since']}, is gone" in status.study("demo")
    assert "no study of profile demo runs; nothing to stop." in refused(capsys, "stop")
    detached(capsys, ticks(1))
    until(gone)
    assert "ended with exit status 3" in status.study("demo")


def test_a_process_is_told_from_others_by_its_birth_whatever_the_clock_says():
    """The tick at which it began (proc(5)), held against util-linux' and procps' idea of it: its age."""
    with subprocess.Popen(["sleep", "60"]) as child:
        birth = locks.born(child.pid)
        boot, ticks_n = birth.split()
        assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        aged_s = int(subprocess.check_output(["ps", "-o", "etimes=", "-p", str(child.pid)]))
        assert up_s - int(ticks_n) / os.sysconf("SC_CLK_TCK") == pytest.approx(aged_s, abs=1.5)
        assert locks.born(child.pid) == birth != locks.born(os.getpid())
        child.kill()
        until(lambda: locks.born(child.pid) is None)  # a zombie is not alive
    assert locks.born(child.pid) is None


def test_a_study_of_another_machine_of_this_name_is_left_alone():
    """Nodes may share work/ and a host name; the boot tells them apart."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        here = {"host": os.uname().nodename, "child": bystander.pid, "pid": 2**22 + 1}
        noted = {"id": "there", "since": "then", "since_s": time.time(), "log": None, "ended": None}
        begun.note("demo", **here, **noted, status=None, born="1c2d0a5e-another-boot 4711")
        held = locks.take(begun.folder("demo") / "lock")
        assert "was killed" not in status.study("demo")
        begun.ask("demo", at_once=False)
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(0.5)
        begun.note("demo", born=f"{locks.born(os.getpid()).split()[0]} 4711")  # this machine's
        assert "was killed" in status.study("demo")
        begun.ask("demo", at_once=False)
        assert bystander.wait(10) == -signal.SIGTERM
        os.close(held)


@pytest.mark.parametrize("below", ["", "below/"])
@pytest.mark.parametrize(
    "words", [study(run=["true"])[3:], ["audit"], ["predict", "m.pt", "."]], ids=lambda w: w[0]
)
def test_a_work_folder_that_cannot_be_is_told_in_a_sentence(words, below, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "file" / below))
    monkeypatch.delenv("YOLO_CONFIG_DIR", raising=False)
    sentence = refused(capsys, *words)
    assert str(tmp_path / "file") in sentence and "cannot be used" in sentence and "SAISTUDY_WORK" in sentence


def test_an_error_of_another_place_is_no_sentence_of_the_work_folder(tmp_path, monkeypatch):
    """It may be a fault of the program, which is looked for by its traceback."""
    assert paths.unusable(NotADirectoryError(20, "Not a directory", str(tmp_path / "elsewhere"))) is None
    assert paths.unusable(FileNotFoundError(2, "No such file", str(tmp_path / "work/demo/x"))) is None
    assert paths.unusable(OSError("no number")) is None


def test_one_study_at_a_time_and_stopped_twice(capsys):
    said = detached(capsys, ticks())
    began = begun.state("demo")
    assert str(Path(began["log"])) in said
    assert [line.split()[3] for line in said.splitlines()[1:]] == ["status", "logs", "stop"]
    for words in ([], ["--detach"]):
        sentence = refused(capsys, *study(*words, run=ticks())[3:])
        assert f"runs already, process {began['pid']} on {began['host']} since" in sentence
    assert begun.state("demo") == began
    assert main(["stop"]) == 0
    assert "stopped as was asked" in capsys.readouterr().out.splitlines()[-1]
    assert "no study of profile demo runs; nothing to stop." in refused(capsys, "stop")
    assert "stopped as was asked" in status.study("demo") and not alive(began["child"])
    # what was asked of that one does not meet the next one
    detached(capsys, ticks(4))
    until(gone)
    assert log().endswith("the end") and "ended with exit status 3" in status.study("demo")


def test_without_a_study_and_without_data_it_is_said_that_nothing_runs(capsys, monkeypatch):
    monkeypatch.delenv("SAISTUDY_FASDD", raising=False)
    assert main(["status", "--profile", "mini"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("study mini: none was begun here") and "SAISTUDY_FASDD is not set" in line
    assert "there is no profile 'h100'" in refused(capsys, "status", "--profile", "h100")


def test_a_study_that_cannot_begin_says_why(capsys):
    sentence = refused(capsys, *study("--detach", run=["no-such-command"])[3:])
    assert "the study did not begin" in sentence and "no-such-command" in sentence


def test_logs_follow_until_the_end(capsys):
    assert "no study of profile demo was begun here" in refused(capsys, "logs")
    detached(capsys, ticks(8))
    assert main(["logs", "--follow", "data"]) == 0  # returns by itself
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["[data] first", *(f"[data] tick {i}" for i in range(8)), "[data] the end"]
    assert gone()
    assert main(["logs"]) == 0 and capsys.readouterr().out == log() + "\n"
    assert "no run '896-s7'; did you mean '896-s" in refused(capsys, "logs", "896-s7")


def test_ctrl_c_ends_the_view_alone(capsys):
    detached(capsys, ticks())
    for words in (["logs", "--follow"], ["stop"]):
        # a stop that is only viewed no more is still a stop
        view = subprocess.Popen(
            [sys.executable, "-m", "saistudy", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # `make test &` has it ignored
        )
        assert view.stdout.readline()
        if words == ["stop"]:
            break
        view.send_signal(signal.SIGINT)
        assert view.wait(30) == 0 and not gone()
    view.wait(30)
    until(gone)


def test_ctrl_c_in_the_terminal_ends_a_study_that_is_attached():
    """What executes the runs gets it too and answers it; how that ended is noted."""
    shell, terminal = in_a_terminal(shlex.join(study(run=ticks())))
    until(lambda: not gone() and (begun.state("demo") or {}).get("child"))
    seen = b""
    while b"tick 1" not in seen:
        seen += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    until(gone)
    assert "ended with exit status 130" in status.study("demo")
    os.close(terminal)
    os.waitpid(shell, 0)


def test_a_run_is_executed_by_one_process_at_a_time(tmp_path, capsys):
    path, output = notebook(tmp_path, "1"), tmp_path / "results/demo/x-s0/run.ipynb"
    with locks.alone(tmp_path / "work/demo/x-s0/lock", "this test"):
        sentence = refused(capsys, *command(path, output)[3:])
        assert f"run x-s0 of process {os.getpid()} is not part of one" in refused(capsys, "stop")
    assert f"run x-s0 is in the hands of process {os.getpid()}" in sentence and not output.exists()
    assert main(command(path, output)[3:]) == 0


EPOCHS = 5
TRAIN = painted.LEARNABLE | {"imgsz": 64, "seed": 1, "epochs": EPOCHS, "patiences": [1, EPOCHS]}
TRAINS = """
from pathlib import Path
from saistudy.paths import work
from saistudy.training.fit import fit
name = Path({name!r}).name
run = fit("yolov8n.yaml", {yaml!r}, work("demo") / name / "train", **{train!r})
"""
SNAKEFILE = """
import shlex
RUNS = {runs!r}
rule all:
    input: [f"stamps/{{name}}" for name in RUNS]
rule run:
    output: "stamps/{{name}}"
    params: command=lambda wildcards: shlex.join(RUNS[wildcards.name])
    shell: "{{params.command}} && touch {{output}}"
"""


def trains(folder: Path, tree, name: str, **change) -> Path:
    """A notebook that trains in seconds."""
    folder.mkdir()
    code = TRAINS.format(name=name, yaml=str(tree.yaml), train=TRAIN | change)
    return notebook(folder, code, "print('stops', [stop['sha256'] for stop in run.stops])")


def in_epoch(name: str, number: int):
    """Whether an epoch is in progress: the one before is kept."""
    kept = work("demo") / name / "train" / checkpoints.FOLDER / f"epoch-{number - 1:05d}"
    return lambda: kept.is_dir()


def sentence_of(name: str) -> tuple[str, int]:
    """What a failed notebook says of its end."""
    path = Path(os.environ["SAISTUDY_RESULTS"]) / "demo" / name / "run.failed.ipynb"
    told = nbformat.read(path, as_version=4).metadata["failure"]
    return told["sentence"], told["status"]


def strays(pids: set[int]) -> set[int]:
    """Those of the processes that live, a while later: workers look for their parent every 5 s."""
    end = time.monotonic() + 20
    while (left := {pid for pid in pids if alive(pid)}) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def family(pid: int) -> set[int]:
    return {process.pid for process in psutil.Process(pid).children(recursive=True)}


@pytest.fixture(scope="module")
def straight(rectangles, tmp_path_factory):
    """The training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    fit("yolov8n.yaml", rectangles.yaml, folder, **TRAIN)
    return folder


@pytest.fixture
def two_runs(tmp_path, rectangles):
    """Snakemake's command for two trainings, one at a time, the first of them 896-s0."""
    runs = {}
    for name in ("896-s0", "896-s1"):
        path = trains(tmp_path / name, rectangles, name)
        runs[name] = command(path, tmp_path / "results/demo" / name / "run.ipynb")
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(runs=runs))
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(tmp_path / "Snakefile")]
    return [*snakemake, "--directory", str(tmp_path), "--nolock", "--cores", "1", "--keep-going"]


def test_a_training_stops_between_two_epochs_and_goes_on_exactly(
    rectangles, straight, tmp_path, monkeypatch, capfd
):
    """Asked in the middle of an epoch, it ends with that one; asked before, none is begun."""
    stop, run = tmp_path / "stop", tmp_path / "run"
    monkeypatch.setenv(stopping.PLACE, str(stop))

    def ask():
        until((run / checkpoints.FOLDER / "epoch-00002").is_dir)
        stop.write_text(stopping.EPOCH)

    Thread(target=ask).start()
    for _ in range(2):
        with pytest.raises(stopping.Stopped) as told:
            fit("yolov8n.yaml", rectangles.yaml, run, **TRAIN)
    kept_n = checkpoints.epoch(checkpoints.newest(run / checkpoints.FOLDER))
    assert 2 <= kept_n < EPOCHS and f"{kept_n} of {EPOCHS} epochs are kept" in str(told.value)
    assert len(pd.read_csv(run / "telemetry.csv")) == len(pd.read_csv(run / "results.csv")) == kept_n
    stop.unlink()
    fit("yolov8n.yaml", rectangles.yaml, run, **TRAIN)
    assert f"resumed with epoch {kept_n + 1}, exactly" in capfd.readouterr().out
    assert_same(straight, run)


@pytest.mark.full
def test_stopped_with_the_epoch_nothing_begins_and_the_same_command_goes_on(
    two_runs, straight, tmp_path, capsys
):
    detached(capsys, two_runs)
    until(lambda: begun.runs_at_work("demo"))
    (first,) = begun.runs_at_work("demo")
    (other,) = {"896-s0", "896-s1"} - {first}
    until(in_epoch(first, 3))
    kinds = {name: (state, note) for name, state, note in status.rows("demo")}
    state, note = kinds[first]
    assert state == "running" and f" of {EPOCHS}" in note and "to go" in note
    assert kinds[other] == ("waiting", "")
    began, processes = begun.state("demo"), family(begun.state("demo")["pid"])
    assert main(["stop"]) == 0
    said = capsys.readouterr().out
    assert f"\n  {first}: epoch " in said and "an epoch takes about" in said
    assert not strays(processes | {began["pid"]})
    # the epoch in progress was kept, the one after it was not begun, the other run neither
    kept_n = checkpoints.epoch(checkpoints.newest(work("demo") / first / "train" / checkpoints.FOLDER))
    assert 3 <= kept_n < EPOCHS
    sentence, number = sentence_of(first)
    assert number == 75 and f"{kept_n} of {EPOCHS} epochs are kept" in sentence
    kinds = {name: (state, note) for name, state, note in status.rows("demo")}
    assert kinds[first] == ("stopped", f"train: {kept_n} of {EPOCHS} epochs kept")
    assert kinds[other] == ("waiting", "") and not (work("demo") / other / "train").exists()
    assert not (tmp_path / "stamps" / first).exists()
    # the same command goes on to the same bits; status 0 of it would compare and seal, so it is called bare
    again = [*two_runs, f"stamps/{first}"]
    assert subprocess.run(again, cwd=ROOT, capture_output=True).returncode == 0
    assert_same(straight, work("demo") / first / "train")
    assert [row["epoch"] for row in attempts.rows(work("demo") / first / "train")] == [1, kept_n + 1]
    assert "run.failed.ipynb" not in [path.name for path in (tmp_path / "results").rglob("*")]


@pytest.mark.full
def test_stopped_at_once_the_epoch_is_dropped(two_runs, straight, tmp_path, capsys):
    detached(capsys, two_runs)
    until(lambda: begun.runs_at_work("demo"))
    (first,) = begun.runs_at_work("demo")
    until(in_epoch(first, 3))
    processes = family(begun.state("demo")["pid"])
    assert main(["stop", "--at-once"]) == 0
    assert not strays(processes)
    assert sentence_of(first)[1] == 143 and "stopped as was asked" in status.study("demo")
    assert not list((tmp_path / "stamps").glob("*")) and len(list(work("demo").glob("896-s*/train"))) == 1
    again = [*two_runs, f"stamps/{first}"]
    assert subprocess.run(again, cwd=ROOT, capture_output=True).returncode == 0
    assert_same(straight, work("demo") / first / "train")


@pytest.mark.full
def test_a_signal_of_a_batch_system_drops_the_epoch(rectangles, tmp_path):
    """As a preemption or a time limit sends it; the same command goes on exactly."""
    path = trains(tmp_path / "book", rectangles, "896-s0", workers=2)
    words = command(path, tmp_path / "results/demo/896-s0/run.ipynb")
    runner = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(in_epoch("896-s0", 3))
    processes = family(runner.pid)
    runner.send_signal(signal.SIGUSR1)
    said = runner.communicate(timeout=40)[1]
    assert runner.returncode == 138
    assert "stopped by SIGUSR1 in cell [3] `from pathlib" in said
    assert len(processes) > 2 and not strays(processes)
    kept = checkpoints.newest(work("demo") / "896-s0" / "train" / checkpoints.FOLDER)
    assert main(words[3:]) == 0
    rows = attempts.rows(work("demo") / "896-s0" / "train")
    assert [row["epoch"] for row in rows] == [1, checkpoints.epoch(kept) + 1] and rows[-1]["exact"]
    fit("yolov8n.yaml", rectangles.yaml, tmp_path / "straight", **TRAIN | {"workers": 2})
    assert_same(tmp_path / "straight", work("demo") / "896-s0" / "train")


def test_states_of_runs_that_nobody_executes(tmp_path, rectangles):
    """Killed without a word, failed in a cell, never begun: read from what is left of them."""
    for name, code in (
        ("896-s0", "import os\nos.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"),
        ("896-s1", "1 / 0"),
    ):
        (tmp_path / name).mkdir()
        path = notebook(tmp_path / name, code)
        subprocess.run(
            command(path, tmp_path / "results/demo" / name / "run.ipynb"), cwd=ROOT, capture_output=True
        )
    kinds = {name: (state, note) for name, state, note in status.rows("demo")}
    assert kinds["896-s0"] == ("killed", "without a word; nothing kept")
    state, note = kinds["896-s1"]
    assert state == "failed" and "`1 / 0` raised ZeroDivisionError: division by zero; see " in note
    assert note.endswith("results/demo/896-s1/run.failed.ipynb")
    assert kinds["1440-s0"] == ("waiting", "")
    assert json.loads((work("demo") / "896-s0" / "lock").read_text())["pid"]

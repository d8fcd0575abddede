"""Running a notebook: real notebooks, real kernels, and every way in which a run can end."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from saistudy.__main__ import main
from saistudy.paths import ROOT, Refusal
from saistudy.study import run
from saistudy.study.kernel import Console
from saistudy.study.transcript import normalise, plain

PARAMETERS = 'profile = "demo"\npairs = [["1440", "896"]]\nresamples_n = 200\nbootstrap_seed = 0'
CHECK = "from saistudy import params\np = params.check('ablation', globals())"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """Runs in progress go to the test's own folder."""
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))


def notebook(folder: Path, *code: str) -> Path:
    """A notebook with a parameters cell, a text cell and the given code cells."""
    new = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    new.cells = [nbformat.v4.new_markdown_cell("# Why?"), cell]
    new.cells += [nbformat.v4.new_code_cell(text) for text in code]
    path = folder / "ablation.ipynb"
    nbformat.write(new, path)
    return path


def command(path: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "saistudy", "run", str(path), "--output", str(output), *more]


def called(capsys, path: Path, output: Path, *more: str) -> tuple[int, str]:
    """Exit status and stderr of the command, in this process."""
    status = main(command(path, output, *more)[3:])
    return status, capsys.readouterr().err


def outputs(path: Path) -> str:
    """All text that the cells of a notebook file put out."""
    cells = json.loads(path.read_text())["cells"]
    return json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"])


EVERYTHING = (
    CHECK,
    "import os, sys, warnings\nprint(os.getcwd(), os.path.expanduser('~/x'), p.resamples_n)",
    "warnings.warn('look')\nprint('out')\nobject()",
    "from IPython.display import display\ndisplay({'image/png': 'aGk='}, raw=True)",
    "for i in range(3): print(f'\\r\\033[K{i}', end='', flush=True)\nprint()",
    "print(*map(os.environ.get, ('YOLO_OFFLINE', 'OMP_NUM_THREADS', 'SAISTUDY_RESULTS')))",
)


def test_a_kernels_file_is_named_alike_everywhere_and_a_long_word_does_not_hold_a_run_up():
    """A picture in HTML is a word of a megabyte: searched from each of its letters it would take hours."""
    assert plain("in /tmp/ipykernel_71/12.py, 'x/ipykernel_8/a'") == "in ipykernel/12.py, 'ipykernel/a'"
    word = "data:image/png;base64," + 250_000 * "iVB/"
    assert plain(word) == word


def test_two_runs_give_the_same_bytes_without_when_and_where(tmp_path, capsys):
    path = notebook(tmp_path, *EVERYTHING)
    one, two = tmp_path / "results/demo/one/run.ipynb", tmp_path / "results/demo/two/run.ipynb"
    for output in (one, two):
        run.execute(path, {"resamples_n": 20}, output)
    assert one.read_bytes() == two.read_bytes()
    text = one.read_text()
    # this machine's folders, the clock and the process are nowhere
    for trace in (str(ROOT), str(Path.home()) + "/", str(tmp_path), "start_time", "ipykernel_"):
        assert trace not in text
    assert ". ~/x 20" in text
    assert "<object at 0x0>" in text
    assert "aGk=" in text
    # the cell ran in the repository root, quiet, with pinned threads, not as an exploration
    assert "true 1 ./results\\n" in text
    cells = nbformat.read(one, as_version=4).cells
    assert [cell.id for cell in cells] == [f"ablation-{i}" for i in range(len(cells))]
    assert [c.execution_count for c in cells if c.cell_type == "code"] == list(range(1, 9))
    assert [c.metadata.get("tags") for c in cells][1:3] == [["parameters"], ["injected-parameters"]]
    # a line is shown with the run's name, a bar as its last state
    shown = capsys.readouterr().out
    assert "[one] out\n" in shown
    assert "[one] 2\n" in shown
    assert "[one] 1" not in shown
    assert not list(tmp_path.rglob("*.failed.ipynb")) + list(tmp_path.rglob("*.running.ipynb"))


def test_normalising_twice_changes_nothing_and_spares_what_was_measured():
    stream = nbformat.v4.new_output("stream", text=f"AP 0.0123 0xdeadbeef {ROOT}/a {ROOT}x at 0x7f1c")
    cell = nbformat.v4.new_code_cell("x", outputs=[stream], metadata={"papermill": {"duration": 1}})
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": 1}})
    once = nbformat.writes(normalise(book, "data"))
    assert nbformat.writes(normalise(nbformat.reads(once, as_version=4), "data")) == once
    assert f"AP 0.0123 0xdeadbeef ./a {ROOT}x at 0x0" in once
    assert "duration" not in once
    assert "widgets" not in once


@pytest.mark.parametrize(
    "text",
    ["0.8731", "1.027 vs 0.884", "1e-3", "0x7f1c", "12/45", "T_0a1b2", "/rooted", "cat 0xff"],
)
def test_no_rule_touches_a_metric(text):
    assert plain(text) == text


def test_the_console_shows_whole_lines_and_the_last_state_of_a_bar(capsys):
    console = Console("a-s0")
    for chunk in ("ep", "och 1\nepo", "\r 10%", "\r\x1b[K100%\r", "\n\n", "left"):
        console.write(chunk)
    assert capsys.readouterr().out == "[a-s0] epoch 1\n[a-s0] 100%\n"


def test_a_raising_cell_leaves_a_good_result_alone(tmp_path, capsys):
    output = tmp_path / "results/demo/x-s0/run.ipynb"
    output.parent.mkdir(parents=True)
    output.write_text("good")
    path = notebook(tmp_path, "print('before')", "# why\n1 / 0", "print('after')")
    status, said = called(capsys, path, output)
    failed = output.with_name("run.failed.ipynb")
    assert (status, said) == (
        1,
        f"saistudy: ablation: cell [4] `1 / 0` raised ZeroDivisionError: division by zero; see {failed}\n",
    )
    assert output.read_text() == "good"
    assert "before" in outputs(failed)
    assert "division by zero" in outputs(failed)
    assert "after" not in outputs(failed)


def test_a_killed_kernel_is_a_failure_although_papermill_calls_its_cells_completed(tmp_path):
    path = notebook(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "1")
    output = tmp_path / "results/demo/x-s0/run.ipynb"
    with pytest.raises(run.Failure, match=r"kernel died in cell \[.\] `import os, signal`") as told:
        run.execute(path, {}, output)
    assert told.value.status == 138
    assert not output.exists()
    assert "completed" not in output.with_name("run.failed.ipynb").read_text()


def test_a_notebook_that_ends_itself_early_has_not_reached_its_end(tmp_path):
    path = notebook(tmp_path, "import sys\nsys.exit()", "print('never')")
    with pytest.raises(run.Failure, match="ended before `print"):
        run.execute(path, {}, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


SLEEPS = (
    "import os, pathlib, time\n"
    "try:\n    print('epoch 1', os.getpid(), flush=True)\n    time.sleep(60)\n"
    "except KeyboardInterrupt:\n    pathlib.Path({mark!r}).touch()\n    raise"
)


def test_a_signal_to_the_runner_reaches_the_cell_and_the_notebook_is_kept(tmp_path):
    mark, output = tmp_path / "interrupted", tmp_path / "results/demo/x-s0/run.ipynb"
    words = command(notebook(tmp_path, SLEEPS.format(mark=str(mark))), output)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=ROOT, **pipes) as runner:
        # the line of an epoch is on the console while the cell still runs
        line = runner.stdout.readline()
        assert line.startswith("[x-s0] epoch 1 ")
        runner.send_signal(signal.SIGTERM)
        said = runner.communicate(timeout=30)[1]
    assert runner.returncode == 143
    assert "ablation: stopped by SIGTERM in cell [3] `import os" in said
    # one sentence; ipykernel adds a line of its own when the signal meets it between two messages
    assert [line[:9] for line in said.splitlines() if not line.startswith("[IPKernelApp]")] == ["saistudy:"]
    # the cell saw the interrupt and could tidy up, and its kernel is gone
    assert mark.exists()
    assert not alive(int(line.split()[-1]))
    assert not output.exists()
    assert "KeyboardInterrupt" in outputs(output.with_name("run.failed.ipynb"))


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        ("SIGINT", 130, "time.sleep(60)"),
        # this one does not listen and is killed after the grace period
        ("SIGTERM", 143, "signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"),
    ],
)
def test_a_stopped_run_has_the_status_of_its_signal(tmp_path, monkeypatch, number, status, code):
    monkeypatch.setattr("saistudy.study.kernel.GRACE_S", 1)
    before = [signal.getsignal(caught) for caught in run.Signals.CAUGHT]
    first = f"import os, signal, time\nos.kill(os.getppid(), signal.{number}); {code}"
    with pytest.raises(run.Failure, match=f"stopped by {number}") as told:
        run.execute(notebook(tmp_path, first), {}, tmp_path / "out.ipynb")
    assert told.value.status == status
    assert not (tmp_path / "out.ipynb").exists()
    assert (tmp_path / "out.failed.ipynb").exists()
    # and the handlers of before stand again
    assert [signal.getsignal(caught) for caught in run.Signals.CAUGHT] == before


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("piars", "[]", "ablation: unknown parameter 'piars'; did you mean 'pairs'?"),
        ("resamples_n", "1e3", "ablation: resamples_n is the text '1e3', a whole number was expected"),
        ("pairs", "[", "-p value '[' is not YAML"),
    ],
)
def test_wrong_parameters_are_refused_before_a_kernel_starts(tmp_path, capsys, key, value, said):
    mark = tmp_path / "ran"
    path = notebook(tmp_path, f"open({str(mark)!r}, 'w')")
    status, told = called(capsys, path, tmp_path / "out" / "run.ipynb", "-p", key, value)
    assert status == 2
    assert told.startswith(f"saistudy: {said}")
    assert told.count("\n") == 1
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_files_and_values_of_the_command_line_reach_the_cells(tmp_path, capsys):
    file, output, before = tmp_path / "a.yaml", tmp_path / "out.ipynb", dict(os.environ)
    file.write_text("lr0: 1\n")
    # a failed notebook of before is taken away by a good run
    (tmp_path / "out.failed.ipynb").write_text("")
    path = notebook(tmp_path, CHECK, "vars(p)")
    words = ["-f", str(file), "-p", "resamples_n", "30"]
    assert called(capsys, path, output, *words)[0] == 2
    file.write_text("resamples_n: 20\nbootstrap_seed: 7\n")
    assert called(capsys, path, output, *words) == (0, "")
    assert re.search(r"'resamples_n': 30.*'bootstrap_seed': 7", outputs(output))
    assert not (tmp_path / "out.failed.ipynb").exists()
    assert dict(os.environ) == before


def test_a_folder_that_cannot_be_written_is_refused_before_a_kernel_starts(tmp_path):
    # root may write anywhere, but nobody below a regular file
    (tmp_path / "file").write_text("")
    mark = tmp_path / "ran"
    path = notebook(tmp_path, f"open({str(mark)!r}, 'w')")
    with pytest.raises(Refusal, match=r"cannot be written \(Not a directory\)"):
        run.execute(path, {}, tmp_path / "file" / "below" / "run.ipynb")
    assert not mark.exists()


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--help"])
    assert "examples:" in capsys.readouterr().out

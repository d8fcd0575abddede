"""Notebooks without Make or Snakemake: plain Papermill and Run All, same parameters, same identity."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from saistudy.paths import NOTEBOOKS, PARAMS, ROOT
from saistudy.study import forecast


@pytest.fixture
def environ(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SAISTUDY_SHM", str(tmp_path / "shm"))
    monkeypatch.delenv("SAISTUDY_RESULTS", raising=False)
    return dict(os.environ)


def papermill(notebook: str, out, *words: str, **environ) -> subprocess.CompletedProcess:
    call = [sys.executable, "-m", "papermill", "--no-progress-bar", NOTEBOOKS / f"{notebook}.ipynb", out]
    return subprocess.run([*call, *words], capture_output=True, text=True, cwd=out.parent, env=environ)


def test_plain_papermill_and_make_study_have_one_identity(environ, tmp_path):
    environ["SAISTUDY_RESULTS"] = str(tmp_path / "results")
    done = papermill("data", tmp_path / "out.ipynb", "-f", str(PARAMS / "demo" / "data.yaml"), **environ)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "results/demo/data/record.json").read_text())
    assert record["run_id"] == forecast.runs("demo")["data"].identity


def test_run_all_has_the_same_identity_and_writes_to_the_lab_folder(environ):
    book = nbformat.read(NOTEBOOKS / "data.ipynb", as_version=4)
    probe = nbformat.v4.new_code_cell("print(results(p.profile), run_id)")
    last = next(i for i, cell in enumerate(book.cells) if "run_id" in cell.source)
    book.cells = [*book.cells[: last + 1], probe]
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    folder, run_id = probe.outputs[0]["text"].split()
    assert run_id == forecast.runs("demo")["data"].identity
    assert folder == str(ROOT / "results" / "lab" / "demo")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-p", "imgzs", "896"], "stage1: unknown parameter 'imgzs'; did you mean 'train.imgsz'?"),
        (["-y", "seed: '1e-3'"], "stage1: seed is the text '1e-3', a whole number was expected"),
    ],
)
def test_plain_papermill_with_a_wrong_parameter_ends_in_the_same_sentence(environ, tmp_path, words, sentence):
    done = papermill("stage1", tmp_path / "out.ipynb", *words, **environ)
    assert done.returncode == 1 and sentence in done.stderr
    refused = subprocess.run(
        [sys.executable, "-m", "saistudy", "run", "stage1", "-p", *_pair(words), "--output", "x.ipynb"],
        capture_output=True,
        text=True,
        env=environ,
        cwd=tmp_path,
    )
    # the runner says the same before a kernel starts, without a traceback, and leaves nothing
    assert refused.returncode == 2 and sentence in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "x.ipynb").exists()


def _pair(words: list[str]) -> list[str]:
    """A papermill option as key and value."""
    return words[1:] if words[0] == "-p" else words[1].split(": ", 1)


def test_a_notebook_that_needs_a_run_says_which_notebook_makes_it(environ, tmp_path):
    environ["SAISTUDY_RESULTS"] = str(tmp_path / "results")
    for notebook in ("stage2", "ablation"):
        done = papermill(notebook, tmp_path / "out.ipynb", **environ)
        assert done.returncode == 1 and "notebooks/stage1.ipynb" in done.stderr


def test_h200_without_data_stops_with_one_sentence(environ, tmp_path):
    for variable in ("SAISTUDY_FASDD", "SAISTUDY_PYROSDIS"):
        environ.pop(variable, None)
    call = [sys.executable, "-m", "saistudy", "plan", "--profile", "h200", "--ask"]
    done = subprocess.run(call, capture_output=True, text=True, env=environ, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "12_326_081_298 bytes" in done.stderr and "SAISTUDY_FASDD" in done.stderr

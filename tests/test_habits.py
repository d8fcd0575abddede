"""What keeps the repository clean: the hooks before a commit, and the citation."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from saistudy import __main__
from saistudy.paths import NOTEBOOKS, PARAMS, ROOT
from saistudy.study import commands

OUTPUT = {"output_type": "stream", "name": "stdout", "text": ["seen\n"]}


@pytest.fixture
def repository(tmp_path):
    """A git repository with the hooks' configuration and this environment's tools."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "saistudy").symlink_to(ROOT / "saistudy")  # by which ruff knows what to sort as our own
    (tmp_path / ".gitignore").write_text(".venv\nsaistudy\n")
    return tmp_path


def hooks(repository, *names):
    """Runs every hook on these files, staged as before a commit."""
    subprocess.run(["git", "add", *names], cwd=repository, check=True)
    command = [str(Path(sys.prefix) / "bin" / "pre-commit"), "run", "--files", *names]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True)


def executed(path):
    """A committed notebook with an output in it, as JupyterLab saves it."""
    book = json.loads((NOTEBOOKS / "data.ipynb").read_text())
    cell = next(cell for cell in book["cells"] if cell["cell_type"] == "code")
    cell |= {"outputs": [OUTPUT], "execution_count": 3}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n")


def test_outputs_leave_notebooks_and_stay_in_results(repository):
    """What is stripped is the committed notebook again, its cells' names too."""
    for folder in ("notebooks", "results"):
        executed(repository / folder / "data.ipynb")
    before = (repository / "results" / "data.ipynb").read_bytes()
    told = hooks(repository, "notebooks/data.ipynb", "results/data.ipynb")
    assert told.returncode == 1 and "files were modified" in told.stdout  # the commit is held up once
    stripped = json.loads((repository / "notebooks" / "data.ipynb").read_text())
    assert stripped == json.loads((NOTEBOOKS / "data.ipynb").read_text())
    assert (repository / "results" / "data.ipynb").read_bytes() == before
    assert hooks(repository, "notebooks/data.ipynb", "results/data.ipynb").returncode == 0


@pytest.mark.parametrize(("name", "text"), [("wide.py", "x = 1;y = 2\n"), ("unused.py", "import os\n")])
def test_what_ruff_finds_is_not_committed(repository, name, text):
    (repository / name).write_text(text)
    assert hooks(repository, name).returncode == 1


def test_a_file_over_5_mb_is_not_committed(repository):
    (repository / "large.bin").write_bytes(bytes(6 * 2**20))
    (repository / "small.bin").write_bytes(bytes(2**20))
    assert "large.bin (6144 KB) exceeds 5120 KB" in hooks(repository, "large.bin", "small.bin").stdout
    assert hooks(repository, "small.bin").returncode == 0


def test_the_citation_is_of_this_version():
    """Keys as the Citation File Format 1.2.0 demands them."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(cited["version"]) == project["version"] and cited["title"] == project["description"]
    assert cited["license"] in project["license"]
    assert f"version {project['version']}," in (ROOT / "README.md").read_text()
    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert newest == f"## {project['version']} ({cited['date-released']})"


def test_the_table_of_gpus_is_arithmetic_on_the_seeds_figures():
    """56.6 GB at batch 128 (seed 000, L172), a tenth left free; 160 epochs of FASDD's 63,546 train images."""
    page = (ROOT / "README.md").read_text()
    batches = [min(128, int(0.9 * gb * 128 / 56.6)) for gb in (80, 40, 24, 16)]
    assert f"| 80 GB, 40 GB, 24 GB, 16 GB | {', '.join(map(str, batches))} |" in page
    train = yaml.safe_load((PARAMS / "h200" / "stage1.yaml").read_text())["train"]
    cost = yaml.safe_load((PARAMS / "h200" / "study.yaml").read_text())["forecast"]
    hours = train["epochs"] * cost["train_images_n"]["fasdd_cv"] / 3600
    assert (
        f"hours of stage 1, {train['epochs']} epochs" in page and f"| {hours:,.0f} / your images/s |" in page
    )
    assert f"{hours / cost['images_per_s']:.1f}, from a seed's {cost['images_per_s']:.0f} images/s" in page


def test_every_command_shows_examples_that_its_own_parser_reads(capsys):
    """`--help` of each, and each example line in it."""
    top = commands.parser()
    (known,) = [action.choices for action in top._actions if isinstance(action.choices, dict)]
    assert known.keys() == __main__.ACTS.keys()
    for name in known:
        with pytest.raises(SystemExit):
            top.parse_args([name, "--help"])
        shown = capsys.readouterr().out.replace("\\\n", " ")
        lines = re.findall(r"^ +python -m saistudy (.*)", shown, re.MULTILINE)
        words = [shlex.split(re.split(r" && | > ", line)[0], comments=True) for line in lines]
        assert name in {top.parse_args(each).act for each in words}, name

"""Parameters: what is refused and how, how sources merge, what a run's identity hangs on.

Expected numbers come from PyYAML and from hand-written values, cells run in a real IPython.
"""

import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from saistudy import cells, params, wording
from saistudy.paths import NOTEBOOKS, PARAMS, ROOT, Refusal

ABLATION = {
    "profile": "demo",
    "pairs": [["1440x808", "1440"]],
    "resamples_n": 200,
    "bootstrap_seed": 0,
}
SETUP = yaml.safe_load((PARAMS / "demo" / "setup-shm.yaml").read_text())
STAGE1 = {
    "profile": "demo",
    "arm": "imgsz-1440x808",
    "question": "does resolution matter?",
    "change": {"imgsz": 1440},
    "seed": 0,
    "engine": "rect",
    "dataset": "fasdd_cv",
    "patiences": [10, 30],
    "eval_sizes": [896, [832, 1440]],
    "weights": "yolo11n.pt",
    "weights_sha256": "",
    "negatives": True,
    "train": {"imgsz": 896, "lr0": 0.001, "freeze": [0, 1], "device": None},
    "effective": [{"key": "workers", "value": 0, "reason": "no GPU"}],
    "exact": True,
    "oom_recovery": True,
    "input": "store",
    "durable_dir": "",
}


def notebook(folder: Path, name: str, *code: str, parameters: str) -> Path:
    """A notebook file with a parameters cell before the given code cells."""
    sources = [(parameters, ["parameters"])] + [(text, []) for text in code]
    written = [
        {"cell_type": "code", "source": text, "metadata": {"tags": tags}, "outputs": []}
        for text, tags in sources
    ]
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": written, "metadata": {}, "nbformat": 4}))
    return path


def assignments(values: dict) -> str:
    return "\n".join(f"{name} = {value!r}" for name, value in values.items())


def refusal(name: str, values: dict) -> str:
    with pytest.raises(Refusal) as told:
        params.validate(name, values)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_sound_values_pass_unchanged_and_a_whole_number_may_stand_for_a_float():
    assert params.validate("stage1", STAGE1) == STAGE1
    assert params.validate("setup-shm", SETUP | {"reserve_gib": 0})["reserve_gib"] == 0.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sed": 1}, "stage1: unknown parameter 'sed'; did you mean 'seed'?"),
        # imgsz is an argument of training, one level down
        ({"imgzs": 1}, "stage1: unknown parameter 'imgzs'; did you mean 'train.imgsz'?"),
        (
            {"seed": "3"},
            "seed is the text '3', a whole number was expected: write 3 without quotes.",
        ),
        ({"seed": "1e3"}, "a whole number was expected: YAML reads 1e3 as text, write 1000."),
        ({"seed": True}, "stage1: seed is True, a whole number was expected."),
        ({"seed": 1.0}, "stage1: seed is 1.0, a whole number was expected."),
        ({"seed": -1}, "seed is -1: should be greater than or equal to 0."),
        ({"negatives": 1}, "negatives is 1, true or false was expected."),
        ({"profile": "smoke"}, "profile is the text 'smoke': should be 'demo', 'mini' or 'h200'."),
        ({"patiences": [30, 10]}, "patiences is [30, 10]: an ascending list was expected"),
        ({"patiences": []}, "patiences is []"),
        ({"arm": "imgsz 896"}, "arm is the text 'imgsz 896', lower-case letters and digits"),
        ({"train": {"lr0": "1e-3"}}, "train.lr0 is the text '1e-3', a number was expected"),
        ({"change": {"lr0": "1e-3"}}, "change.lr0 is the text '1e-3'"),
        ({"train": {"a": [{"b": "5"}]}}, "train.a.0.b is the text '5', a number was expected"),
        ({"train": {"patience": math.inf}}, "train.patience is inf: write a finite number."),
        (
            {"train": {"name": yaml.safe_load("2024-01-01")}},
            "train.name is datetime.date(2024, 1, 1), plain text, numbers and lists were expected.",
        ),
        ({"effective": [{"key": "a", "value": 1}]}, "parameter 'effective.0.reason' is missing"),
        (
            {"effective": [{"key": "a", "value": 1, "reason": "b", "reson": "c"}]},
            "unknown parameter 'effective.0.reson'; did you mean 'reason'?",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(change, said):
    assert said in refusal("stage1", STAGE1 | change)


def test_the_float_that_yaml_reads_as_text_is_named_with_its_right_spelling():
    reserve = yaml.safe_load("reserve_gib: 1e-3")
    said = refusal("setup-shm", SETUP | reserve)
    assert said.startswith("setup-shm: reserve_gib is the text '1e-3', a number was expected")
    assert said.endswith(": YAML reads 1e-3 as text, write 1.0e-3.")


def test_a_missing_parameter_and_an_unknown_notebook_are_refused():
    without = {name: value for name, value in ABLATION.items() if name != "pairs"}
    assert "parameter 'pairs' is missing" in refusal("ablation", without)
    assert refusal("ablatoin", {}) == "unknown notebook 'ablatoin'; did you mean 'ablation'?"


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["e", "E"]))
def test_the_suggested_spelling_is_a_number_for_yaml_of_the_same_value(value, letter):
    text = f"{value:{letter}}"
    assert yaml.safe_load(wording.as_yaml_number(text)) == float(text)


@given(st.integers(-(10**9), 10**9), st.integers(-30, 30))
def test_the_suggested_spelling_of_a_short_float_too(mantissa, exponent):
    text = f"{mantissa}e{exponent}"
    seen = yaml.safe_load(wording.as_yaml_number(text))
    assert isinstance(seen, float)
    assert seen == float(text)


def test_files_are_laid_over_the_defaults_in_order_and_overrides_over_all(tmp_path):
    path = notebook(tmp_path, "stage1", parameters=assignments(STAGE1))
    first, arm = tmp_path / "stage1.yaml", tmp_path / "arm.yaml"
    first.write_text("seed: 1\ntrain: {imgsz: 640}\narm: base\n")
    arm.write_text("arm: tall\nchange: {imgsz: 1440}\n")
    values = params.read(path, [first, arm], {"seed": 7})
    # a later file replaces a whole top-level key: nothing of the default `train` is left
    assert values["train"] == {"imgsz": 640}
    assert (values["arm"], values["seed"], values["engine"]) == ("tall", 7, "rect")


@pytest.mark.parametrize(
    ("text", "said"),
    [("- 1\n", "lines of the form"), ("a: [1\n", "cannot be read as YAML"), (None, "No such file")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, said):
    path = notebook(tmp_path, "ablation", parameters=assignments(ABLATION))
    file = tmp_path / "ablation.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Refusal, match=said):
        params.read(path, [file], {})


def test_defaults_are_the_literals_of_the_one_parameters_cell(tmp_path):
    code = "a: int = 3  # images\nb = {'lr0': 1.0e-3, 'w': [-1, None]}\nc = True"
    path = notebook(tmp_path, "data", parameters=code)
    assert params.defaults(path) == {"a": 3, "b": {"lr0": 0.001, "w": [-1, None]}, "c": True}
    with pytest.raises(Refusal, match="default of a is not a literal"):
        params.defaults(notebook(tmp_path, "data", parameters="a = open('x')"))


def shell(*sources: str) -> dict:
    """Namespace of a real IPython after it ran the cells."""
    ipython = InteractiveShell()
    for code in sources:
        ipython.run_cell(code, store_history=True).raise_error()
    return ipython.user_ns


def test_inside_a_notebook_names_come_from_the_cells_and_values_from_the_namespace(monkeypatch):
    monkeypatch.delenv("SAISTUDY_RESULTS", raising=False)
    injected = "# Parameters\nresamples_n = 100\n"
    check = "from saistudy import params\np = params.check('ablation', globals())\nunrelated = 1"
    namespace = shell(assignments(ABLATION), injected, check)
    assert vars(namespace["p"]) == ABLATION | {"resamples_n": 100}
    # under Papermill the results of the study are meant, and nobody looks while it runs
    assert not {"SAISTUDY_RESULTS", "SAISTUDY_LIVE"} & params.os.environ.keys()


def test_run_all_by_hand_writes_to_results_lab(monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", "restored by pytest after the test")
    monkeypatch.delenv("SAISTUDY_RESULTS")
    monkeypatch.setenv("SAISTUDY_WORK", "restored as well")
    monkeypatch.delenv("SAISTUDY_WORK")
    monkeypatch.setenv("SAISTUDY_LIVE", "restored too")
    monkeypatch.delenv("SAISTUDY_LIVE")
    params.check("ablation", shell(assignments(ABLATION)))
    assert params.os.environ["SAISTUDY_RESULTS"] == str(ROOT / "results" / "lab")
    # weights too: the study's own must stay those that its records name
    assert params.os.environ["SAISTUDY_WORK"] == str(ROOT / "work" / "lab")
    assert params.os.environ["SAISTUDY_LIVE"] == "1"


def test_a_kernel_without_history_is_asked_for_its_plain_values():
    """nbval executes without history: IPython's `In` stays empty."""
    ipython = InteractiveShell()
    ipython.run_cell(assignments(ABLATION), store_history=False).raise_error()
    assert vars(params.check("ablation", ipython.user_ns)) == ABLATION
    ipython.run_cell("piars = 0.1", store_history=False).raise_error()
    with pytest.raises(Refusal, match="unknown parameter 'piars'; did you mean 'pairs'"):
        params.check("ablation", ipython.user_ns)


def test_a_name_that_no_model_knows_is_refused_inside_the_notebook():
    with pytest.raises(Refusal, match="unknown parameter 'piars'; did you mean 'pairs'"):
        params.check("ablation", shell(assignments(ABLATION), "# Parameters\npiars = 0.1"))


def test_the_identity_ignores_looks_and_notices_what_acts(tmp_path):
    code = assignments(ABLATION)
    path = notebook(tmp_path, "ablation", "x = 1  # one", "%matplotlib inline", parameters=code)
    same = params.identity(path, ABLATION, {"stage1": "ab"})
    assert len(same) == 16
    assert int(same, 16) >= 0
    # comments, layout, the order of values and other defaults are looks
    path = notebook(tmp_path, "ablation", "x = (1)", "%matplotlib inline", parameters="")
    assert params.identity(path, dict(reversed(ABLATION.items())), {"stage1": "ab"}) == same
    others = {
        params.identity(path, ABLATION | {"pairs": []}, {"stage1": "ab"}),
        params.identity(path, ABLATION, {"stage1": "cd"}),
        params.identity(notebook(tmp_path, "ablation", "x = 2", parameters=""), ABLATION, {}),
    }
    assert len(others | {same}) == 4


def test_the_code_of_a_run_is_what_acts_on_numbers_without_docstrings(tmp_path):
    shutil.copytree(ROOT / "saistudy", tmp_path / "saistudy")
    before = cells.package_code(tmp_path)
    assert {"paths.py", "params.py", "data/__init__.py"} <= set(before)
    assert not [name for name in before if name.startswith(("study/", "__main__"))]
    assert "study/__init__.py" in cells.package_code(tmp_path, study=True)
    file = tmp_path / "saistudy" / "paths.py"
    file.write_text(file.read_text().replace('"""Bad input', '"""# Worse input') + "\n# end\n")
    assert cells.package_code(tmp_path) == before
    file.write_text(file.read_text() + "\nROOT = 1\n")
    assert cells.package_code(tmp_path) != before


@pytest.mark.parametrize("name", sorted(params.MODELS))
def test_model_parameters_cell_and_files_of_the_study_agree(name):
    if not (NOTEBOOKS / f"{name}.ipynb").exists():
        pytest.skip(f"notebooks/{name}.ipynb is not written yet")
    assert params.read(name, [], {})["profile"] == "demo"
    for file in PARAMS.glob(f"*/{name}.yaml"):
        assert params.read(name, [file], {})["profile"] == file.parent.name
        for arm in (file.parent / "arms").glob("*.yaml") if name == "stage1" else []:
            assert params.read(name, [file, arm], {})["arm"] == arm.stem

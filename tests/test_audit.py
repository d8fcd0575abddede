"""What is committed says what was computed, and whoever alters it is found out, manifest or no manifest."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from saistudy.paths import ROOT
from saistudy.study import forecast
from saistudy.study.audit import chain, executed, manifest, recomputed, report
from saistudy.study.record import read_record, read_records

TRAINED = ["896-s0", "1440-s1", "stage2-896-s0", "stage2-896-as-written-s1", "finetune"]
SHOWN = r"(?<![\w.])\d+\.\d+(?![\w.])"  # a number with a fraction, not part of a word, a hash or a version


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """The results of the last commit."""
    folder = tmp_path_factory.mktemp("kept")
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD", "results"], capture_output=True)
    if archive.returncode:
        pytest.skip("no git checkout with committed results: nothing to audit")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder / "results"


@pytest.fixture
def committed(kept, tmp_path, monkeypatch) -> Path:
    """A copy of the committed results of the demo that may be altered; SAISTUDY_RESULTS names it."""
    folder = tmp_path / "results"
    shutil.copytree(kept / "demo", folder / "demo")
    monkeypatch.setenv("SAISTUDY_RESULTS", str(folder))
    return folder / "demo"


def rewrite(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text, (path.name, old)
    path.write_text(text.replace(old, new, count))


def other_digit(number: str, rng: random.Random) -> str:
    """The same number with one of its first six significant digits replaced."""
    places = [at for at, sign in enumerate(number) if sign.isdigit()]
    significant = [at for at in places if number[: at + 1].strip("0.-")][:6] or places[-1:]
    at = rng.choice(significant)
    return number[:at] + rng.choice([d for d in "123456789" if d != number[at]]) + number[at + 1 :]


def leaves(value, path=()):
    """Every number in JSON with its path, but for what identifies a file or counts nothing."""
    if isinstance(value, dict):
        for key in sorted(value.keys() - {"twin", "schema", "written"}):
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from leaves(item, (*path, at))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def alter_record(folder: Path, rng: random.Random) -> str:
    """A number anywhere in the record: metric, interval, threshold, count, condition, cost, latency."""
    record = json.loads((folder / "record.json").read_text())
    kinds: dict[tuple, list] = {}
    for path, value in leaves(record):
        kinds.setdefault(tuple(k for k in path if isinstance(k, str)), []).append((path, value))
    path, value = rng.choice(rng.choice(sorted(kinds.values())))
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = type(value)(other_digit(repr(value), rng)) if "e" not in repr(value) else value * 2
    (folder / "record.json").write_text(json.dumps(record))
    return f"record {path} {value} -> {place[path[-1]]}"


def alter_notebook(folder: Path, rng: random.Random) -> str:
    """A number that the notebook shows, in one of the forms in which it shows it."""
    book = json.loads((folder / "run.ipynb").read_text())
    found = []
    for at, cell in enumerate(book["cells"]):
        for output in cell.get("outputs", []):
            for texts in [output] if "text" in output else [output["data"]]:
                for kind in texts.keys() & {"text", "text/plain", "text/html"}:
                    shown = [(n, m) for n, line in enumerate(texts[kind]) for m in re.finditer(SHOWN, line)]
                    found += [(at, texts[kind], n, m) for n, m in shown]
    at, lines, n, match = rng.choice(found)
    before = lines[n]
    lines[n] = before[: match.start()] + other_digit(match.group(), rng) + before[match.end() :]
    (folder / "run.ipynb").write_text(json.dumps(book))
    return f"cell {at}: {before!r} -> {lines[n]!r}"


def alter_csv(folder: Path, rng: random.Random) -> str:
    """A number of epochs.csv that a stop, a line or a summary rests on."""
    path = rng.choice(sorted(folder.rglob("epochs.csv")))
    frame = pd.read_csv(path, dtype=str)
    # what neither a stop, nor an epoch line rests on is held by the manifest alone
    columns = [c for c in frame if re.match(r"\s*(train/|metrics/mAP|time)", c)]
    row, column = rng.randrange(len(frame)), rng.choice(columns)
    before = frame.loc[row, column]
    frame.loc[row, column] = str(round(float(before) * 1.2 + 0.01, 5))
    frame.to_csv(path, index=False)
    return f"{path.name} {column} {before} -> {frame.loc[row, column]}"


def alter_telemetry(folder: Path, rng: random.Random) -> str:
    """Seconds of an epoch."""
    path = rng.choice(sorted(folder.rglob("telemetry.csv")))
    frame = pd.read_csv(path, dtype=str)
    row, column = rng.randrange(len(frame)), rng.choice(["wait_s", "compute_s", "val_s", "save_s", "epoch_s"])
    before = frame.loc[row, column]
    frame.loc[row, column] = str(float(before) + 0.5)
    frame.to_csv(path, index=False)
    return f"{path.name} {column} {before}"


def alter_boxes(folder: Path, rng: random.Random) -> str:
    """A detection or a box of truth; the record is given the new file's hash, as whoever alters it would."""
    record = json.loads((folder / "record.json").read_text())
    own = [row for row in record["predictions"] if row["rows_n"] and row["file"].startswith("predictions/")]
    row = rng.choice([row for row in own if row["imgsz"] == record["conditions"]["imgsz"]])
    truth = rng.random() < 0.3
    path = folder / ("truth.parquet" if truth else row["file"])
    frame = pd.read_parquet(path)
    if truth:
        frame = frame.drop(index=rng.randrange(len(frame)))
    else:
        best = frame[frame["split"] == "test"]["score"].idxmax()
        frame.loc[best, ["x1", "y1", "x2", "y2"]] = [0.0, 0.0, 3.0, 3.0]
        frame.loc[best, "score"] = 1.0
    frame.to_parquet(path, compression="zstd", index=False)
    row |= {"sha256": recomputed.sha256(folder / row["file"]), "bytes": (folder / row["file"]).stat().st_size}
    (folder / "record.json").write_text(json.dumps(record))
    return f"{path.name}, {row['model']}"


ALTERATIONS = [
    alter_record,
    alter_record,
    alter_notebook,
    alter_notebook,
    alter_csv,
    alter_telemetry,
    alter_boxes,
]


def test_every_number_that_a_notebook_shows_is_computed_again(kept):
    """By a cell tagged `audit`, or as an epoch's line; Ultralytics' own caching line stands in finetune's.

    The speed notebooks are left out: what they show are rates of a machine, which nothing saved recomputes.
    """
    unseen = []
    speed = ("gate", *forecast.SPEED)
    for path in (path for path in sorted(kept.glob("*/*/run.ipynb")) if path.parent.name not in speed):
        for cell in executed.read(path).cells:
            if cell.cell_type == "code" and "audit" not in cell.metadata.get("tags", []):
                texts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
                lines = [line for text in texts for line in text.splitlines() if re.search(SHOWN, line)]
                unseen += [
                    (path.parent.name, line) for line in lines if not line.startswith(("epoch ", "<Figure"))
                ]
    assert [line for _, line in unseen if ": Caching images (" not in line] == []


def restored(kept: Path, committed: Path, run: str) -> None:
    shutil.rmtree(committed / run)
    shutil.copytree(kept / "demo" / run, committed / run)


@pytest.mark.parametrize("alterations_n", [20, pytest.param(200, marks=pytest.mark.full)])
def test_an_altered_number_is_found_by_the_checks_of_its_run(kept, committed, alterations_n):
    """Each with the manifest written again, so that only recomputation can tell."""
    rng, missed = random.Random(alterations_n), []
    assert not [line for run in TRAINED for line in report.run("demo", run).found]
    for n in range(alterations_n):
        run = rng.choice(TRAINED)
        what = ALTERATIONS[n % len(ALTERATIONS)](committed / run, rng)
        manifest.write(committed.parent, ["demo"])
        assert manifest.findings(committed.parent, ["demo"]) == []
        if not report.run("demo", run).found:
            missed.append(f"{run}: {what}")
        restored(kept, committed, run)
    assert not missed


@pytest.mark.full  # `make audit` does it in CI
def test_every_committed_run_passes_its_own_checks(kept, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(kept))
    names = [
        (profile, path.parent.name)
        for profile in ("demo", "mini")
        for path in (kept / profile).glob("*/record.json")
    ]
    others = [(profile, name) for profile, name in names if name not in (*TRAINED, "claims")]
    found = [line for profile, name in others for line in report.run(profile, name).found]
    assert len(others) > 20 and not found


@pytest.mark.parametrize("name", ["table.csv", "table.md", "figures/patience.csv", "figures/forest.csv"])
def test_an_altered_table_or_frame_is_found(committed, name):
    path, rng = committed / name, random.Random(name)
    numbers = list(re.finditer(r"(?<![\w.])\d\.\d{3,}", path.read_text()))
    match = rng.choice(numbers)
    text = path.read_text()
    path.write_text(text[: match.start()] + other_digit(match.group(), rng) + text[match.end() :])
    assert f"{name} is not what the records give" in report.between("demo", absent=False).found


def test_an_altered_verdict_is_found(committed):
    rewrite(committed / "table.csv", "unresolved", "better")
    rewrite(committed / "table.md", "✗ unresolved", "✓ better")
    found = report.between("demo", absent=False).found
    assert found == [f"table.{kind} is not what the records give" for kind in ("csv", "md")]


def test_an_altered_band_is_found(committed):
    records, told = read_records("demo"), json.loads((committed / "expected.json").read_text())
    assert chain.band("demo", records, told) == []
    told["runs"][3]["high"] += 0.05
    assert "runs[3].high" in chain.band("demo", records, told)[0]


def test_results_made_anew_are_held_to_the_band(committed):
    records, told = read_records("demo"), json.loads((committed / "expected.json").read_text())
    records[0]["written"] = "2030-01-01T00:00:00+00:00"
    assert chain.band("demo", records, told) == []
    records[0]["metrics"][-1]["ap50"] += told["tolerance"] + 0.01
    assert chain.band("demo", records, told) == [
        f"{records[0]['run']} lies outside the band of expected.json"
    ]
    assert chain.band("demo", records, None) == ["expected.json is not there: python -m saistudy expect demo"]


def test_any_altered_byte_any_file_more_or_less_is_found_by_the_manifest(kept, committed):
    root = committed.parent
    manifest.write(root, ["demo"])
    assert manifest.findings(root, ["demo"]) == []
    told = subprocess.run(["sha256sum", "--quiet", "-c", manifest.NAME], cwd=root, capture_output=True)
    assert told.returncode == 0, told.stdout
    rng = random.Random(0)
    for name in rng.sample(manifest.files(root), 12):
        before = (root / name).read_bytes()
        at = rng.randrange(len(before)) if before else 0
        (root / name).write_bytes(
            before[:at] + bytes([(before[at] ^ 1) if before else 65]) + before[at + 1 :]
        )
        assert manifest.findings(root, ["demo"]) == [f"{name} is not the file that {manifest.NAME} tells of"]
        (root / name).write_bytes(before)
    (committed / "896-s0" / "args.yaml").unlink()
    (committed / "note.txt").write_text("x")
    found = manifest.findings(root, ["demo"])
    assert found == [
        f"demo/note.txt is in no line of {manifest.NAME}",
        f"demo/896-s0/args.yaml is in {manifest.NAME} and not there",
    ]


def book_of(folder: Path) -> dict:
    return json.loads((folder / "run.ipynb").read_text())


def save(folder: Path, book: dict) -> None:
    (folder / "run.ipynb").write_text(json.dumps(book))


def code(book: dict) -> list[dict]:
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda book: code(book)[5].update(execution_count=None), "its cells were executed as"),
        (lambda book: book["cells"].insert(9, book["cells"].pop(12)), "its cells were executed as"),
        (lambda book: code(book)[7]["source"].append("\nx = 1"), "are not those of notebooks/stage1.ipynb"),
        (lambda book: book["cells"][0]["source"].append("!"), "are not those of notebooks/stage1.ipynb"),
        (lambda book: book["cells"].pop(), "cells, notebooks/stage1.ipynb of that blob has"),
        (
            lambda book: code(book)[6]["outputs"].append(
                {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
            ),
            "a cell ended in E",
        ),
        (lambda book: book["metadata"]["papermill"]["parameters"].update(seed=7), "Papermill gave seed = 7"),
    ],
)
def test_a_notebook_that_is_not_the_executed_one_is_found(committed, alter, said):
    book = book_of(committed / "896-s0")
    alter(book)
    save(committed / "896-s0", book)
    assert [line for line in report.run("demo", "896-s0").found if said in line]


def test_parameters_of_the_injected_cell_are_those_of_the_record(committed):
    folder = committed / "896-s0"
    book = book_of(folder)
    cell = next(c for c in code(book) if "injected-parameters" in c["metadata"].get("tags", []))
    cell["source"] = [line.replace("seed = 0", "seed = 5") for line in cell["source"]]
    save(folder, book)
    assert "its cells assign seed = 5, its record says 0" in report.run("demo", "896-s0").found


def test_a_source_that_was_never_committed_is_found(committed):
    rewrite(committed / "896-s0" / "record.json", read_record("demo", "896-s0")["source"]["blob"], "0" * 40)
    found = report.run("demo", "896-s0").found
    assert found == [
        f"notebooks/stage1.ipynb as it was (blob {'0' * 12}) is not in the history",
        f"notebooks/stage1.ipynb as it was (blob {'0' * 12}) was never committed",
    ]


@pytest.mark.parametrize(
    ("key", "said"),
    [("sha256", "stage2-896-s0: parent.sha256 is"), ("run_id", "stage2-896-s0: parent.run_id is")],
)
def test_a_broken_chain_is_found(committed, key, said):
    told = read_record("demo", "stage2-896-s0")["parent"][key]
    rewrite(committed / "stage2-896-s0" / "record.json", told, told[:-1] + ("0" if told[-1] != "0" else "1"))
    assert [line for line in report.between("demo", absent=True).found if line.startswith(said)]


def test_other_data_and_another_rule_are_found(committed):
    record = read_record("demo", "1440-s1")
    changed = json.dumps(record).replace(record["data"]["fingerprint"], "f" * 64)
    (committed / "1440-s1" / "record.json").write_text(changed.replace(record["prereg_sha256"], "e" * 64))
    found = chain.inputs(read_records("demo"))
    assert [line for line in found if line.startswith("1440-s1: it was made under another rule")]
    assert [line for line in found if "fasdd_cv is not the data that" in line]


def test_predictions_that_stay_outside_are_named_and_nothing_else_is_skipped(committed):
    """Too large to be committed: the record lists them, a clone does not have them."""
    folder = committed / "896-s0"
    record = read_record("demo", "896-s0")
    for row in record["predictions"]:
        row["committed"] = False
        (folder / row["file"]).unlink()
    (folder / "record.json").write_text(json.dumps(record))
    seen = report.run("demo", "896-s0")
    assert seen.found == []
    assert sorted(seen.absent) == sorted(f"{row['file']} is not there" for row in record["predictions"])
    assert report.between("demo", absent=True).found == []
    # what a record says is still held to the notebook and the table
    record["metrics"][-1]["ap50"] += 0.01
    (folder / "record.json").write_text(json.dumps(record))
    assert [line for line in report.run("demo", "896-s0").found if "metrics_table" in line]
    row = next(m for m in record["metrics"] if m["model"] == "patience-3" and m["subset"] == "published")
    row["ap50"] += 0.01
    (folder / "record.json").write_text(json.dumps(record))
    assert [
        line
        for line in report.between("demo", absent=True).found
        if line.startswith("table.csv: ap50 of 896")
    ]


def test_a_file_that_cannot_be_read_is_a_finding(committed):
    (committed / "896-s0" / "run.ipynb").write_text("{")
    (committed / "1440-s1" / "record.json").unlink()
    assert report.run("demo", "896-s0").found[0].startswith("it cannot be checked: ")
    assert report.run("demo", "1440-s1").found[0].startswith("it cannot be checked: Refusal: ")


def test_the_command_says_what_it_found_and_ends_with_a_status(tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    call = [sys.executable, "-m", "saistudy", "audit", "mini"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "there is no run of mini to audit" in done.stderr


def test_differences_by_hand():
    seen = {"a": [1.0, {"b": 2}], "c": "x", "d": None, "e": True}
    assert list(recomputed.differences(seen, json.loads(json.dumps(seen)))) == []
    told = {"a": [1.0 + 1e-12, {"b": 3}], "c": "y", "d": 0, "f": 1}
    assert list(recomputed.differences(seen, told, "r")) == [
        "r.a[1].b is 3 in the record, 2 computed again",
        "r.c is y in the record, x computed again",
        "r.d is 0 in the record, None computed again",
        "r.e is on one side only",
        "r.f is on one side only",
    ]
    assert list(recomputed.differences({"n": 1}, {"n": True}))  # a flag is no number
    assert list(recomputed.differences({"n": False}, {"n": 0.0}))


def test_epoch_lines_follow_from_the_csv(committed):
    folder, record = committed / "896-s0", read_record("demo", "896-s0")
    book = executed.read(folder / "run.ipynb")
    assert executed.epoch_lines(book, folder, record) == []
    lines = (folder / "epochs.csv").read_text().splitlines(True)
    (folder / "epochs.csv").write_text("".join(lines[:-1]))  # the last epoch is lost
    found = executed.epoch_lines(book, folder, record)
    assert any("which is in no epochs.csv of the run" in line for line in found)

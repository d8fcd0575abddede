"""Shared fixtures: the real photographs, where they are at hand, and the dated report of the full set."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from saistudy import hardware
from saistudy.paths import ROOT, write_json

# before any test imports torch or Ultralytics
hardware.pin_threads()
hardware.quiet()


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder with real photographs in both published formats (`FASDD_CV/`, `pyro-sdis/`)."""
    folder = Path(os.environ.get("SAISTUDY_REAL", ROOT.parent / "shared" / "data"))
    if not (folder / "FASDD_CV").is_dir():
        pytest.skip(
            f"no real photographs: name a folder with FASDD_CV/ and pyro-sdis/ in SAISTUDY_REAL ({folder})"
        )
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The tree of a synthetic FASDD of 36 images in seven sizes."""
    from saistudy.data import fasdd, tree, twin

    folder = tmp_path_factory.mktemp("tiny")
    twin.write_fasdd(folder, 36, seed=1, area_frac=0.03, long_px=320, faults="none")
    tree.build(fasdd.read(folder), folder / "tree")
    return tree.load(folder / "tree")


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory):
    """A tree of large painted rectangles: learnt by a YOLOv8n at 64 px in a dozen epochs."""
    import painted

    counts = {"train": 16, "val": 8, "test": 8}
    names = {0: "fire", 1: "smoke"}
    return painted.tree(tmp_path_factory.mktemp("rectangles") / "tree", counts, names, [(64, 48)])


@pytest.fixture(scope="session")
def trained(tmp_path_factory, rectangles):
    """A run whose shorter patience stopped early, at weights that the longer one has improved on.

    The first seed does on x86; the others are for processors with other kernels, whose curves differ.
    """
    import painted

    from saistudy.training.fit import fit

    for seed in (1, 0, 2, 3):
        folder = tmp_path_factory.mktemp("trained") / "run"
        run = fit("yolov8n.yaml", rectangles.yaml, folder, seed=seed, patiences=[1, 5], **painted.LEARNABLE)
        short, long = run.stops
        if short["stopped_early"] and short["best_epoch"] < long["best_epoch"]:
            return run
    pytest.fail("no seed gave a curve on which patience 1 stops early and patience 5 gets further")


STARTED = time.monotonic()


def pytest_terminal_summary(terminalreporter, exitstatus):
    """Write the report that `make test-full` commits: date, commit, counts, what was skipped and why."""
    if path := os.environ.get("SAISTUDY_TEST_REPORT"):
        seen = terminalreporter.stats
        report = {f"{kind}_n": len(seen.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")}
        report["skipped"] = sorted({str(test.longrepr[2]) for test in seen.get("skipped", [])})
        report |= {"date": datetime.now(UTC).date().isoformat(), "exit": int(exitstatus)}
        report |= {"wall_s": round(time.monotonic() - STARTED), "git": hardware.environment()["git"]}
        write_json(ROOT / path, report)


def pytest_collection_modifyitems(items):
    """The longest file first: two workers then end at about the same time."""
    items.sort(key=lambda item: "test_nbval" not in item.nodeid)

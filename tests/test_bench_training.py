"""What a training step costs: the demo's arms really trained, the figures those of the runs, nothing left."""

from pathlib import Path

import pytest
import yaml

from saistudy.paths import PARAMS
from saistudy.study import bench_training

ARMS = ("896", "1440x808", "1184x672", "1440")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.full)])
def measured(request, tmp_path_factory):
    """A square and a rectangle; in the full set all arms."""
    work = tmp_path_factory.mktemp("bench")
    before = set(Path("/dev/shm").iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_training, "ARMS", ARMS[: request.param])
        result = bench_training.measure("demo", images_n=40, epochs_n=2, work=work)
    assert not [*work.iterdir()] and not {p for p in Path("/dev/shm").iterdir() if p.is_dir()} - before
    return result


def test_every_arm_has_its_row(measured):
    for row in measured["rows"]:
        arm = yaml.safe_load((PARAMS / "demo" / "arms" / f"{row['arm']}.yaml").read_text())
        size = arm["change"]["imgsz"]
        assert row["imgsz"] == (size if isinstance(size, list) else [size, size])
        assert (row["batch"], row["note"], len(row["epoch_s"])) == (4, "", 2)
        assert 0 < row["wait_frac"] < 1 and row["gpu_peak_gib"] is None
        # 24 of 40 images train: the rate of an epoch cannot exceed that over its shortest second
        assert 0 < row["images_per_s"] < 1000
    assert [row["arm"] for row in measured["rows"]] in (list(ARMS[:2]), list(ARMS))


def test_it_can_be_read(measured):
    lines = bench_training.sentences(measured).splitlines()
    assert lines[0].startswith("profile demo on ") and "40 generated images, 2 epochs each" in lines[0]
    assert lines[1].startswith("896 (96 x 96), batch 4: ") and len(lines) == 1 + len(measured["rows"])


def test_a_device_that_is_not_there_is_said_and_not_measured():
    row = bench_training._arm("h200", "896", {}, {"data": "x.yaml", "folder": Path("y"), "epochs_n": 1})
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "device 0 was asked for" in row["note"] and row["gpu_peak_gib"] is None
    assert bench_training._line(row).startswith("896: device 0 was asked for")

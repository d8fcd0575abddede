"""Curves: events read back by TensorBoard's own reader and over HTTP, against the csv by pandas."""

import json
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path

import numpy as np
import painted
import pandas as pd
import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resume import after_the_csv, child, in_an_epoch, killed

from saistudy.training import curves
from saistudy.training.fit import fit

TRAIN = painted.LEARNABLE | {"epochs": 3, "imgsz": 64, "batch": 8, "nbs": 8, "tensorboard": True}


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) in the order of the files, as TensorBoard reads them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def assert_the_csv(folder: Path) -> None:
    """Every column but the epoch, each epoch once, the values to 32 bits."""
    csv, seen = pd.read_csv(folder / "results.csv"), read_back(folder / "tensorboard")
    assert seen.keys() == {*csv.columns} - {"epoch"}
    assert {"train/box_loss", "metrics/mAP50(B)", "val/cls_loss", "lr/pg0"} <= seen.keys()
    for tag, events in seen.items():
        assert [step for step, _ in events] == csv["epoch"].tolist() == [*range(1, len(csv) + 1)]
        assert np.array_equal([value for _, value in events], csv[tag].astype(np.float32))


def test_events_are_the_csv(rectangles, tmp_path):
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **TRAIN)
    assert_the_csv(run.folder)
    shutil.rmtree(run.folder / "tensorboard")  # asked for again of a finished run, they are there again
    fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **TRAIN)
    assert_the_csv(run.folder)


@pytest.mark.full
def test_flushed_in_every_epoch_and_each_epoch_once_after_two_kills(rectangles, tmp_path):
    """The second kill falls between an epoch's csv and its checkpoint: that epoch is trained twice."""
    folder, kind = tmp_path / "run", {"imgsz": 64, "workers": 0, "tensorboard": True}
    assert killed(child(rectangles, folder, **kind), in_an_epoch, folder)
    assert [step for step, _ in read_back(folder / "tensorboard")["train/box_loss"]] == [1, 2]
    assert killed(child(rectangles, folder, **kind), after_the_csv, folder)
    process = child(rectangles, folder, **kind)
    told, _ = process.communicate()
    assert process.returncode == 0 and "resumed with epoch 3" in told
    assert_the_csv(folder)


@pytest.mark.full
def test_from_the_second_place_alone_every_epoch_is_there(rectangles, tmp_path):
    kind = {"imgsz": 64, "workers": 0, "tensorboard": True, "durable_dir": str(tmp_path / "second")}
    assert killed(child(rectangles, tmp_path / "run", **kind), in_an_epoch, tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    assert child(rectangles, tmp_path / "run", **kind).wait() == 0
    assert_the_csv(tmp_path / "run")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(url: str, path: str):
    with urllib.request.urlopen(f"{url}/data/plugin/scalars/{path}", timeout=30) as answer:
        return json.load(answer)


def points(url: str, expected: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """(step, value) of the loss that a server shows; it looks every 5 s, so until as expected or 60 s."""
    seen, until = [], time.monotonic() + 60
    while seen != expected and time.monotonic() < until:
        time.sleep(0.2)
        try:
            seen = [(step, value) for _, step, value in get(url, "scalars?run=.&tag=train/box_loss")]
        except urllib.error.HTTPError:
            seen = []
    return seen


def write(csv: Path, losses: list[float]) -> list[tuple[int, float]]:
    rows = {"epoch": range(1, len(losses) + 1), "train/box_loss": losses, "note": "text"}
    pd.DataFrame(rows).to_csv(csv, index=False)
    return [*enumerate(losses, start=1)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(URL, folder, what it prints) of a server whose folder does not exist yet."""
    folder = tmp_path_factory.mktemp("served") / "run" / "tensorboard"
    return curves.serve(folder, free_port()), folder


def test_a_server_shows_a_run_that_comes_later_and_one_that_replaces_it(server, tmp_path, capfd):
    url, folder = server
    assert not folder.exists() and get(url, "tags") == {}
    first = write(tmp_path / "results.csv", [3.0, 2.0, 1.0])
    writer = curves.rewritten(tmp_path / "results.csv", folder)
    assert points(url, first) == first
    assert get(url, "tags") == {".": {"train/box_loss": {"displayName": "train/box_loss", "description": ""}}}
    # a resume writes the files anew: what was read of the third epoch is forgotten
    fewer = write(tmp_path / "results.csv", [3.0, 2.5])
    writer.close()
    writer = curves.rewritten(tmp_path / "results.csv", folder)
    assert points(url, fewer) == fewer
    curves.add(writer, pd.DataFrame({"epoch": [3.0], "train/box_loss": [1.5]}))
    assert points(url, [*fewer, (3, 1.5)]) == [*fewer, (3, 1.5)]
    # another training empties the run's folder
    shutil.rmtree(folder.parent)
    other = write(tmp_path / "results.csv", [9.0])
    curves.rewritten(tmp_path / "results.csv", folder).close()
    assert points(url, other) == other
    writer.close()
    assert capfd.readouterr() == ("", "")


def test_a_taken_port_is_one_sentence(server, capfd):
    port = int(server[0].rsplit(":", 1)[1])
    assert server[0] == f"http://localhost:{port}"
    assert curves.serve(server[1], port) is None
    told, warned = capfd.readouterr()
    assert told.count("\n") == 1 and f"port {port} cannot be had" in told and not warned


def test_no_other_interface_answers(server):
    port = int(server[0].rsplit(":", 1)[1])
    found = defaultdict(list)
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            found[address.family].append(address.address)
    outer = [address for address in found[socket.AF_INET] if not address.startswith("127.")]
    if not outer:
        pytest.skip("this machine has the loopback interface only")
    for address in outer:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=5)

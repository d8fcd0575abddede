"""A training in a live kernel: displays that update in place, a clean interrupt, the same bits after it."""

import io
import re

import painted
import pytest
from jupyter_client import KernelManager
from PIL import Image
from test_resume import assert_same

from saistudy.study.kernel import environ
from saistudy.training import attempts, live, progress
from saistudy.training.fit import fit

EPOCHS = 4
TRAIN = painted.LEARNABLE | {"epochs": EPOCHS, "mosaic": 1.0, "mixup": 0.3, "close_mosaic": 2, "workers": 2}
TRAIN |= {"seed": 1, "patiences": [EPOCHS]}
WAIT_S = 120
# every batch is shown, however quick: an interrupt while workers fork can be lost in a callback of Python's
SETUP = """
import os
os.environ['SAISTUDY_LIVE'] = '1'
from saistudy.training import live
from saistudy.training.fit import fit
live.PAUSE_S = 0.0
"""
HELD = """
import gc, multiprocessing
from ultralytics.engine.trainer import BaseTrainer
print(sum(isinstance(one, BaseTrainer) for one in gc.get_objects()), len(multiprocessing.active_children()))
"""
CSV = """\
epoch,time,train/box_loss,train/cls_loss,train/dfl_loss,metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,val/cls_loss
1,10,1,2,3,0.25,0.125,2,2
2,25,1,1,1,0.5,0.25,1,0.5
"""


class Kernel:
    """A Jupyter kernel, and what its cells send."""

    def __init__(self):
        with environ():
            self.manager = KernelManager(kernel_name="python3")
            self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT_S)

    def run(self, code: str, until=lambda messages: False) -> list[dict]:
        """Messages of a cell; it is interrupted, once, when `until` says so of those that came."""
        asked, messages, sent = self.client.execute(code), [], False
        while not messages or messages[-1]["content"].get("execution_state") != "idle":
            message = self.client.get_iopub_msg(timeout=WAIT_S)
            messages += [message] if message["parent_header"].get("msg_id") == asked else []
            if not sent and until(messages):
                sent = True
                self.manager.interrupt_kernel()
        return messages

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel():
    started = Kernel()
    yield started
    started.stop()


def of(messages: list[dict], kind: str) -> list[dict]:
    return [message["content"] for message in messages if message["msg_type"] == kind]


def shown(messages: list[dict], text: str) -> list[str]:
    """The HTML of each state of a display that holds a text."""
    states = [*of(messages, "display_data"), *of(messages, "update_display_data")]
    return [one["data"]["text/html"] for one in states if text in one["data"].get("text/html", "")]


def stdout(messages: list[dict]) -> str:
    return "".join(one["text"] for one in of(messages, "stream") if one["name"] == "stdout")


def test_an_interrupted_training_says_so_in_one_sentence_and_goes_on_to_the_same_bits(
    kernel, rectangles, tmp_path
):
    kernel.run(SETUP)
    cell = f"run = fit('yolov8n.yaml', {str(rectangles.yaml)!r}, {str(tmp_path / 'run')!r}, **{TRAIN!r})"
    early = kernel.run(cell, until=lambda messages: shown(messages, "epoch 1 of 4: batch"))
    late = kernel.run(cell, until=lambda messages: shown(messages, "epoch 3 of 4: batch"))
    told = [
        "training interrupted in epoch 1: no epoch is finished yet, run it again to begin anew",
        "training interrupted in epoch 3: all up to epoch 2 is kept, run it again to go on with epoch 3",
    ]
    for messages, sentence in zip((early, late), told, strict=True):
        (error,) = of(messages, "error")
        assert error["ename"] == "Interrupted" and error["traceback"] == [error["evalue"]] == [sentence]
    # nothing of the training is held: not by the traceback that IPython keeps, not by workers
    assert stdout(kernel.run(HELD)) == "0 0\n"
    whole = kernel.run(cell)
    assert not of(whole, "error") and stdout(whole) == "resumed with epoch 3, exactly\n"
    ended = [(row["epoch"], row["ended"], row["exact"]) for row in attempts.rows(tmp_path / "run")]
    interrupts = [(1, "interrupted in epoch 1", True), (1, "interrupted in epoch 3", True)]
    assert ended == [*interrupts, (3, "finished", True)]
    fit("yolov8n.yaml", rectangles.yaml, tmp_path / "straight", **TRAIN)
    assert_same(tmp_path / "run", tmp_path / "straight")
    # one line and one table, updated in place
    for messages in (late, whole):
        assert len(of(messages, "display_data")) == 2 and not of(messages, "clear_output")
    table = shown(whole, "<table")[-1]
    assert re.findall(rf"<td>(\d+)/{EPOCHS}</td>", table) == ["4", "3", "2", "1"]
    assert table.count('src="data:image/png;base64,') == 1


def test_a_table_of_two_epochs_by_hand(tmp_path, capsys, monkeypatch):
    (tmp_path / "results.csv").write_text(CSV)
    table = progress.table(tmp_path / "results.csv", 4, 100)
    monkeypatch.delenv("SAISTUDY_LIVE", raising=False)
    progress.Teller().tell(table, 2)
    # 100 images in 10 s; 200 in 25 s, and twice 12.5 s are left
    assert capsys.readouterr().out == (
        "epoch 1/4  loss 6.000  val AP50 0.250  AP50-95 0.125  | 10 images/s, at most 0:00:30 to go\n"
        "epoch 2/4  loss 3.000  val AP50 0.500  AP50-95 0.250  | 8 images/s, at most 0:00:25 to go\n"
    )
    head, *rows = re.findall(r"<tr.*?</tr>", live.as_html(table), re.S)
    names = re.findall(r"<th>(.*?)</th>", head)
    later, first = (dict(zip(names, re.findall(r"<td>(.*?)</td>", row), strict=True)) for row in rows)
    own = ("epoch", "seconds", "box", "cls", "dfl", "val loss")
    assert [later[name] for name in own] == ["2/4", "15.0", "1", "1", "1", "1.5"]
    assert [first[name] for name in own] == ["1/4", "10.0", "1", "2", "3", "4.0"]
    picture = Image.open(io.BytesIO(live.curves(table)))
    diverged = table.assign(**{"loss": float("nan"), "val loss": float("inf")})
    assert Image.open(io.BytesIO(live.curves(diverged))).size == picture.size  # shown all the same
    assert picture.size == (560, 230) and len(picture.convert("RGB").getcolors(1 << 20)) > 20

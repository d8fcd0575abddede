"""The patience replay: against Ultralytics' own stopper, epoch by epoch, and curves by hand."""

import logging
from pathlib import Path

import numpy as np
import pytest

from saistudy.paths import Refusal
from saistudy.training.patience import COLUMN, Replay, fitness, replay


def by_hand(curve: list[float], patience: int, epochs: int = 10) -> tuple[int | None, int | None]:
    answer = replay(curve, patience, epochs)
    return answer.stop_epoch, answer.best_epoch


def trainer(curve: np.ndarray, patience: int, epochs: int) -> Replay:
    """Ultralytics' stopper, driven as BaseTrainer does: validate, stop, then save_model."""
    from ultralytics.utils.torch_utils import EarlyStopping

    stopper, best_fitness, best_pt = EarlyStopping(patience=patience), None, None
    for epoch, value in enumerate(curve):
        if best_fitness is None or best_fitness < value:
            best_fitness = value
        stop = stopper(epoch + 1, value) or epoch + 1 == epochs
        if best_fitness == value:
            best_pt = epoch + 1
        if stop:
            return Replay(epoch + 1, best_pt, stopped_early=epoch + 1 < epochs, known=True)
    return Replay(None, None, stopped_early=False, known=False)


def curves(count: int, seed: int):
    """Curves with many ties and runs of zeros, of which some end before the run would."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        epochs = int(rng.integers(1, 30))
        curve = rng.integers(0, rng.integers(2, 12), size=rng.integers(0, epochs + 1)) / 100
        curve[: rng.integers(0, 6)] = 0
        yield curve, int(rng.integers(0, 8)), epochs


def compare(count: int, seed: int) -> None:
    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    outcomes = set()
    for curve, patience, epochs in curves(count, seed):
        expected = trainer(curve, patience, epochs)
        assert replay(curve, patience, epochs) == expected, (curve.tolist(), patience, epochs)
        outcomes.add((expected.known, expected.stopped_early))
    # the curves reached every kind of answer: early, at the end, unknown
    assert outcomes == {(True, True), (True, False), (False, False)}


def test_equals_the_real_stopper():
    compare(3_000, seed=1)


@pytest.mark.full
def test_equals_the_real_stopper_on_many_curves():
    compare(20_000, seed=2)


def test_first_maximum_stops_and_last_maximum_is_kept():
    # maximum .5 first at 2, again at 3 and 4: patience 3 counts from 2 and stops at 5, best.pt is 4
    assert by_hand([0.1, 0.5, 0.5, 0.5, 0.4, 0.9], patience=3) == (5, 4)


def test_zeros_never_consume_patience():
    # zeros up to 6 leave patience 2 untouched; .1 at 7 is the best, 8 and 9 do not exceed it
    assert by_hand([0, 0, 0, 0, 0, 0, 0.1, 0.1, 0.05, 0.9], patience=2) == (9, 8)


def test_zero_after_a_gain_consumes_patience():
    assert by_hand([0.2, 0, 0, 0.9], patience=2) == (3, 1)


def test_patience_zero_runs_to_the_end():
    curve = [0.9] + [0.1] * 9
    assert replay(curve, 0, 10) == Replay(10, 1, stopped_early=False, known=True)


def test_stop_in_the_last_epoch_is_not_early():
    # patience 2 is spent at epoch 3, which is the last anyway
    assert replay([0.3, 0.2, 0.1], 2, 3) == Replay(3, 1, stopped_early=False, known=True)


def test_short_curve_is_unknown():
    # patience 5 would look at epochs 3 to 6, of which the curve has two
    assert replay([0.1, 0.5, 0.4, 0.3], 5, 10) == Replay(None, None, False, False)
    assert replay([], 3, 10).known is False


@pytest.mark.parametrize(
    ("curve", "patience", "epochs", "word"),
    [
        ([0.1], -1, 10, "patience -1"),
        ([0.1], 3, 0, "epochs 0"),
        ([0.1, 0.2], 3, 1, "2 epochs"),
        ([0.1, float("nan")], 3, 10, "not finite"),
    ],
)
def test_refuses(curve, patience, epochs, word):
    with pytest.raises(Refusal, match=word):
        replay(curve, patience, epochs)


def write(folder: Path, *rows: str, header: str = f"epoch,time,{COLUMN},lr/pg0") -> Path:
    path = folder / "results.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_reads_the_column(tmp_path):
    path = write(tmp_path, "1,9.5,0,0.1", "2,18.1,0.12345,0.1")
    assert fitness(path).tolist() == [0.0, 0.12345]


def test_reads_padded_columns_and_text_nan_elsewhere(tmp_path):
    path = write(tmp_path, "      1,  nan,   0.5,  0.1", header=f"  epoch,  time, {COLUMN}, lr/pg0")
    assert fitness(path).tolist() == [0.5]


def test_last_row_of_an_epoch_counts(tmp_path):
    # epoch 2 was written, lost with the process, and written again after the resume
    path = write(tmp_path, "1,9,0.1,0.1", "2,18,0.2,0.1", "2,9,0.3,0.1", "3,18,0.4,0.1")
    assert fitness(path).tolist() == [0.1, 0.3, 0.4]


def test_csv_as_ultralytics_writes_it(tmp_path):
    from ultralytics.engine.trainer import BaseTrainer

    written = object.__new__(BaseTrainer)
    written.csv, written.train_time_start = tmp_path / "results.csv", 0.0
    values = np.round(np.random.default_rng(3).random(50), 5)
    for written.epoch, value in enumerate(values):
        BaseTrainer.save_metrics(written, {COLUMN: value, "val/box_loss": float("nan")})
    # five decimals come through the file exactly
    assert fitness(tmp_path / "results.csv").tolist() == values.tolist()


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (["1,9,0.1,0.1", "3,9,0.2,0.1"], "epochs 1, 3"),
        (["2,9,0.1,0.1"], "epochs 2"),
        (["1,9,0.1,0.1", "2,9,0.1"], "line 3"),
        (["1,9,nan,0.1"], "line 2"),
        (["1,9,inf,0.1"], "line 2"),
        (["one,9,0.1,0.1"], "line 2"),
    ],
)
def test_refuses_csv(tmp_path, rows, word):
    with pytest.raises(Refusal, match=word):
        fitness(write(tmp_path, *rows))


def test_refuses_other_files(tmp_path):
    with pytest.raises(Refusal, match="cannot be read"):
        fitness(tmp_path / "none.csv")
    with pytest.raises(Refusal, match="no columns"):
        fitness(write(tmp_path, "1,2", header="epoch,metrics/accuracy_top1"))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(Refusal, match="no columns"):
        fitness(tmp_path / "empty.csv")

"""Claims on speed and batches against records of a GPU: the demo's real records, with figures set by hand."""

import json

import pytest

from saistudy.paths import ROOT
from saistudy.study import claims

CARD = "NVIDIA H200"


@pytest.fixture(scope="module")
def ledger():
    return claims.read()


@pytest.fixture
def placed(tmp_path, monkeypatch):
    """Puts the demo's record of a notebook among those of an H200, after a change of it."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))

    def place(notebook, change=lambda told: None, card=CARD, run=None):
        source = ROOT / "results" / "demo" / (run or notebook)
        folder = tmp_path / "h200" / (run or notebook)
        folder.mkdir(parents=True, exist_ok=True)
        told = json.loads((source / "record.json").read_text())
        told["profile"] = "h200"
        told["environment"]["gpus"] = [{"name": card}] if card else None
        change(told)
        (folder / "record.json").write_text(json.dumps(told))

    return place


def seen(told, line, values, network="classifier"):
    """Sets what a network showed of the sentence on a line, and leaves the other networks out."""
    told["claims"] = [row for row in told["claims"] if row["line"] != line]
    row = {"line": line, "network": network, "kind": "speed", "claim": "", "why": ""}
    told["claims"].append(row | {"values": values, "verdict": "holds"})


GAINS = [  # id, line, what was seen, what the ledger finds, verdict
    ("B01", 7, [5.5, 6.0, 9.0], 6.0, claims.HOLDS),
    ("B01", 7, [3.0, 4.0], 3.5, claims.FAILS),
    ("B02", 15, [1.5, 1.9], 1.7, claims.FAILS),
    ("B03", 16, [0.45], 45.0, claims.HOLDS),
    ("B05", 41, [1.2, 1.25], 22.5, claims.HOLDS),
    ("B08", 68, [1.75], 1.75, claims.HOLDS),
    ("B11", 96, [0.9], -10.0, claims.FAILS),
    ("B13", 121, [1.5], 50.0, claims.FAILS),
    ("B15", 141, [0.25], 25.0, claims.HOLDS),
    ("B16", 279, [0.9], -10.0, claims.HOLDS),
    ("B16", 279, [0.6], -40.0, claims.FAILS),
    ("B24", 235, [0.4], 40.0, claims.HOLDS),
    ("B35", 177, [0.8, 0.9], True, claims.HOLDS),
    ("B35", 177, [0.8, 1.1], False, claims.FAILS),
    ("B37", 81, [1.1, 1.2], True, claims.HOLDS),
    ("B37", 81, [0.9, 1.2], False, claims.FAILS),
]


@pytest.mark.parametrize(("name", "line", "values", "value", "verdict"), GAINS)
def test_a_gain_is_the_median_of_what_was_seen(ledger, placed, name, line, values, value, verdict):
    placed("throughput", lambda told: seen(told, line, values))
    one = claims.settle(ledger[name], ledger)
    assert one.found.value == pytest.approx(value) and one.verdict == verdict
    assert CARD in one.found.conditions and "h200/throughput" in one.found.evidence


def test_what_the_run_could_not_settle_stays_open(ledger, placed):
    """The demo's own rows all say so: a record of an H200 with them settles nothing."""
    placed("throughput")
    names = sorted({name for name, *_ in GAINS})
    assert {claims.settle(ledger[name], ledger).verdict for name in names} == {claims.UNMEASURED}


def all_made(told):
    for line in (7, 15, 16, 41, 68, 81, 96, 121, 141, 177, 279, 235):
        seen(told, line, [0.4, 9.0])
    told["compiled"] = [{"network": "classifier", "first_s": 20.0, "again_s": 5.0, "plain_s": 0.1}]


@pytest.mark.parametrize("card", [None, "NVIDIA A100"])
def test_another_machine_settles_nothing(ledger, placed, card):
    placed("throughput", all_made, card)
    placed("gate", with_util, card)
    placed("large-batch", paced, card)
    names = {name for name, *_ in GAINS} | {"B07", "B29", "C04", "C18", "C30", "C31", "C33", "C35", "D03"}
    assert {claims.settle(ledger[n], ledger).verdict for n in names} == {claims.UNMEASURED}


@pytest.mark.parametrize(
    ("first", "again", "verdict"),
    [(20.0, 5.0, claims.HOLDS), (20.0, 25.0, claims.FAILS), (90.0, 5.0, claims.FAILS)],
)
def test_compiling_takes_seconds_once(ledger, placed, first, again, verdict):
    row = {"network": "yolov8s", "backend": "inductor", "first_s": first, "again_s": again, "plain_s": 0.1}
    placed("throughput", lambda told: told.update(compiled=[row]))
    assert claims.settle(ledger["B07"], ledger).verdict == verdict


@pytest.mark.parametrize(("apart", "verdict"), [(0.0, claims.HOLDS), (2.0, claims.FAILS)])
def test_compiled_gradients_are_those_of_the_plain_network(ledger, placed, apart, verdict):
    row = {"network": "yolov8s", "factor": "compile", "apart": apart, "note": ""}
    placed("throughput", lambda told: told.update(gradients=[row]))
    assert claims.settle(ledger["B29"], ledger).verdict == verdict


def with_util(told, util=0.55, wait=0.7, losses_n=200):
    told["losses"] = [3.0] * losses_n
    told["metrics"][0]["gpu"]["gpu_util"] = {"value": util, "applies": True, "why": ""}
    told["metrics"][0]["steady"] = {"wait": wait, "step": 1 - wait, "transfer": 0.0}


def test_the_gate_settles_steps_utilisation_and_what_it_waits_for(ledger, placed):
    placed("gate", with_util)
    found = {name: claims.settle(ledger[name], ledger) for name in ("D03", "D08", "D13")}
    assert found["D03"].found.value == 200 and found["D03"].verdict == claims.HOLDS
    assert found["D08"].found.value == pytest.approx(55.0) and found["D08"].verdict == claims.FAILS
    assert found["D13"].found.value is True and found["D13"].verdict == claims.HOLDS
    placed("gate", lambda told: with_util(told, util=None, wait=0.1, losses_n=150))
    again = {name: claims.settle(ledger[name], ledger).verdict for name in found}
    assert again == {"D03": claims.FAILS, "D08": claims.UNMEASURED, "D13": claims.FAILS}


def test_a_loss_without_a_number_is_a_step_that_did_not_run_through(ledger, placed):
    placed("gate", lambda told: told.update(losses=[1.0, float("nan")]))
    assert claims.settle(ledger["D03"], ledger).found.value == 1


@pytest.mark.parametrize(("util", "verdict"), [(0.97, claims.HOLDS), (0.6, claims.FAILS)])
def test_a_full_training_tells_whether_its_gpu_was_used(ledger, placed, util, verdict):
    placed("stage1", lambda told: told["telemetry"][""].update(gpu_util=util), run="896-s0")
    assert claims.settle(ledger["D14"], ledger).verdict == verdict


RATES = {64: 5000.0, 384: 9000.0, 512: 9200.0}  # sequences a second: 512 adds 2 %


def paced(told, rates=RATES, half=0.5, diverged_n=0):
    """Steps as timed on a GPU: 32 bits at every batch, half precision at 384 in `half` of the time."""
    ms = {batch: 1000 * batch / rate for batch, rate in rates.items()}
    shown = [(batch, "float32", took) for batch, took in ms.items()]
    shown += [(384, "float16", half * ms[384]), (384, "bfloat16", ms[384])]
    told["timed"] = [
        {
            "batch": batch,
            "precision": name,
            "ms": took,
            "sequences_per_s": 1000 * batch / took,
            "peak_gib": 4.0,
        }
        for batch, name, took in shown
    ]
    arms = [("384 as written w0", 0), ("384 as written w3", 3), ("384 as written w5", 5)]
    like = {"rule": "as written", "batch": 384, "accumulate": 1, "runs_n": 2, "lr": 0.0004}
    told["metrics"] = [
        like | {"arm": arm, "warmup_epochs": epochs, "diverged_n": diverged_n if epochs == 0 else 0}
        for arm, epochs in arms
    ]
    told["own"] = {"base": arms[0][0], "cold": arms[0][0], "written": arms[1][0], "parts": ""}


def test_figures_of_a_card_are_settled_by_that_card(ledger, placed):
    placed("large-batch", paced)
    assert claims.settle(ledger["C18"], ledger).found is None  # an H200 says nothing of an H100's 50 ms
    placed("large-batch", paced, "NVIDIA H100 80GB HBM3")
    step, knee = (claims.settle(ledger[name], ledger) for name in ("C18", "C30"))
    assert step.found.value == pytest.approx(1000 * 384 / 9000) and step.verdict == claims.FAILS
    assert knee.found.value == 384 and knee.verdict == claims.HOLDS  # from 64 to 384 +80 %, then +2 %
    slower = {64: 5000.0, 128: 5100.0, 384: 9000.0}
    placed("large-batch", lambda told: paced(told, slower), "NVIDIA H100 80GB HBM3")
    assert claims.settle(ledger["C30"], ledger).verdict == claims.FAILS


def test_memory_and_precision_of_the_large_batch(ledger, placed):
    placed("large-batch", paced)
    memory, half = (claims.settle(ledger[name], ledger) for name in ("C17", "C33"))
    assert memory.found.value == pytest.approx(4 * 1.073741824) and memory.verdict == claims.FAILS
    assert (half.found.low, half.found.high) == (1.0, 2.0) and half.found.value == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("diverged_n", "verdicts"),
    [
        (2, (claims.UNMEASURED, claims.UNMEASURED)),  # generated data can confirm nothing
        (0, (claims.FAILS, claims.FAILS)),  # a run without warm-up that ends is a counterexample
    ],
)
def test_generated_sequences_can_refute_warm_up_and_not_confirm_it(ledger, placed, diverged_n, verdicts):
    placed("large-batch", lambda told: paced(told, diverged_n=diverged_n))
    needed, cold = (claims.settle(ledger[name], ledger) for name in ("C04", "C31"))
    assert (needed.verdict, cold.verdict) == verdicts
    assert needed.found.value == (3 if diverged_n else 0)


def test_a_run_that_diverged_refutes_that_none_did(ledger, placed):
    placed("large-batch", lambda told: (paced(told), told["metrics"][1].update(diverged_n=1)))
    assert claims.settle(ledger["C35"], ledger).verdict == claims.FAILS
    placed("large-batch", paced)
    assert claims.settle(ledger["C35"], ledger).verdict == claims.UNMEASURED


def test_records_of_the_speed_notebooks_alone_leave_accuracy_open(ledger, placed):
    """The gate runs before any training: then the ledger must still be made."""
    placed("gate", with_util)
    assert claims.settle(ledger["A91"], ledger).verdict == claims.UNMEASURED
    assert claims.settle(ledger["D14"], ledger).verdict == claims.UNMEASURED

"""The notebook large-batch: the seed's network by hand, memory that really runs out, trainings that go on."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saistudy import params
from saistudy.evaluation import stats
from saistudy.paths import PARAMS, Refusal
from saistudy.study import batch_arms, batch_claims, batch_plots, batch_results, costs
from saistudy.training import accumulation, batches, bilstm, checkpoints, confusion, limits, sequences, trial
from saistudy.training.batches import Recipe, Run

WEIGHTS = [1.0, 5.0, 8.0, 8.0]
TINY = dict(input_dim=6, conv_channels=[4], lstm_hidden=3, lstm_layers=1, num_classes=4, dropout=0.3)
TASK = {"sequence_length": 12, "signal": 3.0, "task_seed": 1}


def asked(profile="h200", **changed) -> SimpleNamespace:
    """Parameters of a profile with some changed."""
    return SimpleNamespace(**params.read("large-batch", [PARAMS / profile / "large-batch.yaml"], changed))


def some(n=48) -> dict:
    """Train, val and test of a tiny task."""
    return {s: sequences.make(n, TASK, TINY, WEIGHTS, i, "cpu") for i, s in enumerate(batch_arms.SPLITS)}


def settled(**changed) -> dict:
    """The shared settings of the demo with some changed."""
    return asked("demo").train | changed


# the seed, value by value


def test_h200_holds_the_seed_configuration_value_by_value():
    """Typed from seed 002, L262-321, L136 and L490."""
    p = asked()
    network = dict(input_dim=288, conv_channels=[64, 128, 256], lstm_hidden=256, lstm_layers=2, num_classes=4)
    assert p.network == network | {"dropout": 0.3}
    seed = dict(epochs=100, batch_size=384, learning_rate=0.0004, weight_decay=0.0001, grad_clip=1.0)
    seed |= dict(warmup_epochs=3, class_weights=[1.0, 5.0, 8.0, 8.0], label_smoothing=0.0, save_freq=5)
    seed |= dict(scheduler_patience=5, scheduler_factor=0.5, min_lr=0.00001, early_stopping_patience=15)
    seed |= dict(noise_std=0.01, temporal_jitter=2)
    assert seed.items() <= p.train.items() and p.train.keys() - seed.keys() == {
        "epochs_most",
        "diverged_factor",
    }
    assert (p.task["sequence_length"], p.device, p.seeds[0]) == (100, "cuda", 42)
    assert (p.base_batch, p.base_lr, p.batch_sizes) == (64, 0.0003, [64, 128, 256, 384, 512, 768])
    assert p.warmups == [0, 3, 5] and stats.can_be_met(len(p.decided_seeds), 2, p.alpha)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"warmups": [3]}, "0 was expected"),
        ({"network": {**TINY, "dropuot": 0.1}}, "did you mean 'dropout'"),
        ({"seeds": [42]}, "seeds"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_sentence(changed, told):
    with pytest.raises(Refusal, match=told):
        asked("demo", **changed)


# the network


def by_hand(n: dict) -> int:
    """Weights and biases: Conv1d 3 x in x out + out, BatchNorm 2, LSTM 4h(in + h) + 8h each way, head."""
    widths, h = [n["input_dim"], *n["conv_channels"]], n["lstm_hidden"]
    total = sum(3 * a * b + b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    for entering in [widths[-1], *[2 * h] * (n["lstm_layers"] - 1)]:
        total += 2 * (4 * h * (entering + h) + 8 * h)
    return total + 2 * h * n["num_classes"] + n["num_classes"]


def test_the_parameters_of_the_seed_counted_by_hand():
    network = asked().network
    model = bilstm.ConvBiLstm(**network)
    assert by_hand(network) == sum(one.numel() for one in model.parameters()) == 2_811_204
    # 288 x 64 x 3 + 64, 64 x 128 x 3 + 128, 128 x 256 x 3 + 256; BatchNorm; two layers both ways; the head
    assert 55_360 + 24_704 + 98_560 + 896 + 1_052_672 + 1_576_960 + 2_052 == 2_811_204


def test_the_blocks_of_the_seed():
    """L173-199: kernel 3 with padding, BatchNorm, ReLU, Dropout; Dropout in the LSTM and before the head."""
    model = bilstm.ConvBiLstm(**asked().network)
    kinds = [type(part).__name__ for block in model.blocks for part in block]
    assert kinds == ["Conv1d", "BatchNorm1d", "ReLU", "Dropout"] * 3
    assert [(b[0].kernel_size, b[0].padding) for b in model.blocks] == [((3,), (1,))] * 3
    assert model.lstm.dropout == model.head[0].p == model.blocks[2][3].p == 0.3
    assert model.lstm.bidirectional and model(torch.zeros(2, 100, 288)).shape == (2, 100, 4)


def test_the_plateau_halves_the_rate_after_its_patience_down_to_the_least():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.0004)
    plateau, rates = bilstm.plateau(optimizer, asked().train), []
    for loss in [1.0] + [1.0] * 60:
        plateau.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    # the sixth epoch without less is one more than its patience of 5
    assert rates[:7] == [0.0004] * 6 + [0.0002] and rates[-1] == 0.00001


def test_what_a_training_holds_is_what_the_other_network_of_the_ledger_holds():
    p = asked()
    few = {s: sequences.make(2, p.task, p.network, WEIGHTS, 0, "cpu") for s in batch_arms.SPLITS}
    course = batches.Course(few, p.network, p.train, Recipe(2, 0.0004), 0, None)
    course.epoch()
    parts, tensors_n = bilstm.parts(course.network, course.optimizer), 12 + 16 + 2
    assert parts["parameters_n"] == 2_811_204  # blocks 4 each, 2 layers x 2 ways x 4, the head 2
    assert parts["batchnorm_bytes"] == 3 * 8 + 4 * 4 * (64 + 128 + 256)  # a count each; 4 figures a channel
    assert parts["gradients_bytes"] == parts["weights_bytes"] == 4 * 2_811_204
    assert parts["moments_bytes"] == 8 * 2_811_204 + 4 * tensors_n  # AdamW: two moments, and a step each


def test_a_step_costs_what_torch_counts():
    """torch's own counter on the parts it knows: convolutions, head, and the LSTM's products written out."""
    from torch.utils.flop_counter import FlopCounterMode

    network = TINY | {"lstm_layers": 2, "dropout": 0.0}
    x = torch.randn(5, 12, 6, requires_grad=True)
    model = bilstm.ConvBiLstm(**network)
    with FlopCounterMode(display=False) as counter:
        features = model.blocks(x.transpose(1, 2))
        model.head(torch.randn(5, 12, 6))
        hidden = torch.zeros(5, 3)
        for layer in ("l0", "l0_reverse", "l1", "l1_reverse"):
            into, own = (getattr(model.lstm, f"weight_{k}_{layer}") for k in ("ih", "hh"))
            for _ in range(12):
                torch.mm(torch.zeros(5, into.shape[1]), into.t())
                torch.mm(hidden, own.t())
    assert features.shape == (5, 4, 12)
    assert costs.step_flops(network, 12, 5) == 3 * counter.get_total_flops()


def test_the_loss_is_the_weighted_mean_over_frames():
    scores, labels = torch.randn(3, 7, 4), torch.randint(4, (3, 7))
    p = scores.softmax(-1)
    picked = [(WEIGHTS[c], -math.log(p[i, t, c])) for i, row in enumerate(labels) for t, c in enumerate(row)]
    expected = sum(w * v for w, v in picked) / sum(w for w, _ in picked)
    assert bilstm.loss(scores, labels, torch.tensor(WEIGHTS)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("f1", "patience", "stopped"),
    [([], 2, False), ([0.1, 0.3, 0.2], 2, False), ([0.3, 0.2, 0.3], 2, True), ([0.3, 0.1, 0.1], 0, False)],
)
def test_an_early_stop_counts_from_the_first_highest(f1, patience, stopped):
    assert bilstm.stopped(f1, patience) is stopped


# figures of a frame classifier


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_f1_and_accuracy_by_their_definitions(frames):
    labels, called = (np.array([one], dtype=np.int64) for one in zip(*frames, strict=True))
    found = confusion.counts(labels, called, 4)
    f1 = []
    for c in range(4):
        tp = sum(a == c == b for a, b in frames)
        wrong = sum((a == c) != (b == c) for a, b in frames)
        f1.append(2 * tp / (2 * tp + wrong) if tp + wrong else 0.0)
    assert confusion.f1_macro(found.sum(0)) == pytest.approx(sum(f1) / 4)
    assert confusion.accuracy(found.sum(0)) == pytest.approx(sum(a == b for a, b in frames) / len(frames))


# the generated task


def test_shares_are_those_that_the_weights_balance():
    share = sequences.shares(WEIGHTS)
    assert share.sum().item() == pytest.approx(1) and torch.allclose(
        share * torch.tensor(WEIGHTS), share[0] * torch.ones(4)
    )
    labels = sequences.make(400, TASK, TINY, WEIGHTS, 0, "cpu").labels
    seen = labels.flatten().bincount(minlength=4) / labels.numel()
    assert (seen - share).abs().max() < 0.05


def test_two_classes_are_told_apart_only_along_time():
    """Averaged over many segments a frame of class 2 is one of class 3; its slope has the other sign."""
    one = sequences.make(3000, TASK | {"signal": 5.0}, TINY, WEIGHTS, 0, "cpu")
    means = [one.features[one.labels == c].mean(0) for c in range(4)]
    assert (means[2] - means[3]).norm() < 0.5 < (means[1] - means[2]).norm()
    both = (one.labels[:, 1:] == one.labels[:, :-1]) & (one.labels[:, 1:] >= 2)
    steps = one.features[:, 1:] - one.features[:, :-1]
    rising, falling = (steps[both & (one.labels[:, 1:] == c)].mean(0) for c in (2, 3))
    assert torch.nn.functional.cosine_similarity(rising, falling, dim=0) < -0.7


def test_a_shift_moves_features_and_labels_together():
    frames = torch.arange(10).repeat(6, 1)
    batch = sequences.Sequences(frames[..., None].float(), frames)
    moved = sequences.altered(batch, 0.0, 2, torch.Generator().manual_seed(0))
    assert torch.equal(moved.features[..., 0].long(), moved.labels)
    shifts = {(int(row[0]) + 2) % 10 - 2 for row in moved.labels}
    assert shifts <= {-2, -1, 0, 1, 2} and len(shifts) > 1
    noisy = sequences.altered(batch, 0.01, 0, torch.Generator().manual_seed(0))
    assert (noisy.features - batch.features).std().item() == pytest.approx(0.01, rel=0.3)


# rates, warm-up, trainings


def test_the_rates_of_the_seed_follow_neither_rule():
    rate = {rule: batches.rate(rule, 0.0003, 64, 384) for rule in batch_arms.RULES}
    assert rate == pytest.approx({"none": 0.0003, "sqrt": 0.000734847, "linear": 0.0018}, rel=1e-6)
    assert all(abs(0.0004 / one - 1) > 0.3 for one in (rate["sqrt"], rate["linear"]))
    # L442-450: the log's own rates
    assert [batches.warmed(0.0004, e, 3) for e in range(4)] == pytest.approx(
        [0.000133, 0.000267, 0.0004, 0.0004], abs=1e-6
    )
    assert batches.warmed(0.0004, 0, 0) == 0.0004


def test_a_training_with_all_off_is_plain_adamw():
    """One step of one batch against torch's own optimizer on the same network and gradient."""
    data, network = some(8), TINY | {"dropout": 0.0}
    train = settled(noise_std=0.0, temporal_jitter=0, epochs=1, epochs_most=1, grad_clip=1e9)
    course = batches.Course(data, network, train, Recipe(8, 0.01), 5, None)
    torch.manual_seed(5)
    model = bilstm.ConvBiLstm(**network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=train["weight_decay"])
    scores = model.train()(data["train"].features)
    torch.nn.functional.cross_entropy(
        scores.flatten(0, 1), data["train"].labels.flatten(), torch.tensor(WEIGHTS)
    ).backward()
    optimizer.step()
    course.epoch()
    others = dict(model.named_parameters())
    for name, mine in course.network.named_parameters():
        if name != "blocks.0.0.bias":  # BatchNorm takes it out; its gradient is rounding
            assert torch.allclose(mine, others[name], atol=1e-5), name


def test_it_learns_and_goes_on_for_the_seconds_it_is_given():
    data, train = some(64), settled(epochs=8, epochs_most=11)
    run = batches.train(data, TINY, train, Recipe(8, 0.02), 0)
    assert run.ended == "all epochs were trained" and len(run.rows) == 8
    assert run.rows[-1]["loss"] < run.rows[0]["loss"] < train["diverged_factor"] * run.loss_start
    longer = batches.train(data, TINY, train, Recipe(8, 0.02), 0, least_s=1e9)
    assert longer.ended == batches.CAPPED and len(longer.rows) == 11
    drop = ("train_s",)
    short, long = (
        [{k: v for k, v in r.items() if k not in drop} for r in one.rows[:8]] for one in (run, longer)
    )
    assert short == long  # what equal time adds leaves equal epochs as they were


def test_a_rate_beyond_reason_diverges():
    run = batches.train(some(), TINY, settled(), Recipe(48, 1e4), 0)
    assert run.ended == batches.DIVERGED and run.rows[-1]["diverged"]
    json.dumps(batch_results.curves({"arm": {0: run}}), allow_nan=False)


def test_a_training_that_goes_on_is_the_uninterrupted_one(tmp_path):
    data, recipe = some(), Recipe(16, 0.01, warmup_epochs=2)
    whole = batches.train(data, TINY, settled(epochs=5, save_freq=1), recipe, 3)
    batches.train(data, TINY, settled(epochs=3, save_freq=2), recipe, 3, folder=tmp_path)  # the last at 2
    again = batches.train(data, TINY, settled(epochs=5, save_freq=2), recipe, 3, folder=tmp_path)
    for one, other in zip(whole.rows, again.rows, strict=True):
        assert {k: v for k, v in one.items() if k != "train_s"} == {
            k: v for k, v in other.items() if k != "train_s"
        }
    assert np.array_equal(whole.confusions, again.confusions)
    assert checkpoints.newest(tmp_path).name == "epoch-00004"


def test_a_finished_training_is_kept_and_not_done_again(tmp_path, capsys):
    small = {"train_n": 96, "seeds": [1, 2], "decided_seeds": [1, 2], "warmups": [0]}
    p = asked("demo", **small, train=settled(epochs=1, epochs_most=1, warmup_epochs=0, save_freq=1))
    first, again = batch_arms.trained(p, tmp_path), batch_arms.trained(p, tmp_path)
    assert [(a, s) for a, runs in first.items() for s in runs] and first.keys() == batch_arms.arms(p).keys()
    for arm, seed in batch_arms.planned(p):
        one, other = first[arm][seed], again[arm][seed]
        assert one.rows == other.rows and np.array_equal(one.confusions, other.confusions)  # seconds, too
    assert len(first[batch_arms.named(p)["written"]][1].saves) == 1


def test_a_damaged_checkpoint_does_not_count(tmp_path):
    batches.train(some(), TINY, settled(epochs=4, save_freq=2), Recipe(16, 0.01), 0, folder=tmp_path)
    state = checkpoints.newest(tmp_path) / batches.STATE
    state.write_bytes(state.read_bytes()[:-1])
    assert checkpoints.newest(tmp_path).name == "epoch-00002"


# accumulation


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10_000))
def test_what_stands_between_accumulation_and_the_batch(seed):
    data = sequences.make(12, TASK, TINY, WEIGHTS, seed, "cpu")
    gap = {row["step"]: row for row in accumulation.gaps(data, 3, TINY, WEIGHTS, seed)}
    assert [row["same"] for row in gap.values()] == [False, False, False, True, True]
    assert all(row["relative_gap"] < 1e-12 for row in gap.values() if row["same"])


def test_one_part_is_the_batch():
    data = sequences.make(4, TASK, TINY, WEIGHTS, 0, "cpu")
    rows = accumulation.gaps(data, 1, TINY | {"dropout": 0.0}, WEIGHTS, 0)
    assert max(row["relative_gap"] for row in rows) < 1e-12


# memory that runs out


def test_memory_runs_out_for_real_and_the_largest_batch_is_found():
    limit_gib, wide = 0.15, TINY | {"input_dim": 256, "conv_channels": [64]}
    found = limits.probe(wide, WEIGHTS, 100, "cpu", limit_gib, most=4096)
    assert found["failed"] == found["largest"] + 1 and found["cause"] == "host memory ran out"
    assert found["verified"]
    # features, the block's and the LSTM's alone: no more than fit the limit, and not a tiny part of it
    bytes_each = 4 * 100 * (256 + 2 * 64 + 6)
    assert 0.05 < found["largest"] * bytes_each / (limit_gib * 2**30) < 1


def test_what_is_no_matter_of_memory_is_not_called_one():
    told = trial.attempt(TINY, WEIGHTS[:3], 4, 2, "cpu")  # three weights for four classes
    assert told["outcome"] == trial.ERROR and "RuntimeError" in told["told"]
    with pytest.raises(Refusal, match="batch of 1"):
        limits.probe(TINY, WEIGHTS[:3], 4, "cpu", most=4)


# arms and results


def test_the_grid_of_the_study():
    arms, own = batch_arms.arms(asked()), batch_arms.named(asked())
    # the base with 3 warm-ups; 5 batches x 3 rules x 3; the seed's rate x 3; once accumulated
    assert len(arms) == 3 + 5 * 3 * 3 + 3 + 1 and set(own.values()) <= arms.keys()
    assert arms[own["parts"]] | {"batch": 384, "accumulate": 1} == arms[own["written"]]
    assert arms[own["parts"]]["batch"] * arms[own["parts"]]["accumulate"] == 384
    order = batch_arms.planned(asked())
    assert len(order) == len(set(order)) == 2 * len(arms) + 5 * 2
    assert all(order.index((own["base"], s)) <= order.index((a, s)) for a, s in order)


def run(
    f1: list[tuple[float, float]], seconds: float, confusions=None, ended="all epochs were trained"
) -> Run:
    """A run of given (val, test) F1 per epoch, each as many seconds long."""
    rows = [
        {"epoch": i, "train_s": i * seconds, "val_f1": v, "test_f1": t, "loss": 1.0, "grad_norm": 1.0}
        for i, (v, t) in enumerate(f1, start=1)
    ]
    blank = np.zeros((len(rows), 30, 2, 2), dtype=np.int64)
    blank[..., 0, 0] = blank[..., 1, 1] = 1
    return Run(rows, blank if confusions is None else confusions, ended, [], 1.4, None)


def test_equal_epochs_and_equal_time_read_different_epochs():
    base = run([(0.1, 0.11), (0.3, 0.31)], seconds=10.0)
    other = run([(0.1, 0.11), (0.2, 0.25), (0.4, 0.41), (0.9, 0.91), (0.95, 0.99)], seconds=5.0)
    judge = batch_results.Judge({"base": {0: base, 1: base}, "x": {0: other, 1: other}}, "base", 2, 50)
    assert judge.compare("x", "epochs")["differences"] == pytest.approx([0.25 - 0.31] * 2)
    assert judge.compare("x", "time")["differences"] == pytest.approx([0.91 - 0.31] * 2)  # 20 s, not 25
    assert batch_results.chosen(run([(0.5, 0), (0.5, 1)], 1.0)) == 0  # the first of equals


def test_an_arm_that_had_less_than_equal_time_says_so():
    base, short = run([(0.1, 0.1)] * 2, 10.0), run([(0.1, 0.1)] * 3, 5.0, ended=batches.CAPPED)
    judge = batch_results.Judge({"base": {0: base}, "x": {0: short}}, "base", 2, 50)
    assert judge.capped("x", 0) and not judge.capped("base", 0)


def test_seven_seeds_that_agree_have_a_verdict_and_two_have_none():
    hit = np.zeros((1, 30, 2, 2), dtype=np.int64)
    hit[..., 0, 0] = hit[..., 1, 1] = 5
    miss = hit.copy()
    miss[..., 0, 1] = 4
    gains = np.linspace(0.1, 0.12, 7)
    runs = {
        "base": {s: run([(0.5, 0.5)], 1.0, miss) for s in range(7)},
        "x": {s: run([(0.5, 0.5 + g)], 1.0, hit) for s, g in enumerate(gains)},
    }
    verdicts = [row["verdict"] for row in batch_results.Judge(runs, "base", 1, 200).decide(["x"], 0.01, 0.05)]
    assert verdicts == ["better", "better"]
    about = {"x": {"batch": 8}, "base": {"batch": 4}}
    told = batch_results.rows(batch_results.Judge(runs, "base", 1, 200), about, [0, 6])[0]
    assert told["f1_equal_epochs"] == pytest.approx(0.5 + (0.1 + 0.12) / 2) and told["runs_n"] == 7
    few = {arm: {s: by_seed[s] for s in (0, 1)} for arm, by_seed in runs.items()}
    verdicts = [row["verdict"] for row in batch_results.Judge(few, "base", 1, 200).decide(["x"], 0.01, 0.05)]
    assert verdicts == ["unresolved", "unresolved"]


@pytest.mark.parametrize(
    ("cold", "warm", "said"),
    [
        (0, 0, "not needed"),
        (2, 0, "needed"),
        (2, 2, "does not help"),
        (1, 0, "depends"),
        (0, 1, "not needed"),
    ],
)
def test_whether_a_warm_up_is_needed(cold, warm, said):
    common = {"batch": 384, "rule": "sqrt", "lr": 0.1, "accumulate": 1, "runs_n": 2}
    rows = [common | {"warmup_epochs": w, "diverged_n": n} for w, n in ((0, cold), (3, warm))]
    assert batch_results.warmup(rows)[0]["warm-up"] == said


# costs


def test_the_machines_of_the_seed():
    """By hand: 100 epochs of 30 min, 5 min, 7 min, 50 s; dollars by hours; 3.9492 dollars for 1.389 h."""
    rows = {row["machine"]: row for row in costs.machines({"H100": 3.9492})}
    assert [round(row["hours"], 3) for row in rows.values()] == [50.0, 8.333, 11.667, 1.389]
    assert [round(row["implied_usd_per_h"], 2) for row in rows.values()] == [0.0, 4.0, 7.0, 14.29]
    assert rows["H100"]["usd_at_listed"] == pytest.approx(5.485, abs=1e-3)
    assert rows["T4"]["usd_at_listed"] is None and rows["A10G"]["batch_ms"] == pytest.approx(70)


def test_the_sums_of_the_seed_that_do_not_agree():
    parts = {"parameters_n": 2_811_204, "weights_bytes": 11_244_816, "gradients_bytes": 11_244_816}
    parts |= {"moments_bytes": 22_489_752, "buffers_bytes": 3_608, "batchnorm_bytes": 7_192}
    rows = {row["what"]: row for row in costs.sums(parts)}
    agrees = {name for name, row in rows.items() if row["agrees"]}
    assert {"speed-up, from hours", "speed-up, from epochs", "batch", "memory of the card"} <= agrees
    apart = {"parameters", "checkpoint", "memory, sum of parts", "cheapest machine, dollars", "first commit"}
    assert not (apart | {"rate, 64 to 384, as sqrt", "BatchNorm"}) & agrees
    assert rows["memory, sum of parts"]["computed"] == pytest.approx(4.052)
    assert rows["checkpoint"]["computed"] == pytest.approx(33.738, abs=1e-3)


def test_the_pace_of_a_step():
    row = {"batch": 384, "peak_gib": 2.0, "told": "", "step_s": [0.04, 0.05, 0.9]}
    pace = costs.pace(row, asked().network, 100)
    # 2 x 3 operations a multiply-add; 178,176 of the convolutions, 2,621,440 of the LSTM, 2,048 of the head
    operations = 6 * (178_176 + 2_621_440 + 2_048) * 100 * 384
    assert pace["ms"] == 50 and pace["sequences_per_s"] == pytest.approx(7680)
    assert pace["tflop_per_s"] == pytest.approx(operations / 0.05 / 1e12)
    assert costs.pace(row | {"step_s": []}, asked().network, 100)["ms"] is None


def test_a_run_costs_its_hours_and_reaches_the_base_or_not():
    base, slow = run([(0.2, 0), (0.6, 0)], 1800.0), run([(0.5, 0), (0.55, 0), (0.7, 0)], 3600.0)
    paid = costs.of_runs({"base": {0: base}, "x": {0: slow}, "y": {0: run([(0.1, 0)], 10)}}, "base", 3.5, 100)
    assert [row["usd"] for row in paid] == pytest.approx([3.5, 10.5, 3.5 * 10 / 3600])
    assert [row["reached_s"] for row in paid] == [3600.0, 10800.0, None]
    assert [row["reached_usd"] for row in paid[:2]] == pytest.approx([3.5, 10.5])
    assert costs.by_arm(paid).loc["y", "reached"] == "0 of 1"


def test_without_a_gpu_no_figure_of_a_gpu_is_claimed():
    p, seed = asked("demo"), {"parameters_n": 2_811_204}
    arms = [{"arm": name, "diverged_n": 0, "runs_n": 2, "batch": 96, "rule": "as written"} for name in "ab"]
    for row in arms:
        row |= {f"{k}_equal_{b}": 0.0 for k in batch_results.DELTA for b in batch_results.BASES}
    timed = [
        {"batch": n, "precision": "float32", "ms": n / 8, "sequences_per_s": 8e3, "peak_gib": 2.0}
        for n in (384, 512)
    ]
    warmth = [{"batch": 96, "rule": "as written", "warm-up": "not needed"}]
    common = (
        seed,
        timed,
        {"bytes": 33_800_000},
        warmth,
        arms,
        {"written": "a", "cold": "b"},
        {"largest": 9, "cause": ""},
    )
    told = {row["claim"]: row["measured here"] for row in batch_claims.beside(p, *common)}
    assert sum(one == batch_claims.NO_GPU for one in told.values()) == 5
    p.device = "cuda"
    told = {row["claim"]: row["measured here"] for row in batch_claims.beside(p, *common)}
    assert told["50 ms a batch of 384"] == "48.0 ms" and told["5 GB of memory at 384"] == "2.00 GiB"
    assert batch_claims.NO_GPU not in told.values()


def test_the_plot_has_each_rule_and_warm_up_from_the_base_on():
    p = asked("demo")
    arms = [
        {"arm": name, **about, "f1_equal_epochs": i / 20, "f1_equal_time": i / 10}
        for i, (name, about) in enumerate(batch_arms.arms(p).items())
    ]
    figure = batch_plots.by_batch(arms, batch_arms.named(p)["base"], "demo")
    lines = {line.get_label(): line for line in figure.axes[0].lines if "warm-up" in line.get_label()}
    assert len(lines) == 3 * 2 + 2 + 1
    frame = pd.DataFrame(arms).set_index("arm")
    drawn = lines["linear, warm-up 2"]
    assert list(drawn.get_xdata()) == [16, 96]
    assert list(drawn.get_ydata()) == frame.loc[["16 none w2", "96 linear w2"], "f1_equal_epochs"].tolist()

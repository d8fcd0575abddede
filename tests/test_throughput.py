"""Accelerators: what a switch does to a step, what is counted, what the rules say of figures made by hand."""

import itertools
import math
import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torch import nn
from torch.nn import functional
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from saistudy.study import lossless, speedups
from saistudy.training import (
    accelerators,
    checkpointing,
    inspected,
    jpegs,
    lessons,
    networks,
    residual,
    settings,
    steps,
    stripes,
)
from saistudy.training.networks import Sizes
from saistudy.training.settings import Setting

SMALL = Sizes(32, 4, 1)


def bench(files=None, **changes) -> accelerators.Bench:
    shared = {"passes_n": 2, "steps_n": 1, "epochs_n": 2, "files": files}
    return accelerators.Bench("classifier", SMALL, "cpu", **(shared | changes))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return stripes.store(tmp_path_factory.mktemp("jpegs"), 8, 48, seed=3)


# what a step keeps, and what is computed again


def test_kept_bytes_are_those_counted_by_hand():
    """Linear keeps its input, ReLU its output, which the next Linear keeps too: counted once."""
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    with checkpointing.Kept(network) as kept:
        network(torch.zeros(7, 10))
    assert kept.bytes == 4 * (7 * 10 + 7 * 20)


def test_a_checkpointed_layer_keeps_its_input_alone():
    network = nn.Sequential(nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Tanh()), nn.Flatten())
    assert checkpointing.wrap(network) == 1
    with checkpointing.Kept(network) as kept:
        network(torch.zeros(7, 10))
    assert kept.bytes == 4 * 7 * 10


def test_two_updates_of_batch_norm_with_one_batch_act_as_the_momentum_says():
    x = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    twice, once = (
        nn.BatchNorm2d(3, momentum=0.1),
        nn.BatchNorm2d(3, momentum=checkpointing.momentum_of(2, 0.1)),
    )
    twice(x), twice(x), once(x)
    assert torch.allclose(twice.running_mean, once.running_mean)
    assert torch.allclose(twice.running_var, once.running_var)
    assert checkpointing.momentum_of(2, 0.1) == pytest.approx(0.19)


@pytest.mark.parametrize(("name", "head_n"), [("classifier", 0), ("yolov8n", 12)])
def test_checkpointing_updates_every_batch_norm_twice_but_those_of_the_head(name, head_n):
    """A YOLOv8 head has 3 scales x 2 branches x 2 convolutions with BatchNorm: 12."""
    one = accelerators.Bench(name, Sizes(64, 4, 1), "cpu", 2, 1)
    seen = inspected.batch_norm(one, Setting(batch=2))
    layers_n = seen["layers_n"]
    once = f"1 in {head_n}, " if head_n else ""
    assert (seen["plain"], seen["checkpointed"]) == (f"1 in {layers_n}", f"{once}2 in {layers_n - head_n}")


def test_gradients_are_set_beside_the_plain_one():
    one = accelerators.Bench("classifier", SMALL, "cpu", 2, 1)
    seen = {row["factor"]: row for row in inspected.same_gradient(one, Setting(batch=8), "inductor")}
    assert seen["compile"]["apart"] is None and seen["compile"]["note"] == settings.NOT_COMPILED
    assert seen["checkpointing"]["apart"] < 1e-6 < seen["AMP bfloat16"]["apart"] < 0.2
    expected = gradients(Setting(batch=8)), gradients(Setting(batch=8).but({"precision": "bfloat16"}))
    by_hand = float((expected[1] - expected[0]).norm() / expected[0].norm())
    assert seen["AMP bfloat16"]["apart"] == pytest.approx(by_hand, rel=1e-3)


def test_a_checkpointed_network_is_itself_when_it_is_used():
    network = residual.build(4, 1, 4).eval()
    x = torch.rand(2, 3, 32, 32)
    plain = network(x)
    checkpointing.wrap(network)
    assert torch.equal(network(x), plain) and set(checkpointing.updates(network)) == {0}


# switches change how a step is computed, not what it computes


@pytest.fixture(scope="module")
def plain_gradients():
    return gradients(Setting(batch=8))


def gradients(setting: Setting, name: str = "classifier") -> torch.Tensor:
    stepper = steps.Stepper(name, SMALL, setting, "cpu")
    batch = networks.batch_of(name, SMALL, setting.batch, "cpu")
    stepper.loss(stepper.take(batch)).backward()
    return torch.cat([own.grad.flatten() for own in stepper.network.parameters()])


@pytest.mark.parametrize(
    ("changes", "apart"),
    [
        ({"channels_last": True}, 1e-4),
        ({"checkpointed": True}, 1e-6),
        ({"sum_in_place": True}, 1e-6),
        ({"compiled": "aot_eager"}, 1e-4),
        ({"precision": "bfloat16"}, 0.2),
        ({"precision": "float16"}, 0.05),
    ],
)
def test_a_switch_leaves_the_gradient(changes, apart, plain_gradients):
    seen = gradients(Setting(batch=8).but(changes))
    assert (seen - plain_gradients).norm() <= apart * plain_gradients.norm()
    if "precision" in changes:  # and is really at work
        assert not torch.equal(seen, plain_gradients)
    torch.compiler.reset()


def test_the_switches_are_really_thrown():
    made = Setting(batch=4).but({"precision": "float16", "channels_last": True})
    stepper = steps.Stepper("classifier", SMALL, made, "cpu")
    batch = stepper.take(networks.batch_of("classifier", SMALL, 4, "cpu"))
    assert batch["img"].is_contiguous(memory_format=torch.channels_last)
    assert stepper.network[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert stepper.scaler.is_enabled() and stepper.scaler.get_scale() > 1
    with torch.autocast("cpu", dtype=torch.float16):
        assert stepper.called(batch["img"]).dtype == torch.float16
    assert not steps.Stepper("classifier", SMALL, Setting(), "cpu").scaler.is_enabled()


def test_accumulated_gradients_are_the_mean_of_the_parts():
    """Without BatchNorm, whose statistics are those of a part, they would be the whole batch's."""
    made = Setting(batch=8, accumulate=2)
    stepper = steps.Stepper("classifier", SMALL, made, "cpu")
    seen = []
    stepper.optimizer.step = lambda *_: seen.append(
        [own.grad.clone() for own in stepper.network.parameters()]
    )
    batch = stepper.take(networks.batch_of("classifier", SMALL, 8, "cpu"))
    stepper.step(batch)
    again = steps.Stepper("classifier", SMALL, Setting(batch=8), "cpu")
    halves = [{key: value[half] for key, value in batch.items()} for half in (slice(0, 4), slice(4, 8))]
    sum(again.loss(half) for half in halves).div(2).backward()
    for one, own in zip(seen[0], again.network.parameters(), strict=True):
        assert torch.allclose(one, own.grad, atol=1e-6)


def test_parts_of_a_detector_batch_keep_boxes_with_their_images():
    batch = networks.batch_of("yolov8n", Sizes(64), 4, "cpu")
    first, second = networks.parts(batch, 2)
    assert torch.equal(second["img"], batch["img"][2:])
    assert second["batch_idx"].tolist() == [0.0] * 3 + [1.0] * 3
    assert torch.equal(torch.cat([first["bboxes"], second["bboxes"]]), batch["bboxes"])


def test_the_loss_of_a_detector_is_the_one_ultralytics_trains_with():
    """A stock network of the same seed, asked with the batch as its trainer does: loss x images, by image."""
    torch.manual_seed(0)
    stock = DetectionModel("yolov8n.yaml", nc=2, verbose=False).train()
    stock.args = get_cfg()
    stepper = steps.Stepper("yolov8n", Sizes(64), Setting(batch=2), "cpu")
    batch = stepper.take(networks.batch_of("yolov8n", Sizes(64), 2, "cpu"))
    total, _ = stock(batch)
    assert torch.allclose(stepper.loss(batch), total.sum() / 2)


def test_a_step_is_one_of_torchs_adamw():
    stepper = steps.Stepper("classifier", SMALL, Setting(batch=4), "cpu")
    twin = steps.Stepper("classifier", SMALL, Setting(batch=4), "cpu")
    own = torch.optim.AdamW(twin.network.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4)
    batch = stepper.take(networks.batch_of("classifier", SMALL, 4, "cpu"))
    for _ in range(2):
        stepper.step(batch)
        loss = functional.cross_entropy(twin.network(batch["img"]), batch["cls"])
        own.zero_grad()
        loss.backward()
        own.step()
    for one, other in zip(stepper.network.parameters(), twin.network.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


# the passes


def test_a_pass_over_files_is_all_their_whole_batches(files):
    for setting in (Setting(batch=3), Setting(batch=3, workers=1, persistent=True, cached=True)):
        trial = accelerators.Trial(bench(files), setting)
        batches = [batch for batch in trial.batches()]
        assert len(batches) == trial.bench.steps_in(setting) == 2 * (8 // 3)
        assert all(batch["img"].shape == (3, 3, 32, 32) for batch in batches)


def test_a_pair_is_measured_in_turn_and_its_ratios_are_its_rates(monkeypatch):
    seen, rates = [], itertools.chain([10.0, 20.0, 5.0, 20.0])

    def told(self):
        seen.append(self.setting.channels_last)
        return next(rates)

    monkeypatch.setattr(accelerators.Trial, "images_per_s", told)
    row = accelerators.pair(bench(), "channels-last", Setting(batch=2), {"channels_last": True})
    assert seen == [False, True, False, True] and row["ratios"] == [2.0, 4.0]
    assert row["base_images_per_s"] == [10.0, 5.0] and row["note"] == ""


def test_what_cannot_be_measured_says_why(files, monkeypatch):
    pinned = accelerators.pair(bench(files), "pin memory", Setting(batch=4), {"pinned": True})
    assert pinned["note"] == settings.NO_GPU and pinned["ratios"] == [] and pinned["kept_bytes"] is None
    base = Setting(batch=4, pinned=True)
    assert accelerators.pair(bench(files), "x", base, {"non_blocking": True})["note"] == settings.NO_GPU
    row = accelerators.pair(bench(), "compile", Setting(batch=4), {"compiled": "inductor"})
    assert row["note"] == settings.NOT_COMPILED
    torn = Setting(batch=4).but({"compiled": "no such back end"})
    row = accelerators.pair(bench(compiles=True), "compile", Setting(batch=4), {"compiled": torn.compiled})
    assert row["note"].startswith("not measured: InvalidBackend")


def test_the_four_recipes_are_the_seeds():
    """Typed from seed document 001, L213-268."""
    found = settings.recipes("inductor", True, 16, 32)
    assert list(found) == ["CPU", "GPU below 4 GB", "modern GPU", "old GPU"]
    cpu, small, modern, old = (Setting().but(changes) for changes in found.values())
    assert (cpu.workers, cpu.cached, cpu.compiled, cpu.precision) == (4, True, "inductor", "float32")
    assert not cpu.channels_last and (small.batch, small.checkpointed) == (8, True)
    assert (modern.batch, modern.precision, modern.workers) == (32, "float16", 2)
    assert (old.precision, old.batch, old.compiled) == ("float32", 16, "inductor")
    assert all(one.prefetch == 2 and one.persistent for one in (cpu, small, modern, old))


def test_the_parts_of_a_step_fill_it():
    stepper = steps.Stepper("classifier", Sizes(32, 8, 1), Setting(batch=16), "cpu")
    batch = networks.batch_of("classifier", Sizes(32, 8, 1), 16, "cpu")
    stepper.run([batch])
    seen = steps.seconds(stepper, itertools.repeat(batch, 3))
    assert all(seen[part] > 0 for part in steps.PARTS)
    assert 0.3 * seen["step"] < sum(seen[part] for part in steps.PARTS) <= seen["step"]


# the task and its switches


@given(st.integers(8, 40), st.integers(0, 99))
@hypothesis_settings(max_examples=15, deadline=None)
def test_the_painted_task_is_balanced_and_repeatable(images_n, seed):
    images, labels = stripes.draw(images_n, 16, seed)
    assert images.shape == (images_n, 16, 16, 3) and images.dtype == np.uint8
    counts = np.bincount(labels, minlength=4)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(images, stripes.draw(images_n, 16, seed)[0])


def test_the_painted_classes_differ_in_their_strongest_frequency():
    images, labels = stripes.draw(80, 64, 1)
    grey = images.mean(axis=3)
    power = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True)))
    rows, columns = np.unravel_index(power.reshape(80, -1).argmax(axis=1), (64, 64))
    many = np.hypot(np.minimum(rows, 64 - rows), np.minimum(columns, 64 - columns))
    nearest = np.abs(many[:, None] - np.array(stripes.STRIPES_N)).argmin(axis=1)
    assert (nearest == labels).mean() > 0.8


def test_a_cache_serves_the_images_of_the_files(files):
    paths, labels = files
    plain, cached = jpegs.Jpegs(paths, labels, 32), jpegs.Jpegs(paths, labels, 32, cached=True)
    image = cv2.cvtColor(cv2.imread(str(paths[2])), cv2.COLOR_BGR2RGB)
    expected = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    for data in (plain, cached):
        seen, label = data[2]
        assert label == labels[2]
        assert any(np.array_equal(seen.numpy(), side) for side in (expected, expected[..., ::-1]))
    for path in paths:
        path.rename(path.with_suffix(".gone"))
    cached[0]
    with pytest.raises((FileNotFoundError, cv2.error)):
        plain[0]
    for path in paths:
        path.with_suffix(".gone").rename(path)


def test_focal_loss_is_the_formula():
    scores = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
    p = [math.exp(2) / (math.exp(2) + 1 + math.exp(-1)), math.e / (1 + math.e + math.exp(3))]
    expected = sum(-((1 - one) ** 2) * math.log(one) for one in p) / 2
    assert float(lessons.focal(scores, torch.tensor([0, 1]))) == pytest.approx(expected, rel=1e-5)


def test_truncated_normal_weights_are_within_two_deviations():
    network = residual.build(32, 1, 4)
    residual.truncated_normal(network)
    weights = torch.cat(
        [m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    )
    assert weights.abs().max() <= 0.04
    # a normal cut at two deviations has 0.8796 of its deviation
    expected = 0.02 * scipy_stats.truncnorm(-2, 2).std()
    assert float(weights.detach().std()) == pytest.approx(expected, rel=0.02)


@pytest.fixture(scope="module")
def small_task():
    return lessons.task(32, 24, 16, 0, "cpu")


def lesson(switch: str, data, seed: int = 0) -> lessons._Lesson:
    return lessons._Lesson(switch, seed, data, 4, 1, 2, 8, "aot_eager")


def test_every_switch_starts_from_the_same_weights_and_order(small_task):
    base = lesson("base", small_task)
    order = base.order(0)
    for switch in set((*lessons.LEARNING, *lessons.COMPUTING)) - {"compile"}:
        other = lesson(switch, small_task)
        assert torch.equal(other.order(0), order), switch
        pairs = zip(base.network.parameters(), other.network.parameters(), strict=True)
        same = all(torch.equal(a, b) for a, b in pairs)
        assert same == (switch not in ("truncated-normal init", "all of the seed's")), switch


def test_clipping_bounds_the_step_and_nothing_else_does(small_task):
    """A plain SGD step moves the weights by rate x gradient: by 0.05 at most where the norm is cut to 1."""
    moved = {}
    for switch in ("base", "clipping"):
        one = lesson(switch, small_task)
        before = torch.cat([own.detach().flatten() for own in one.network.parameters()])
        norm = float(one.step(*one.drawn(one.order(0)[0])))
        after = torch.cat([own.detach().flatten() for own in one.network.parameters()])
        moved[switch] = float((after - before).norm()) / 0.05, norm
    assert moved["base"][1] == moved["clipping"][1] > 1
    assert moved["base"][0] == pytest.approx(moved["base"][1], rel=1e-3)
    assert moved["clipping"][0] == pytest.approx(1.0, rel=1e-3)


def test_losses_of_the_switches_are_torchs(small_task):
    one = lesson("base", small_task)
    images, labels = one.drawn(one.order(0)[0])
    scores = one.network(images.float() / 255)
    assert torch.allclose(one.loss(images, labels), functional.cross_entropy(scores, labels))
    smooth = lesson("label smoothing", small_task)
    expected = functional.cross_entropy(scores, labels, label_smoothing=0.1)
    assert torch.allclose(smooth.loss(images, labels), expected)
    mixed = lesson("mixup", small_task)
    share = float(np.random.default_rng(0).beta(0.2, 0.2))
    scores = mixed.network((share * images.float() + (1 - share) * images.float().flip(0)) / 255)
    expected = share * functional.cross_entropy(scores, labels)
    expected += (1 - share) * functional.cross_entropy(scores, labels.flip(0))
    assert torch.allclose(mixed.loss(images, labels), expected, atol=1e-5)


def test_one_cycle_rises_and_falls_within_the_training(small_task):
    one, rates = lesson("one-cycle", small_task), []
    with warnings.catch_warnings(action="ignore"):
        for chosen in [*one.order(0), *one.order(1)]:
            rates.append(one.optimizer.param_groups[0]["lr"])
            one.step(*one.drawn(chosen))
    assert len(rates) == 8 and max(rates) == pytest.approx(4 * 0.05, rel=0.05)
    assert rates[0] < max(rates) / 10 and rates[-1] < rates[0] / 100


def test_a_course_gives_a_row_a_switch_and_seed(small_task):
    how = {"width": 4, "blocks_n": 1, "epochs_n": 1, "batch": 8, "backend": "inductor"}
    told = []
    rows = lessons.course([0, 1], small_task, False, told.append, **how)
    assert told == [0, 1] and len(rows) == 2 * (1 + len(lessons.LEARNING) + len(lessons.COMPUTING))
    for row in rows:
        if row["switch"] == "compile":
            assert row["note"] == settings.NOT_COMPILED
        else:
            assert row["note"] == "" and row["accuracy"] == row["correct"].mean() and row["steps_n"] == 4
    norms = {row["switch"]: row["largest_norm"] for row in rows if row["seed"] == 0 and not row["note"]}
    assert norms["checkpointing"] == pytest.approx(norms["base"], rel=1e-4)


# the rules, on figures made by hand


@pytest.mark.parametrize(
    ("ratios", "word"),
    [([1.1, 1.01], "faster"), ([0.9, 0.99], "slower"), ([1.0, 1.2], "unresolved"), ([], "not measured")],
)
def test_the_rule_for_a_factor(ratios, word):
    assert speedups.word(ratios) == word


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([2.0, 3.0], "holds"),
        ([1.9, 2.5], "unresolved"),
        ([1.0, 1.9], "fails"),
        ([3.1, 9.0], "fails"),
        ([1.0, 4.0], "unresolved"),
        ([], "not measured"),
    ],
)
def test_the_rule_for_a_range(values, verdict):
    assert speedups.held(values, 2.0, 3.0) == verdict


def test_an_open_range_has_no_upper_end():
    assert speedups.held([1.1, 99.0], 1.0, None) == "holds" and speedups.held([0.5], 1.0, None) == "fails"


def row(network, factor, ratios, of=(), **more) -> dict:
    kept = {"kept_bytes": 50, "base_kept_bytes": 100, "peak_bytes": None, "base_peak_bytes": None}
    rates = {"base_images_per_s": [1.0] * len(ratios), "images_per_s": list(ratios), "ratios": list(ratios)}
    own = {"network": network, "factor": factor, "of": list(of), "note": "", "left_out": {}, "batch": 2}
    return own | rates | kept | {"first_step_s": 0.1} | more


def test_gains_are_multiplied_pass_by_pass():
    rows = [row("a", "x", [2.0, 3.0]), row("a", "y", [1.5, 1.0]), row("b", "x", [9.0, 9.0])]
    rows += [row("a", "combined", [2.4, 2.4], of=["x", "y", "z"])]
    [found] = speedups.interaction(rows)
    assert found["product"] == [3.0, 3.0] and found["of"] == ["x", "y"] and found["missing"] == ["z"]
    assert found["quotient"] == pytest.approx([0.8, 0.8]) and found["word"] == "less than the product"


def test_the_seeds_table_does_not_multiply_to_its_comparison():
    gains = {"AMP": (2, 3), "compile": (1.1, 1.3), "loading": (1.5, 2)}
    assert speedups.product_of(gains) == (3.3, 7.8)  # of which it says 3


def test_memory_is_the_gpus_where_there_is_one():
    assert speedups.saved_frac(row("a", "x", [1.0])) == (0.5, "kept for backward, counted")
    seen = speedups.saved_frac(row("a", "x", [1.0], peak_bytes=90, base_peak_bytes=120))
    assert seen == (0.25, "peak on the GPU")
    assert speedups.saved_frac(row("a", "x", [], kept_bytes=None))[0] is None


@pytest.mark.parametrize(
    ("profile", "gpu", "backend", "verdicts"),
    [
        ("h200", True, "inductor", {"L15": "holds", "L41": "holds", "L16": "holds"}),
        ("mini", False, "inductor", {"L15": "not settled", "L41": "holds", "L16": "not settled"}),
        ("mini", False, "aot_eager", {"L15": "not settled", "L41": "not settled"}),
        ("demo", False, "inductor", {"L15": "not settled", "L41": "not settled"}),
    ],
)
def test_a_claim_is_settled_only_where_it_can_be(profile, gpu, backend, verdicts):
    rows = [row("a", "AMP float16", [2.1, 2.9]), row("a", "compile", [1.1, 1.2])]
    found = {f"L{one['line']}": one["verdict"] for one in speedups.claims(rows, profile, gpu, backend)}
    assert verdicts.items() <= found.items()


def test_a_combination_that_lacks_a_part_settles_nothing():
    five = ["AMP float16", "compile", "channels-last", "parallel loading", "cache"]
    cases = [(five, {}), (five, {"compiled": "why"}), (five[:3], {})]
    told = []
    for of, left_out in cases:
        rows = [row("a", "combined", [6.0, 6.0], of=of, left_out=left_out)]
        told += [(one["verdict"], one["why"]) for one in speedups.claims(rows, "h200", True, "inductor")]
    missing = "without parallel loading, cache"
    assert told == [("holds", ""), ("not settled", "without compiled"), ("not settled", missing)]


def taught(switch: str, seed: int, correct) -> dict:
    correct = np.asarray(correct, dtype=bool)
    own = {"switch": switch, "seed": seed, "accuracy": float(correct.mean()), "correct": correct, "note": ""}
    return own | {"images_per_s": 100.0, "largest_norm": None}


def test_a_switch_that_changes_nothing_costs_nothing_and_one_that_breaks_all_does():
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(3):
        base = rng.random(400) < 0.9
        rows += [taught("base", seed, base), taught("same", seed, base), taught("broken", seed, base & False)]
        rows += [{"switch": "compile", "seed": seed, "note": "why"}]
    same, broken, absent = lossless.judge(rows, 0.02, 0.25, 200, 0)
    assert (same["difference"], same["low"], same["word"]) == (0.0, 0.0, "no loss")
    assert broken["word"] == "loss" and broken["high"] < -0.5
    assert (absent["word"], absent["note"], absent["differences"]) == ("not measured", "why", [])
    assert lossless.by_chance([same, broken, absent]) == pytest.approx(2 * 0.025)
    assert lossless.recorded(rows[-2:])[0]["correct"] == "0" * 400


def test_an_interval_holds_the_spread_of_both_layers():
    """Differences over seeds of known spread: no narrower than Student's t interval alone."""
    base = np.arange(400) % 10 < 8
    rows, losses = [], (8, 16, 24)
    for seed, lost in enumerate(losses):
        worse = base.copy()
        worse[np.flatnonzero(base)[:lost]] = False
        rows += [taught("base", seed, base), taught("worse", seed, worse)]
    [found] = lossless.judge(rows, 0.02, 0.25, 500, 0)
    differences = [-lost / 400 for lost in losses]
    low, high = scipy_stats.t.interval(0.95, 2, np.mean(differences), scipy_stats.sem(differences))
    assert found["difference"] == pytest.approx(np.mean(differences))
    assert found["low"] < low and high < found["high"] and found["word"] == "unresolved"


def test_nothing_is_decided_where_the_base_guesses():
    """400 images at chance 0.25: guessing reaches 0.292 at most in 97.5 % of sets, by scipy's binomial."""
    bound = scipy_stats.binom(400, 0.25).ppf(0.975) / 400
    assert not lossless.learnt([0.9, bound - 0.01], 400, 0.25) and lossless.learnt([bound + 0.01], 400, 0.25)
    guessed = np.arange(400) % 4 == 0
    rows = [taught(name, seed, guessed) for seed in range(3) for name in ("base", "same")]
    [found] = lossless.judge(rows, 0.02, 0.25, 200, 0)
    assert (found["word"], found["note"]) == ("unresolved", lossless.UNTAUGHT)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.05, "gain"),
        (-0.019, 0.05, "no loss"),
        (-0.019, -0.001, "no loss"),
        (-0.05, -0.001, "loss"),
        (-0.02, 0.01, "unresolved"),
        (None, None, "unresolved"),
    ],
)
def test_the_rule_for_accuracy(low, high, word):
    assert lossless.verdict(low, high, 0.02) == word

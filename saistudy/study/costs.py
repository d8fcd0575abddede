"""What a training costs, from seconds and a price an hour; and the sums of seed document 002 done again.

The figures of the seed stand here with their lines (L); everything beside them is computed.
"""

import math
import statistics

import pandas as pd

from saistudy.study.batch_results import chosen
from saistudy.training.batches import Run

EPOCHS_N = 100  # L291
BATCH_S = 0.050  # L393, at 384 sequences
ROUNDED = 0.05  # the seed's "about": within a twentieth
# L422-425: batch, seconds an epoch, hours of 100 epochs, dollars
MACHINES = {
    "CPU": (16, 1800.0, 50.0, 0.0),
    "T4": (16, 300.0, 8.0, 32.0),
    "A10G": (64, 420.0, 12.0, 84.0),
    "H100": (384, 50.0, 1.4, 20.0),
}


def usd(seconds: float, price_per_h: float) -> float:
    """Dollars of so many seconds at a price an hour."""
    return seconds / 3600 * price_per_h


def machines(prices: dict[str, float]) -> list[dict]:
    """The seed's four machines: hours from its seconds, what an hour must have cost, ms a batch, and dollars
    at a listed price.

    Args:
        prices: machine to dollars an hour; machines it lacks have no listed price.
    """
    sequences_n = MACHINES["H100"][1] / BATCH_S * MACHINES["H100"][0]
    rows = []
    for name, (batch, epoch_s, hours, dollars) in MACHINES.items():
        row = {"machine": name, "batch": batch, "said_h": hours, "said_usd": dollars}
        row["hours"] = EPOCHS_N * epoch_s / 3600
        row["implied_usd_per_h"] = dollars / hours
        row["batch_ms"] = epoch_s / (sequences_n / batch) * 1000
        row["sequences_per_s"] = sequences_n / epoch_s
        price = prices.get(name)
        row["listed_usd_per_h"] = price
        row["usd_at_listed"] = None if price is None else usd(EPOCHS_N * epoch_s, price)
        rows.append(row)
    return rows


def _row(what: str, line: str, said: float, computed: float, unit: str, how: str) -> dict:
    agrees = math.isclose(said, computed, rel_tol=ROUNDED, abs_tol=1e-12)
    return {
        "what": what,
        "seed": line,
        "said": said,
        "computed": computed,
        "unit": unit,
        "how": how,
        "agrees": agrees,
    }


def sums(parts: dict[str, int]) -> list[dict]:
    """The seed's own arithmetic, done again: what it says, what follows from its other figures.

    Args:
        parts: of `bilstm.parts`, of the seed's network.
    """
    hours = {name: EPOCHS_N * row[1] / 3600 for name, row in MACHINES.items()}
    gb = {"network": 0.008, "batch": 0.044, "gradients, optimizer": 3.0, "BatchNorm": 1.0}  # L400-403
    state = parts["weights_bytes"] + parts["moments_bytes"] + parts["buffers_bytes"]
    held = parts["gradients_bytes"] + parts["moments_bytes"]
    return [
        _row("speed-up, from hours", "L23", 8.6, 12 / 1.4, "x", "12 h / 1.4 h"),
        _row("speed-up, from epochs", "L413", 8.4, 420 / 50, "x", "7 min / 50 s"),
        *[_row(f"100 epochs, {m}", "L422-425", MACHINES[m][2], hours[m], "h", "100 x epoch") for m in hours],
        _row("cheapest machine, dollars", "L428", 20, min(m[3] for m in MACHINES.values()), "USD", "minimum"),
        _row("memory of the card", "L411", 3.3, 80 / 24, "x", "80 GB / 24 GB"),
        _row("memory, sum of parts", "L404", 5, sum(gb.values()), "GB", "8 MB + 44 MB + 3 GB + 1 GB"),
        _row("memory, share of the card", "L404", 6, 100 * 5 / 80, "%", "5 GB / 80 GB"),
        _row("parameters", "L400", 2.1, parts["parameters_n"] / 1e6, "million", "counted"),
        _row("weights", "L400", 8, parts["weights_bytes"] / 1e6, "MB", "counted"),
        _row("batch", "L401", 44, 384 * 100 * 288 * 4 / 1e6, "MB", "384 x 100 x 288 x 4 B"),
        _row("gradients and optimizer", "L402", 3, held / 1e9, "GB", "counted, AdamW"),
        _row("BatchNorm", "L403", 1, parts["batchnorm_bytes"] / 1e9, "GB", "counted"),
        _row("checkpoint", "L375", 36.7, state / 1e6, "MB", "weights, moments, buffers"),
        _row("rate, 64 to 384, as sqrt", "L134", math.sqrt(6), 0.0004 / 0.0003, "x", "0.0004 / 0.0003"),
        _row("rate, 64 to 384, as linear", "L134", 6, 0.0004 / 0.0003, "x", "0.0004 / 0.0003"),
        _row("last epoch, patience 15", "L317", 100, 25 + 15, "epoch", "highest F1 at 25 (L461)"),
        _row("first commit", "L453", 3, 5, "epoch", "every 5 epochs (L95)"),
        _row("F1 gained, highest epoch", "L479", 1.3, 100 * (0.4389 / 0.4332 - 1), "%", "epoch 25"),
        _row("F1 gained, last epoch", "L479", 1.3, 100 * (0.4301 / 0.4332 - 1), "%", "epoch 100 (L468)"),
    ]


def implied(flops: int, prices: dict[str, float]) -> dict[str, str]:
    """What else follows from the document's figures, in words for the eye: pace, arithmetic, order of cost.

    Args:
        flops: of a training step of the seed's network at its batch.
    """
    rate = flops / BATCH_S / 1e12
    paces = {row["machine"]: row["sequences_per_s"] for row in machines(prices)}
    steps_n = MACHINES["H100"][1] / BATCH_S
    return {
        "batches an epoch (L393-394)": f"{steps_n:.0f}, {steps_n * MACHINES['H100'][0]:,.0f} sequences",
        "arithmetic at 50 ms a batch": f"{rate:.1f} TFLOP/s, {rate / 4000:.2%} of the 4000 named (L386)",
        "T4 beside A10G (L423-424)": f"{paces['T4'] / paces['A10G']:.2f} times the sequences a second",
        "lowest cost (L428: the H100)": min(MACHINES, key=lambda name: MACHINES[name][3]),
    }


def step_flops(network: dict, frames_n: int, batch: int) -> int:
    """Floating-point operations of a training step: 2 a multiply-add of convolutions, LSTM and head, and
    twice as many again backward (Goodfellow, Bengio & Courville 2016, section 6.5: the backward pass costs a
    constant times the forward; of a matrix product it is two products)."""
    widths = [network["input_dim"], *network["conv_channels"]]
    hidden = network["lstm_hidden"]
    macs = sum(3 * a * b for a, b in zip(widths, widths[1:], strict=False))
    for layer in range(network["lstm_layers"]):
        entering = 2 * hidden if layer else widths[-1]
        macs += 2 * 4 * hidden * (entering + hidden)
    macs += 2 * hidden * network["num_classes"]
    return 3 * 2 * macs * frames_n * batch


def of_runs(runs: dict[str, dict[int, Run]], base: str, price_per_h: float, train_n: int) -> list[dict]:
    """A row per run: hours, dollars, sequences/s, and the dollars until its val F1 first reached the base's.

    `reached_s` is None where it never did; the base reaches its own at the epoch that is chosen.
    """
    rows = []
    for arm, by_seed in runs.items():
        for seed, run in by_seed.items():
            goal_run = runs[base][seed]
            goal = goal_run.rows[chosen(goal_run)]["val_f1"]
            seconds = run.rows[-1]["train_s"]
            reached = next((r["train_s"] for r in run.rows if r["val_f1"] >= goal), None)
            row = {"arm": arm, "seed": seed, "hours": seconds / 3600, "usd": usd(seconds, price_per_h)}
            row["sequences_per_s"] = train_n * len(run.rows) / seconds
            row["reached_s"] = reached
            row["reached_usd"] = None if reached is None else usd(reached, price_per_h)
            rows.append(row)
    return rows


def by_arm(rows: list[dict]) -> pd.DataFrame:
    """Means over the seeds of an arm; `reached` counts the runs that came as far as the base."""
    frame = pd.DataFrame(rows)
    frame["reached_s"] = frame["reached_s"].astype(float)
    groups = frame.groupby("arm", sort=False)
    means = groups[["hours", "usd", "sequences_per_s", "reached_s"]].mean()
    means["reached"] = [f"{n} of {of}" for n, of in groups["reached_s"].agg(["count", "size"]).to_numpy()]
    return means


def pace(row: dict, network: dict, frames_n: int) -> dict:
    """A trial's step in figures: ms (median), sequences_per_s, tflop_per_s; None where it failed."""
    seconds = statistics.median(row["step_s"]) if row["step_s"] else None
    found = {"batch": row["batch"], "peak_gib": row["peak_gib"], "told": row["told"], "step_s": row["step_s"]}
    if seconds is None:
        return found | dict.fromkeys(("ms", "sequences_per_s", "tflop_per_s"))
    flops = step_flops(network, frames_n, row["batch"])
    rates = {"sequences_per_s": row["batch"] / seconds, "tflop_per_s": flops / seconds / 1e12}
    return found | {"ms": 1000 * seconds} | rates


def mib(gib: float | None) -> str:
    """GiB in MiB, or `-` where nothing was measured."""
    return "-" if gib is None else f"{gib * 1024:.1f}"

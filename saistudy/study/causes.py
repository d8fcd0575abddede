"""The cause of a failed line of the gate, from what was measured, by a rule that is fixed beforehand."""

import math

HALF = 0.5  # a part that takes more than half of the time is called the cause
RULE = (
    "the part with more than half of the time: building (labels, model, loaders), waiting for the loader, the"
    " transfer, else the step; and of a step whose kernels fill less than half of a profiled window, the host"
)


def parts(seconds: dict[str, float]) -> dict[str, float]:
    """Each part's share of the seconds of all (wait_s to wait), for the rule that names a cause."""
    whole = sum(seconds.values())
    return {name.removesuffix("_s"): s / whole if whole > 0 else 0.0 for name, s in seconds.items()}


def named(shares: dict[str, float], kernel_frac: float | str | None = None) -> str:
    """What `RULE` says of shares {build, wait, transfer, step} (build may be absent), as a sentence."""
    words = {"build": "building", "wait": "the loader", "transfer": "the transfer to the device"}
    over = [(name, share) for name, share in shares.items() if share > HALF and name in words]
    if over:
        return f"{words[over[0][0]]}: {over[0][1]:.0%} of the time"
    step = f"{shares['step']:.0%} of the time"
    if isinstance(kernel_frac, float):
        side = "the host: between" if kernel_frac < HALF else "the network's kernels:"
        return f"{side} kernels on the GPU for {kernel_frac:.0%} of a profiled window, the step {step}"
    return f"the step: {step} (kernel time: not applicable or not measured)"


def causes_of(rows: list[dict], found: dict) -> dict[str, str]:
    """The cause of each failed line, from what was measured.

    Args:
        found: whole and steady (shares as of `parts`), kernel_frac, loader_images_per_s, workers, moved_frac,
            and what `fall` gives.
    """
    told = {
        "loader": lambda: _slow_loader(found, rows),
        "loss": lambda: _flat(found),
        "chance": lambda: _flat(found),
        "time": lambda: named(found["whole"], found["kernel_frac"]),
        "util": lambda: named(found["steady"], found["kernel_frac"]),
        "memory": lambda: f"batch {found['batch']} at {found['imgsz']} px",
    }
    return {row["line"]: row["why"] or told[row["line"]]() for row in rows if row["holds"] is False}


def _slow_loader(found: dict, rows: list[dict]) -> str:
    """How many loader processes the threshold would take at the rate of one, if they shared nothing."""
    each = found["loader_images_per_s"] / max(found["workers"], 1)
    wanted = next(row["threshold"] for row in rows if row["line"] == "loader")
    return f"{found['workers']} workers, {each:.1f} images/s each: {math.ceil(wanted / each)} would be needed"


def _flat(found: dict) -> str:
    if found["fall"] < 0:
        return f"the loss rose by {-found['fall']:.3g} while the weights moved by {found['moved_frac']:.2%}"
    chance = f"{found['fall'] / found['se']:.1f} standard errors" if found["se"] else "no spread"
    return f"the weights moved by {found['moved_frac']:.2%}, the fall is {found['fall']:.3g} ({chance})"


def of_run(telemetry: dict) -> dict[str, float]:
    """Shares {wait, step} of a training's seconds; its transfer is within the step."""
    return parts({"wait_s": telemetry["wait_s"] or 0.0, "step_s": telemetry["compute_s"] or 0.0})

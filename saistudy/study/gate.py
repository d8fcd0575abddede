"""GO or NO-GO before a long training: the loss by the seed's measure, a whole run by the lines, a refusal."""

import json
import math
import os

from saistudy import hardware, params
from saistudy.data import sources
from saistudy.paths import PARAMS, Refusal, results
from saistudy.study.verdicts import Seen, gpu, judge

RUN = "gate"
USED = "gpu_reserved_gib"
TOLD = "SAISTUDY_NO_GO"  # set to 1: start on NO-GO all the same
GUARDED = ("h200",)  # profiles whose trainings wait for it


def limits(profile: str) -> dict:
    """The validated parameters of a profile's gate, thresholds among them."""
    return params.read("gate", [PARAMS / profile / "gate.yaml"], {})


def inputs(profile: str) -> dict:
    """What a run of the gate reads beside its own parameters: for its identity."""
    stage1 = params.read("stage1", [PARAMS / profile / "stage1.yaml"], {})
    return {"data": sources.key(profile, "fasdd_cv"), "stage1": stage1}


def batches_per_step(p: dict) -> int:
    """Batches in a step: those of an update, or one.

    Raises:
        Refusal: there are too few steps for two means.
    """
    if p["steps_n"] < 2 * p["mean_n"]:
        raise Refusal(
            f"steps_n is {p['steps_n']}, at least 2 x mean_n of {p['mean_n']} was expected: raise it."
        )
    return p["accumulation"] if p["step"] == "update" else 1


def finite(values) -> list[float | None]:
    """Values for a record, None for each that is no finite number."""
    return [value if math.isfinite(value) else None for value in map(float, values)]


def implied(own: dict, minutes: float, half_minutes: float, loader_images_per_s: float) -> list[dict]:
    """What the seed's time implies, a row per reading of a step: images/s beside those of its loader.

    Above the loader's rate, one of the two figures is of something else; below half of it, waiting for the
    loader cannot be what the time went into.

    Args:
        own: batch, accumulation and steps_n of the seed.
        minutes, half_minutes: of its test as printed, and half of the last digit.
        loader_images_per_s: the rate that it gives for its loader.
    """
    rows = []
    for name, per_n in (("an update", own["accumulation"]), ("a batch", 1)):
        images_n = own["steps_n"] * own["batch"] * per_n
        low, middle, high = (images_n / 60 / (minutes + d) for d in (half_minutes, 0, -half_minutes))
        row = {"a step is": name, "images": images_n, "images/s": middle, "low": low, "high": high}
        share = middle / loader_images_per_s
        over, under = low > loader_images_per_s, high < loader_images_per_s / 2
        says = "more than the loader gives: one of the two is not of this test" if over else ""
        says = "the loader gives more than twice that: no waiting for it" if under else says
        rows.append(row | {"of its loader's rate": share, "says": says})
    return rows


def fall(losses: list[float], mean_n: int) -> dict:
    """The seed's measure, {first, last, fall, se}: two means of `mean_n` losses, their difference, its error.

    The standard error is that of a difference of two independent means (Welch 1947): neighbouring steps share
    weights and images, so it is a lower bound. All are None where a loss is no finite number.
    """
    if not all(map(math.isfinite, losses)):
        return dict.fromkeys(("first", "last", "fall", "se"))
    first, last = losses[:mean_n], losses[-mean_n:]
    begins, ends = (math.fsum(part) / mean_n for part in (first, last))
    squares = (math.fsum((x - m) ** 2 for x in part) for part, m in ((first, begins), (last, ends)))
    error = math.sqrt(sum(squares) / (mean_n - 1) / mean_n)
    return {"first": begins, "last": ends, "fall": begins - ends, "se": error}


def loss_lines(found: dict, moved_frac: float) -> dict[str, Seen]:
    """The two lines on the loss; neither holds where no weight moved, whatever chance made of the loss.

    Measured on the demo's data, 2026-11-28: at rate 0, 60 batches of 16 with YOLOv8n at 96 px "fell" by .73.
    """
    if found["fall"] is None:
        return dict.fromkeys(("loss", "chance"), Seen(None, "a loss is no finite number"))
    if moved_frac == 0:
        return dict.fromkeys(("loss", "chance"), Seen(None, "no weight moved: what fell, fell by chance"))
    ratio = found["fall"] / found["se"] if found["se"] > 0 else math.copysign(math.inf, found["fall"])
    chance = Seen(ratio) if math.isfinite(ratio) else Seen(None, "the losses of each mean are all the same")
    return {"loss": Seen(found["fall"]), "chance": chance}


def of_card(used_gib, machine: dict, device: str):
    """The share of its card that was used; where that is no number (telemetry.Lacking, None), it as it is.

    Args:
        machine: of hardware.environment; device: the GPU's name, or any word where there is but one kind.
    """
    cards = machine["gpus"] or []
    card = next((card for card in cards if card["name"] == device), cards[0] if cards else None)
    return used_gib / card["memory_gib"] if card and isinstance(used_gib, float) else used_gib


def over_run(telemetry: dict, device: str, machine: dict, limit: dict) -> list[dict]:
    """The same rows for a whole training: what only the test has does not apply.

    Its rate is images over the seconds of waiting and computing: where it holds, the loader gives as much
    beside the network; where not, `causes.named(causes.of_run(telemetry))` says which of the two it is.

    Args:
        telemetry: of training.telemetry.summary, as in a run's record.
        device: the record's cost.device, "CPU" or the GPU's name.
        machine: of hardware.environment.
    """
    seconds = (telemetry["wait_s"] or 0) + (telemetry["compute_s"] or 0)
    images_n, reasons = telemetry["images_n"], telemetry["reasons"]
    rate = Seen(images_n / seconds) if images_n and seconds else Seen(None, "not measured: no images counted")
    absent = Seen(None, "not applicable: of the test's steps", False)
    read = {k: telemetry[k] if telemetry[k] is not None else reasons.get(k) for k in ("gpu_util", USED)}
    seen = {"loader": rate} | dict.fromkeys(("loss", "chance", "time"), absent)
    seen |= {"util": gpu(read["gpu_util"], device)}
    seen |= {"memory": gpu(of_card(read[USED], machine, device), device)}
    rows = judge(seen, limit)
    named = {"loader": "images/s of the training", "util": "GPU utilisation, whole run"}
    return [row | {"what": named.get(row["line"], row["what"])} for row in rows]


def latest(profile: str) -> dict | None:
    """The record of the profile's last gate if it was on this machine (CPU, cores, GPUs), else None."""
    try:
        record = json.loads((results(profile) / RUN / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    here = hardware.environment()
    return record if kind(record.get("environment") or {}) == kind(here) else None


def kind(environment: dict) -> tuple:
    """What makes two machines the same for a gate: CPU, its cores that may be used, the names of the GPUs."""
    names = [gpu["name"] for gpu in environment.get("gpus") or []]
    return environment.get("cpu"), environment.get("cores_n"), names


def refuse_no_go(profile: str) -> str:
    """What the profile's gate on this machine said, as a sentence; empty for a profile that waits for none.

    Raises:
        Refusal: it said NO-GO, and SAISTUDY_NO_GO=1 does not tell to go on.
    """
    if profile not in GUARDED:
        return ""
    output = f"--output results/{profile}/{RUN}/run.ipynb"
    command = f"python -m saistudy run gate -f params/{profile}/gate.yaml {output}"
    found = latest(profile)
    if found is None:
        return f"no gate of {profile} was run on this machine: {command} tells GO or NO-GO in minutes"
    told = f"gate of {profile}, {found['written'][:10]}: {found['verdict']['sentence']}"
    if found["verdict"]["verdict"] == "GO" or os.environ.get(TOLD) == "1":
        return told
    raise Refusal(f"{told}: mend the cause and repeat {command}, or set {TOLD}=1 to start all the same.")

"""The claims of seed document 002 that the notebook large-batch speaks to, each beside what a run saw."""

from saistudy.study.batch_results import delta

NO_GPU = "not applicable: no GPU"


def beside(p, parts: dict, timed: list, commits: dict, warmth: list, arms: list, own: dict, largest: dict):
    """Rows of seed, claim, measured, note; memory, seconds and precisions only where there is a GPU.

    Args:
        p: the notebook's parameters; parts: of `bilstm.parts`; timed: of `costs.pace`; commits: bytes,
            seconds; warmth, arms: of `batch_results`; own: of `batch_arms.named`; largest: of `limits.probe`.
    """
    row = {one["arm"]: one for one in arms}
    written, cold = row[own["written"]], row[own["cold"]]
    level = next(one for one in warmth if (one["batch"], one["rule"]) == (written["batch"], written["rule"]))
    told = [
        ("L400", "2.1 million parameters", f"{parts['parameters_n'] / 1e6:.2f} million"),
        ("L375", "checkpoint of 36.7 MB", f"{commits['bytes'] / 1e6:.1f} MB with optimizer"),
        ("L404", "5 GB of memory at 384", _at(timed, 384, "peak_gib", p.device, "{:.2f} GiB")),
        ("L393", "50 ms a batch of 384", _at(timed, 384, "ms", p.device, "{:.1f} ms")),
        ("L502", "512 adds little over 384", _gain(timed, p.device)),
        ("L530", "half precision doubles the speed", _halved(timed, p.device)),
        ("L508", "without warm-up it diverges", f"{cold['diverged_n']} of {cold['runs_n']} runs"),
        ("L550", "a large batch must be warmed up", level["warm-up"]),
        ("L480", "F1 is kept, equal epochs", _kept(written, "epochs")),
        ("L480", "F1 is kept, equal time", _kept(written, "time")),
        ("L659", "no NaN", f"{written['diverged_n']} of {written['runs_n']} runs of its arm diverged"),
        ("L551", "80 GB leave much room", _room(largest, p.device)),
    ]
    note = f"{p.profile}, {p.device}, generated sequences"
    return [{"seed": line, "claim": claim, "measured here": seen, "note": note} for line, claim, seen in told]


def _at(timed: list, batch: int, key: str, device: str, form: str) -> str:
    value = _value(timed, batch, key)
    if device == "cpu":
        return NO_GPU
    return "not timed" if value is None else form.format(value)


def _value(timed: list, batch: int, key: str, precision: str = "float32") -> float | None:
    found = [one[key] for one in timed if (one["batch"], one["precision"]) == (batch, precision)]
    return found[0] if found else None


def _gain(timed: list, device: str) -> str:
    """How many times the sequences a second of 384 those of 512 are."""
    rates = [_value(timed, batch, "sequences_per_s") for batch in (512, 384)]
    if device == "cpu":
        return NO_GPU
    return "not timed" if None in rates else f"{rates[0] / rates[1]:.2f} times the sequences a second"


def _halved(timed: list, device: str) -> str:
    """How many times as many batches of 384 a second half precision does."""
    if device == "cpu":
        return NO_GPU
    whole, found = _value(timed, 384, "ms"), []
    for precision in ("float16", "bfloat16"):
        if whole and (ms := _value(timed, 384, "ms", precision)):
            found.append(f"{precision} {whole / ms:.2f} times")
    return ", ".join(found) or "not timed"


def _kept(arm: dict, basis: str) -> str:
    return delta(*(arm[f"{key}_equal_{basis}"] for key in ("delta", "delta_low", "delta_high")))


def _room(largest: dict, device: str) -> str:
    return NO_GPU if device == "cpu" else f"the largest batch is {largest['largest']} ({largest['cause']})"

"""The largest batch that a training step survives, found by letting memory run out for real."""

from saistudy.paths import Refusal
from saistudy.training import memory, trial

CAUSES = {"gpu": "GPU memory ran out", "host": "host memory ran out", trial.ERROR: "not a matter of memory"}


def probe(network: dict, class_weights: list, frames_n: int, device: str, limit_gib=0.0, most=1024) -> dict:
    """Doubled, then bisected (`memory.largest`), each batch in a process of its own (`trial.attempt`).

    Returns:
        largest that passed; failed, the smallest that did not (None where `most` itself passed); cause, why
        not; verified, whether both did the same again in another process; tried, a row per trial.

    Raises:
        Refusal: not even a batch of 1 passes.
    """
    tried = []

    def fits(batch: int) -> bool:
        row = trial.attempt(network, class_weights, frames_n, batch, device, limit_gib=limit_gib)
        tried.append(row)
        return row["outcome"] == trial.PASSED

    largest = memory.largest(fits, most)
    if not largest:
        raise Refusal(f"a batch of 1 did not pass ({tried[-1]['told']}): raise memory_limit_gib.")
    failed = next((row for row in tried if row["batch"] == largest + 1), None)
    verified = fits(largest) and (failed is None or not fits(largest + 1))
    cause = CAUSES[failed["outcome"]] if failed else f"no batch above {most} was tried"
    found = {"largest": largest, "failed": failed and failed["batch"], "cause": cause, "verified": verified}
    return found | {"tried": tried}

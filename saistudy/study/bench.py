"""Measured rates of the machine at hand: every condition in turn, several passes, all in one run."""

import gc
import multiprocessing
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import matplotlib.font_manager  # noqa: F401  (Ultralytics imports it to check data: once here, not in each fork)
import pandas as pd

from saistudy.paths import Refusal
from saistudy.training import loading


def alternate(conditions: dict[str, dict], passes_n: int, scratch: Path, **common) -> pd.DataFrame:
    """A row per pass and condition, in the order A B C A B C: condition, pass, Pass's fields, note.

    A condition that this machine has no room or no cores for has no figures, and the reason in `note`.
    Every pass is a fork of one new process: in one and the same, memory freed by an earlier pass is used
    again and the later one seems to take none (measured: 10 MB, then 0, for the same cache in memory).

    Args:
        conditions: name to arguments of `loading.feed`.
        scratch: folder for throw-away trees, removed at the end: a pass that was killed leaves its own.
        common: arguments that all share; a condition's own come first.
    """
    rows = []
    try:
        for row in apart("spawn", _passes, conditions, passes_n, common | {"scratch": scratch}):
            rows.append(row)
            if len(rows) % len(conditions) == 0:
                print(f"pass {len(rows) // len(conditions)} of {passes_n} done", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return pd.DataFrame(rows)


def _passes(conditions: dict[str, dict], passes_n: int, common: dict) -> Iterator[dict]:
    for number in range(passes_n):
        for name, arguments in conditions.items():
            row = {"condition": name, "pass": number}
            try:
                [seen] = apart("fork", _feed, common | arguments)
                row |= seen._asdict() | {"note": ""}
            except Refusal as refusal:
                row |= dict.fromkeys(loading.Pass._fields) | {"note": str(refusal)}
            yield row


def _feed(arguments: dict) -> Iterator[loading.Pass]:
    """One pass. The collector writes to every object: in a fork that copies their pages, so it does it first.

    Left to chance it fell into the span that counts (measured: a third of the rate, 30 MB more).
    """
    gc.collect()
    yield loading.feed(**arguments)


def apart(method: str, function, *arguments) -> Iterator:
    """What a generator yields in a process of its own; what it raises there is raised here.

    Raises:
        Refusal: the process was killed, as the kernel does when memory runs out.
    """
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    with suppress(EOFError):
        while True:
            answer = receiver.recv()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
    process.join()
    if code := process.exitcode:
        raise Refusal(f"killed on the way (exit code {code}), most likely for lack of memory.")


def _send(sender, function, arguments) -> None:
    try:
        for item in function(*arguments):
            sender.send(item)
    except Exception as error:
        sender.send(error)


def per_condition(passes: pd.DataFrame) -> list[dict]:
    """A mapping per condition with what `alternate` saw, pass after pass: ready for a record, without NaN."""
    found = []
    for name, rows in passes.groupby("condition", sort=False):
        seen = rows[rows["note"] == ""]
        lists = {field: seen[field].tolist() for field in loading.Pass._fields}
        found.append({"condition": name, **lists, "note": " ".join(rows["note"].unique()).strip()})
    return found


def table(conditions: list[dict]) -> pd.DataFrame:
    """A row per condition of `per_condition`: medians with their spread, the most memory, the reason."""
    rows = {}
    for seen in conditions:
        rows[seen["condition"]] = {
            "images/s": spread(seen["images_per_s"]),
            "s/batch": spread(seen["batch_s"]),
            "build, s": spread(seen["build_s"]),
            "from disk, MiB": spread([size / 2**20 for size in seen["disk_bytes"] if size is not None]),
            "resident, MiB": most_mib(seen["resident_bytes"]),
            "batches in /dev/shm, MiB": most_mib(seen["shared_bytes"]),
            "note": seen["note"],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def spread(values: list[float]) -> str:
    """Median with the lowest and the highest, or `-` where nothing was measured."""
    seen = pd.Series(values, dtype=float)
    if seen.empty:
        return "-"
    low, middle, high = (_short(seen.quantile(q)) for q in (0, 0.5, 1))
    return f"{middle} ({low} to {high})"


def _short(value: float) -> str:
    """Three digits, all of them from a thousand on."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def most_mib(sizes: list[float]) -> str:
    """The largest of sizes in bytes, in MiB, or `-` where nothing was measured."""
    return f"{max(sizes) / 2**20:.1f}" if sizes else "-"

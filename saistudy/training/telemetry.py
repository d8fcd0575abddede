"""What every epoch cost, a row of a csv each: seconds by kind, images, memory, GPU utilisation."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from time import perf_counter

import pandas as pd
import psutil
import pynvml
import torch
import xxhash

from saistudy.data.room import room
from saistudy.paths import Refusal, write_text
from saistudy.training.dataset import mosaic

PARTS = ["wait_s", "compute_s", "val_s", "save_s", "lost_s"]
PEAKS = ["gpu_peak_gib", "gpu_reserved_gib", "shm_gib"]
COLUMNS = ["epoch", *PARTS, "epoch_s", "images_n", "images_per_s", "batches_n", "batch", "mosaic"]
COLUMNS += [*PEAKS, "host_free_gib", "gpu_util", "gpu_util_n", "first_batch", "unmeasured"]
SAMPLE_S = 0.5  # NVML's own figure covers the last 1/6 to 1 s (nvmlUtilization_t): faster tells no more
THREAD = "telemetry"


class Lacking(str):
    """Why a value was not measured, without the csv's separators."""

    def __new__(cls, reason):
        return super().__new__(cls, " ".join(re.sub(r'[,"|]', " ", str(reason)).split()))


class Watched:
    """Mixin, named before the trainer: since the epoch's start, images seen and the first batch's hash.

    The hash is xxh3_64 (hex) of the uint8 tensor (N, 3, height, width) as it leaves the loader, or as it is
    rendered from plans: the same for each input.
    """

    images_n, first_batch = 0, ""

    def preprocess_batch(self, batch):
        """The trainer's own, after a look at the batch."""
        getattr(self, "render", lambda batch: None)(batch)
        if not self.images_n:
            self.first_batch = xxhash.xxh3_64_hexdigest(batch["img"].contiguous().cpu().numpy())
        self.images_n += len(batch["img"])
        return super().preprocess_batch(batch)


class Sampler:
    """Reads a fraction (0 to 1) in a daemon thread after each `every_s` seconds, from now until `stop`."""

    def __init__(self, read: Callable[[], float], every_s: float = SAMPLE_S):
        self.values, self.failure = [], f"the training part was shorter than {every_s} s"
        self.done = Event()
        self.thread = Thread(target=self._sample, args=(read, every_s), name=THREAD, daemon=True)
        self.thread.start()

    def _sample(self, read, every_s) -> None:
        while not self.done.wait(every_s):
            try:
                self.values.append(read())
            except Exception as error:  # whatever a driver says ends no training
                self.failure = f"{type(error).__name__} {error}"

    def stop(self) -> tuple[float | Lacking, int]:
        """End the thread; the mean of what was read, and the number of readings.

        Nothing but zeros is a broken probe (seed 003 printed 0.00 %): the card did compute the epoch.
        """
        self.done.set()
        self.thread.join(timeout=10)  # a driver that hangs must not hang the training
        samples_n = len(self.values)
        if any(self.values):
            return round(fmean(self.values), 4), samples_n
        return Lacking(f"0 was read in all {samples_n} samples" if samples_n else self.failure), samples_n


def nvml_probe(device: torch.device) -> Callable[[], float] | Lacking:
    """A reader of the share of time with any kernel on the whole card, other processes' too, or why none.

    By UUID, for CUDA_VISIBLE_DEVICES renumbers CUDA's devices and not NVML's.
    """
    if device.type != "cuda":
        return Lacking(f"trained on {device.type}")
    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError as error:
        return Lacking(f"{type(error).__name__} {error}")
    return lambda: pynvml.nvmlDeviceGetUtilizationRates(card).gpu / 100


def gib(read: Callable[[], int]) -> float | Lacking:
    """What a reader of bytes says, in GiB; why not, where a process or a folder is not there."""
    try:
        return round(read() / 2**30, 3)
    except (psutil.Error, OSError) as error:
        return Lacking(f"{type(error).__name__} {error}")


class _Epochs:
    """Callbacks; all seconds from `opened` to `mark` are in `took`, but those of the look at memory."""

    def __init__(self, csv: Path, probe: Callable):
        self.csv, self.probe, self.sampler, self.epoch = csv, probe, None, None

    def count(self, part: str) -> None:
        now = perf_counter()
        self.took[part] += now - self.mark
        self.mark = now

    def begin(self, trainer) -> None:
        _restore(self.csv, trainer.start_epoch)
        self.read = self.probe(trainer.device)
        self.late_s, self.opened = 0.0, perf_counter()
        self.mark = self.opened

    def start(self, trainer) -> None:
        self.end()
        if trainer.epoch == self.epoch:  # again: out of memory, or a loss that is no number
            self.mark = perf_counter()
        self.took = dict.fromkeys(PARTS, 0.0) | {"lost_s": self.mark - self.opened, "save_s": self.late_s}
        self.epoch, self.batches_n, trainer.images_n, trainer.first_batch = trainer.epoch, 0, 0, ""
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)
        self.sampler = None if isinstance(self.read, Lacking) else Sampler(self.read)

    def step(self, trainer) -> None:
        self.count("compute_s")
        self.batches_n += 1

    def look(self, trainer) -> None:
        util, samples_n = self.sampler.stop() if self.sampler else (self.read, 0)
        self.seen = {"gpu_util": util, "gpu_util_n": samples_n}
        self.seen["mosaic"] = mosaic(trainer.train_loader.dataset)
        self.seen |= {"batch": trainer.train_loader.batch_size, "batches_n": self.batches_n}
        self.seen["host_free_gib"] = gib(lambda: room(Path("/dev/shm")).free_memory_bytes)
        self.seen["shm_gib"] = gib(lambda: shutil.disk_usage("/dev/shm").used)
        self.mark = perf_counter()

    def write(self, trainer) -> None:
        self.count("save_s")
        row = self.seen | {part: round(seconds, 4) for part, seconds in self.took.items()}
        row |= {"epoch": trainer.epoch + 1, "epoch_s": round(self.late_s + self.mark - self.opened, 4)}
        row |= _images(trainer, self.took["wait_s"] + self.took["compute_s"]) | gpu_peaks(trainer.device)
        lacking = {key: value for key, value in row.items() if isinstance(value, Lacking)}
        row |= dict.fromkeys(lacking, "") | {"unmeasured": " | ".join(map(": ".join, lacking.items()))}
        with open(self.csv, "a", encoding="utf-8") as file:
            file.write(",".join(str(row[column]) for column in COLUMNS) + "\n")

    def close(self, trainer) -> None:
        self.opened = perf_counter()
        self.late_s, self.mark = self.opened - self.mark, self.opened

    def end(self, *_) -> None:
        if self.sampler:
            self.sampler.stop()


def _images(trainer, seconds: float) -> dict:
    images_n, why = trainer.images_n, Lacking("the trainer is no telemetry.Watched")
    found = {"images_n": images_n, "images_per_s": round(images_n / seconds, 2)}
    return {key: value or why for key, value in (found | {"first_batch": trainer.first_batch}).items()}


def gpu_peaks(device: torch.device) -> dict[str, float | Lacking]:
    if device.type != "cuda":
        return dict.fromkeys(PEAKS[:2], Lacking(f"trained on {device.type}"))
    reads = (torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved)
    return {column: round(read(device) / 2**30, 3) for column, read in zip(PEAKS[:2], reads, strict=True)}


def attach(trainer, csv: Path, probe: Callable = nvml_probe) -> None:
    """Append a row to `csv` for every epoch that an Ultralytics trainer (8.4.190) saves.

    Rows of epochs after `start_epoch` go first. Seconds are of the pass that counted: wait_s from the end
    of a batch, or of the epoch before, to the start of the next; compute_s from start to end (Ultralytics
    reads the loss there, which waits for the GPU); val_s; save_s from validation to the row, and what
    callbacks did after the row before; lost_s of passes begun again (out of memory, NaN); epoch_s of all
    these and the look at memory. images_per_s is over waiting and computing; batch and mosaic (probability)
    are those in effect. gpu_peak_gib and gpu_reserved_gib are torch's peaks, which each epoch's start
    resets; gpu_util is the mean of gpu_util_n samples in training. After the last batch: host_free_gib, the
    memory still allowed (data.room), shm_gib of all in /dev/shm, staged data too, for it fills up as one.
    images_n and first_batch: see `Watched`. unmeasured says why cells are empty.

    Args:
        probe: gives a reader of a fraction (0 to 1) for a torch device, or why there is none.

    Raises:
        Refusal: in train(), if `csv` is another table.
    """
    epochs = _Epochs(Path(csv), probe)
    trainer.add_callback("on_train_start", epochs.begin)
    trainer.add_callback("on_train_epoch_start", epochs.start)
    trainer.add_callback("on_train_batch_start", lambda _: epochs.count("wait_s"))
    trainer.add_callback("on_train_batch_end", epochs.step)
    trainer.add_callback("on_train_epoch_end", epochs.look)
    trainer.add_callback("on_val_end", lambda _: epochs.count("val_s"))
    trainer.add_callback("on_model_save", epochs.write)
    trainer.add_callback("on_fit_epoch_end", epochs.close)
    trainer.add_callback("teardown", epochs.end)


def _restore(csv: Path, start_epoch: int) -> None:
    """Keep the whole rows of epochs 1 to `start_epoch`."""
    head, *rows = csv.read_text(encoding="utf-8").splitlines(True) if csv.is_file() else [""]
    if head.strip() not in ("", ",".join(COLUMNS)):
        raise Refusal(f"{csv} begins with {head.strip()[:60]}, columns of telemetry were expected: move it.")
    whole = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= start_epoch]
    write_text(csv, ",".join(COLUMNS) + "\n" + "".join(whole))


def summary(csv: Path) -> dict:
    """A run in one record: seconds and counts summed, peaks (of free memory the least), median images/s.

    wait_frac is waiting over waiting and computing; `batch` lists the sizes in order; `epochs_missing` those
    whose row was lost to a kill between checkpoint and row; `reasons` says why a column has gaps or is None.

    Raises:
        Refusal: there is no such file.
    """
    if not Path(csv).is_file():
        raise Refusal(f"{csv} does not exist, a csv of telemetry was expected: name that of a run.")
    rows = pd.read_csv(csv, dtype=dict.fromkeys(COLUMNS, float) | {"first_batch": str, "unmeasured": str})
    found = rows[[*PARTS, "epoch_s", "images_n", "batches_n", "gpu_util_n"]].sum(min_count=1).to_dict()
    found |= rows[PEAKS].max().to_dict() | {"host_free_gib": rows["host_free_gib"].min()}
    found["images_per_s"] = rows["images_per_s"].median()
    found["gpu_util"] = (rows["gpu_util"] * rows["gpu_util_n"]).sum(min_count=1) / found["gpu_util_n"]
    found["wait_frac"] = found["wait_s"] / (found["wait_s"] + found["compute_s"])
    found = {key: None if pd.isna(value) else round(value, 4) for key, value in found.items()}
    found |= {key: int(value) for key, value in found.items() if key.endswith("_n") and value is not None}
    epochs = rows["epoch"].astype(int).tolist()
    found["epochs_n"], missing = len(epochs), {*range(1, max(epochs, default=0))} - {*epochs}
    found["epochs_missing"], found["mosaic_epochs_n"] = sorted(missing), int((rows["mosaic"] > 0).sum())
    found["batch"] = rows["batch"].astype(int).unique().tolist()
    found["first_batch"] = next(iter(rows["first_batch"].dropna()), None)
    return found | {"reasons": _reasons(rows, found)}


def _reasons(rows: pd.DataFrame, found: dict) -> dict[str, str]:
    """The last reason of each column, and how many epochs lack it."""
    told = [why.split(": ", 1) for cell in rows["unmeasured"].dropna() for why in cell.split(" | ")]
    columns = [column for column, _ in told]
    reasons = {column: f"{why} ({columns.count(column)} of {len(rows)} epochs)" for column, why in told}
    empty = {key: "no epoch was finished" for key, value in found.items() if value is None}
    return empty | reasons

"""How long a device was busy: a stopwatch that does not make it wait, and shares of a profiled window."""

from collections.abc import Callable
from time import perf_counter

import torch
from torch.autograd import DeviceType

from saistudy.training.telemetry import Lacking


def stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Starts now; called, it stops and gives a function that says the seconds once the device is idle.

    On a GPU by events in its stream: copies are asynchronous, and to wait for them would slow the step.
    """
    if device.type != "cuda":
        begun = perf_counter()
        return lambda: (lambda taken: lambda: taken)(perf_counter() - begun)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()

    def stop():
        last.record()
        return lambda: first.elapsed_time(last) / 1000

    return stop


def shares(events, window_s: float, kind: DeviceType = DeviceType.CUDA) -> dict[str, float | Lacking]:
    """{kernel_frac, copy_frac}: shares of a profiled window with a kernel on the device, with a copy to it.

    Kernels of several streams at once count once. Annotations span gaps and are left out.

    Args:
        events: of torch.profiler.profile.events(), whose times are in microseconds.
    """
    mine = [e for e in events if e.device_type == kind and not getattr(e, "is_user_annotation", False)]
    copies = [e for e in mine if e.name.startswith("Memcpy HtoD")]
    kernels = [e for e in mine if not e.name.startswith(("Memcpy", "Memset"))]
    if not kernels:
        return dict.fromkeys(("kernel_frac", "copy_frac"), Lacking("torch's profiler saw no kernel"))
    spans = ([(e.time_range.start, e.time_range.end) for e in some] for some in (kernels, copies))
    return dict(zip(("kernel_frac", "copy_frac"), (covered(s) / 1e6 / window_s for s in spans), strict=True))


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end), in their unit."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

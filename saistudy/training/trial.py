"""Steps at one batch in a process of their own, so that memory may run out for real.

The process is forked from a server that has imported torch and touched no GPU (multiprocessing's forkserver).
On a CPU the limit is the system's own RLIMIT_DATA, set that much above what the process holds when it begins;
on a GPU it is a share of the card that torch's allocator keeps to. 0 leaves the machine's own.
"""

import multiprocessing
import resource
import time
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401  (AdamW's first step imports it, 5 s: once in the server, not in each fork)

from saistudy.training import bilstm, ladder

PASSED, ERROR = "passed", "error"
CAST = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def attempt(network: dict, class_weights: list[float], frames_n: int, batch: int, device: str, **how) -> dict:
    """Training steps at a batch of noise: {batch, outcome, told, step_s, peak_gib}.

    outcome is "passed"; or which memory ran out, "gpu" or "host" (`ladder.kind`; a process that the system
    killed lacked host memory, too); or "error" where it was no matter of memory. peak_gib is torch's of the
    card, without one the growth of the resident set, pages of libraries among it. step_s lists the seconds
    of each step after the first.

    Args:
        how: limit_gib (0.0), steps_n (2), precision (float32; bfloat16 and float16 by autocast), accumulate
            (1: passes of this batch a step).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    call = (sender, network, class_weights, frames_n, batch, device, how)
    process = context.Process(target=_answer, args=call, daemon=True)
    process.start()
    sender.close()
    try:
        told = receiver.recv()
    except EOFError:
        told = None
    process.join()
    code = process.exitcode  # below 0: a signal, as the system's for lack of memory
    told = told or {"outcome": "host" if code < 0 else ERROR, "told": f"the process ended with code {code}"}
    return {"batch": batch, "step_s": [], "peak_gib": None} | told


def float32() -> dict[str, bool]:
    """Whether float32 is computed as TF32 on a GPU that can: torch lets cuDNN do so unless told otherwise."""
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    return dict(zip(("cudnn_tf32", "matmul_tf32"), flags, strict=True))


def _answer(sender, network, class_weights, frames_n, batch, device, how) -> None:
    try:
        sender.send(_steps(network, class_weights, frames_n, batch, device, **how))
    except Exception as error:
        told = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        sender.send({"outcome": ladder.kind(error) or ERROR, "told": told})


def _steps(network, class_weights, frames_n, batch, device, **how) -> dict:
    how = {"limit_gib": 0.0, "steps_n": 2, "precision": "float32", "accumulate": 1} | how
    torch.set_num_threads(1)
    held = _status_bytes("VmRSS")
    _limit(device, how["limit_gib"])
    shape = batch, frames_n, network["input_dim"]
    features = torch.randn(shape, device=device)
    labels = torch.randint(network["num_classes"], shape[:2], device=device)
    step = _stepper(network, torch.tensor(class_weights, device=device), device, how["precision"])
    seconds = []
    for _ in range(how["steps_n"]):
        begun = _now(device)
        step([(features, labels)] * how["accumulate"])
        seconds.append(_now(device) - begun)
    return {"outcome": PASSED, "told": "", "step_s": seconds[1:], "peak_gib": _peak_gib(device, held)}


def _stepper(network: dict, weights: torch.Tensor, device: str, precision: str):
    """A function that does one step of AdamW over parts of a batch; float16 with the gradients scaled."""
    model = bilstm.ConvBiLstm(**network).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler(device, enabled=precision == "float16" and device != "cpu")
    cast = CAST[precision]

    def step(parts: list) -> None:
        for features, labels in parts:
            with torch.autocast(device, cast, cast is not None):
                loss = bilstm.loss(model(features), labels, weights) / len(parts)
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def _limit(device: str, gib: float) -> None:
    """Have this process run out of memory at so many GiB above what it holds; 0 sets nothing."""
    if not gib:
        return
    if device != "cpu":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (_status_bytes("VmData") + int(gib * 2**30), hard))


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_gib(device: str, held_bytes: int) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_reserved(device) / 2**30
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held_bytes) / 2**30


def _status_bytes(name: str) -> int:
    """A line of /proc/self/status (proc(5)), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024

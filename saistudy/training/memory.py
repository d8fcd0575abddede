"""What fits on a GPU: the largest batch, found by trying training steps at the true rectangle.

Stock AutoBatch tries a square of the longest side, draws a line through five small batches and aims at .6 of
the memory (8.4.190). Here the batch itself is tried, and what is left free is stated.
"""

import gc
from collections.abc import Callable
from copy import deepcopy

import torch
import yaml
from ultralytics.utils.torch_utils import autocast

from saistudy.paths import PARAMS, Refusal
from saistudy.training import ladder

AUTO = "auto"
RESERVE_FRAC = 0.1  # of the GPU: optimizer state, cuDNN's workspaces, fragmentation, validation
MOST_N = 1024  # where stock AutoBatch ends too


def tier(total_gib: float, name: str = AUTO) -> dict:
    """What a GPU of so much memory is given to train by params/tiers.yaml: {tier, model, batch, imgsz}.

    Args:
        total_gib: of the GPU, 0 for none.
        name: of a tier, whatever the memory; auto takes it from there.
    """
    tiers = yaml.safe_load((PARAMS / "tiers.yaml").read_text(encoding="utf-8"))
    bound = {name: row.pop("vram_gib_below") for name, row in tiers.items()}
    fits = (one for one in tiers if bound[one] is None or total_gib < bound[one] or not total_gib)
    name = next(fits) if name == AUTO else name
    return {"tier": name, **tiers[name]}


def largest(fits: Callable[[int], bool], most: int = MOST_N) -> int:
    """The largest batch from 1 to `most` that fits, 0 if none does: doubled, then found by bisection.

    Args:
        fits: whether a batch fits; where n does, fewer do. Asked about 2 log2(most) times, never of a
            batch above twice one that fits.
    """
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, high * 2
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def find(model, hw: tuple[int, int], amp: bool | torch.dtype, most: int, boxes_n: int) -> dict:
    """The largest batch for a model on its GPU: {batch, peak_gib, total_gib (free for it), reserve_frac}.

    Args:
        model: on a CUDA device, left as it is; a copy does the steps.
        hw: height and width of the tensor in pixels.
        most: images of the training split; no batch is larger.
        boxes_n: of each image in a trial; the loss needs memory for them.

    Raises:
        Refusal: there is no GPU, or not even one image fits.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        raise Refusal(
            f"batch auto was asked for on {device.type}, a GPU's memory was expected: name a batch, such as"
            " that of tier cpu."
        )
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)  # what others leave
    peaks = {}

    def fits(batch: int) -> bool:
        peaks[batch] = peak_bytes(model, batch, hw, amp, boxes_n)
        return peaks[batch] is not None and peaks[batch] <= (1 - RESERVE_FRAC) * total

    batch = largest(fits, min(most, MOST_N))
    if not batch:
        raise Refusal(f"not even one image of {list(hw)} px fits on this GPU: take a smaller size or model.")
    gib = {"peak_gib": round(peaks[batch] / 2**30, 2), "total_gib": round(total / 2**30, 2)}
    return {"batch": batch, **gib, "reserve_frac": RESERVE_FRAC}


def peak_bytes(model, batch: int, hw: tuple[int, int], amp, boxes_n: int) -> int | None:
    """Bytes reserved on the GPU at the height of two steps of a copy of the model, None if too many."""
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        steps(deepcopy(model), batch, hw, amp, boxes_n)
        return torch.cuda.max_memory_reserved()
    except RuntimeError as error:
        if ladder.kind(error) != "gpu":
            raise
        return None
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def steps(model, batch: int, hw: tuple[int, int], amp: bool | torch.dtype, boxes_n: int) -> float:
    """The loss of the second of two training steps on noise; AdamW holds the most states a weight, two."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-6)
    for _ in range(2):  # the states come with the first
        with autocast(amp, device=device.type):
            loss = model(_noise(batch, hw, device, boxes_n))[0].sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _noise(batch: int, hw: tuple[int, int], device, boxes_n: int) -> dict:
    """A batch of noise as a detection trainer of Ultralytics hands it to its model."""
    images = torch.arange(batch, device=device).repeat_interleave(boxes_n).float()
    return {
        "img": torch.rand(batch, 3, *hw, device=device),
        "cls": torch.zeros(len(images), 1, device=device),
        "bboxes": torch.rand(len(images), 4, device=device) * 0.3 + 0.3,
        "batch_idx": images,
    }

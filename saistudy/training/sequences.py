"""Generated sequences of the seed's shape, on which accuracy can be lost: a class for each frame.

Segments of a few frames follow one another, each of one class. A frame is noise and, times `signal`, what
its class adds: class 0 nothing, class 1 a direction, any further class a direction that it shares with its
neighbour, along which the two differ only in whether the feature rises or falls within the segment. So no
frame alone tells these two apart, and noise hides the rest: accuracy is neither chance nor 1.
"""

from typing import NamedTuple

import torch

SEGMENT_FRAMES = 10  # mean length of a segment; the least is a third of it
RUN_IN_FRAMES = 5 * SEGMENT_FRAMES  # up to as many lie before the first frame, so that segments are cut alike


class Sequences(NamedTuple):
    """Features float32 (N, T, D) and labels int64 (N, T), both on one device."""

    features: torch.Tensor
    labels: torch.Tensor


def shares(class_weights: list[float]) -> torch.Tensor:
    """Share of each class among segments: the one that such weights balance, proportional to 1 / weight."""
    inverse = 1 / torch.tensor(class_weights)
    return inverse / inverse.sum()


def make(n: int, task: dict, network: dict, class_weights: list[float], seed: int, device: str) -> Sequences:
    """`n` sequences. What a class looks like goes with task["task_seed"], the draw with `seed`.

    Args:
        task: signal (in standard deviations of the noise, over all features), sequence_length, task_seed.
        network: input_dim and num_classes are read.
    """
    generator = torch.Generator().manual_seed(seed)
    labels, phase = _segments(n, task["sequence_length"], shares(class_weights), generator)
    looks = _looks(network["num_classes"], network["input_dim"], task["task_seed"])
    features = torch.randn(n, task["sequence_length"], network["input_dim"], generator=generator)
    features += task["signal"] * (looks[0][labels] + phase[..., None] * looks[1][labels])
    return Sequences(features.to(device), labels.to(device))


def _segments(n: int, frames_n: int, share: torch.Tensor, generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (n, frames_n) and where in its segment each frame lies, -1 to 1."""
    least = SEGMENT_FRAMES // 3
    most_n = (frames_n + RUN_IN_FRAMES) // least + 1
    lengths = torch.randint(least, 2 * SEGMENT_FRAMES - least + 1, (n, most_n), generator=generator)
    ends = lengths.cumsum(1)
    frames = torch.arange(frames_n) + torch.randint(RUN_IN_FRAMES, (n, 1), generator=generator)
    at = torch.searchsorted(ends, frames, right=True)
    classes = torch.multinomial(share, n * most_n, True, generator=generator).view(n, most_n)
    begun, long = (ends - lengths).gather(1, at), lengths.gather(1, at)
    return classes.gather(1, at), 2 * (frames - begun) / (long - 1) - 1


def _looks(classes_n: int, features_n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What each class adds at all its frames, and times the phase: two of (classes_n, features_n)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, classes_n, features_n, generator=generator)
    constant, slope = drawn / drawn.norm(dim=-1, keepdim=True)
    constant[0] = 0
    slope[:2] = 0
    for rising, falling in zip(range(2, classes_n, 2), range(3, classes_n, 2), strict=False):
        constant[falling], slope[falling] = constant[rising], -slope[rising]
    return constant, slope


def altered(batch: Sequences, noise_std: float, jitter: int, generator: torch.Generator) -> Sequences:
    """The seed's augmentation (L303-305): noise on the features; a shift by up to `jitter` frames.

    The seed does not say what is shifted: here features and labels of a sequence together, the end that
    leaves coming in again at the front.

    Args:
        generator: on the device of the batch, so that noise need not travel there.
    """
    features, labels = batch
    if noise_std:
        noise = torch.randn(features.shape, generator=generator, device=features.device)
        features = features + noise_std * noise
    if jitter:
        shape, device = (len(labels), 1), labels.device
        shifts = torch.randint(-jitter, jitter + 1, shape, generator=generator, device=device)
        at = (torch.arange(labels.shape[1], device=device) + shifts).remainder(labels.shape[1])
        features = features.gather(1, at[..., None].expand_as(features))
        labels = labels.gather(1, at)
    return Sequences(features, labels)

"""Is a step over six batches of 64 the step of 384? The gradients of both, in float64."""

import torch
from torch import nn

from saistudy.training import bilstm
from saistudy.training.sequences import Sequences

# what is done -> (Dropout on, BatchNorm on the batch's own statistics, class weights, losses summed)
WAYS = {
    "as the seed writes it": (True, True, True, False),
    "without Dropout": (False, True, True, False),
    "without Dropout, BatchNorm frozen": (False, False, True, False),
    "the same, classes weighted alike": (False, False, False, False),
    "the same, weighted sums over the whole weight": (False, False, True, True),
}


def gaps(batch: Sequences, parts_n: int, network: dict, class_weights: list[float], seed: int) -> list[dict]:
    """How far the accumulated gradient is from the whole batch's, |difference| / |whole|, for each of `WAYS`.

    "As the seed writes it" (L147-155) the mean losses of the parts are divided by their number. A mean of
    weighted means is not the weighted mean where the parts hold other classes; BatchNorm normalises each part
    by itself; Dropout draws other units. Without the three nothing but rounding is left.

    Args:
        batch: the whole of it, cut into `parts_n` parts.
    """
    features, labels = batch.features.double(), batch.labels
    rows = []
    for name, (dropout, batchnorm, weighted, summed) in WAYS.items():
        model = _network(network, dropout, batchnorm, seed).to(features.device)
        weights = torch.tensor(class_weights if weighted else [1.0] * len(class_weights)).to(features)
        whole = _gradient(model, [(features, labels)], weights, summed)
        parts = zip(features.chunk(parts_n), labels.chunk(parts_n), strict=True)
        accumulated = _gradient(model, list(parts), weights, summed)
        gap = ((accumulated - whole).norm() / whole.norm()).item()
        rows.append({"step": name, "relative_gap": gap, "same": gap < 1e-9})
    return rows


def _network(network: dict, dropout: bool, batchnorm: bool, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = bilstm.ConvBiLstm(**network | ({} if dropout else {"dropout": 0.0})).double().train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.train(batchnorm)
    return model


def _gradient(model: nn.Module, parts: list, weights: torch.Tensor, summed: bool) -> torch.Tensor:
    """Gradient of all weights, flat, after one pass and backward per part."""
    model.zero_grad()
    whole = sum(weights[labels].sum() for _, labels in parts)
    for features, labels in parts:
        reduction, divisor = ("sum", whole) if summed else ("mean", len(parts))
        (bilstm.loss(model(features), labels, weights, reduction=reduction) / divisor).backward()
    return torch.cat([one.grad.flatten() for one in model.parameters()])

"""The network of seed document 002 (L163-219), its loss, its plateau and its early stop, at any size.

Three blocks of Conv1d, BatchNorm, ReLU and Dropout, a bidirectional LSTM, a linear head: a class for each
frame. At the seed's sizes it has 2,811,204 parameters, counted by hand in tests/test_large_batch.py.
"""

import torch
from torch import nn

PLATEAU = ("scheduler_factor", "scheduler_patience", "min_lr")


class ConvBiLstm(nn.Module):
    """Scores (N, frames, num_classes) of sequences float32 (N, frames, input_dim).

    The arguments carry the seed's names. Dropout stands where the seed has it: in every block, between the
    layers of the LSTM (there are none to stand between with one), and before the head.
    """

    def __init__(self, input_dim, conv_channels, lstm_hidden, lstm_layers, num_classes, dropout):
        super().__init__()
        widths = [input_dim, *conv_channels]
        pairs = zip(widths, widths[1:], strict=False)
        self.blocks = nn.Sequential(*[_block(*pair, dropout) for pair in pairs])
        between = dropout if lstm_layers > 1 else 0.0
        way = {"batch_first": True, "bidirectional": True, "dropout": between}
        self.lstm = nn.LSTM(widths[-1], lstm_hidden, lstm_layers, **way)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * lstm_hidden, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees, (N, frames, 2 lstm_hidden)."""
        return self.lstm(self.blocks(x.transpose(1, 2)).transpose(1, 2))[0]


def _block(width_in: int, width_out: int, dropout: float) -> nn.Sequential:
    convolution = nn.Conv1d(width_in, width_out, kernel_size=3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm1d(width_out), nn.ReLU(), nn.Dropout(dropout))


def loss(scores, labels, class_weights: torch.Tensor, smoothing=0.0, reduction="mean") -> torch.Tensor:
    """Weighted cross entropy over all frames of scores (N, T, C) and labels int64 (N, T).

    "mean" is torch's, the seed's: the weighted sum over the sum of the frames' weights, not over their
    number. With unequal classes it is no mean of the means of parts of a batch (see `accumulation`).

    Args:
        smoothing: label_smoothing of the seed, a fraction.
    """
    flat = scores.flatten(0, 1), labels.flatten()
    asked = {"weight": class_weights, "label_smoothing": smoothing, "reduction": reduction}
    return nn.functional.cross_entropy(*flat, **asked)


def plateau(optimizer, train: dict) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    """The seed's scheduler: the rate times `scheduler_factor` once val loss fell no more for its patience.

    Which figure it watches the seed leaves open; torch's default direction is that of a loss.
    """
    factor, patience, least = (train[key] for key in PLATEAU)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, min_lr=least
    )


def stopped(values: list[float], patience: int) -> bool:
    """Whether the highest value lies `patience` epochs back, the first of equal ones counted.

    Args:
        values: val F1 of each epoch so far, what the seed keeps its model by (L463).
        patience: 0 never stops.
    """
    return 0 < patience <= len(values) - 1 - values.index(max(values)) if values else False


def parts(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of what a training holds beside its batches, after a step: weights, gradients (one of each
    weight's size), moments (all state of the optimizer), buffers of BatchNorm; parameters_n; and
    batchnorm_bytes, weights and buffers of those layers."""
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm1d)]
    moments = [one for state in optimizer.state.values() for one in state.values()]
    weights = list(network.parameters())
    return {
        "parameters_n": sum(one.numel() for one in weights),
        "weights_bytes": size(weights),
        "gradients_bytes": size(one for one in weights if one.requires_grad),
        "moments_bytes": size(moments),
        "buffers_bytes": size(network.buffers()),
        "batchnorm_bytes": sum(size([*one.parameters(), *one.buffers()]) for one in norms),
    }


def size(tensors) -> int:
    """Bytes that tensors hold together."""
    return sum(one.numel() * one.element_size() for one in tensors)

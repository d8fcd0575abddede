"""What torch does in the cases that two of the seeds describe, tried live on a CPU.

The network is that of seed document 002 (L163-219), built from its description: what its parameters, its
checkpoint and its BatchNorm weigh follows from it alone.
"""

import io
from functools import cache

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

INPUT_N, CLASSES_N, FRAMES_N = 288, 4, 100
CHANNELS = (64, 128, 256)
HIDDEN_N, LAYERS_N = 256, 2


class ConvLstm(nn.Module):
    """Three blocks of Conv1d(3), BatchNorm and ReLU, a bidirectional LSTM of two layers, a linear head."""

    def __init__(self):
        super().__init__()
        widths = (INPUT_N, *CHANNELS)
        self.blocks = nn.Sequential(*[_block(*pair) for pair in zip(widths, widths[1:], strict=False)])
        self.lstm = nn.LSTM(CHANNELS[-1], HIDDEN_N, LAYERS_N, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN_N, CLASSES_N)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Input, features and scores of float32 (batch, frames, features)."""
        features = self.lstm(self.blocks(x.transpose(1, 2)).transpose(1, 2))[0]
        return [x, features, self.head(features)]


def _block(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(width_in, width_out, 3, padding=1), nn.BatchNorm1d(width_out), nn.ReLU())


@cache
def sizes() -> dict[str, int]:
    """Of that network after one step of AdamW: parameters_n, batchnorm_bytes (weights and statistics),
    training_bytes (gradients and moments), checkpoint_bytes (state of network and optimizer, torch.save)."""
    network = ConvLstm()
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(2, FRAMES_N, INPUT_N))[-1].sum().backward()
    optimizer.step()
    moments = [one for state in optimizer.state.values() for one in state.values()]
    norms = [one for part in network.modules() if isinstance(part, nn.BatchNorm1d) for one in _held(part)]
    file = io.BytesIO()
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
    return {
        "parameters_n": sum(p.numel() for p in network.parameters()),
        "batchnorm_bytes": _bytes(norms),
        "training_bytes": _bytes([p.grad for p in network.parameters()] + moments),
        "checkpoint_bytes": file.getbuffer().nbytes,
    }


def _held(part: nn.Module) -> list[torch.Tensor]:
    return [*part.parameters(), *part.buffers()]


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def shapes(batch: int) -> list[tuple[int, ...]]:
    """Shapes of input, features and scores of that network; nothing is computed (torch's meta device)."""
    with torch.device("meta"):
        return [tuple(one.shape) for one in ConvLstm()(torch.empty(batch, FRAMES_N, INPUT_N))]


def normalised_step(checkpointed: bool) -> tuple[torch.Tensor, int]:
    """Gradient of a fixed input after one step through a BatchNorm layer, (4, 3), and how often the step
    updated the layer's running statistics."""
    x = torch.arange(12.0).reshape(4, 3).sin().requires_grad_()
    norm = nn.BatchNorm1d(3)
    y = checkpoint(norm, x, use_reentrant=False) if checkpointed else norm(x)
    y.pow(3).sum().backward()
    return x.grad, int(norm.num_batches_tracked)


def cpu_autocast_dtype() -> str:
    """The type in which a linear layer computes on the CPU under torch's automatic mixed precision."""
    with torch.autocast("cpu"):
        return str(nn.Linear(2, 2)(torch.zeros(1, 2)).dtype).removeprefix("torch.")


def adamw_betas() -> tuple[float, float]:
    """The betas of torch's AdamW when none are given."""
    return tuple(torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).defaults["betas"])


def clipped(norm: float) -> tuple[float, float]:
    """The norm of a step's gradients before and after torch clips them at `norm`; a target of 1e6 makes the
    first one large."""
    layer, x = nn.Linear(3, 1), torch.arange(3.0).reshape(1, 3)
    nn.utils.vector_to_parameters(torch.zeros(4), layer.parameters())
    (layer(x) - 1e6).pow(2).sum().backward()
    before = nn.utils.clip_grad_norm_(layer.parameters(), norm)
    return float(before), float(nn.utils.get_total_norm([p.grad for p in layer.parameters()]))

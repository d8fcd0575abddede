"""What torch does in the cases that two of the seeds describe, tried live on a CPU.

The network is that of seed document 002 (`bilstm`): what its parameters, its checkpoint and its BatchNorm
weigh follows from its description alone.
"""

import io
from functools import cache

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from saistudy.training import bilstm

INPUT_N, CLASSES_N, FRAMES_N = 288, 4, 100
CHANNELS = (64, 128, 256)
HIDDEN_N, LAYERS_N, DROPOUT = 256, 2, 0.3


def network() -> bilstm.ConvBiLstm:
    """That network as the seed sizes it."""
    return bilstm.ConvBiLstm(INPUT_N, CHANNELS, HIDDEN_N, LAYERS_N, CLASSES_N, DROPOUT)


@cache
def sizes() -> dict[str, int]:
    """Of that network after one step of AdamW: parameters_n, batchnorm_bytes (weights and statistics),
    training_bytes (gradients and moments), checkpoint_bytes (state of network and optimizer, torch.save)."""
    built = network()
    optimizer = torch.optim.AdamW(built.parameters())
    built(torch.zeros(2, FRAMES_N, INPUT_N)).sum().backward()
    optimizer.step()
    parts, file = bilstm.parts(built, optimizer), io.BytesIO()
    torch.save({"model": built.state_dict(), "optimizer": optimizer.state_dict()}, file)
    return {
        "parameters_n": parts["parameters_n"],
        "batchnorm_bytes": parts["batchnorm_bytes"],
        "training_bytes": parts["gradients_bytes"] + parts["moments_bytes"],
        "checkpoint_bytes": file.getbuffer().nbytes,
    }


def shapes(batch: int) -> list[tuple[int, ...]]:
    """Shapes of input, features and scores of that network; nothing is computed (torch's meta device)."""
    with torch.device("meta"):
        built, x = network(), torch.empty(batch, FRAMES_N, INPUT_N)
        features = built.features(x)
        return [tuple(one.shape) for one in (x, features, built.head(features))]


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

"""Activations that are computed again instead of kept, and a count of what a step keeps.

Ultralytics' networks hold a sequence of layers with their wiring in attributes (`f`, `i`), which its forward
pass reads: a wrapper that carries those on takes a layer's place without anything being patched.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

WIRING = ("f", "i", "type", "np")


class Checkpointed(nn.Module):
    """A layer whose inner activations are dropped after the forward pass and computed again in backward."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        for name in WIRING:
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))

    def forward(self, x):
        """What the layer gives, for a tensor or a list of tensors."""
        if not (self.training and torch.is_grad_enabled()):
            return self.layer(x)
        return checkpoint(self.layer, x, use_reentrant=False)


def wrap(layers: nn.Sequential) -> int:
    """Checkpoint every layer with weights but the last, the head; how many that were."""
    chosen = [i for i, layer in enumerate(layers[:-1]) if next(layer.parameters(), None) is not None]
    for i in chosen:
        layers[i] = Checkpointed(layers[i])
    return len(chosen)


def updates(network: nn.Module) -> list[int]:
    """How often each BatchNorm layer has updated its running statistics, in order."""
    return [int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def momentum_of(updates_n: int, momentum: float) -> float:
    """The momentum of one update that does what `updates_n` with the same batch do: 1 - (1 - m)^n.

    BatchNorm keeps (1 - m) of its running statistic at each update (torch.nn.BatchNorm2d); ten updates of a
    batch that is drawn anew are something else.
    """
    return 1 - (1 - momentum) ** updates_n


class Kept:
    """Bytes that a forward pass keeps for the backward pass, weights and buffers of the network left out.

    Counted by torch.autograd.graph.saved_tensors_hooks, every storage once, as large as it is. It is no
    peak: what backward itself takes, the optimizer's state, gradients and what an allocator holds in reserve
    are not in it. A layer computed again is counted by what was kept of it, its input.
    """

    def __init__(self, network: nn.Module):
        own = [*network.parameters(), *network.buffers()]
        self.own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self.storages: dict[int, int] = {}
        self.held: list[torch.Tensor] = []
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.storages[storage.data_ptr()] = storage.nbytes()
            self.held.append(tensor.detach())  # an address that was freed could be given out again
        return tensor

    def __enter__(self):
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)
        self.held.clear()

    @property
    def bytes(self) -> int:
        """Sum over storages."""
        return sum(self.storages.values())

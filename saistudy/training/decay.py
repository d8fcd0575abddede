"""Layer-wise learning rate decay: the nearer a layer stands to the image, the smaller its learning rate.

Howard and Ruder, "Universal Language Model Fine-tuning" (ACL 2018, section 3.1, discriminative fine-tuning);
seed document 004 offers it as `--llrd` with the rate 0.9 (L107-108). Stock Ultralytics 8.4.190 has no such
argument. Built upon its public `build_optimizer`; nothing is patched.
"""

import re
from collections import defaultdict

from torch import nn
from torch.optim import Optimizer
from ultralytics.utils.torch_utils import unwrap_model

from saistudy.paths import Refusal

LAYER = re.compile(r"model\.(\d+)\.")  # how Ultralytics names the parameters of layer i of a model yaml


class LayerDecay:
    """Mixin before a trainer class: the lr of layer i is the stock one times `llrd_rate ** (last - i)`.

    The last layer, the detection head, keeps lr0: it comes first within each kind of parameter, so that
    `lr/pg0` of results.csv is its. Weight decay, momentum and warm-up are stock's: the biases of all layers
    come down from `warmup_bias_lr`, the others rise from 0, to where their own schedule has got.
    """

    llrd_rate: float = 1.0

    def build_optimizer(self, model, *args, **kwargs) -> Optimizer:
        """The stock optimizer, untouched at rate 1, else with its groups split by layer.

        Raises:
            Refusal: the rate is not above 0 and at most 1, or a parameter belongs to no layer.
        """
        if not 0 < self.llrd_rate <= 1:
            raise Refusal(
                f"llrd_rate is {self.llrd_rate!r}, a number above 0 and at most 1 was expected: write 0.9,"
                " or 1.0 for one learning rate everywhere."
            )
        optimizer = super().build_optimizer(model, *args, **kwargs)
        if self.llrd_rate != 1:
            split(optimizer, unwrap_model(model), self.llrd_rate)
        return optimizer


def split(optimizer: Optimizer, model: nn.Module, rate: float) -> None:
    """Split each group of a fresh optimizer by layer, last first; lr of layer i times rate ** (last - i).

    Every other key of a group is kept: `param_group` tells Ultralytics whose weight decay to set and whose
    warm-up starts high. The scheduler, built afterwards, takes `initial_lr` from the new lr.

    Raises:
        Refusal: a parameter is not named after a layer.
    """
    layers = layer_indices(model)
    stock, last = optimizer.param_groups[:], len(model.model) - 1
    optimizer.param_groups.clear()
    for group in stock:
        parts = defaultdict(list)
        for parameter in group["params"]:
            parts[layers[parameter]].append(parameter)
        for i in sorted(parts, reverse=True):
            optimizer.add_param_group(group | {"params": parts[i], "lr": group["lr"] * rate ** (last - i)})


def layer_indices(model: nn.Module) -> dict[nn.Parameter, int]:
    """The index in the model yaml of the layer that each parameter belongs to.

    Raises:
        Refusal: a parameter is not named after a layer.
    """
    found = {}
    for name, parameter in model.named_parameters():
        if not (match := LAYER.match(name)):
            raise Refusal(
                f"parameter {name} belongs to no layer, model.<number>. was expected: train"
                f" {type(model).__name__} with llrd_rate 1.0."
            )
        found[parameter] = int(match[1])
    return found

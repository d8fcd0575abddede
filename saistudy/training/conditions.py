"""What a trainer really does, read back from its objects, beside what it was asked to do."""

import torch
from ultralytics.data.augment import CopyPaste
from ultralytics.utils import DEFAULT_CFG

from saistudy.paths import Refusal
from saistudy.training.dataset import mosaic, walk


def read_back(trainer) -> dict:
    """The conditions of a trainer that has built model, loaders and optimizer, before its first step.

    Keys are Ultralytics' argument names where it has one; `weight_decay` and `lr0` are those of the
    optimizer's groups (stock scales weight decay by batch * accumulate / nbs), `copy_paste` is 0 where the
    labels carry no polygons (stock then returns at once), `imgsz` is the tensor [height, width] in pixels.
    `input` is the way the images come (training.feed), which changes no bit of them.
    `mosaic_epochs_n` are the first epochs, those that are planned with mosaic (`planned_mosaic`).
    `groups` has a row per group of the optimizer; their learning rates over time are results.csv's `lr/pg*`.
    """
    groups = trainer.optimizer.param_groups
    dataset = trainer.train_loader.dataset
    transforms = list(walk(dataset.transforms))
    args = trainer.args
    return {
        "imgsz": list(getattr(trainer, "hw", None) or (int(args.imgsz), int(args.imgsz))),
        "batch": int(trainer.train_loader.batch_size),
        "accumulate": int(trainer.accumulate),
        "nbs": int(args.nbs),
        "optimizer": type(trainer.optimizer).__name__,
        "lr0": float(_main(groups)["initial_lr"]),
        "groups": [_group(group) for group in groups],
        "momentum": _momentum(groups[0], args),
        "weight_decay": float(max(group["weight_decay"] for group in groups)),
        **_mosaic(trainer),
        "mixup": float(args.mixup),
        "copy_paste": max(
            (float(t.p) for t in transforms if isinstance(t, CopyPaste) and _has_polygons(dataset)),
            default=0.0,
        ),
        "amp": args.amp if trainer.amp and isinstance(args.amp, str) else bool(trainer.amp),
        "deterministic": bool(args.deterministic and torch.are_deterministic_algorithms_enabled()),
        "workers": int(trainer.train_loader.num_workers),
        "input": getattr(dataset, "input", "stock"),
        "seed": int(args.seed),
        "epochs": int(trainer.epochs),
        "patience": int(args.patience),
        "single_cls": bool(args.single_cls),
        "cos_lr": bool(args.cos_lr),
        "close_mosaic": int(args.close_mosaic),
        "warmup_epochs": float(args.warmup_epochs),
        "device": str(trainer.device),
        "images_n": len(dataset),
        "val_images_n": len(trainer.test_loader.dataset),
        "names": {str(k): v for k, v in trainer.data["names"].items()},
    }


def _main(groups: list[dict]) -> dict:
    """The group whose learning rate is called lr0: the first, which is the head's under layer-wise decay.

    MuSGD's first is empty where every weight is a matrix, and two of its groups have thrice the rate.
    """
    return groups[0] if groups[0]["params"] else max(groups, key=lambda group: len(group["params"]))


def _momentum(group: dict, args) -> float:
    """The momentum that acts: a warm-up ends at the argument's, whatever the optimizer was built with.

    In its midst, where a resume may begin, the group holds a lower one. Adam's first beta has no warm-up.
    """
    if "momentum" in group and args.warmup_epochs > 0:
        return float(args.momentum)
    return float(group.get("momentum", group.get("betas", [0])[0]))


def _group(group: dict) -> dict:
    """Kind of parameters (weight, bn, bias), tensors, first learning rate, weight decay in effect."""
    return {
        "kind": group.get("param_group", "weight"),
        "tensors_n": len(group["params"]),
        "lr0": float(group["initial_lr"]),
        "weight_decay": float(group["weight_decay"]),
    }


def _mosaic(trainer) -> dict:
    """Its probability as built, and in how many epochs it is planned."""
    seen = {"mosaic": mosaic(trainer.train_loader.dataset)}
    epochs = range(1, trainer.epochs + 1)
    open_n = sum(planned_mosaic(vars(trainer.args) | seen, epoch) > 0 for epoch in epochs)
    return seen | {"mosaic_epochs_n": open_n}


def planned_mosaic(requested: dict, epoch: int) -> float:
    """Probability of mosaic in an epoch (from 1): `mosaic` until `epochs` - `close_mosaic`, then 0."""
    asked = with_defaults(requested)
    closed = asked["close_mosaic"] and epoch > asked["epochs"] - asked["close_mosaic"]
    return 0.0 if closed else float(asked["mosaic"])


def refuse_mosaic(trainer, requested: dict, declared: list[dict]) -> list[dict]:
    """The declared difference of mosaic, where it occurred in the epoch that a trainer has come to.

    Raises:
        Refusal: its probability is neither the planned one nor declared.
    """
    epoch = trainer.epoch + 1
    plan, seen = planned_mosaic(requested, epoch), mosaic(trainer.train_loader.dataset)
    return refuse_undeclared({"mosaic": plan}, {"mosaic": seen}, declared, f" in epoch {epoch}")


def _has_polygons(dataset) -> bool:
    """Whether any label of the data set carries a polygon."""
    return any(len(label["segments"]) for label in dataset.labels)


def differences(requested: dict, effective: dict) -> dict:
    """Keys whose effective value is not the requested one: {key: (requested, effective)}.

    An integer `imgsz` s asks for the tensor [s, s]; floats may differ by 1e-9 of themselves.
    """
    found = {}
    for key in requested.keys() & effective.keys() - {"device"}:
        asked, got = requested[key], effective[key]
        if key == "imgsz" and isinstance(asked, int):
            asked = [asked, asked]
        numbers = isinstance(asked, int | float) and isinstance(got, int | float)
        if not (abs(asked - got) <= 1e-9 * abs(asked) if numbers else asked == got):
            found[key] = (asked, got)
    return found


def with_defaults(train: dict) -> dict:
    """What a run asks for: its own arguments, and Ultralytics' default of each condition that it leaves out.

    Left out of the defaults is what Ultralytics chooses by itself: optimizer, AMP, workers and device.
    """
    chosen = {"optimizer", "amp", "workers", "device"}
    return {k: v for k, v in vars(DEFAULT_CFG).items() if k not in chosen} | train


def refuse_undeclared(requested: dict, effective: dict, declared: list[dict], when: str = "") -> list[dict]:
    """The declared differences that occurred: [{key, requested, value, reason}].

    Args:
        declared: the params file's `effective` list of {key, value, reason}.
        when: " in epoch 3", where it is not before the first one.

    Raises:
        Refusal: a difference is not declared, or declared with another value.
    """
    known = {entry["key"]: entry for entry in declared}
    occurred = []
    for key, (asked, got) in sorted(differences(with_defaults(requested), effective).items()):
        if key not in known or differences({key: known[key]["value"]}, {key: got}):
            raise Refusal(
                f"{key} was requested as {asked} but is {got} in effect{when}: correct the parameters, or"
                f" declare the difference under `effective:` with key {key}, value {got} and the reason."
            )
        occurred.append({"requested": asked, **known[key]})
    return occurred

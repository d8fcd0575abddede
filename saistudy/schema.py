"""What each notebook may be told: one model per notebook."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Arguments = dict[str, Any]


def _ascending(patiences: list[int]) -> list[int]:
    if any(late <= early for early, late in zip(patiences, patiences[1:], strict=False)):
        raise ValueError("an ascending list was expected: the last one is trained")
    return patiences


Patiences = Annotated[list[Count], Field(min_length=1), AfterValidator(_ascending)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Notebook(_Strict):
    """What every notebook takes: the profile, which is part of a run's identity."""

    profile: Literal["demo", "mini", "h200"]


class Effective(_Strict):
    """A declared difference between an argument as requested and as it acts, with its reason."""

    key: str
    value: Any
    reason: Annotated[str, Field(min_length=1)]


class Data(Notebook):
    """Parameters of `data`: what the twins are (images, cameras, size, faults), images without boxes kept?"""

    fasdd_n: Count
    pyrosdis_n: Count
    cameras_n: Count
    twin_size: Literal["small", "published"]
    faults: Literal["none", "published", "all"]
    twin_seed: Natural
    negatives: bool


class SetupShm(Notebook):
    """Parameters of `setup-shm`: where to stage, the loader that must fit beside, what is measured."""

    target: str
    reserve_gib: Annotated[float, Field(ge=0)]
    workers: Natural
    batch: Count
    imgsz: Count
    prefetch: Count
    measured_px: Count
    images_n: Count
    batches_n: Count
    passes_n: Annotated[int, Field(ge=2)]
    workers_tried: Annotated[list[Natural], Field(min_length=1)]
    train: Arguments


Side = Annotated[int, Field(ge=32)]
Tensor = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]


class _Trained(Notebook):
    arm: Name
    change: Arguments
    seed: Natural
    patiences: Patiences
    eval_sizes: list[Tensor]
    train: Arguments
    effective: list[Effective]
    exact: bool
    oom_recovery: bool
    durable_dir: str


class Stage1(_Trained):
    """Parameters of `stage1`: `change` is laid over `train`; both go verbatim to Ultralytics."""

    question: str
    engine: Literal["rect", "stock"]
    dataset: Literal["fasdd_cv", "fasdd_cv-disjoint"]
    weights: str
    weights_sha256: Sha256
    negatives: bool


class Stage2(_Trained):
    """Parameters of `stage2`: once per class handling, from the weights of stage 1; the arm of stage 2."""

    stage2_arm: Name
    question: str
    frames_per_day: Annotated[float, Field(gt=0)]
    alarm_budgets: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
    handlings: Annotated[list[Literal["named", "single_cls", "joint"]], Field(min_length=1)]
    dataset: Literal["pyro-sdis", "pyro-sdis-disjoint"]


class Ablation(Notebook):
    """Parameters of `ablation`: pairs of arms beside the family, the bootstrap; prereg.yaml has the rule."""

    pairs: list[Annotated[list[Name], Field(min_length=2, max_length=2)]]
    resamples_n: Count
    bootstrap_seed: Natural


class Finetune(Notebook):
    """Parameters of `finetune`: seed document 004's options under its names, and Ultralytics' in `train`."""

    output: Name
    data: str
    model: str
    model_sha256: Sha256
    seed: Natural
    preset: Literal["", "competition"]
    tier: Literal["auto", "cpu", "low", "medium", "high", "workstation", "h200"]
    auto_scale: bool
    fast: bool
    oom_recovery: bool
    resume: bool
    validate_only: bool
    export: Literal["", "onnx"]
    llrd: bool
    llrd_rate: Annotated[float, Field(gt=0, le=1)]
    dynamic_synthetic: bool
    backgrounds_dir: str
    annotated_dir: str
    synthetic_ratio: Annotated[float, Field(gt=0)]
    tensorboard: bool
    tensorboard_port: Annotated[int, Field(ge=1, le=65535)]
    patiences: Patiences
    exact: bool
    durable_dir: str
    train: Arguments
    effective: list[Effective]


class Claims(Notebook):
    """Parameters of `claims`: the claims of which seed, of which verdict, are shown; all are written."""

    shown_seed: Literal["all", "seed-000", "seed-001", "seed-002", "seed-003", "seed-004", "repo"]
    shown_verdict: Literal[
        "all", "holds", "fails", "contradicted within the seeds", "not yet measured", "not measurable"
    ]


MODELS: dict[str, type[Notebook]] = {
    "data": Data,
    "setup-shm": SetupShm,
    "stage1": Stage1,
    "stage2": Stage2,
    "ablation": Ablation,
    "claims": Claims,
    "finetune": Finetune,
}

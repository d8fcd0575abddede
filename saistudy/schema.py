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
    input: Literal["stock", "store", "deferred"]
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


class Network(_Strict):
    """The seed's network of `large-batch`, its names; sizes of layers."""

    input_dim: Count
    conv_channels: Annotated[list[Count], Field(min_length=1)]
    lstm_hidden: Count
    lstm_layers: Count
    num_classes: Annotated[int, Field(ge=2)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Task(_Strict):
    """The generated sequences of `large-batch`: frames, signal in standard deviations of the noise."""

    sequence_length: Annotated[int, Field(ge=2)]
    signal: Annotated[float, Field(gt=0)]
    task_seed: Natural


class Recipe(_Strict):
    """The seed's training of `large-batch`, its names, and what it leaves open."""

    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_epochs: Natural
    epochs: Count
    epochs_most: Count
    weight_decay: Annotated[float, Field(ge=0)]
    grad_clip: Annotated[float, Field(gt=0)]
    class_weights: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    scheduler_patience: Natural
    scheduler_factor: Annotated[float, Field(gt=0, lt=1)]
    min_lr: Annotated[float, Field(ge=0)]
    noise_std: Annotated[float, Field(ge=0)]
    temporal_jitter: Natural
    save_freq: Count
    early_stopping_patience: Natural
    diverged_factor: Annotated[float, Field(gt=1)]


def _from_none(warmups: list[int]) -> list[int]:
    if 0 not in warmups:
        raise ValueError("a list with 0 was expected: what a warm-up does is seen beside none")
    return warmups


Seeds = Annotated[list[Natural], Field(min_length=2)]


class LargeBatch(Notebook):
    """Parameters of `large-batch`: network and training of seed 002, the grid, its rule, what is timed."""

    device: Literal["cpu", "cuda"]
    network: Network
    task: Task
    train_n: Count
    val_n: Count
    test_n: Annotated[int, Field(ge=20)]
    base_batch: Count
    base_lr: Annotated[float, Field(gt=0)]
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    warmups: Annotated[list[Natural], Field(min_length=1), AfterValidator(_from_none)]
    train: Recipe
    seeds: Seeds
    decided_seeds: Seeds
    margin: Annotated[float, Field(gt=0)]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    resamples_n: Count
    memory_limit_gib: Annotated[float, Field(ge=0)]
    most_n: Count
    timed_batches: Annotated[list[Count], Field(min_length=1)]
    timed_steps_n: Annotated[int, Field(ge=2)]
    precisions: Annotated[list[Literal["float32", "bfloat16", "float16"]], Field(min_length=1)]
    price_per_h: Annotated[float, Field(ge=0)]
    prices: dict[str, Annotated[float, Field(ge=0)]]


class Gate(Notebook):
    """Parameters of `gate`: seed document 003's test, and the thresholds that decide GO or NO-GO."""

    batch: Count
    accumulation: Count
    workers: Natural
    lr0: Annotated[float, Field(ge=0, le=1)]
    seed: Natural
    steps_n: Annotated[int, Field(ge=2)]
    step: Literal["update", "batch"]
    mean_n: Annotated[int, Field(ge=2)]
    warmup_n: Natural
    profiled_n: Natural
    passes_n: Count
    batches_n: Count
    images_n: Count
    loader_images_per_s_min: Annotated[float, Field(ge=0)]
    loss_fall_min: float
    loss_fall_se_min: float
    minutes_max: Annotated[float, Field(gt=0)]
    gpu_util_min: Annotated[float, Field(ge=0, le=1)]
    gpu_memory_frac_max: Annotated[float, Field(gt=0, le=1)]


Measured = Literal["classifier", "yolov8n", "yolov8s", "yolov8m"]


class Throughput(Notebook):
    """Parameters of `throughput`: networks and their batch, sizes, passes, what is compiled, the lessons."""

    device: Literal["cpu", "cuda"]
    networks: Annotated[dict[Measured, Count], Field(min_length=1)]
    side_px: Side
    classifier_px: Annotated[int, Field(ge=16)]
    stored_px: Annotated[int, Field(ge=16)]
    width: Count
    blocks_n: Count
    images_n: Count
    workers: Count
    passes_n: Annotated[int, Field(ge=2)]
    steps_n: Count
    epochs_n: Annotated[int, Field(ge=2)]
    combined: list[
        Literal["AMP float16", "AMP bfloat16", "compile", "channels-last", "parallel loading", "cache"]
    ]
    compile_networks: list[Measured]
    compile_backend: Literal["inductor", "aot_eager"]
    recipe_batch: Annotated[int, Field(ge=2)]
    modern_batch: Count
    train_n: Count
    test_n: Annotated[int, Field(ge=20)]
    lesson_px: Annotated[int, Field(ge=16)]
    lesson_epochs: Count
    lesson_batch: Count
    seeds: Annotated[list[Natural], Field(min_length=2)]
    margin: Annotated[float, Field(gt=0)]
    resamples_n: Count


class Claims(Notebook):
    """Parameters of `claims`: the claims of which seed, of which verdict, are shown; all are written."""

    shown_seed: Literal["all", "seed-000", "seed-001", "seed-002", "seed-003", "seed-004", "repo"]
    shown_verdict: Literal[
        "all", "holds", "fails", "contradicted within the seeds", "not yet measured", "not measurable"
    ]


class Explore(Notebook):
    """Parameters of `explore`: the run that is looked at first, another beside it, one of fixed cameras."""

    run: Name
    against: Name
    filmed: Name
    split: Literal["val", "test"]


MODELS: dict[str, type[Notebook]] = {
    "data": Data,
    "setup-shm": SetupShm,
    "stage1": Stage1,
    "stage2": Stage2,
    "ablation": Ablation,
    "claims": Claims,
    "finetune": Finetune,
    "throughput": Throughput,
    "gate": Gate,
    "large-batch": LargeBatch,
    "explore": Explore,
}

"""The accelerators of seed document 001 as switches of one setting, and what each changes."""

from dataclasses import dataclass, replace

NO_GPU = "not applicable: no GPU"
NOT_COMPILED = "not measured: this profile does not compile this network"
FAILURES = (RuntimeError, TypeError)  # in which torch says that it lacks memory, a kernel or a compiler


def not_measured(error: Exception) -> str:
    """The first line of what torch said, in a readable length."""
    lines = str(error).strip().splitlines() or ["without a word"]
    return f"not measured: {type(error).__name__}, {lines[0][:160]}"


@dataclass(frozen=True)
class Setting:
    """How a network is fed and stepped; the defaults are a training without any accelerator.

    batch: images a step. precision: float32, or what autocast computes in. compiled: torch.compile's back
    end, empty for none. accumulate: parts that a batch is split into. sum_in_place: of the classifier's
    blocks. The rest are torch.utils.data.DataLoader's; prefetch counts batches a worker.
    """

    batch: int = 16
    precision: str = "float32"
    compiled: str = ""
    channels_last: bool = False
    checkpointed: bool = False
    accumulate: int = 1
    sum_in_place: bool = False
    workers: int = 0
    prefetch: int = 2
    persistent: bool = False
    pinned: bool = False
    non_blocking: bool = False
    cached: bool = False

    def but(self, changes: dict) -> "Setting":
        """The setting with some switches changed."""
        return replace(self, **changes)


def step_factors(backend: str) -> dict[str, dict]:
    """Name of each factor of the step itself to what it changes.

    Args:
        backend: torch.compile's: inductor generates code; aot_eager traces and generates none.
    """
    return {
        "AMP float16": {"precision": "float16"},
        "AMP bfloat16": {"precision": "bfloat16"},
        "compile": {"compiled": backend},
        "channels-last": {"channels_last": True},
        "checkpointing": {"checkpointed": True},
        "accumulation": {"accumulate": 2},
    }


def feed_factors(workers: int, gpu: bool) -> dict[str, tuple[dict, dict]]:
    """Name of each factor of the feed to (what its base has, what it changes besides).

    Prefetch, persistence and pinning do nothing without workers, so their base has workers. "parallel
    loading" is the seed's as a whole (L66-75).
    """
    several = {"workers": workers}
    whole = several | {"prefetch": 2, "persistent": True, "pinned": gpu, "non_blocking": gpu}
    return {
        "workers": ({}, several),
        "prefetch": (several | {"prefetch": 1}, {"prefetch": 2}),
        "persistent workers": (several, {"persistent": True}),
        "pin memory": (several, {"pinned": True}),
        "non-blocking copies": (several | {"pinned": True}, {"non_blocking": True}),
        "parallel loading": ({}, whole),
        "cache": ({}, {"cached": True}),
        "sum in place": ({}, {"sum_in_place": True}),
    }


def recipes(backend: str, gpu: bool, batch: int, modern_batch: int) -> dict[str, dict]:
    """The four hardware recipes of seed document 001 (L211-268): everything that each switches on.

    Where nothing is switched off by name, what the seed calls automatic is on: on a GPU precision, compiling,
    channels-last and two workers; the cache and parallel loading always.
    """
    always = {"compiled": backend, "cached": True, "prefetch": 2, "persistent": True}
    on_gpu = always | {"workers": 2, "pinned": True, "non_blocking": True, "channels_last": True}
    return {
        "CPU": always | {"workers": 4, "batch": batch},
        "GPU below 4 GB": on_gpu | {"precision": "float16", "checkpointed": True, "batch": batch // 2},
        "modern GPU": on_gpu | {"precision": "float16", "batch": modern_batch},
        "old GPU": on_gpu | {"batch": batch},
    }


def applicable(changes: dict, gpu: bool, compiles: bool) -> tuple[dict, dict[str, str]]:
    """The changes that this machine can make, and why not the others: (changes, {switch: reason}).

    Args:
        compiles: whether this run compiles the network at hand.
    """
    why = {key: NO_GPU for key in ("pinned", "non_blocking") if changes.get(key) and not gpu}
    if changes.get("compiled") and not compiles:
        why["compiled"] = NOT_COMPILED
    return {key: value for key, value in changes.items() if key not in why}, why

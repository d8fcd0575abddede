"""Checks against torch and the network that seed document 002 describes, built and tried live on the CPU."""

from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.rows import Claim, Ledger
from saistudy.training import described

SOURCE = "torch and the network of seed 002, tried live"
NETWORK = "the network as L163-219 describe it, one step of AdamW, nothing else"


def described_network(claim: Claim, _: Ledger) -> Finding:
    """A size of seed 002's network, in the unit that the claim's `per` makes of bytes or counts."""
    what, per = claim.said["what"], claim.figures()["per"]
    return Finding(described.sizes()[what] / per, f"torch, tried live: {what}", NETWORK)


def described_shapes(claim: Claim, _: Ledger) -> Finding:
    """Shapes of input, features and scores of seed 002's network."""
    shapes = described.shapes(int(claim.said["batch"]))
    text = "->".join("(" + ",".join(map(str, shape)) + ")" for shape in shapes)
    return Finding(
        text, "torch, tried live: shapes on the meta device", "the network as L163-219 describe it"
    )


def checkpoint_updates(_: Claim, __: Ledger) -> Finding:
    """Updates of BatchNorm's statistics in a checkpointed step beyond those in a plain one."""
    (plain, once_n), (saved, twice_n) = map(described.normalised_step, (False, True))
    how = f"torch, tried live: {once_n} update in a plain step, {twice_n} in a checkpointed one"
    same = "equal" if bool((plain == saved).all()) else "not equal"
    return Finding(twice_n - once_n, how, f"of BatchNorm's running statistics; the gradients are {same}")


def cpu_autocast(_: Claim, __: Ledger) -> Finding:
    """The type that a linear layer computes in under automatic mixed precision on a CPU."""
    return Finding(described.cpu_autocast_dtype(), "torch, tried live: autocast on the CPU", "a linear layer")


def adamw_betas(_: Claim, __: Ledger) -> Finding:
    """torch's defaults of AdamW's betas: what equals them cannot be faster than they are."""
    why = "a default is no improvement over itself; what other betas would do is not said"
    return Finding(described.adamw_betas(), "torch, tried live: defaults of AdamW", why, refutes=True)


def clipped_norm(claim: Claim, _: Ledger) -> Finding:
    """The norm of a step's gradients after clipping at `said` norm, where it was far larger before."""
    before, after = described.clipped(claim.figures()["norm"])
    how = f"torch, tried live: a gradient of norm {before:.3g} clipped"
    return Finding(after, how, "of one step; that the rate is then right is not said")


CHECKS = {
    f.__name__: f
    for f in (
        *(
            described_network,
            described_shapes,
            checkpoint_updates,
            cpu_autocast,
            adamw_betas,
            clipped_norm,
        ),
    )
}

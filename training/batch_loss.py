"""What a step minimises: the parts of the loss, weighed as the run's settings say. Written with `keras.ops` alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from training.losses import cross_entropy, dice_loss, dice_parts, slab_dice_loss
from training.settings import OptimiserSettings
from training.weak_labels import known_logits, weak_loss

FIGURES = ("loss", "cross_entropy", "dice_loss", "slab_dice_loss", "weak_loss")


def batch_loss(
    logits: Any,
    blood: Any,
    truth: Any | None,
    weights: OptimiserSettings,
    added_up: Callable[[Any], Any] = lambda parts: parts,
) -> Any:
    """Give the loss of a batch and its parts, as `FIGURES` names them: (5,).

    Args:
        logits: (N, Y, X).
        blood: (N, Y, X) share of each voxel.
        truth: (N,) what is known of each slab, or None where all voxels are.
        weights: of the parts.
        added_up: gives the sum over all replicas of the parts of Dice, which is no mean over slabs.
    """
    nothing = ops.zeros((), logits.dtype)
    weak = nothing if truth is None else weak_loss(logits, truth)
    logits = logits if truth is None else known_logits(logits, truth)
    entropy = cross_entropy(logits, blood)
    dice = dice_loss(added_up(dice_parts(logits, blood)))
    slab_dice = slab_dice_loss(logits, blood) if weights.slab_dice_weight else nothing
    loss = (
        weights.cross_entropy_weight * entropy
        + weights.dice_weight * dice
        + weights.slab_dice_weight * slab_dice
        + weights.weak_weight * weak
    )
    return ops.stack([loss, entropy, dice, slab_dice, weak])

"""The loss: soft Dice over the whole batch and of each slab, and cross-entropy over voxels; all know empty slabs.

The batch's Dice is ruled by large bleeds; a slab's Dice makes a thin one count as much. Dice of a batch is not a mean
over slabs, so replicas first add up their parts (`dice_parts`) and only then divide: the loss of a global batch is the
same however many replicas share it. Written with `keras.ops` alone.
"""

from __future__ import annotations

from typing import Any

from keras import ops

DICE_SMOOTHING = 50.0  # voxels, 0.4 mL: a nearly bloodless batch is not ruled by a handful of voxels
SLAB_SMOOTHING = 20.0  # voxels, 0.16 mL: false alarms of this size cost an empty slab half of its Dice


def cross_entropy(logits: Any, blood: Any) -> Any:
    """Give the mean binary cross-entropy; `blood` is the share of each voxel, 0 to 1."""
    return ops.mean(ops.relu(logits) - logits * blood + ops.log1p(ops.exp(-ops.abs(logits))))


def dice_parts(logits: Any, blood: Any) -> Any:
    """Give overlap, suspected and true voxels of a batch: (3,), to be added up over replicas."""
    probability = ops.sigmoid(logits)
    return ops.stack([ops.sum(probability * blood), ops.sum(probability), ops.sum(blood)])


def dice_loss(parts: Any) -> Any:
    """Give one minus the soft Dice of all parts together; an empty slab adds only its false alarms."""
    return 1.0 - (2.0 * parts[0] + DICE_SMOOTHING) / (parts[1] + parts[2] + DICE_SMOOTHING)


def slab_dice_loss(logits: Any, blood: Any) -> Any:
    """Give one minus the soft Dice of each slab, their mean; an empty slab loses by its false alarms."""
    probability = ops.sigmoid(logits)
    overlap = ops.sum(probability * blood, axis=(1, 2))
    both = ops.sum(probability, axis=(1, 2)) + ops.sum(blood, axis=(1, 2))
    return ops.mean(1.0 - (2.0 * overlap + SLAB_SMOOTHING) / (both + SLAB_SMOOTHING))

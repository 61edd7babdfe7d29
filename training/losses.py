"""The loss: soft Dice over the whole batch and cross-entropy over voxels, both at home with slabs without blood.

Dice is not a mean over slabs, so replicas first add up their parts (`dice_parts`) and only then divide: the loss of
a global batch is the same however many replicas share it. Written with `keras.ops` alone.
"""

from __future__ import annotations

from typing import Any

from keras import ops

DICE_SMOOTHING = 50.0  # voxels, 0.4 mL: a nearly bloodless batch is not ruled by a handful of voxels


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

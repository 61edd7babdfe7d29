"""Learning from labels that say less than a mask: which slab, or only which study, shows blood.

A slab of a bleed-free slice or study needs nothing here: each of its voxels is known to be no blood. Of a slab that
is said to show blood, the most suspicious voxels together must be suspicious; of the slabs of bleeding studies, the
most suspicious slab. Their other voxels are unknown and teach nothing. Written with `keras.ops` alone.

Reference:
    Ilse M. et al., "Attention-based Deep Multiple Instance Learning", ICML 2018, for bags and their pooling.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from keras import ops

from training.head_spaces import BoolField
from training.labelled_scan import LabelledSlabs, LabelStrength

VOXELS_KNOWN, SLAB_BLEEDS, STUDY_BLEEDS = 0, 1, 2  # what is known of a slab, as it is stored with it
TOP_SHARE = 0.002  # of a slab's voxels: about 60 of 176 x 160, 0.5 mL; one voxel alone would learn from noise
BAG_TARGET = 0.9  # a few slabs of a bleeding study may all lie beside its blood
CERTAIN = -30.0  # logit of what is known to be no blood: its loss and gradient are nothing

Pooling = Literal["top", "max", "mean"]


def truth_codes(scan: LabelledSlabs) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Give what is known of each slab of a scan: (Z,) `VOXELS_KNOWN`, `SLAB_BLEEDS` or `STUDY_BLEEDS`."""
    slabs = len(scan.hu)
    if scan.strength is LabelStrength.VOXELS or not scan.bleed:
        return np.full(slabs, VOXELS_KNOWN, np.int32)
    if scan.strength is LabelStrength.STUDY:
        return np.full(slabs, STUDY_BLEEDS, np.int32)
    shown: BoolField = scan.slab_labels
    return np.where(shown, SLAB_BLEEDS, VOXELS_KNOWN).astype(np.int32)


def pooled_logits(logits: Any, pooling: Pooling = "top") -> Any:
    """Give one logit a slab: (N,) from (N, Y, X).

    Args:
        logits: of voxels.
        pooling: mean of the `TOP_SHARE` most suspicious voxels, the most suspicious one, or the mean of all.
    """
    flat = ops.reshape(logits, (ops.shape(logits)[0], -1))
    if pooling == "mean":
        return ops.mean(flat, axis=1)
    if pooling == "max":
        return ops.max(flat, axis=1)
    count = max(1, round(TOP_SHARE * logits.shape[1] * logits.shape[2]))
    return ops.mean(ops.top_k(flat, k=count)[0], axis=1)


def known_logits(logits: Any, truth: Any) -> Any:
    """Give the logits with all voxels of slabs without voxel truth made certain: they add nothing to a voxel loss.

    Args:
        logits: (N, Y, X); the blood of such slabs is given as 0.
        truth: (N,) what is known of each slab.
    """
    known = ops.equal(truth, VOXELS_KNOWN)
    return ops.where(ops.expand_dims(ops.expand_dims(known, -1), -1), logits, CERTAIN)


def slab_loss(logits: Any, truth: Any, pooling: Pooling = "top") -> Any:
    """Give the mean cross-entropy of the slabs that are said to show blood; 0 where there is none.

    Args:
        logits: (N, Y, X).
        truth: (N,) what is known of each slab.
        pooling: from voxels to a slab.
    """
    said = ops.cast(ops.equal(truth, SLAB_BLEEDS), logits.dtype)
    entropy = ops.softplus(-pooled_logits(logits, pooling))  # of the target 1
    return ops.sum(said * entropy) / ops.maximum(ops.sum(said), 1.0)


def study_loss(logits: Any, truth: Any, pooling: Pooling = "top") -> Any:
    """Give the cross-entropy of the bag of all slabs of bleeding studies: at least one shows blood; 0 without any.

    Args:
        logits: (N, Y, X).
        truth: (N,) what is known of each slab.
        pooling: from voxels to a slab; from slabs to the bag it is always the most suspicious one.
    """
    inside = ops.equal(truth, STUDY_BLEEDS)
    bag = ops.max(ops.where(inside, pooled_logits(logits, pooling), CERTAIN))
    entropy = BAG_TARGET * ops.softplus(-bag) + (1.0 - BAG_TARGET) * ops.softplus(bag)
    return ops.where(ops.any(inside), entropy, 0.0)


def weak_loss(logits: Any, truth: Any, pooling: Pooling = "top") -> Any:
    """Give the loss of all labels weaker than voxels."""
    return slab_loss(logits, truth, pooling) + study_loss(logits, truth, pooling)

"""Batches of slabs, streamed from shards: interleaved by weight, shuffled, augmented and prefetched by tf.data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from training.augmentation import augmented
from training.mix_up import mixed_up
from training.settings import RunSettings, SourceSettings
from training.shards import parse_scan, parse_truth, shard_files, weakly_labelled
from training.weak_labels import SLAB_BLEEDS
from triage.errors import ConfigError

SLABS_A_VISIT = 4  # shown of a scan each time that it is read: a read costs as much as ten slabs
BLOODY = 5.0  # how much likelier a slab with blood is to be shown than another of the same scan
SCANS_SHUFFLED = 48  # records held by each source's shuffle, about 3.4 MB each
SLABS_SHUFFLED = 256  # slabs held after mixing

Change = Callable[[tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor]], tuple[tf.Tensor, ...]]


@dataclass(frozen=True)
class Part:
    """The replicas of one process among all of a run; each has the same number of a global batch's slabs, in order."""

    first: int = 0
    count: int = 1
    of: int = 1


WHOLE = Part()


def training_batches(
    settings: RunSettings,
    converted: Sequence[tuple[SourceSettings, Path]],
    round_number: int,
    *,
    shown: int = 0,
    part: Part = WHOLE,
) -> tf.data.Dataset:
    """Give the batches of one round: hu (N, Y, X, C) float32 and blood (N, Y, X) float32, without end.

    Where a source has labels without masks, a third tensor says what is known of each slab: (N,) int32 as
    `weak_labels` counts it.

    The seed holds the run's seed and the round, and each slab's changes its place in the round, so that a resumed run
    sees what an unbroken run would have seen, and several processes together what one would have.

    Args:
        settings: of the run.
        converted: each source with the folder of its shards.
        round_number: of these batches.
        shown: batches to leave out, which were shown before a run was broken off.
        part: of whose replicas the slabs are; each batch holds one replica's.

    Raises:
        ConfigError: slabs are to be mixed in pairs, and a replica has an odd number.
    """
    batch = settings.optimiser.batch
    own = batch // part.of
    weak = any(weakly_labelled(folder) for _, folder in converted)
    mixes = settings.augmentation.mix_up > 0 and not weak  # what is known of a slab by its label alone cannot be mixed
    if mixes and own % 2:
        raise ConfigError(f"Mix-up lays slabs over each other in pairs; {own} slabs for each replica are not even.")
    seed = _seed(settings.seed, round_number)
    streams, weights = [], []
    for index, (files, weight) in enumerate(_weighted_files(converted)):
        streams.append(_slabs(files, settings.network.context, seed + index))
        weights.append(weight)
    slabs = tf.data.Dataset.sample_from_datasets(streams, weights, seed=seed, rerandomize_each_iteration=False)
    slabs = slabs.shuffle(SLABS_SHUFFLED, seed=seed, reshuffle_each_iteration=False)
    numbered = slabs.enumerate().skip(shown * batch)
    if part.count < part.of:
        numbered = numbered.filter(lambda number, _slab: _replica_among(number % batch // own, part))

    def change(number: tf.Tensor, slab: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        hu, blood, truth = slab
        changed_hu, changed_blood = augmented(
            hu[None],
            blood[None],
            settings.augmentation,
            settings.optimiser.crop,
            settings.grid.spacing_mm[2],
            _slab_seed(seed, number),
        )
        return (changed_hu[0], changed_blood[0] / 255.0, truth)[: 3 if weak else 2]

    if mixes:
        changed = _mixed_in_pairs(numbered, change, settings.augmentation.mix_up, seed)
    else:
        changed = numbered.map(change, num_parallel_calls=2, deterministic=True)
    return changed.batch(own, drop_remainder=True).prefetch(2)


def _mixed_in_pairs(numbered: tf.data.Dataset, change: Change, share: float, seed: int) -> tf.data.Dataset:
    """Lay some slabs over the other one of their pair; a replica has whole pairs, so any number see the same."""

    def mixed(number: tf.Tensor, changed: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return mixed_up(*changed, share, _slab_seed(seed, number[0]) + 1)

    changed = numbered.map(lambda number, slab: (number, change(number, slab)), num_parallel_calls=2)
    return changed.batch(2).map(mixed).unbatch()


def _replica_among(replica: tf.Tensor, part: Part) -> tf.Tensor:
    return (replica >= part.first) & (replica < part.first + part.count)


def _slab_seed(seed: int, number: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(seed, tf.int32), tf.cast(number, tf.int32)])


def _weighted_files(converted: Sequence[tuple[SourceSettings, Path]]) -> list[tuple[list[str], float]]:
    found = []
    for source, folder in converted:
        for bleed, weight in ((True, source.bleed_weight), (False, source.free_weight)):
            files = shard_files(folder, bleed=bleed)
            if weight > 0 and files:
                found.append((files, weight))
    total = sum(weight for _, weight in found)
    return [(files, weight / total) for files, weight in found]


def _slabs(files: list[str], context: int, seed: int) -> tf.data.Dataset:
    """Stream single slabs with their neighbours, some of each scan, for ever."""
    names = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=seed).repeat()
    records = names.interleave(tf.data.TFRecordDataset, cycle_length=min(4, len(files)))
    records = records.shuffle(SCANS_SHUFFLED, seed=seed).enumerate()

    def choose(index: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        hu, blood = parse_scan(record)
        truth = parse_truth(record, tf.shape(hu)[0])
        return _chosen(hu, blood, truth, context, tf.stack([tf.constant(seed, tf.int32), tf.cast(index, tf.int32)]))

    return records.map(choose, num_parallel_calls=2, deterministic=True).unbatch()


def _chosen(
    hu: tf.Tensor, blood: tf.Tensor, truth: tf.Tensor, context: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draw some slabs of a scan, those with blood likelier (Gumbel's top-k), each with its neighbours."""
    bloody = tf.cast(tf.reduce_any(blood > 127, axis=(1, 2)) | (truth == SLAB_BLEEDS), tf.float32)
    draw = -tf.math.log(-tf.math.log(tf.random.stateless_uniform(tf.shape(bloody), seed, 1e-6, 1.0 - 1e-6)))
    _, at = tf.math.top_k(draw + bloody * np.log(BLOODY), k=tf.minimum(SLABS_A_VISIT, tf.shape(hu)[0]))
    last = tf.shape(hu)[0] - 1
    neighbours = [tf.gather(hu, tf.clip_by_value(at + step, 0, last)) for step in range(-context, context + 1)]
    return tf.stack(neighbours, axis=-1), tf.gather(blood, at), tf.gather(truth, at)


def _seed(run_seed: int, round_number: int) -> int:
    return int(np.random.SeedSequence([run_seed, round_number]).generate_state(1)[0] % 2**30)

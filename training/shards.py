"""Scans on the model's grid, converted once and streamed from TFRecord files: one record a scan."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from training.labelled_scan import LabelledSlabs
from training.settings import GridSettings, SourceSettings, source_key
from training.sources import read_source
from triage.errors import ConfigError

SCANS_A_SHARD = 16  # about 55 MB of 32 slabs: large reads, and enough files to shuffle and to share among workers


def convert(
    source: SourceSettings, grid: GridSettings, folder: Path, converted: Callable[[int], None] = lambda _count: None
) -> Path:
    """Convert one source into shards below `folder`, once: what lies there already is used.

    Bleeding and bleed-free scans go to files of their own, so that a batch can be mixed by weight without reading
    what it does not show. Written beside and renamed, so that a half-converted source never looks whole.

    Args:
        source: what to read.
        grid: what to cut it to.
        folder: of all shards.
        converted: called with the number of scans so far.

    Raises:
        ConfigError: the source is not what it claims, or holds no scan.
    """
    target = folder / source_key(source, grid)
    if target.exists():
        return target
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")  # workers that share a disk may convert at once
    beside.mkdir(parents=True)
    try:
        _convert_into(beside, source, grid, converted)
        _rename(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _convert_into(folder: Path, source: SourceSettings, grid: GridSettings, converted: Callable[[int], None]) -> None:
    """Write shards and, last, what they were made of."""
    count, digest = _write_shards(read_source(source, grid.grid), folder, converted)
    if count == 0:
        raise ConfigError(f"The source {source.kind} gave no scan; check its folder and folds.")
    (folder / "source.json").write_text(
        json.dumps({"source": json.loads(source.model_dump_json()), "scans": count, "sha256": digest}, indent=2)
    )


def _rename(beside: Path, target: Path) -> None:
    try:
        beside.rename(target)
    except OSError:
        if not target.exists():  # else another worker was first, with the same scans
            raise


def shard_files(folder: Path, *, bleed: bool) -> list[str]:
    """List the shards of bleeding or of bleed-free scans of one converted source."""
    return sorted(str(path) for path in folder.glob(f"{_stem(bleed)}-*.tfrecord"))


def data_sha256(folders: Iterable[Path]) -> str:
    """Give one hash of all converted sources: what a model says it was trained on."""
    digests = sorted(json.loads((folder / "source.json").read_text())["sha256"] for folder in folders)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def read_scans(folder: Path) -> Iterator[LabelledSlabs]:
    """Read the scans of one converted source back, bleeding ones first."""
    for bleed in (True, False):
        for record in tf.data.TFRecordDataset(shard_files(folder, bleed=bleed)):
            yield _scan_of(tf.train.Example.FromString(record.numpy()))


def parse_scan(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one record in a tf.data pipeline: hu (Z, Y, X) int16 and blood (Z, Y, X) uint8."""
    feature = tf.io.FixedLenFeature
    parsed = tf.io.parse_single_example(
        record,
        {
            "hu": feature([], tf.string),
            "blood": feature([], tf.string),
            "shape": feature([3], tf.int64),
        },
    )
    shape = tf.cast(parsed["shape"], tf.int32)
    hu = tf.reshape(tf.io.decode_raw(parsed["hu"], tf.int16), shape)
    blood = tf.reshape(tf.io.decode_raw(parsed["blood"], tf.uint8), shape)
    return hu, blood


def _write_shards(scans: Iterable[LabelledSlabs], folder: Path, converted: Callable[[int], None]) -> tuple[int, str]:
    writers: dict[bool, tf.io.TFRecordWriter] = {}
    counts = {True: 0, False: 0}
    digest = hashlib.sha256()
    for scan in scans:
        bleed = scan.bleed
        if counts[bleed] % SCANS_A_SHARD == 0:
            if bleed in writers:
                writers[bleed].close()
            name = f"{_stem(bleed)}-{counts[bleed] // SCANS_A_SHARD:05d}.tfrecord"
            writers[bleed] = tf.io.TFRecordWriter(str(folder / name))
        record = _example_of(scan).SerializeToString(deterministic=True)
        writers[bleed].write(record)
        digest.update(record)
        counts[bleed] += 1
        converted(sum(counts.values()))
    for writer in writers.values():
        writer.close()
    return sum(counts.values()), digest.hexdigest()


def _stem(bleed: bool) -> str:
    return "bleed" if bleed else "free"


def _example_of(scan: LabelledSlabs) -> tf.train.Example:
    def text(*values: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))

    def raw(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def whole(*values: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    feature = {
        "hu": raw(scan.hu.astype("<i2").tobytes()),
        "blood": raw(scan.blood.tobytes()),
        "shape": whole(*scan.hu.shape),
        "kinds": text(*scan.kinds),
        "patient": text(scan.patient),
        "source": text(scan.source),
        "fold": whole(scan.fold),
        "spacing_mm": tf.train.Feature(float_list=tf.train.FloatList(value=scan.spacing_mm)),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def _scan_of(example: tf.train.Example) -> LabelledSlabs:
    feature = example.features.feature
    shape = tuple(feature["shape"].int64_list.value)
    z, y, x = (round(value, 6) for value in feature["spacing_mm"].float_list.value)
    return LabelledSlabs(
        hu=np.frombuffer(feature["hu"].bytes_list.value[0], "<i2").reshape(shape),
        blood=np.frombuffer(feature["blood"].bytes_list.value[0], np.uint8).reshape(shape),
        kinds=tuple(value.decode() for value in feature["kinds"].bytes_list.value),
        patient=feature["patient"].bytes_list.value[0].decode(),
        source=feature["source"].bytes_list.value[0].decode(),
        fold=feature["fold"].int64_list.value[0],
        voxel_ml=z * y * x / 1000.0,
        spacing_mm=(z, y, x),
    )

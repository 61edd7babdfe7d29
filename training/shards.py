"""Scans on the model's grid, converted once and streamed from TFRecord files: one record a scan."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training.labelled_scan import LabelledSlabs, LabelStrength
from training.settings import GridSettings, SourceSettings, source_key
from training.sources import read_source
from training.weak_labels import truth_codes
from triage.errors import ConfigError
from triage.volume import Grid

SCANS_A_SHARD = 16  # about 55 MB of 32 slabs: large reads, and enough files to shuffle and to share among workers


def convert(
    source: SourceSettings,
    grid: GridSettings,
    folder: Path,
    converted: Callable[[int], None] = lambda _count: None,
    read: Callable[[SourceSettings, Grid], Iterable[LabelledSlabs]] = read_source,
) -> Path:
    """Convert one source into shards below `folder`, once: what lies there already is used.

    Bleeding and bleed-free scans go to files of their own, so that a batch can be mixed by weight without reading
    what it does not show. Written beside and renamed, so that a half-converted source never looks whole.

    Args:
        source: what to read.
        grid: what to cut it to.
        folder: of all shards.
        converted: called with the number of scans so far.
        read: gives the scans of the source on the grid.

    Raises:
        ConfigError: the source is not what it claims, or holds no scan.
    """
    target = folder / source_key(source, grid)
    if target.exists():
        return target
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")  # workers that share a disk may convert at once
    beside.mkdir(parents=True)
    try:
        _convert_into(beside, source, grid, converted, read)
        _rename(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _convert_into(
    folder: Path,
    source: SourceSettings,
    grid: GridSettings,
    converted: Callable[[int], None],
    read: Callable[[SourceSettings, Grid], Iterable[LabelledSlabs]],
) -> None:
    """Write shards and, last, what they were made of."""
    roll = Roll()
    count, digest = _write_shards(roll.of(read(source, grid.grid)), folder, converted)
    if count == 0:
        raise ConfigError(f"The source {source.kind} gave no scan; check its folder and folds.")
    content = {"source": json.loads(source.model_dump_json()), "scans": count, "sha256": digest, **roll.content()}
    (folder / "source.json").write_text(json.dumps(content, indent=2))


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


def weakly_labelled(folder: Path) -> bool:
    """Say whether a converted source has scans without masks."""
    strengths = json.loads((folder / "source.json").read_text()).get("strengths", [])
    return any(strength != LabelStrength.VOXELS for strength in strengths)


def patients_in(folder: Path) -> list[tuple[str, str]]:
    """List (source, patient) of a converted source."""
    content = json.loads((folder / "source.json").read_text())
    if "patients" not in content:  # converted before they were listed
        return sorted({(scan.source, scan.patient) for scan in read_scans(folder)})
    return [(source, patient) for source, patient in content["patients"]]


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


def parse_truth(record: tf.Tensor, slabs: tf.Tensor) -> tf.Tensor:
    """Decode what is known of each slab of a record, (Z,) int32 as `weak_labels` counts it."""
    parsed = tf.io.parse_single_example(record, {"truth": tf.io.FixedLenFeature([], tf.string, default_value="")})
    codes = tf.cast(tf.io.decode_raw(parsed["truth"], tf.uint8), tf.int32)
    return tf.concat([codes, tf.zeros([slabs - tf.shape(codes)[0]], tf.int32)], axis=0)


class Roll:
    """Who is in a source and how its scans are labelled, noted while they stream by."""

    def __init__(self) -> None:
        self.patients: set[tuple[str, str]] = set()
        self.strengths: set[str] = set()

    def of(self, scans: Iterable[LabelledSlabs]) -> Iterator[LabelledSlabs]:
        """Pass scans on and note them."""
        for scan in scans:
            self.patients.add((scan.source, scan.patient))
            self.strengths.add(scan.strength.value)
            yield scan

    def content(self) -> dict[str, object]:
        """Give what is kept beside the shards."""
        return {"patients": sorted(self.patients), "strengths": sorted(self.strengths)}


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
    if scan.strength is not LabelStrength.VOXELS:  # a mask says it all
        feature["strength"] = text(scan.strength.value)
        feature["truth"] = raw(truth_codes(scan).astype(np.uint8).tobytes())
        feature["slab_labels"] = raw(scan.slab_labels.astype(np.uint8).tobytes())
        feature["study_bleed"] = whole(int(scan.study_bleed))
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
        **_weak_labels(example),
    )


def _weak_labels(example: tf.train.Example) -> dict[str, Any]:
    feature = example.features.feature
    if "strength" not in feature:
        return {}
    return {
        "strength": LabelStrength(feature["strength"].bytes_list.value[0].decode()),
        "slab_labels": np.frombuffer(feature["slab_labels"].bytes_list.value[0], np.uint8).astype(np.bool_),
        "study_bleed": bool(feature["study_bleed"].int64_list.value[0]),
    }

"""The volumes behind the previews, read from the stored instances and kept in memory up to a bound.

The first picture does not wait for the whole series: until the volume is in memory, a slice of an untilted series is
read alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triage.ct_series import SeriesHeader, read_series, read_volume, sort_slices, tilt_degrees
from triage.errors import StoreError, TriageError, UnsuitableSeries
from triage.probability_map import ProbabilityMap, read_map
from triage.study import Instance

UPRIGHT_DEGREES = 0.5  # below it a slice lies where it lies in the volume: nothing is shifted
Key = tuple[str, int]


@dataclass(frozen=True)
class PreviewVolume:
    """A volume as previews need it: (Z, Y, X) int16 HU, z to the head, and its spacing in mm."""

    hu: npt.NDArray[np.int16]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class PreviewSlice:
    """One slice, (Y, X) int16 HU, and its spacing (y, x) in mm."""

    hu: npt.NDArray[np.int16]
    spacing_mm: tuple[float, float]


class MapCache:
    """Reads probability maps, and keeps those of the studies that are looked at: about 1 MB each."""

    def __init__(self, storage_folder: Path) -> None:
        self._folder = storage_folder
        self._read = lru_cache(maxsize=16)(_map_as_of)

    def read(self, path: str) -> ProbabilityMap:
        """Give a map by its path below the storage folder.

        Raises:
            StoreError: there is none, or it is broken.
        """
        full = self._folder / path
        if not path or not full.is_file():
            raise StoreError("No probability map was kept of this study.")
        return self._read(full, full.stat().st_mtime_ns)  # a new run of the same revision writes it anew


class VolumeCache:
    """Read volumes once and keep the latest used.

    Args:
        storage_folder: what the instances' paths are below.
        most_bytes: of all volumes kept; one larger than that is read and not kept.
    """

    def __init__(self, storage_folder: Path, most_bytes: int) -> None:
        self._folder = storage_folder
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Key, PreviewVolume] = OrderedDict()
        self._headers: OrderedDict[Key, SeriesHeader] = OrderedDict()
        self._reading: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def slice_of(self, series_instance_uid: str, instances: Sequence[Instance], slice_index: int) -> PreviewSlice:
        """Give one slice of a series; reads the whole of it meanwhile, for the ones that are asked for next.

        Args:
            series_instance_uid: the series.
            instances: of the series, all of them; their number is part of the key, so late images are read anew.
            slice_index: from 0, lowest first.

        Raises:
            IndexError: there is no such slice.
            UnreadableInstance: a file cannot be parsed.
            UnsuitableSeries: no geometry, or pixels that cannot be decoded.
            OSError: a file is gone.
        """
        key = (series_instance_uid, len(instances))
        found = self._find(key)
        if found is None:
            alone = self._read_alone(key, instances, slice_index)
            if alone is not None:
                threading.Thread(target=self._read_ahead, args=(key, instances), daemon=True).start()
                return alone
            found = self._volume(key, instances)
        return PreviewSlice(found.hu[slice_index], found.spacing_mm[1:])

    def _volume(self, key: Key, instances: Sequence[Instance]) -> PreviewVolume:
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:  # of two requests for one volume, one reads and the other waits
            found = self._find(key)
            if found is None:
                volume = read_volume(self._header(key, instances))
                found = PreviewVolume(np.rint(volume.hu).astype(np.int16), volume.spacing_mm)
                self._keep(key, found)
        with self._lock:
            self._reading.pop(key, None)
        return found

    def _read_ahead(self, key: Key, instances: Sequence[Instance]) -> None:
        with self._lock:
            if key in self._reading:
                return
        try:
            self._volume(key, instances)
        except (TriageError, OSError):
            return  # whoever asks for a slice that cannot be read alone hears of it

    def _read_alone(self, key: Key, instances: Sequence[Instance], slice_index: int) -> PreviewSlice | None:
        """Read one slice with a neighbour, which fixes the direction; None where only the whole will do."""
        series = self._header(key, instances)
        ordered, _ = sort_slices(series)
        if slice_index >= len(ordered):
            raise IndexError(slice_index)
        if tilt_degrees(series) > UPRIGHT_DEGREES:
            return None
        first = min(slice_index, len(ordered) - 2)
        try:
            pair = read_volume(replace(series, slices=tuple(ordered[first : first + 2])))
        except UnsuitableSeries:
            return None  # two slices may lack the air or bone that the whole head has
        return PreviewSlice(np.rint(pair.hu[slice_index - first]).astype(np.int16), pair.spacing_mm[1:])

    def _header(self, key: Key, instances: Sequence[Instance]) -> SeriesHeader:
        with self._lock:
            kept = self._headers.get(key)
        if kept is not None:
            return kept
        series = read_series([self._folder / item.path for item in instances])
        found = next((item for item in series if item.series_instance_uid == key[0] and not item.is_localizer), None)
        if found is None:
            raise FileNotFoundError("the series has no images in the store")
        with self._lock:
            self._headers[key] = found
            if len(self._headers) > 256:  # a few kB each
                self._headers.popitem(last=False)
        return found

    def _find(self, key: Key) -> PreviewVolume | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: Key, volume: PreviewVolume) -> None:
        if volume.hu.nbytes > self._most_bytes:
            return
        with self._lock:
            self._kept[key] = volume
            while sum(item.hu.nbytes for item in self._kept.values()) > self._most_bytes:
                self._kept.popitem(last=False)


def _map_as_of(path: Path, _changed_ns: int) -> ProbabilityMap:
    return read_map(path)

"""The volumes behind the previews, read from the stored instances and kept in memory up to a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triage.ct_series import read_series, read_volume
from triage.study import Instance


@dataclass(frozen=True)
class PreviewVolume:
    """A volume as previews need it: (Z, Y, X) int16 HU, z to the head, and its spacing in mm."""

    hu: npt.NDArray[np.int16]
    spacing_mm: tuple[float, float, float]


class VolumeCache:
    """Read volumes once and keep the latest used.

    Args:
        storage_folder: what the instances' paths are below.
        most_bytes: of all volumes kept; one larger than that is read and not kept.
    """

    def __init__(self, storage_folder: Path, most_bytes: int) -> None:
        self._folder = storage_folder
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, int], PreviewVolume] = OrderedDict()
        self._lock = threading.Lock()
        self._reading: dict[tuple[str, int], threading.Lock] = {}

    def volume(self, series_instance_uid: str, instances: Sequence[Instance]) -> PreviewVolume:
        """Give one series' volume, from memory or from the disk.

        Args:
            series_instance_uid: the series.
            instances: of the series, all of them; their number is part of the key, so late images are read anew.

        Raises:
            UnreadableInstance: a file cannot be parsed.
            UnsuitableSeries: no geometry, or pixels that cannot be decoded.
            OSError: a file is gone.
        """
        key = (series_instance_uid, len(instances))
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:  # of two requests for one volume, one reads and the other waits
            found = self._find(key)
            if found is None:
                found = self._read(series_instance_uid, instances)
                self._keep(key, found)
        with self._lock:
            self._reading.pop(key, None)
        return found

    def _find(self, key: tuple[str, int]) -> PreviewVolume | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _read(self, series_instance_uid: str, instances: Sequence[Instance]) -> PreviewVolume:
        paths = [self._folder / item.path for item in instances]
        axial = [series for series in read_series(paths) if not series.is_localizer]
        chosen = next((series for series in axial if series.series_instance_uid == series_instance_uid), None)
        if chosen is None:
            raise FileNotFoundError("the series has no images in the store")
        volume = read_volume(chosen)
        return PreviewVolume(np.rint(volume.hu).astype(np.int16), volume.spacing_mm)

    def _keep(self, key: tuple[str, int], volume: PreviewVolume) -> None:
        if volume.hu.nbytes > self._most_bytes:
            return
        with self._lock:
            self._kept[key] = volume
            while sum(item.hu.nbytes for item in self._kept.values()) > self._most_bytes:
                self._kept.popitem(last=False)

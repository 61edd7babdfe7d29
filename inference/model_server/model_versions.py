"""Which versions of a model should be served, and what to do next to get there.

Values only: the folder's listing and the clock are arguments, `servable_manager` does what is decided here.

Reference:
    tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc (what is aspired);
    core/availability_preserving_policy.cc and core/aspired_versions_manager.cc (what is done next).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

LARGEST_VERSION = 2**63 - 1
_INTEGER = re.compile(r"\d+")


class Phase(Enum):
    """What has become of a managed version; the manager's own view, beside what GetModelStatus says."""

    NEW = "new"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    DISABLED = "disabled"  # unloaded
    ERROR = "error"


@dataclass(frozen=True)
class ManagedVersion:
    """A version that the manager knows of."""

    version: int
    path: Path
    aspired: bool = True
    phase: Phase = Phase.NEW


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions on disk are wanted: the latest ones, all, or certain ones."""

    latest: int = 1
    every: bool = False
    specific: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """The next thing to do to one version: load or unload it."""

    version: int
    load: bool


def versions_on_disk(base: Path) -> dict[int, Path]:
    """Find the versions of a model: children of its folder whose name is a decimal number, leading zeros allowed.

    Raises:
        OSError: the folder cannot be listed.
    """
    found: dict[int, Path] = {}
    for child in sorted(base.iterdir()):
        if _INTEGER.fullmatch(child.name) and int(child.name) <= LARGEST_VERSION:
            found[int(child.name)] = child  # of "007" and "7" the one that sorts last, as TF Serving takes it
    return found


def wanted_versions(found: Mapping[int, Path], policy: VersionPolicy) -> dict[int, Path]:
    """Choose the versions to serve among those on disk."""
    if policy.every:
        return dict(found)
    if policy.specific:
        return {version: found[version] for version in policy.specific if version in found}
    return {version: found[version] for version in sorted(found, reverse=True)[: policy.latest]}


def aspire(managed: Mapping[int, ManagedVersion], wanted: Mapping[int, Path]) -> dict[int, ManagedVersion] | None:
    """Take over a new set of wanted versions.

    Returns:
        The managed versions after it, or None while it has to wait: a version that was given up and is wanted again
        is first unloaded to its end.
    """
    if any(version in managed and not managed[version].aspired for version in wanted):
        return None
    kept = {version: replace(each, aspired=version in wanted) for version, each in managed.items()}
    return kept | {version: ManagedVersion(version, path) for version, path in wanted.items() if version not in managed}


def without_ended(managed: Mapping[int, ManagedVersion]) -> dict[int, ManagedVersion]:
    """Forget versions that are neither wanted nor in memory."""
    ended = (Phase.NEW, Phase.DISABLED, Phase.ERROR)
    return {version: each for version, each in managed.items() if each.aspired or each.phase not in ended}


def next_step(managed: Iterable[ManagedVersion]) -> Step | None:
    """Decide the next step so that a model which is served stays served.

    A version that was given up is unloaded only when a wanted one is ready, none is wanted at all, or another
    given-up one is ready too; else the highest new one is loaded.
    """
    versions = list(managed)
    wanted = [each for each in versions if each.aspired]
    given_up = [each.version for each in versions if not each.aspired and each.phase is Phase.READY]
    replaced = not wanted or any(each.phase is Phase.READY for each in wanted)
    if given_up and (replaced or len(given_up) > 1):
        return Step(min(given_up), load=False)
    new = [each.version for each in wanted if each.phase is Phase.NEW]
    return Step(max(new), load=True) if new else None

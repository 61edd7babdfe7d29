"""What the manager knows of one model: its versions, which of them are in memory, and what GetModelStatus says of them.

Values and their changes only; whoever shares one between threads holds a lock around it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from inference.model_server.model_config import ModelConfig
from inference.model_server.model_versions import ManagedVersion, Phase, aspire, without_ended
from inference.model_server.statuses import CODES, OK, StatusError

if TYPE_CHECKING:
    from inference.model_server.servable import Servable

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50  # tensorflow.serving.ModelVersionStatus.State
STATES = {
    Phase.LOADING: LOADING,
    Phase.READY: AVAILABLE,
    Phase.UNLOADING: UNLOADING,
    Phase.DISABLED: END,
    Phase.ERROR: END,
}


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus says of one version; `code` is 0, or why it ended."""

    version: int
    state: int
    code: int = OK
    message: str = ""


@dataclass
class Loaded:
    """A version in memory, and how many requests use it."""

    servable: Servable
    users: int = 0


@dataclass
class ServedModel:
    """One model.

    Attributes:
        config: name, folder and policy.
        left_out: no longer configured: it is unloaded, and its statuses stay.
        managed: versions that the manager deals with.
        pending: wanted versions that have not been taken over yet, with their folders.
        loaded: versions in memory.
        statuses: of every version ever seen.
    """

    config: ModelConfig
    left_out: bool = False
    managed: dict[int, ManagedVersion] = field(default_factory=dict)
    pending: dict[int, Path] | None = None
    loaded: dict[int, Loaded] = field(default_factory=dict)
    statuses: dict[int, VersionStatus] = field(default_factory=dict)

    def take_pending(self) -> None:
        """Take over the wanted versions, unless one of them has to be unloaded first."""
        self.managed = without_ended(self.managed)
        if self.pending is None:
            return
        managed = aspire(self.managed, self.pending)
        if managed is None:
            return
        for version in managed.keys() - self.managed.keys():
            self.statuses[version] = VersionStatus(version, START)
        self.managed, self.pending = without_ended(managed), None

    def note(self, version: int, phase: Phase, error: StatusError | None = None) -> None:
        """Note what has become of a version."""
        self.managed[version] = replace(self.managed[version], phase=phase)
        code, message = (error.code.value[0], error.message) if error else (OK, "")
        self.statuses[version] = VersionStatus(version, STATES[phase], code, message)

    def settled(self) -> bool:
        """Tell whether every wanted version, and at least one, is in memory or has failed."""
        phases = [each.phase for each in self.managed.values() if each.aspired]
        return bool(phases) and all(phase in (Phase.READY, Phase.ERROR) for phase in phases)

    def failures(self) -> str:
        """Tell why versions failed, in TF Serving's words."""
        failed = [each for each in self.statuses.values() if each.state == END and each.code]
        return "".join(
            f"{{{{name: {self.config.name} version: {each.version}}} due to error: "
            f"{CODES[each.code].name}: {each.message}}}, "
            for each in failed
        )

"""Keeps the wanted versions of each model in memory, and hands them to requests.

One thread polls the models' folders, loads and unloads, as TF Serving's manager does; a version that requests still
use is unloaded after the last of them.

Reference:
    tensorflow_serving/core/aspired_versions_manager.cc, basic_manager.cc, servable_state_monitor.cc,
    model_servers/server_core.cc.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog

from inference.model_server.model_config import ModelConfig
from inference.model_server.model_versions import Phase, Step, next_step, versions_on_disk, wanted_versions
from inference.model_server.served_model import Loaded, ServedModel, VersionStatus
from inference.model_server.statuses import StatusError, failed_precondition, invalid_argument, not_found
from triage.stop_signal import StopSignal

if TYPE_CHECKING:
    from inference.model_server.servable import Servable

log = structlog.get_logger()

GIVE_UP_POLL_S = 0.2  # how soon a waiting start sees that it shall stop


@dataclass(frozen=True)
class ManagerTimes:
    """How often folders are polled, and how often a version that fails to load is tried again."""

    poll_s: float = 1.0
    load_retries: int = 0
    retry_interval_s: float = 60.0


class ServableManager:
    """Serves models from their folders.

    Args:
        load: gives the servable of a version folder, or raises StatusError.
        times: of polling and of trying again.

    `start()` begins to poll; `stop()` ends it and frees all servables.
    """

    def __init__(self, load: Callable[[Path], Servable], times: ManagerTimes) -> None:
        self._load = load
        self._times = times
        self._models: dict[str, ServedModel] = {}
        self._labels: Mapping[str, Mapping[str, int]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._next_poll_s = 0.0
        self._thread = threading.Thread(target=self._keep, name="servable-manager", daemon=True)

    def start(self, configs: Sequence[ModelConfig]) -> None:
        """Serve these models from now on."""
        self.configure(configs)
        self._thread.start()

    def stop(self) -> None:
        """Stop polling and free all servables."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        for model in self._models.values():
            for loaded in model.loaded.values():
                loaded.servable.close()
            model.loaded.clear()

    def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Take over a new list of models; those left out are unloaded, changed policies count from the next poll."""
        with self._changed:
            for model in self._models.values():
                model.left_out = True
            for config in configs:
                model = self._models.setdefault(config.name, ServedModel(config))
                model.config, model.left_out = config, False
            self._next_poll_s = 0.0  # at once
            self._changed.notify_all()

    def configs(self) -> list[ModelConfig]:
        """Give the models that are to be served now."""
        with self._changed:
            return [model.config for model in self._models.values() if not model.left_out]

    def set_labels(self, labels: Mapping[str, Mapping[str, int]], *, before_available: bool = False) -> None:
        """Put these labels in the place of all others.

        Args:
            labels: version by label by model.
            before_available: a label may name a version that is not in memory yet, unless it named another one before.

        Raises:
            StatusError: a label names a version that is not in memory; the labels of before stay.
        """
        with self._changed:
            for name, versions in labels.items():
                loaded = self._models[name].loaded if name in self._models else {}
                for label, version in versions.items():
                    moved = self._labels.get(name, {}).get(label, version) != version
                    if version not in loaded and (moved or not before_available):
                        raise failed_precondition(
                            f"Request to assign label to version {version} of model {name}, which is not currently "
                            "available for inference"
                        )
            self._labels = labels

    def wait_until_available(
        self, names: Sequence[str], give_up: threading.Event | StopSignal | None = None, timeout_s: float | None = None
    ) -> None:
        """Wait until each model has every wanted version in memory or failed; without limit where it has no version.

        Args:
            names: models to wait for.
            give_up: when set, the waiting ends.
            timeout_s: longest wait; None: no limit.

        Raises:
            StatusError: a model failed to load, or the waiting ended.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not (self._stopping or all(self._models[name].settled() for name in names)):
                if (give_up is not None and give_up.is_set()) or (deadline_s and time.monotonic() > deadline_s):
                    break
                self._changed.wait(GIVE_UP_POLL_S)
            failed = [name for name in names if not self._models[name].loaded]
            if failed:
                raise self._not_available(failed)

    @contextmanager
    def servable(self, name: str, version: int | None, label: str | None = None) -> Iterator[tuple[Servable, int]]:
        """Hold one version of a model for a request: the given one, the labelled one or the latest.

        Raises:
            StatusError: there is no such label, model or version in memory.
        """
        with self._changed:
            if label is not None:
                version = self._labelled(name, label)
            loaded = self._models[name].loaded if name in self._models else {}
            found = (max(loaded) if loaded else None) if version is None else version
            if found is None or found not in loaded:
                asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise not_found(f"Servable not found for request: {asked}")
            held = loaded[found]
            held.users += 1
        try:
            yield held.servable, found
        finally:
            with self._changed:
                held.users -= 1
                if not held.users:
                    self._changed.notify_all()

    def statuses(self, name: str) -> list[VersionStatus]:
        """Give the statuses of all versions ever seen of a model, newest first."""
        with self._changed:
            known = self._models[name].statuses if name in self._models else {}
            return [known[version] for version in sorted(known, reverse=True)]

    def _labelled(self, name: str, label: str) -> int:
        if label not in self._labels.get(name, {}):
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return self._labels[name][label]

    def _not_available(self, names: Sequence[str]) -> StatusError:
        reasons = "".join(self._models[name].failures() for name in names)
        text = f"{len(names)} model(s) did not become available: {{{reasons}}}"
        return StatusError(grpc.StatusCode.UNKNOWN, text)

    def _keep(self) -> None:
        """Poll and step until stopped; runs in the manager's thread."""
        while not self._stopping:
            if time.monotonic() >= self._next_poll_s:
                self._next_poll_s = time.monotonic() + self._times.poll_s
                self._poll()
            while not self._stopping and self._step_once():
                pass
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or time.monotonic() >= self._next_poll_s,
                    timeout=max(0.0, self._next_poll_s - time.monotonic()),
                )

    def _poll(self) -> None:
        for model in list(self._models.values()):
            try:
                found = {} if model.left_out else versions_on_disk(model.config.base_path)
            except OSError as error:  # gone or unreadable for a while: nothing changes
                log.error("model_folder_unreadable", model=model.config.name, error_type=type(error).__name__)
                continue
            with self._changed:
                model.pending = wanted_versions(found, model.config.policy)

    def _step_once(self) -> bool:
        """Take over pending versions and do at most one step of each model; tells whether one was done."""
        stepped = False
        for model in list(self._models.values()):
            with self._changed:
                model.take_pending()
                step = next_step(model.managed.values())
            if step is not None and not self._stopping:
                self._do(model, step)
                stepped = True
        return stepped

    def _do(self, model: ServedModel, step: Step) -> None:
        if step.load:
            self._load_version(model, step.version)
        else:
            self._unload_version(model, step.version)

    def _load_version(self, model: ServedModel, version: int) -> None:
        name, path = model.config.name, model.managed[version].path
        self._note(model, version, Phase.LOADING)
        started_s = time.monotonic()
        try:
            servable = self._load_with_retries(path)
        except StatusError as error:
            log.error("version_failed", model=name, version=version, code=error.code.name, reason=error.message)
            self._note(model, version, Phase.ERROR, error)
            return
        with self._changed:
            model.loaded[version] = Loaded(servable)
            self._note(model, version, Phase.READY)
        log.info("version_available", model=name, version=version, seconds=round(time.monotonic() - started_s, 3))

    def _load_with_retries(self, path: Path) -> Servable:
        for _ in range(self._times.load_retries):
            try:
                return self._load(path)
            except StatusError as error:
                log.warning("version_load_retried", code=error.code.name, waited_s=self._times.retry_interval_s)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, self._times.retry_interval_s)
        return self._load(path)

    def _unload_version(self, model: ServedModel, version: int) -> None:
        self._note(model, version, Phase.UNLOADING)
        self._when_unused(model, version).close()
        gc.collect()  # a graph is full of cycles: its memory would else stay until the next full collection
        self._note(model, version, Phase.DISABLED)
        log.info("version_unloaded", model=model.config.name, version=version)

    def _when_unused(self, model: ServedModel, version: int) -> Servable:
        """Take a version from those that requests are given, and wait for the last one that has it."""
        with self._changed:
            held = model.loaded.pop(version)
            self._changed.wait_for(lambda: held.users == 0)
        return held.servable

    def _note(self, model: ServedModel, version: int, phase: Phase, error: StatusError | None = None) -> None:
        with self._changed:
            model.note(version, phase, error)
            self._changed.notify_all()

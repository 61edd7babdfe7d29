"""Tracking of runs with MLflow: an embedded SQLite file beside the runs by default, or a server that a team shares.

Each run's settings, code version, data hash, curves, records, scores and model are kept. Training never waits for
tracking to be well: where it fails, one warning is given and the run goes on untracked.
"""

from __future__ import annotations

import json
import logging
import math
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from training.library_switches import keep_tracking_private
from training.loop import AnyTrainer, StepReport
from training.observers import RunObserver
from training.run_record import RECORD_FILES, RunRecord, flat_settings, read_run
from training.settings import RunSettings
from triage.errors import ConfigError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUN_FILE = "tracking.json"  # in the run's folder: which tracked run it is, so that a resumed one is the same
STEPS_A_METRIC = 10
METRICS_A_REQUEST, PARAMS_A_REQUEST = 1000, 100  # MLflow's limits
NOT_IN_NAMES = re.compile(r"[^\w\-./ ]")  # of MLflow's metrics
VALUE_LENGTH = 500  # of a setting; older servers take no more
OUTCOMES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
FIGURES = ("loss", "cross_entropy", "dice_loss", "slab_dice_loss", "weak_loss", "learning_rate", "seconds")

Say = Callable[[str], None]


@dataclass(frozen=True)
class CodeVersion:
    """What code made a run: the release, and in a checkout the commit and whether it was changed since."""

    release: str
    commit: str | None = None
    changed: bool = False

    def __str__(self) -> str:
        if self.commit is None:
            return self.release
        return f"{self.release}+{self.commit[:12]}{'-changed' if self.changed else ''}"


def code_version() -> CodeVersion:
    """Ask the installed package, and git where this file lies in a checkout."""
    try:
        release = version("ich-triage")
    except PackageNotFoundError:
        release = "unknown"
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    return CodeVersion(release, commit, bool(commit and _git(folder, "status", "--porcelain", "--", ".")))


class TrackedRun:
    """One run in the tracking database; once that fails, nothing more is asked of it.

    Args:
        settings: of the run.
        data_sha256: of the converted training data.
        say: takes the one warning.
    """

    def __init__(self, settings: RunSettings, data_sha256: str, say: Say) -> None:
        self.settings = settings
        self.uri = tracking_uri(settings)
        self.say = say
        self.on = settings.tracking.on
        self._try(lambda: self._open(data_sha256))

    def log(self, figures: Sequence[tuple[str, float, int]]) -> None:
        """Keep figures as (name, value, step); what is no number is left out."""
        self._try(lambda: self._log([figure for figure in figures if math.isfinite(figure[1])]))

    def keep(self, path: Path, below: str | None = None) -> None:
        """Keep a file or a folder."""
        self._try(
            lambda: (self._client.log_artifacts if path.is_dir() else self._client.log_artifact)(
                self.run_id, str(path), below
            )
        )

    def end(self, outcome: str) -> None:
        """Close the run as `finished`, `stopped` or `failed`."""
        self._try(lambda: self._client.set_terminated(self.run_id, OUTCOMES[outcome]))

    def _try(self, action: Callable[[], object]) -> None:
        if not self.on:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a tracking server does, training goes on
            self.on = False
            found = (str(error).splitlines() or [""])[0][:200]
            self.say(f"warning: {self.uri} fails ({found}); the run goes on, untracked from here")

    def _open(self, data_sha256: str) -> None:
        self._client = client_of(self.uri)
        self.run_id = self._resumed() or self._begun(data_sha256)
        self._client.update_run(self.run_id, status="RUNNING")

    def _resumed(self) -> str | None:
        path = self.settings.folder / RUN_FILE
        kept = json.loads(path.read_text()) if path.exists() else {}
        return str(kept["run_id"]) if kept.get("uri") == self.uri else None

    def _begun(self, data_sha256: str) -> str:
        from mlflow.entities import Param

        code, name = code_version(), self.settings.folder.name
        tags = {
            "code_version": str(code),
            "training_data_sha256": data_sha256,
            "mlflow.source.name": "ich-triage train",
        }
        if code.commit:
            tags["mlflow.source.git.commit"] = code.commit
        run_id = str(self._client.create_run(self._experiment(), tags=tags, run_name=name).info.run_id)
        settings = flat_settings(self.settings.model_dump(mode="json"))
        params = [Param(key, str(value)[:VALUE_LENGTH]) for key, value in settings.items()]
        for start in range(0, len(params), PARAMS_A_REQUEST):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_A_REQUEST])
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        (self.settings.folder / RUN_FILE).write_text(json.dumps({"uri": self.uri, "run_id": run_id}) + "\n")
        return run_id

    def _experiment(self) -> str:
        name = self.settings.tracking.experiment
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        # a server knows where it keeps files; the embedded database would keep them in the working folder
        embedded = self.settings.tracking.uri is None
        place = (self.settings.folder.parent / "mlflow-files").absolute().as_uri() if embedded else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _log(self, figures: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(NOT_IN_NAMES.sub("_", name), value, now_ms, step) for name, value, step in figures]
        for start in range(0, len(metrics), METRICS_A_REQUEST):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + METRICS_A_REQUEST])


class Tracking(RunObserver):
    """Keeps a run's curves while it trains, and its records and newest checkpoint when it ends."""

    def __init__(self, run: TrackedRun) -> None:
        self.run = run
        self._waiting: list[tuple[str, float, int]] = []

    def step_done(self, report: StepReport) -> None:
        """Remember every so many steps' figures."""
        if report.step % STEPS_A_METRIC == 0:
            self._waiting.extend((name, float(getattr(report, name)), report.step) for name in FIGURES)

    def round_done(self, trainer: AnyTrainer) -> None:
        """Send what waits."""
        self._send()
        if trainer.steps_done >= trainer.settings.optimiser.steps:
            for path in trainer.checkpoint_files():
                self.run.keep(path, "checkpoint")

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Remember the scores."""
        self._waiting.extend((f"validation/{name}", value, step) for name, value in figures.items())

    def ended(self, outcome: str) -> None:
        """Send the rest, and the records that `compare` reads."""
        self._send()
        for name in RECORD_FILES:
            if (self.run.settings.folder / name).exists():
                self.run.keep(self.run.settings.folder / name)
        self.run.end(outcome)

    def _send(self) -> None:
        self.run.log(self._waiting)
        self._waiting = []


def tracking_uri(settings: RunSettings) -> str:
    """Give the server of the settings, or the database beside the run's folder."""
    return settings.tracking.uri or embedded_uri(settings.folder.parent)


def embedded_uri(folder: Path) -> str:
    """Give the database that runs below `folder` are tracked in."""
    return f"sqlite:///{(folder / 'mlflow.db').absolute()}"


def client_of(uri: str) -> MlflowClient:
    """Open a tracking database or server."""
    keep_tracking_private()
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # they tell of each table; MLflow sets its own level when it is imported
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(uri, registry_uri=uri)


def read_tracked_run(uri: str, name: str) -> RunRecord:
    """Read the records of a tracked run, the newest of that name or the one of that ID.

    Raises:
        ConfigError: the database cannot be asked, or has no such run with records.
    """
    from mlflow.exceptions import MlflowException

    try:
        client = client_of(uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        quoted = name.replace("'", "")
        by_name = client.search_runs(experiments, f"attributes.run_name = '{quoted}'", max_results=1)
        run_id = by_name[0].info.run_id if by_name else client.get_run(name).info.run_id
        with TemporaryDirectory() as folder:
            kept = {file.path for file in client.list_artifacts(run_id)}
            for file in RECORD_FILES:
                if file in kept:
                    client.download_artifacts(run_id, file, folder)
            return replace(read_run(Path(folder)), name=name)
    except MlflowException as error:
        raise ConfigError(f"{uri} has no run {name}: {str(error).splitlines()[0]}") from error


def _git(folder: Path, *arguments: str) -> str | None:
    """Ask git about the checkout that `folder` lies in; None where there is none."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

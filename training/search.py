"""Search of settings with Optuna: trials are ordinary runs, kept in SQLite, and given up early where they fall behind.

A search that was broken off goes on: finished trials are not run again, and one that was under way resumes from its
newest checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from training.loop import GivenUp
from training.observers import RunObserver
from training.run import train_network
from training.search_settings import Parameter, SearchSettings, trial_settings
from triage.errors import ConfigError

DATABASE = "search.db"
Say = Callable[[str], None]


@dataclass(frozen=True)
class TrialReport:
    """One trial of a search."""

    number: int
    outcome: str  # complete, pruned, fail
    score: float | None  # of the newest validation
    values: dict[str, Any]
    folder: str


class Pruning(RunObserver):
    """Reports a trial's validations, and gives it up where it has fallen behind."""

    def __init__(self, trial: optuna.Trial, score: str) -> None:
        self.trial = trial
        self.score = score
        self.newest: float | None = None

    def validated(self, step: int, figures: dict[str, float]) -> None:
        """Report the score that decides.

        Raises:
            ConfigError: the validation has no such score.
            GivenUp: at this step half of the other trials were better.
        """
        if self.score not in figures:
            raise ConfigError(f"The validation has no score {self.score}; it has {', '.join(figures)}.")
        self.newest = figures[self.score]
        self.trial.report(self.newest, step)
        if self.trial.should_prune():
            raise GivenUp


def search_settings(search: SearchSettings, say: Say) -> list[TrialReport]:
    """Run trials until there are as many as asked for.

    Raises:
        ConfigError: a trial's settings or sources are wrong.
        Stopped: asked to stop; the trial under way has written a checkpoint, and the search can be gone on with.
    """
    study = open_study(search)
    _take_up_broken(study)
    distributions = {parameter.key: _distribution(parameter) for parameter in search.parameter}
    while (
        sum(trial.state.is_finished() and trial.state is not TrialState.FAIL for trial in study.trials) < search.trials
    ):
        trial = study.ask(distributions)
        _run(study, trial, search, say)
        keras.backend.clear_session()
    return reports_of(study, search)


def open_study(search: SearchSettings) -> optuna.Study:
    """Open the search's database, which is made where it is missing."""
    search.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{(search.folder / DATABASE).absolute()}",
        study_name=search.score,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=search.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=search.unpruned_trials),
    )


def reports_of(study: optuna.Study, search: SearchSettings) -> list[TrialReport]:
    """List the trials that came to an end, the best first."""
    reports = [
        TrialReport(
            number=trial.number,
            outcome=trial.state.name.lower(),
            score=trial.value,
            values=_values(trial.params, search),
            folder=trial_settings(search, _values(trial.params, search)).folder.name,
        )
        for trial in study.trials
        if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}
    ]
    return sorted(reports, key=lambda report: (report.outcome, -(report.score or 0.0)))


def _run(study: optuna.Study, trial: optuna.Trial, search: SearchSettings, say: Say) -> None:
    values = _values(trial.params, search)
    say(f"trial {trial.number}: " + ", ".join(f"{key} = {value}" for key, value in values.items()))
    pruning = Pruning(trial, search.score)
    try:
        train_network(trial_settings(search, values), resume=True, say=say, watched_by=(pruning,))
    except GivenUp:
        say(f"trial {trial.number} has fallen behind with {pruning.newest:.4f}")
        study.tell(trial, state=TrialState.PRUNED)
        return
    if pruning.newest is None:
        raise ConfigError(f"{search.run} has no validation, so that no trial has a score.")
    study.tell(trial, pruning.newest)
    say(f"trial {trial.number}: {search.score} {pruning.newest:.4f}")


def _take_up_broken(study: optuna.Study) -> None:
    """Line up again what was under way when the search was broken off: its folder has its checkpoints."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution([json.dumps(choice) for choice in parameter.choices])  # a list is no choice
    if parameter.low is None or parameter.high is None:
        raise ConfigError(f"{parameter.key} needs low and high.")
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _values(params: dict[str, Any], search: SearchSettings) -> dict[str, Any]:
    chosen = {parameter.key for parameter in search.parameter if parameter.choices}
    return {key: json.loads(value) if key in chosen else value for key, value in params.items()}

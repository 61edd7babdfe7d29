"""A search of settings: trials are runs, a broken search goes on, and those that fall behind are given up."""

import optuna
import pytest
from optuna.trial import TrialState

from tests.training.small_runs import network, phantoms
from training.loop import GivenUp
from training.search import Pruning, open_study, search_settings
from training.search_settings import Parameter, SearchSettings, read_search, trial_settings
from triage.errors import ConfigError

SEARCH = """
run = "run.toml"
folder = "{folder}"
score = "phantom/slice_dice"
trials = 1
[[parameter]]
key = "optimiser.learning_rate"
low = 1e-4
high = 1e-2
log = true
[[parameter]]
key = "network.widths"
choices = [[4, 8], [4, 4]]
"""


@pytest.fixture
def search(tmp_path, shards):
    (tmp_path / "run.toml").write_text(
        f'folder = "unused"\nshards = "{shards}"\nsteps_per_round = 2\nrounds_per_validation = 1\n'
        + network()
        + phantoms("source")
        + phantoms("validation", seed=6)
    )
    (tmp_path / "search.toml").write_text(SEARCH.format(folder=tmp_path / "search"))
    return read_search(tmp_path / "search.toml")


@pytest.mark.slow
def test_broken_search_goes_on_with_the_trial_that_was_under_way(search):
    study = open_study(search)
    study.enqueue_trial({"optimiser.learning_rate": 1e-3, "network.widths": "[4, 4]"})
    distributions = {
        "optimiser.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "network.widths": optuna.distributions.CategoricalDistribution(["[4, 8]", "[4, 4]"]),
    }
    study.ask(distributions)  # was killed here

    reports = search_settings(search, lambda _: None)

    assert open_study(search).trials[0].state is TrialState.FAIL
    [taken_up] = reports
    assert (taken_up.number, taken_up.outcome) == (1, "complete")
    assert taken_up.values == {"optimiser.learning_rate": 1e-3, "network.widths": [4, 4]}
    assert (search.folder / taken_up.folder / "steps.jsonl").exists()
    assert search_settings(search, pytest.fail) == reports  # nothing is left to do


def test_trial_that_falls_behind_is_given_up(search):
    study = open_study(search.model_copy(update={"unpruned_trials": 1}))
    for number, score in enumerate((0.5, 0.4)):
        trial = study.ask()
        pruning = Pruning(trial, "score")
        if number == 0:
            pruning.validated(2, {"score": score})
            study.tell(trial, score)

    with pytest.raises(GivenUp):
        pruning.validated(2, {"score": 0.4})


def test_same_values_have_the_same_folder(search):
    values = {"optimiser.learning_rate": 1e-3, "network.widths": [4, 4]}

    settings = trial_settings(search, values)

    assert settings.network.widths == (4, 4)
    assert settings.folder == trial_settings(search, dict(values)).folder
    assert settings.folder != trial_settings(search, values | {"optimiser.learning_rate": 2e-3}).folder


def test_unknown_setting_is_named(search):
    with pytest.raises(ConfigError, match=r"Unknown key optimiser\.rate; known are"):
        trial_settings(search, {"optimiser.rate": 1.0})


def test_score_that_no_validation_has_is_named(search):
    pruning = Pruning(open_study(search).ask(), "phantom/dice")

    with pytest.raises(ConfigError, match="has no score phantom/dice; it has phantom/slice_dice"):
        pruning.validated(2, {"phantom/slice_dice": 0.1})


def test_parameter_needs_a_range_or_choices():
    with pytest.raises(ValueError, match="needs either low < high, or choices"):
        Parameter(key="seed", low=2, high=1)


def test_unknown_key_of_a_search_is_named(tmp_path):
    (tmp_path / "search.toml").write_text("run = 'run.toml'\nfolder = 'x'\nscore = 's'\nbudget = 3\nparameter = []\n")

    with pytest.raises(ConfigError, match="Unknown key budget; known are"):
        read_search(tmp_path / "search.toml")
    assert "trials" in SearchSettings.model_fields

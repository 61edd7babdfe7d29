"""Mutated requests end in a reply or in a status, read in place or not; the interesting ones are kept here."""

from __future__ import annotations

import pytest

from benchmarks.fuzz_predict import api_of, fuzz, mutations, seed_messages

SEEDS = seed_messages("threshold", "hu", (1, 2, 2, 3))


@pytest.fixture(scope="module")
def api(tmp_path_factory, threshold_model):
    models = tmp_path_factory.mktemp("models")
    (models / "threshold").mkdir()
    (models / "threshold" / "1").symlink_to(threshold_model)
    api = api_of(models)
    yield api
    api.manager.stop()


def test_mutated_requests_never_break_the_server(api):
    counts, broken = fuzz(api, SEEDS, 3000, seed=1)

    assert broken == []
    assert counts["OK"] > 100  # some mutations change nothing that matters
    assert counts["INVALID_ARGUMENT"] > 100
    assert counts["NO MESSAGE"] > 100


def test_messages_are_the_same_for_the_same_seed():
    assert list(mutations(SEEDS, 50, 3)) == list(mutations(SEEDS, 50, 3)) != list(mutations(SEEDS, 50, 4))

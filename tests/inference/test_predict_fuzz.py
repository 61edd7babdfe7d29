"""Mutated requests end in a reply or in a status, read in place or not; the interesting ones are kept here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fuzz_predict import api_of, broken_rules, fuzz, mutations, seed_messages
from inference.model_server.grpc_services import serving_methods
from inference.serving_messages import PREDICTION_SERVICE

# The shortest of 100,000 mutated requests for each kind of answer, and the answer:
# kept_by_outcome(..., SEEDS, 100_000, seed=0) wrote it, and each answer was compared with TF Serving's source.
KEPT = json.loads(Path(__file__).with_name("fuzzed_requests.json").read_text(encoding="utf-8"))
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


@pytest.mark.parametrize("ended", KEPT)
def test_kept_requests_end_as_they_did(api, ended):
    answer = serving_methods(api)[f"/{PREDICTION_SERVICE}/Predict"]

    now, wrong = broken_rules(bytes.fromhex(KEPT[ended]), answer, api)

    assert (now.partition("\n\t [[")[0], wrong) == (ended, "")  # without the place in the graph

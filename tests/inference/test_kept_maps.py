"""The worker keeps a study's probability map in research mode, and never else."""

from __future__ import annotations

import dataclasses

import pytest

from tests.inference.test_worker import bleeding_series, clock, network, store_and_queue, worker  # noqa: F401
from triage.probability_map import read_map
from triage.study import StudyState


@pytest.fixture
def queued(intake, worker):  # noqa: F811
    return store_and_queue(intake, bleeding_series(), worker.folder)


def test_no_map_is_kept_unless_for_research(studies, worker, queued):  # noqa: F811
    worker.run_once()

    assert studies.current_analysis(queued).finding.map_path == ""
    assert not (worker.folder / "maps").exists()


def test_map_is_kept_for_research_and_named_in_the_finding(studies, worker, queued):  # noqa: F811
    dataclasses.replace(worker, keep_maps=True).run_once()

    finding = studies.current_analysis(queued).finding
    kept = read_map(worker.folder / finding.map_path)
    assert len(kept.probability) == finding.slab_count
    assert kept.probability.max() == round(0.99 * 255)


def test_disk_that_takes_no_map_costs_no_finding(studies, worker, queued):  # noqa: F811
    (worker.folder / "maps").write_text("a file where the folder should be")

    dataclasses.replace(worker, keep_maps=True).run_once()

    assert studies.by_uid(queued).state is StudyState.ANALYSED
    assert studies.current_analysis(queued).finding.map_path == ""

"""What dies, comes back, and loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack import LocalStack
from tests.builders import ct_series, write_files
from tests.end_to_end.conftest import Site, needs_model
from triage.study import StudyState

pytestmark = pytest.mark.slow


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Site]:
    """A stack of its own, to be broken; leases lapse after three seconds."""
    needs_model()
    with LocalStack(tmp_path / "site", toml={"worker": {"lease_s": 3.0, "retry_after_s": 0.5}}) as stack:
        running = Site(stack)
        yield running
        running.ledger.close()


def truth(phantoms: Path) -> dict[str, bool]:
    return {item["study_instance_uid"]: item["bleed"] for item in json.loads((phantoms / "truth.json").read_text())}


def test_studies_wait_for_a_dead_model_server_and_are_read_when_it_returns(fragile: Site, phantoms: Path) -> None:
    fragile.stack.stop_part("serve", kill=True)

    assert fragile.push(phantoms) == 0
    fragile.wait_for(lambda: fragile.studies.counts()[StudyState.QUEUED] == 2)
    fragile.wait_for(lambda: [report.model_available for report in fragile.studies.workers()] == [False])
    fragile.stack.start_part("serve")

    for uid, bleed in truth(phantoms).items():
        study = fragile.wait_ended(uid)
        assert study.state is StudyState.ANALYSED
        assert (study.flag_raised_at is not None) == bleed
        assert study.attempts <= 1


def test_killed_workers_study_is_read_by_the_next_worker(fragile: Site, tmp_path: Path) -> None:
    fragile.stack.wait_ready("serve")
    series = ct_series(slices=220, rows=256, columns=256, spacing_mm=(0.625, 0.9, 0.9))  # long enough to be caught
    uid = str(series[0].StudyInstanceUID)
    assert fragile.push(*write_files(series, tmp_path / "series")) == 0

    fragile.wait_for(lambda: fragile.studies.counts()[StudyState.RUNNING] == 1)
    fragile.stack.stop_part("work", kill=True)
    assert fragile.studies.counts()[StudyState.RUNNING] == 1
    fragile.stack.start_part("work")

    study = fragile.wait_ended(uid)
    assert study.state is StudyState.ANALYSED
    assert study.attempts == 2
    assert len(fragile.studies.analyses_of(uid)) == 1


def test_images_are_taken_in_with_everything_else_dead(fragile: Site, tmp_path: Path) -> None:
    for name in ("serve", "work", "worklist"):
        fragile.stack.stop_part(name, kill=True)
    series = ct_series(slices=30)

    assert fragile.push(*write_files(series, tmp_path / "series")) == 0

    assert fragile.studies.instance_count() == 30
    fragile.wait_for(lambda: fragile.studies.counts()[StudyState.QUEUED] == 1)


def test_everything_killed_at_once_loses_no_image_and_no_study(fragile: Site, phantoms: Path) -> None:
    assert fragile.push(phantoms) == 0
    for name in ("listen", "work", "serve", "worklist"):
        fragile.stack.stop_part(name, kill=True)

    assert fragile.studies.instance_count() == sum(1 for _ in phantoms.rglob("*.dcm"))
    for name in ("serve", "listen", "work"):
        fragile.stack.start_part(name)

    for uid in truth(phantoms):
        assert fragile.wait_ended(uid).state is StudyState.ANALYSED

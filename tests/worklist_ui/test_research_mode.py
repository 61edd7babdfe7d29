"""The probability map over the preview: for research, and nowhere unless the site has asked for it."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.worklist_ui.ledger_fill import finding
from triage.ledger.work import WorkQueue
from triage.probability_map import ProbabilityMap, map_path, write_map
from triage.settings import WorklistSettings

ROWS, COLUMNS = 64, 64  # of the built slices, 3.5 mm a pixel


@pytest.fixture
def study(department):
    """A study of 3 slices whose model saw something in the upper left quarter of the middle one."""
    queued = department.queue(slices=3)
    probability = np.zeros((3, ROWS, COLUMNS), np.uint8)
    probability[1, : ROWS // 2, : COLUMNS // 2] = 255
    slices = np.repeat(np.arange(3, dtype=np.int32)[:, None], 2, axis=1)
    kept = ProbabilityMap(probability, ((ROWS - 1) / 2, (COLUMNS - 1) / 2), (ROWS * 3.5, COLUMNS * 3.5), slices)
    path = map_path(queued.study_instance_uid, queued.revision)
    write_map(department.folder / path, kept)
    claim = department.start(queued)
    series_uid = department.studies.instances_of(queued.study_instance_uid)[0].series_instance_uid
    found = replace(finding(series_uid, 3, flagged=True), map_path=path.as_posix())
    WorkQueue(department.ledger).record(claim, found, now=department.now)
    return department.again(queued)


def picture(person, study, slice_index, query):
    response = person.get(f"/studies/{study.study_id}/slices/{slice_index}.jpg{query}")
    assert response.status_code == 200, response.get_data(as_text=True)
    return np.asarray(Image.open(BytesIO(response.data)).convert("RGB")).astype(int)


class TestOff:
    def test_no_page_offers_the_map(self, study, radiologist):
        assert "map" not in radiologist.get(f"/studies/{study.study_id}/").get_data(as_text=True).casefold()

    def test_nobody_gets_the_map(self, study, radiologist):
        response = radiologist.get(f"/studies/{study.study_id}/slices/1.jpg?map=1")

        assert response.status_code == 403
        assert response.mimetype == "text/html"


class TestOn:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(research_mode=True)

    def test_page_offers_the_map_and_says_what_it_is(self, study, radiologist):
        text = radiologist.get(f"/studies/{study.study_id}/").get_data(as_text=True)

        assert 'id="map" aria-pressed="false"' in text
        assert "Research mode." in text

    def test_map_colours_where_the_model_saw_something_and_nothing_else(self, study, radiologist):
        plain, mapped = (picture(radiologist, study, 1, query) for query in ("", "?map=1"))
        rows, columns, _ = plain.shape
        quarter, opposite = plain[rows // 4, columns // 4], plain[rows * 5 // 8, columns * 3 // 4]

        assert np.ptp(quarter) == np.ptp(opposite) == 0  # grey
        redder = mapped[..., 0] - mapped[..., 2]
        assert redder[rows // 4, columns // 4] > 50
        assert redder[rows * 5 // 8, columns * 3 // 4] < 8

    def test_slice_without_suspicion_stays_grey(self, study, radiologist):
        mapped = picture(radiologist, study, 0, "?map=1")

        assert np.abs(mapped[..., 0] - mapped[..., 2]).max() < 8

    def test_study_without_a_map_offers_none(self, department, radiologist):
        other = department.analyse(flagged=True)

        assert 'id="map"' not in radiologist.get(f"/studies/{other.study_id}/").get_data(as_text=True)
        assert radiologist.get(f"/studies/{other.study_id}/slices/0.jpg?map=1").status_code == 404

    def test_map_that_is_gone_or_broken_is_said(self, study, department, radiologist):
        path = department.folder / map_path(study.study_instance_uid, study.revision)
        path.write_bytes(b"PK broken")
        broken = radiologist.get(f"/studies/{study.study_id}/slices/1.jpg?map=1")
        path.unlink()
        gone = radiologist.get(f"/studies/{study.study_id}/slices/1.jpg?map=1")

        assert (broken.status_code, gone.status_code) == (404, 404)
        assert "The probability map cannot be read" in broken.get_data(as_text=True)
        assert "No probability map was kept" in gone.get_data(as_text=True)

    def test_map_leaves_by_no_other_door(self, study, radiologist):
        api = radiologist.get(f"/api/v1/studies/{study.study_id}").get_data(as_text=True)
        series = radiologist.get(f"/dicomweb/studies/{study.study_instance_uid}/series").get_json()

        assert "map" not in api
        assert len(series) == 1  # the images that came, and nothing of ours

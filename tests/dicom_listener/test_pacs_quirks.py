"""What PACS do otherwise than the Standard says must not hide an image that is missing, nor make one up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_listener.pacs_comparison import Period
from dicom_listener.reconcile import Reconciler
from tests.builders import ct_series
from tests.dicom_listener.conftest import Running, push, running, settings_for
from tests.dicom_listener.quirky_pacs import QuirkyPacs, running_pacs, with_bytes
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage, GapState
from triage.settings import ReconcileSettings

DAY = date(2026, 1, 2)  # of the builders' images


@pytest.fixture(scope="module")
def head() -> list[Dataset]:
    return ct_series(slices=4, rows=16, columns=16)


@pytest.fixture
def received(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "var") as listener:
        yield listener


def compare(pacs: QuirkyPacs, received: Running, **changes: Any) -> Coverage:
    values = {"pacs_host": "127.0.0.1", "pacs_port": pacs.port, "pacs_ae_title": "QUIRKY", "timeout_s": 10.0,
              "confirm_after_s": 0.0, "fetch_wait_s": 0.2, "retrieve": "none"}  # fmt: skip
    settings = settings_for(received.folder, port=received.port)
    settings = settings.model_copy(update={"reconcile": ReconcileSettings(**(values | changes))})
    ledger = Ledger(settings.storage.ledger_path)
    try:
        return Reconciler(settings, ledger).run(Period(DAY, DAY))
    finally:
        ledger.close()


@contextmanager
def pacs_and_part(received: Running, head: list[Dataset], **quirks: Any) -> Iterator[QuirkyPacs]:
    """A PACS with a study, of which three of four images have come."""
    push(received.port, head[:3])
    with running_pacs(head, listener_port=received.port, **quirks) as pacs:
        yield pacs


def missing(coverage: Coverage) -> tuple[int, int]:
    assert coverage.error == ""
    return coverage.instances_present, coverage.instances_expected


def without_counts(match: Dataset) -> None:
    for keyword in ("NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"):
        if keyword in match:
            delattr(match, keyword)


def odd_counts(value: bytes) -> Callable[[Dataset], None]:
    return lambda match: with_bytes(match, "NumberOfSeriesRelatedInstances", value)


def padded(match: Dataset) -> None:
    with_bytes(match, "StudyInstanceUID", match.StudyInstanceUID.encode() + b" \0\0")


def small_letters(match: Dataset) -> None:
    with_bytes(match, "StudyDescription", b"ct head wo ")
    with_bytes(match, "ModalitiesInStudy", b"ct,sr ")


def wrong_character_set(match: Dataset) -> None:
    match.SpecificCharacterSet = "ISO_IR 192"
    with_bytes(match, "StudyDescription", "SCHÄDEL".encode("latin-1") + b" ")


def no_character_set(match: Dataset) -> None:
    with_bytes(match, "StudyDescription", "КТ ГОЛОВЫ HEAD ".encode("cp1251"))


def without_modalities(match: Dataset) -> None:
    del match.ModalitiesInStudy


QUIRKS = {
    "no_counts": {"change": {"STUDY": without_counts, "SERIES": without_counts}},
    "empty_counts": {"change": {"SERIES": odd_counts(b"")}},
    "zero_counts": {"change": {"SERIES": odd_counts(b"0 ")}},
    "counts_of_nonsense": {"change": {"SERIES": odd_counts(b"many")}},
    "padded_uids": {"change": {"STUDY": padded}},
    "small_letters": {"change": {"STUDY": small_letters}},
    "wrong_character_set": {"change": {"STUDY": wrong_character_set}},
    "no_character_set": {"change": {"STUDY": no_character_set}},
    "modalities_left_out": {"change": {"STUDY": without_modalities}},
    "each_match_twice": {"repeats": 2},
    "image_queries_refused": {"statuses": {"IMAGE": 0xA900}},
    "image_queries_unanswered": {"change": {"IMAGE": lambda match: with_bytes(match, "SOPInstanceUID", b"")}},
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_missing_image_is_found_in_spite_of(received, head, quirk) -> None:
    with pacs_and_part(received, head, **QUIRKS[quirk]) as pacs:
        assert missing(compare(pacs, received)) == (3, 4)


@pytest.mark.parametrize("quirk", [name for name in QUIRKS if not name.startswith("image")])
def test_whole_study_is_whole_in_spite_of(received, head, quirk) -> None:
    push(received.port, head)
    with running_pacs(head, **QUIRKS[quirk]) as pacs:
        assert compare(pacs, received).whole


def test_pacs_that_passes_over_modality_and_date_is_sifted(received, head) -> None:
    mr = ct_series(slices=2, rows=16, columns=16, Modality="MR")
    yesterday = ct_series(slices=2, rows=16, columns=16, StudyDate="20260101")

    with running_pacs([*head, *mr, *yesterday], passes_over=("ModalitiesInStudy", "StudyDate")) as pacs:
        assert missing(compare(pacs, received)) == (0, 4)


def test_pacs_that_finds_nothing_by_modality_is_asked_for_all(received, head) -> None:
    """Some compare the whole list "CT\\SR" with the one that was asked for."""
    with running_pacs(head, change={"STUDY": small_letters}) as pacs:
        coverage = compare(pacs, received, match_modality=False)

    assert missing(coverage) == (0, 4)
    assert pacs.queries[0].ModalitiesInStudy == ""


@pytest.mark.parametrize("level", ["STUDY", "SERIES"])
@pytest.mark.parametrize("status", [0xA900, 0xC001, 0x0122])
def test_refused_query_is_no_success(received, head, level, status) -> None:
    with running_pacs(head, statuses={level: status}) as pacs:
        coverage = compare(pacs, received)

    assert f"0x{status:04X}" in coverage.error
    assert not coverage.whole


def test_what_was_compared_before_the_pacs_broke_off_is_reported(received, head) -> None:
    other = ct_series(slices=2, rows=16, columns=16)
    push(received.port, other)
    with running_pacs([*head, *other], statuses={"STUDY": 0xC001}, after={"STUDY": 1}, aborts=True) as pacs:
        coverage = compare(pacs, received)

    assert "no answer" in coverage.error
    assert not coverage.whole


def test_pacs_that_cuts_off_every_minute_is_an_error_and_ends(received, head) -> None:
    with running_pacs(head, statuses={"STUDY": 0xA700}, after={"STUDY": 1}) as pacs:
        coverage = compare(pacs, received)

    assert "0xA700" in coverage.error
    assert len(pacs.queries) < 40


def test_answers_without_end_are_cut(received, head, monkeypatch) -> None:
    monkeypatch.setattr("dicom_listener.pacs.MATCHES_MAX", 50)

    with running_pacs(head, repeats=1000) as pacs:
        coverage = compare(pacs, received)

    assert "C-FIND of studies" in coverage.error


def test_success_of_a_move_that_sent_nothing_is_not_believed(received, head) -> None:
    """FIELD: export marked COMPLETE although an object failed."""
    with pacs_and_part(received, head, pretends=True) as pacs:
        coverage = compare(pacs, received, retrieve="move")

    [gap] = coverage.gaps
    assert (gap.state, gap.present, gap.attempts) == (GapState.FETCH_FAILED, 3, 1)


def test_pacs_that_moves_no_single_images_sends_the_series(received, head) -> None:
    with pacs_and_part(received, head, move_refused=("IMAGE",)) as pacs:
        coverage = compare(pacs, received, retrieve="move")

    assert missing(coverage) == (4, 4)
    assert pacs.moved == ["SERIES"]
    assert received.studies.instance_count() == 4


def test_reason_of_a_refused_move_is_reported(received, head) -> None:
    with pacs_and_part(received, head, move_refused=("IMAGE", "SERIES")) as pacs:
        [gap] = compare(pacs, received, retrieve="move").gaps

    assert gap.detail == "0xA900, it does not take the request"


def test_association_that_is_rejected_names_our_ae_title(received, head) -> None:
    with running(received.folder.parent / "other", ae_title="OTHER") as other:
        coverage = compare(QuirkyPacs([], port=other.port), received)

    assert "rejected the association (1/1/7): it does not call itself QUIRKY." in coverage.error


def test_pacs_that_asks_for_a_user_is_shown_one(received, head) -> None:
    with running_pacs(head, listener_port=received.port, identity=(b"triage", b"Geheim-17")) as pacs:
        shown = compare(pacs, received, retrieve="none", username="triage", passcode="Geheim-17")
        wrong = compare(pacs, received, retrieve="none", username="triage", passcode="geheim")

    assert shown.error == ""
    assert "rejected the association (2/2/1)" in wrong.error
    assert "geheim" not in wrong.error.lower()

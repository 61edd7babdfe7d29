"""When a study counts as complete: the judgement alone, with times as numbers, and a simulator of senders."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_listener.arrivals import Arrivals
from dicom_listener.completion import Arrival, Complete, Wait, earliest, judge
from dicom_listener.coverage import Wholeness, coverage_of
from tests.dicom_listener.simulated_senders import RULES, WAYS, play, schedule, slices

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def released(*, at: float = 100.0, **values: object) -> Arrival:
    return Arrival(last_image_at=100.0, released_at=at, **values)  # type: ignore[arg-type]


def test_whole_head_is_complete_one_settle_time_after_the_release() -> None:
    series = slices(32)

    assert judge(series, released(at=100.2), RULES, now=101.1) == Wait(101.2)
    assert judge(series, released(at=100.2), RULES, now=101.2) == Complete("geometry")


def test_whole_head_waits_while_its_association_is_open() -> None:
    arrival = Arrival(last_image_at=100.0, open_associations=1)

    assert judge(slices(32), arrival, RULES, now=119.9) == Wait(120.0)
    assert judge(slices(32), arrival, RULES, now=120.0) == Complete("silence")


def test_missing_slice_waits_for_the_cap_and_is_partial() -> None:
    series = slices(32)
    del series[7]

    assert judge(series, released(), RULES, now=159.9) == Wait(160.0)
    assert judge(series, released(), RULES, now=160.0) == Complete("cap", partial=True)


def test_slab_of_a_head_waits_for_silence() -> None:
    assert judge(slices(19), released(), RULES, now=101.5) == Wait(120.0)  # 95 mm
    assert judge(slices(20), released(), RULES, now=101.5) == Complete("geometry")  # 100 mm


def test_every_other_slice_is_not_taken_for_a_whole_head() -> None:
    assert judge(slices(32)[::2], released(), RULES, now=105.0) == Wait(120.0)


def test_upper_half_of_a_descending_push_is_not_taken_for_a_whole_head() -> None:
    assert judge(slices(60, 2.5)[15:], released(), RULES, now=105.0) == Wait(120.0)


def test_two_spacings_are_whole_when_the_numbers_are() -> None:
    """Thin slices through the skull base, thick ones above: usual in sequential scanning."""
    base = slices(12, 2.5)
    vertex = [replace(item, sop_instance_uid=f"v{item.sop_instance_uid}", instance_number=13 + index,
                      image_position_mm=(-125.0, -125.0, 30.0 + 10.0 * index))
              for index, item in enumerate(slices(10))]  # fmt: skip
    whole = base + vertex

    assert coverage_of(whole).wholeness is Wholeness.NUMBERED
    assert judge(whole, released(), RULES, now=101.0) == Complete("counts")
    assert judge(whole[:14] + whole[15:], released(), RULES, now=101.0) == Wait(160.0)


def test_one_series_with_a_hole_holds_up_a_whole_one() -> None:
    thin = slices(160, 1.0, series="1.2.10")
    del thin[80]

    assert judge(slices(32) + thin, released(), RULES, now=101.0) == Wait(160.0)


def test_scout_and_secondary_captures_hold_nothing_up() -> None:
    scout = replace(slices(1, series="1.2.1")[0], image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), instance_number=7)
    page = replace(scout, series_instance_uid="1.2.99", sop_class_uid=SECONDARY_CAPTURE)
    reformatted = [replace(item, image_type=("DERIVED", "SECONDARY", "MPR")) for item in slices(3, series="1.2.5")[::2]]

    assert judge([scout, page, *reformatted, *slices(32)], released(), RULES, now=101.0) == Complete("geometry")


def test_enhanced_ct_is_whole_by_itself() -> None:
    enhanced = replace(slices(1)[0], sop_class_uid=ENHANCED_CT, number_of_frames=40, image_position_mm=None)

    assert judge([enhanced], released(), RULES, now=101.0) == Complete("counts")


def test_repeated_positions_count_once() -> None:
    once = slices(32)
    again = [replace(item, sop_instance_uid=f"b{item.sop_instance_uid}", instance_number=33 + index)
             for index, item in enumerate(once)]  # fmt: skip

    assert coverage_of(once + again).wholeness is Wholeness.WHOLE
    assert coverage_of(once + again).extent_mm == 160.0


def test_slices_without_position_wait_for_silence() -> None:
    series = [replace(item, image_position_mm=None) for item in slices(32)]

    assert judge(series, released(), RULES, now=101.0) == Wait(120.0)
    assert judge(series, released(), RULES, now=120.0) == Complete("silence")


def test_aborted_association_is_not_evidence() -> None:
    assert judge(slices(32), released(aborted=True), RULES, now=119.0) == Wait(120.0)
    assert judge(slices(10), released(aborted=True), RULES, now=120.0) == Wait(160.0)
    assert judge(slices(10), released(aborted=True), RULES, now=160.0) == Complete("cap", partial=True)


def test_sender_that_splits_studies_gets_longer() -> None:
    split = released(longest_gap_s=4.0)

    assert judge(slices(32), split, RULES, now=105.9) == Wait(106.0)
    assert judge(slices(32), released(longest_gap_s=100.0), RULES, now=110.0) == Wait(120.0)


def test_gap_between_associations_is_remembered_of_a_sender() -> None:
    arrivals = Arrivals(gap_max_s=20.0)
    for association, now in ((1, 10.0), (2, 14.0)):
        arrivals.association_opened(association, calling_ae_title="PACS")
        arrivals.image("1.2", association=association, now=now)
        arrivals.association_ended(association, aborted=False, now=now)

    assert arrivals.growing()["1.2"].longest_gap_s == 4.0
    arrivals.gone_on("1.2", arrivals.growing()["1.2"])

    arrivals.association_opened(3, calling_ae_title="PACS")
    arrivals.image("1.3", association=3, now=20.0)
    arrivals.association_ended(3, aborted=False, now=20.0)
    assert arrivals.growing()["1.3"].longest_gap_s == 4.0
    arrivals.gone_on("1.3", arrivals.growing()["1.3"])

    arrivals.association_opened(4, calling_ae_title="PACS")
    arrivals.image("1.4", association=4, now=30.0)
    arrivals.association_ended(4, aborted=False, now=30.0)
    assert arrivals.growing()["1.4"].longest_gap_s == pytest.approx(3.2)  # it fades


def test_opened_association_of_the_same_sender_is_waited_for() -> None:
    arrivals = Arrivals(gap_max_s=20.0)
    arrivals.association_opened(1, calling_ae_title="PACS")
    arrivals.image("1.2", association=1, now=10.0)
    arrivals.association_opened(2, calling_ae_title="PACS")
    arrivals.association_opened(3, calling_ae_title="OTHER")
    arrivals.association_ended(1, aborted=False, now=10.0)

    assert arrivals.growing()["1.2"].open_associations == 1
    arrivals.association_ended(2, aborted=False, now=11.0)
    assert arrivals.growing()["1.2"].open_associations == 0


def test_association_that_goes_on_to_another_study_has_left_the_first() -> None:
    arrivals = Arrivals(gap_max_s=20.0)
    arrivals.association_opened(1, calling_ae_title="PACS")
    arrivals.image("1.2", association=1, now=10.0)
    assert not arrivals.growing()["1.2"].moved_on

    arrivals.image("1.3", association=1, now=11.0)

    assert [arrivals.growing()[uid].moved_on for uid in ("1.2", "1.3")] == [True, False]
    arrivals.association_opened(2, calling_ae_title="PACS")  # it may bring more of the first
    assert not arrivals.growing()["1.2"].moved_on
    arrivals.image("1.2", association=2, now=12.0)
    assert not arrivals.growing()["1.2"].moved_on
    arrivals.association_ended(2, aborted=False, now=13.0)
    assert arrivals.growing()["1.2"].moved_on


def test_sender_that_comes_back_to_a_study_gets_longer() -> None:
    left = Arrival(last_image_at=100.0, open_associations=1, moved_on=True)

    assert judge(slices(32), left, RULES, now=104.9) == Wait(105.0)
    assert judge(slices(32), left, RULES, now=105.0) == Complete("geometry")
    assert judge(slices(32), replace(left, longest_return_s=6.0), RULES, now=105.0) == Wait(109.0)
    assert judge(slices(32)[1::2], left, RULES, now=105.0) == Wait(120.0)  # no evidence: by silence
    assert judge(slices(32), replace(left, moved_on=False), RULES, now=119.0) == Wait(120.0)


def test_return_to_a_study_is_remembered_of_a_sender() -> None:
    arrivals = Arrivals(gap_max_s=20.0)
    arrivals.association_opened(1, calling_ae_title="PACS")
    for uid, now in (("1.2", 10.0), ("1.3", 11.0), ("1.2", 16.0), ("1.4", 17.0)):
        arrivals.image(uid, association=1, now=now)

    assert arrivals.growing()["1.2"].longest_return_s == 6.0
    arrivals.gone_on("1.2", arrivals.growing()["1.2"])
    assert arrivals.growing()["1.4"].longest_return_s == 6.0


def test_study_that_grows_while_it_is_queued_is_not_forgotten() -> None:
    arrivals = Arrivals(gap_max_s=20.0)
    arrivals.association_opened(1, calling_ae_title="PACS")
    arrivals.image("1.2", association=1, now=10.0)
    judged = arrivals.growing()["1.2"]
    arrivals.image("1.2", association=1, now=10.5)

    arrivals.gone_on("1.2", judged)

    assert "1.2" in arrivals.growing()


@pytest.mark.parametrize("way", WAYS)
def test_no_schedule_is_complete_too_early(way: str) -> None:
    played = [play(schedule(seed, way=way)) for seed in range(120 if way == "one study" else 15)]

    assert [uid for outcome in played for uid in outcome.early] == []
    assert sum(outcome.never for outcome in played) == 0
    waits = sorted(wait for outcome in played for wait in outcome.by_evidence_s)
    released = way in ("one study", "side by side")
    assert waits[len(waits) // 2] <= (2.0 if released else RULES.moved_on_s + 0.01)
    assert max(waits) <= RULES.quiet_period_s + 0.01
    assert max((wait for outcome in played for wait in outcome.otherwise_s), default=0.0) <= RULES.cap_s + 0.01


def test_study_of_a_long_association_is_queued_before_the_release() -> None:
    played = [play(schedule(seed, way="one after another")) for seed in range(20)]

    waits = [wait for outcome in played for wait in outcome.by_evidence_s]
    assert len(waits) > 40
    assert sum(wait <= RULES.moved_on_s + 0.01 for wait in waits) >= len(waits) - len(played)  # the last rests on it


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 39), unique=True, max_size=39), st.floats(0, 200))
def test_a_study_is_never_partial_before_the_cap_nor_waits_beyond_it(missing: list[int], waited_s: float) -> None:
    present = [item for index, item in enumerate(slices(40)) if index not in missing]
    now = 100.0 + waited_s

    verdict = judge(present, released(), RULES, now=now)

    if isinstance(verdict, Complete):
        assert not verdict.partial or waited_s >= RULES.cap_s
        assert waited_s >= RULES.settle_s
    else:
        assert now < verdict.until <= 100.0 + RULES.cap_s


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 39), unique=True, max_size=3),
    st.floats(0, 100),
    st.none() | st.floats(0, 90),
    st.booleans(),
)
def test_study_whose_associations_are_over_is_never_complete_before_the_earliest_time(
    missing: list[int], waited_s: float, released_after_s: float | None, aborted: bool
) -> None:
    present = [item for index, item in enumerate(slices(40)) if index not in missing]
    released_at = None if released_after_s is None else 100.0 + released_after_s
    arrival = Arrival(last_image_at=100.0, released_at=released_at, aborted=aborted)
    now = 100.0 + waited_s

    verdict = judge(present, arrival, RULES, now=now)

    if isinstance(verdict, Complete):
        assert now >= earliest(arrival, RULES)
    else:
        assert verdict.until >= earliest(arrival, RULES)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 39), unique=True, max_size=3),
    st.floats(0, 100),
    st.floats(0, 30),
    st.integers(0, 2),
    st.booleans(),
)
def test_open_association_is_never_overtaken_by_more_than_is_set(
    missing: list[int], waited_s: float, return_s: float, open_associations: int, moved_on: bool
) -> None:
    present = [item for index, item in enumerate(slices(40)) if index not in missing]
    arrival = Arrival(
        last_image_at=100.0,
        open_associations=open_associations,
        released_at=None if open_associations else 100.0,
        moved_on=moved_on and open_associations > 0,
        longest_return_s=return_s,
    )
    now = 100.0 + waited_s

    verdict = judge(present, arrival, RULES, now=now)

    if isinstance(verdict, Complete):
        assert now >= earliest(arrival, RULES)
        least_s = RULES.settle_s
        if open_associations:
            least_s = (
                min(max(RULES.moved_on_s, 1.5 * return_s), RULES.quiet_period_s) if moved_on else RULES.quiet_period_s
            )
        assert waited_s >= least_s
    else:
        assert now < verdict.until <= 100.0 + RULES.cap_s


@settings(max_examples=150, deadline=None)
@given(st.permutations(range(24)), st.floats(0.1, 40))
def test_the_order_of_arrival_changes_nothing(order: list[int], waited_s: float) -> None:
    series = slices(24)

    assert judge([series[index] for index in order], released(), RULES, now=100 + waited_s) == judge(
        series, released(), RULES, now=100 + waited_s
    )

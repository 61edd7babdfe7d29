"""The order of the reading list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triage.priority import Rank, reading_order

NOW = 100_000.0
CAP_S = 3600.0
ranks = st.lists(
    st.builds(
        Rank,
        study_id=st.integers(1, 10_000),
        flagged=st.booleans(),
        stat=st.booleans(),
        arrived_at=st.floats(NOW - 4 * CAP_S, NOW),
    ),
    unique_by=lambda rank: rank.study_id,
    max_size=40,
)


def rank(study_id: int, *, flagged: bool = False, stat: bool = False, waited_s: float = 0.0) -> Rank:
    return Rank(study_id, flagged, stat, NOW - waited_s)


def test_flagged_come_first_then_stat_then_arrival():
    order = reading_order(
        [rank(1, waited_s=50), rank(2, waited_s=90), rank(3, stat=True, waited_s=10), rank(4, flagged=True)],
        now=NOW,
        overtaking_cap_s=CAP_S,
    )

    assert order == [4, 3, 2, 1]


def test_flagged_of_equal_urgency_stand_in_order_of_arrival():
    order = reading_order(
        [rank(1, flagged=True, waited_s=5), rank(2, flagged=True, waited_s=9)], now=NOW, overtaking_cap_s=None
    )

    assert order == [2, 1]


def test_overdue_study_takes_the_second_place():
    late = [rank(1, flagged=True), rank(2, flagged=True, waited_s=1), rank(3, waited_s=CAP_S + 1), rank(4, waited_s=9)]

    assert reading_order(late, now=NOW, overtaking_cap_s=CAP_S) == [2, 3, 1, 4]


def test_without_a_cap_flags_always_come_first():
    late = [rank(1, flagged=True), rank(2, flagged=True), rank(3, waited_s=10 * CAP_S)]

    assert reading_order(late, now=NOW, overtaking_cap_s=None) == [1, 2, 3]


@given(ranks)
def test_nothing_is_lost_and_nothing_is_doubled(listed):
    order = reading_order(listed, now=NOW, overtaking_cap_s=CAP_S)

    assert sorted(order) == sorted(item.study_id for item in listed)


@given(ranks)
def test_a_flag_is_on_top_whenever_there_is_one(listed):
    order = reading_order(listed, now=NOW, overtaking_cap_s=CAP_S)

    flagged = {item.study_id for item in listed if item.flagged}
    assert not flagged or order[0] in flagged


@given(ranks, st.sampled_from([None, CAP_S]))
def test_unflagged_routine_studies_keep_their_order_of_arrival(listed, cap_s):
    by_id = {item.study_id: item for item in listed}
    order = reading_order(listed, now=NOW, overtaking_cap_s=cap_s)

    waiting = [by_id[study_id] for study_id in order if not by_id[study_id].flagged and not by_id[study_id].stat]
    arrivals = [item.arrived_at for item in waiting]
    assert arrivals == sorted(arrivals)


@given(ranks)
def test_the_nth_overdue_study_stands_behind_at_most_n_flags(listed):
    by_id = {item.study_id: item for item in listed}
    order = reading_order(listed, now=NOW, overtaking_cap_s=CAP_S)

    flags_before, overdue_before = 0, 0
    for study_id in order:
        item = by_id[study_id]
        if item.flagged:
            flags_before += 1
        elif NOW - item.arrived_at > CAP_S:
            overdue_before += 1
            assert flags_before <= overdue_before


@given(ranks)
def test_the_order_depends_on_nothing_but_the_studies(listed):
    assert reading_order(listed, now=NOW, overtaking_cap_s=CAP_S) == reading_order(
        reversed(listed), now=NOW, overtaking_cap_s=CAP_S
    )

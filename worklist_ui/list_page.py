"""One page of the list: which studies, in which order; the counts above it. Pure functions of a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from triage.ledger.reading import Entry
from triage.priority import Rank, reading_order
from triage.study import ReadingState
from worklist_ui.columns import COLUMNS, Value, chosen
from worklist_ui.live import Snapshot
from worklist_ui.wording import STANDINGS, Standing, clean, person, standing_of

VIEWS = {"open": "To read", "mine": "Mine", "history": "Read", "all": "All received"}
LONGEST_SEARCH = 100
LONGEST_COLUMNS = 200
LAST_PAGE = 10_000


@dataclass(frozen=True)
class ListQuery:
    """What a reader asked to see; every field has an address, so that a view can be kept as a bookmark."""

    view: str = "open"
    standing: Standing | None = None
    search: str = ""
    sort: str = ""  # empty: the reading order
    descending: bool = False
    page: int = 1
    columns: tuple[str, ...] = ()  # empty: those that the reader has chosen for every view
    reader: str = ""  # who asks: what "mine" means

    def address(self, **changes: Any) -> str:
        """Give the query string of this view, with changes; a change of view starts at its first page."""
        values = {
            "view": self.view,
            "state": self.standing.value if self.standing else "",
            "q": self.search,
            "sort": self.sort,
            "desc": "1" if self.descending else "",
            "columns": ",".join(self.columns),
            "page": "" if self.page == 1 else str(self.page),
        }
        if "page" not in changes:
            values["page"] = ""
        values |= {name: "" if value is None else str(value) for name, value in changes.items()}
        if values["view"] == "open":
            values["view"] = ""
        text = urlencode({name: value for name, value in values.items() if value}, safe=",")
        return f"?{text}" if text else ""


@dataclass(frozen=True)
class ListPage:
    """One page of what a query found."""

    query: ListQuery
    entries: tuple[Entry, ...]
    found: int  # studies that fit the query, on all pages
    pages: int


@dataclass(frozen=True)
class Summary:
    """Counts over every study received; the states' sum is all there are."""

    received: int
    by_standing: Mapping[Standing, int]
    by_view: Mapping[str, int]
    unread_flags: int
    last_flag_at: float  # when the newest of them was raised; 0: there is none


def query_from(args: Mapping[str, str], reader: str) -> ListQuery:
    """Read a query from an address; what makes no sense is left out, never an error."""
    view = args.get("view", "open")
    state = args.get("state", "")
    page = args.get("page", "1")
    return ListQuery(
        view=view if view in VIEWS else "open",
        standing=Standing(state) if state in STANDINGS else None,
        search=clean(args.get("q", "")[:LONGEST_SEARCH], LONGEST_SEARCH),
        sort=args.get("sort", "") if args.get("sort", "") in COLUMNS else "",
        descending=args.get("desc", "") == "1",
        columns=chosen(args.get("columns", "")[:LONGEST_COLUMNS].split(",")),
        page=min(max(int(page), 1), LAST_PAGE) if page.isdecimal() and len(page) < 6 else 1,
        reader=reader,
    )


def list_page(snapshot: Snapshot, query: ListQuery, *, rows_per_page: int, overtaking_cap_s: float | None) -> ListPage:
    """Select and order the studies of one page."""
    ordered = _ordered(snapshot, query, overtaking_cap_s)
    pages = max(1, -(-len(ordered) // rows_per_page))
    start = (min(query.page, pages) - 1) * rows_per_page
    return ListPage(query, tuple(ordered[start : start + rows_per_page]), len(ordered), pages)


def summary_of(snapshot: Snapshot, reader: str) -> Summary:
    """Count the studies of a snapshot; for all readers at once, and what this one has claimed."""
    shared = snapshot.once("counts", lambda: _count(snapshot))
    by_view = {**shared.by_view, "mine": shared.by_reader[reader]}
    return Summary(
        shared.received,
        shared.by_standing,
        {view: by_view[view] for view in VIEWS},
        unread_flags=len(shared.unread_flags_at),
        last_flag_at=max(shared.unread_flags_at, default=0.0),
    )


def next_to_read(snapshot: Snapshot, reader: str, *, beside: int, overtaking_cap_s: float | None) -> Entry | None:
    """Give the first study of the open list that this reader may take, `beside` the one that is looked at now."""
    ordered = _ordered(snapshot, ListQuery(), overtaking_cap_s)
    return next((entry for entry in ordered if entry.study.study_id != beside and _is_free_for(entry, reader)), None)


@dataclass(frozen=True)
class _Counts:
    received: int
    by_standing: Mapping[Standing, int]
    by_view: Mapping[str, int]
    by_reader: Counter[str]
    unread_flags_at: tuple[float, ...]


def _count(snapshot: Snapshot) -> _Counts:
    entries = snapshot.entries.values()
    by_standing = Counter(standing_of(entry) for entry in entries)
    read = sum(entry.is_read for entry in entries)
    return _Counts(
        received=len(entries),
        by_standing={standing: by_standing[standing] for standing in Standing},
        by_view={"open": len(entries) - read, "history": read, "all": len(entries)},
        by_reader=Counter(
            entry.study.claimed_by for entry in entries if entry.study.reading_state is ReadingState.CLAIMED
        ),
        unread_flags_at=tuple(
            entry.study.flag_raised_at
            for entry in entries
            if entry.study.flag_raised_at is not None and not entry.is_read
        ),
    )


def _is_free_for(entry: Entry, reader: str) -> bool:
    return entry.study.reading_state is ReadingState.UNREAD or entry.study.claimed_by == reader


def _ordered(snapshot: Snapshot, query: ListQuery, overtaking_cap_s: float | None) -> Sequence[Entry]:
    asker = query.reader if query.view == "mine" else ""
    key = ("ordered", query.view, query.standing, query.search, query.sort, query.descending, asker)

    def order() -> Sequence[Entry]:
        found = _found(snapshot, query)
        return _sorted(found, query, snapshot.at, overtaking_cap_s)

    return snapshot.once(key, order)


def _found(snapshot: Snapshot, query: ListQuery) -> list[Entry]:
    """Give the studies that a query selects, in no order."""
    found = [entry for entry in snapshot.entries.values() if _in_view(entry, query.view, query.reader)]
    if query.standing is not None:
        found = [entry for entry in found if standing_of(entry) is query.standing]
    words = query.search.casefold().split()
    if words:
        texts = snapshot.once(
            "texts", lambda: {study_id: _haystack(entry) for study_id, entry in snapshot.entries.items()}
        )
        found = [entry for entry in found if all(word in texts[entry.study.study_id] for word in words)]
    return found


def _in_view(entry: Entry, view: str, reader: str) -> bool:
    study = entry.study
    if view == "mine":
        return study.reading_state is ReadingState.CLAIMED and study.claimed_by == reader
    return view == "all" or entry.is_read == (view == "history")


def _haystack(entry: Entry) -> str:
    header = entry.study.header
    parts = (
        person(header.patient_name), header.patient_name, header.patient_id, header.accession_number,
        header.study_description, entry.study.calling_ae_title, entry.study.claimed_by, entry.study.read_by,
    )  # fmt: skip
    return "\n".join(parts).casefold()


def _sorted(entries: Sequence[Entry], query: ListQuery, now: float, overtaking_cap_s: float | None) -> list[Entry]:
    if query.sort:
        return _by_column(entries, partial(_value, COLUMNS[query.sort].value, now), descending=query.descending)
    if query.view == "history":
        return sorted(entries, key=lambda entry: entry.study.read_at or 0.0, reverse=True)
    to_read = _by_need([entry for entry in entries if not entry.is_read], now, overtaking_cap_s)
    return to_read + sorted(
        (entry for entry in entries if entry.is_read), key=lambda entry: entry.study.read_at or 0.0, reverse=True
    )


def _by_need(entries: Iterable[Entry], now: float, overtaking_cap_s: float | None) -> list[Entry]:
    by_id = {entry.study.study_id: entry for entry in entries}
    ranks = (
        Rank(study_id, entry.urgent, entry.study.priority == "stat", entry.study.first_image_at)
        for study_id, entry in by_id.items()
    )
    return [by_id[study_id] for study_id in reading_order(ranks, now=now, overtaking_cap_s=overtaking_cap_s)]


def _value(value: Value, now: float, entry: Entry) -> Any:
    return value(entry, now)


def _by_column(entries: Sequence[Entry], value: Callable[[Entry], Any], *, descending: bool) -> list[Entry]:
    by_arrival = sorted(entries, key=lambda entry: (entry.study.first_image_at, entry.study.study_id))
    valued = [(value(entry), entry) for entry in by_arrival]  # equal ones stay in order of arrival, either way round
    having = sorted(
        (pair for pair in valued if pair[0] not in (None, "")), key=lambda pair: pair[0], reverse=descending
    )
    return [entry for _, entry in having] + [entry for found, entry in valued if found in (None, "")]

"""The reading list: the page, its rows as JSON, and the stream that keeps an open page up to date."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, flash, g, redirect, render_template, request, stream_with_context, url_for
from flask.typing import ResponseReturnValue

from triage.ledger.reading import Entry
from worklist_ui.access import reader, still_signed_in
from worklist_ui.columns import COLUMNS, DEFAULT, FIXED, chosen, offered, waited_s
from worklist_ui.list_page import VIEWS, ListPage, ListQuery, list_page, next_to_read, query_from, summary_of
from worklist_ui.live import Snapshot
from worklist_ui.roles import Permission, may
from worklist_ui.services import services

pages = Blueprint("reading_list", __name__)

HEARTBEAT_S = 15.0  # a silent stream is held for dead by proxies, and by the page's script after twice this


@pages.get("/list")
def show() -> ResponseReturnValue:
    """Show one page of the list."""
    snapshot, query = services().live.snapshot(), query_from(request.args, reader())
    page, shown = _page(snapshot, query), _columns(query)
    _note_shown(page.entries)
    return render_template(
        "list.html",
        page=page,
        query=query,
        rows=[_row(snapshot, entry, shown) for entry in page.entries],
        summary=summary_of(snapshot, reader()),
        away=snapshot.away,
        concerns=_concerns(snapshot),
        views=VIEWS,
        columns=COLUMNS,
        shown=shown,
        offered=offered(shown),
        fixed=FIXED,
        version=snapshot.version,
        saved=services().saved_views.of(reader()),
    )


@pages.get("/list/rows")
def rows() -> ResponseReturnValue:
    """Give one page of the list as the script puts it in place; for browsers that cannot keep a stream."""
    snapshot, query = services().live.snapshot(), query_from(request.args, reader())
    if request.args.get("version") == str(snapshot.version):
        return Response(status=204)
    return _message(snapshot, query, known={})


@pages.get("/list/stream")
def stream() -> ResponseReturnValue:
    """Send the page whenever it changes, as server-sent events: the order, and the rows that are new or different.

    The first event holds every row, so a page that was cut off misses nothing when it comes back.
    """
    query = query_from(request.args, reader())
    known: dict[int, Entry] = {}
    return _streamed("page", lambda snapshot: _message(snapshot, query, known))


@pages.get("/list/flags")
def flags() -> ResponseReturnValue:
    """Send how many flags are unread, whenever that changes: for the pages beside the list."""
    return _streamed("flags", _flags)


@pages.get("/list/next")
def next_study() -> ResponseReturnValue:
    """Go to the next study to read, or back to the list if there is none."""
    snapshot = services().live.snapshot()
    found = next_to_read(snapshot, reader(), beside=request.args.get("beside", 0, type=int), overtaking_cap_s=_cap_s())
    if found is None:
        flash("There is no other study to read.", "done")
        return redirect(url_for("reading_list.show"), 303)
    return redirect(url_for("study.show", study_id=found.study.study_id), 303)


def _streamed(name: str, message_of: Callable[[Snapshot], dict[str, Any]]) -> ResponseReturnValue:
    """Answer with a stream of what each new snapshot says; the same again is not sent."""
    if not services().live.enter_stream(services().settings.open_lists):
        return {"answer": "busy", "message": "Too many open lists; this one asks every 2 s."}, 503
    events = _events(name, message_of)
    headers = {"X-Accel-Buffering": "no"}
    response = Response(stream_with_context(events), mimetype="text/event-stream", headers=headers)
    response.call_on_close(services().live.leave_stream)
    return response


def _events(name: str, message_of: Callable[[Snapshot], dict[str, Any]]) -> Iterator[str]:
    live = services().live
    snapshot: Snapshot | None = live.snapshot()
    version, before = 0, None
    while not live.closing and still_signed_in():  # else the browser asks again, and is told to sign in
        message = None if snapshot is None else message_of(snapshot)
        if message is None or message == before:
            yield "event: beat\ndata: {}\n\n"
        else:
            yield f"event: {name}\ndata: {json.dumps(message)}\n\n"
            before = message
        version = version if snapshot is None else snapshot.version
        snapshot = live.wait(version, timeout_s=HEARTBEAT_S)


def _flags(snapshot: Snapshot) -> dict[str, Any]:
    summary = summary_of(snapshot, reader())
    return {"flags": summary.unread_flags, "last_flag": summary.last_flag_at}


def _message(snapshot: Snapshot, query: ListQuery, known: dict[int, Entry]) -> dict[str, Any]:
    """Build one update; `known` holds the rows that the page has, and is brought up to date."""
    page = _page(snapshot, query)
    news = [entry for entry in page.entries if known.get(entry.study.study_id) != entry]
    _note_shown(news)
    known.clear()
    known.update((entry.study.study_id, entry) for entry in page.entries)
    summary, shown = summary_of(snapshot, reader()), _columns(query)
    anybodys = replace(query, reader="")
    return {
        "version": snapshot.version,
        "order": [entry.study.study_id for entry in page.entries],
        "rows": {str(entry.study.study_id): _row(snapshot, entry, shown) for entry in news},
        **_flags(snapshot),
        "summary": _partial(
            snapshot, "_summary.html", (anybodys, summary.by_view["mine"]), summary=summary, query=query, views=VIEWS
        ),
        "banner": _banner(snapshot),
        "pager": _partial(snapshot, "_pager.html", query if query.view == "mine" else anybodys, page=page, query=query),
    }


def _banner(snapshot: Snapshot) -> str:
    concerns = _concerns(snapshot)
    return _partial(snapshot, "_banner.html", concerns, away=snapshot.away, concerns=concerns)


def _concerns(snapshot: Snapshot) -> tuple[str, ...]:
    """Say what is wrong with the intake, to those who look after it."""
    if not may(g.user.role, Permission.OPERATE):
        return ()
    return snapshot.once("concerns", services().intake.concerns)


def _page(snapshot: Snapshot, query: ListQuery) -> ListPage:
    return list_page(snapshot, query, rows_per_page=services().settings.rows_per_page, overtaking_cap_s=_cap_s())


def _cap_s() -> float:
    return services().settings.overtaking_cap_minutes * 60


def _columns(query: ListQuery) -> tuple[str, ...]:
    """Give the columns of a view: its own, or the reader's for every view, or those of a new account."""
    return query.columns or chosen(services().saved_views.columns_of(reader())) or DEFAULT


def _row(snapshot: Snapshot, entry: Entry, shown: tuple[str, ...]) -> str:
    """Draw one row, once for all who look at it, until it changes; every minute anew, for what it says of waiting."""
    mine = reader() if reader() in (entry.study.claimed_by, entry.study.read_by) else ""
    key = (
        entry,
        mine,
        shown,
        int(snapshot.at // 60),
    )  # by all it says, not by number: numbers of deleted studies come again
    html = snapshot.rows.get(key)
    if html is None:
        waited = waited_s(entry, snapshot.at)
        html = snapshot.rows[key] = render_template(
            "_row.html",
            entry=entry,
            shown=shown,
            columns=COLUMNS,
            waited_s=waited,
            overdue=not (entry.urgent or entry.is_read) and waited > _cap_s(),
            reader=reader(),
        )
    return html


def _partial(snapshot: Snapshot, template: str, asked: object, **values: Any) -> str:
    return snapshot.once((template, asked), lambda: render_template(template, **values))


def _note_shown(entries: Any) -> None:
    fresh = [
        entry.study.study_id
        for entry in entries
        if entry.study.found_at is not None
        and (entry.study.shown_at is None or entry.study.shown_at < entry.study.found_at)
        and services().shown.add(entry.study.study_id, entry.study.found_at)
    ]
    if fresh:
        services().reading.note_shown(fresh, now=services().clock())

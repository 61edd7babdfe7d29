"""The stream of changes: server-sent events, from the same snapshot that the pages' streams send from."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response, request, stream_with_context

from worklist_ui.access import still_signed_in
from worklist_ui.api import models
from worklist_ui.api.operations import EVENTS, operation
from worklist_ui.api.studies import item_of
from worklist_ui.live import Snapshot
from worklist_ui.problems import problem
from worklist_ui.services import services

HEARTBEAT_S = 15.0
LAST_EVENT_ID = "Last-Event-ID"


@operation("GET", "/events", query=models.ChangesQuery, answer=models.Changes, media_type=EVENTS)
def events(query: models.ChangesQuery) -> Response:
    """Follow the list by server-sent events.

    Each event `studies` has the studies that changed, in order of change; its id is the newest change in it. A
    client that comes back with `Last-Event-ID`, or `after`, misses nothing. An event `gone` names studies that
    are not there any more. A comment is sent every 15 s where nothing happens.
    """
    if not services().live.enter_stream(services().settings.open_lists):
        return problem(503, "Too many open streams; ask for the list every few seconds instead.")
    response = Response(
        stream_with_context(_events(_after(query))), mimetype=EVENTS, headers={"X-Accel-Buffering": "no"}
    )
    response.call_on_close(services().live.leave_stream)
    return response


def _after(query: models.ChangesQuery) -> int:
    """Give the last change that the client has, by its header if it comes back."""
    known = request.headers.get(LAST_EVENT_ID, "")
    return int(known) if known.isdecimal() and len(known) < 19 else query.after


def _events(after: int) -> Iterator[str]:
    live = services().live
    snapshot: Snapshot | None = live.snapshot()
    version, known = 0, frozenset[int]()
    while not live.closing and still_signed_in():
        if snapshot is None:
            yield ": nothing new\n\n"
        else:
            version = snapshot.version
            yield from _told(snapshot, after, known)
            after, known = max(after, snapshot.change), frozenset(snapshot.entries)
        snapshot = live.wait(version, timeout_s=HEARTBEAT_S)


def _told(snapshot: Snapshot, after: int, known: frozenset[int]) -> Iterator[str]:
    changed = sorted(
        (entry for entry in snapshot.entries.values() if entry.change > after), key=lambda entry: entry.change
    )
    if changed:
        newest = changed[-1].change
        data = models.Changes(change=newest, studies=[item_of(entry) for entry in changed])
        yield f"id: {newest}\nevent: studies\ndata: {data.model_dump_json()}\n\n"
    elif not known:
        yield ": open\n\n"  # so that the client knows that it is heard
    if gone := known - snapshot.entries.keys():
        yield f"event: gone\ndata: {sorted(gone)}\n\n"

"""The page of one study, its preview pictures, and what a reader does with it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import structlog
from flask import Blueprint, Response, abort, render_template, request
from flask.typing import ResponseReturnValue

from triage.errors import StoreError, TriageError
from triage.finding import Finding
from triage.ledger.reading import Entry
from triage.ledger.studies import Analysis
from triage.probability_map import ProbabilityMap
from triage.study import REASON_TEXT, Study
from worklist_ui.access import reader
from worklist_ui.answers import GONE
from worklist_ui.previews import PRESETS, Window, slice_jpeg, slice_of_slab
from worklist_ui.roles import PERMISSIONS, Permission, Role, may
from worklist_ui.services import services
from worklist_ui.volumes import PreviewSlice

LARGEST_ID = 2**53 - 1  # what a number keeps in JavaScript; beyond SQLite's 2**63 a query would fail
STUDY_PREFIX = f"/studies/<int(max={LARGEST_ID}):study_id>"
pages = Blueprint("study", __name__, url_prefix=STUDY_PREFIX)
log = structlog.get_logger()
HU_WIDTHS = (1.0, 8000.0)
HU_LEVELS = (-2000.0, 4000.0)


@dataclass(frozen=True)
class Step:
    """One step of a study's way, with the wait before it."""

    name: str
    at: float | None
    waited_s: float | None


@dataclass(frozen=True)
class Preview:
    """What the preview shows."""

    slices: int
    key_slices: tuple[int, ...]
    has_map: bool  # what the model saw can be laid over it: only in research mode


@pages.get("/")
def show(study_id: int) -> ResponseReturnValue:
    """Show one study."""
    services().reading.note_opened(study_id, reader(), now=services().clock())
    entry = _entry(study_id)
    uid = entry.study.study_instance_uid
    analyses = services().studies.analyses_of(uid)
    current = next((analysis for analysis in analyses if not analysis.superseded), None)
    preview, no_preview = _preview(current)
    return render_template(
        "study.html",
        entry=entry,
        study=entry.study,
        analysis=current,
        earlier=[analysis for analysis in analyses if analysis is not current],
        events=services().studies.events_of(uid),
        conflicts=services().studies.conflict_count(uid),
        steps=steps_of(entry.study),
        preview=preview,
        no_preview=no_preview,
        presets=PRESETS,
        reasons=REASON_TEXT,
        viewer_url=viewer_url(services().settings.viewer_url, entry.study),
        opinions=services().feedback.opinions_on(uid),
        readers=_readers(),
        reader=reader(),
        now=services().clock(),
    )


@pages.get("/slices/<int:slice_index>.jpg")
def slice_image(study_id: int, slice_index: int) -> ResponseReturnValue:
    """Draw one slice of the series that was read; `width` and `level` in HU choose the window.

    In research mode `map=1` lays the probability map over it.
    """
    entry = _entry(study_id)
    analysis = services().studies.current_analysis(entry.study.study_instance_uid)
    window = Window("", _number("width", PRESETS[0].width, HU_WIDTHS), _number("level", PRESETS[0].level, HU_LEVELS))
    if analysis is None or analysis.finding is None:
        abort(404, "There is no picture: no series was read.")
    try:
        kept = _map_of(analysis.finding)
        drawn = _slice(entry.study, analysis.finding.series_instance_uid, slice_index)
    except IndexError:
        abort(404, "There is no such slice.")
    except (TriageError, OSError) as error:
        log.warning("preview_failed", study_id=study_id, error_type=type(error).__name__)
        abort(404, "There is no picture: the series cannot be read.")
    # Private to this browser, and only while the list stays open: scrolling back costs nothing.
    return Response(
        slice_jpeg(drawn, window, kept.on_slice(slice_index, drawn.hu.shape, drawn.spacing_mm) if kept else None),
        mimetype="image/jpeg",
        headers={"Cache-Control": "private, max-age=300"},
    )


def steps_of(study: Study) -> list[Step]:
    """Give the way of a study in order, each step with the time since the one before it."""
    times = [
        ("First image", study.first_image_at),
        ("Last image", study.last_image_at),
        ("Complete", study.complete_at),
        ("Queued", study.queued_at),
        ("Started", study.started_at),
        ("Result", study.found_at),
        ("Shown on a list", study.shown_at),
        ("Opened", study.opened_at),
        ("Read", study.read_at),
    ]
    steps: list[Step] = []
    before: float | None = None
    for name, at in times:
        waited_s = None if at is None or before is None or at < before else at - before
        steps.append(Step(name, at, waited_s))
        before = before if at is None else at
    return steps


def viewer_url(template: str, study: Study) -> str:
    """Fill the address of another viewer; empty: there is none."""
    values = {
        "{study_instance_uid}": study.study_instance_uid,
        "{accession_number}": study.header.accession_number,
        "{patient_id}": study.header.patient_id,
    }
    for name, value in values.items():
        template = template.replace(name, quote(value, safe=""))
    return template


def _entry(study_id: int) -> Entry:
    entry = services().reading.entry(study_id)
    if entry is None:
        abort(404, GONE)
    return entry


def _readers() -> list[str]:
    """Name the accounts that a study can be given to."""
    return [
        user.username
        for user in services().users.all()
        if not user.disabled and user.role in PERMISSIONS and may(Role(user.role), Permission.READ)
    ]


def _preview(analysis: Analysis | None) -> tuple[Preview | None, str]:
    """Give what the preview shows, or why there is none."""
    if analysis is None:
        return None, "No series has been chosen yet."
    if analysis.finding is None:
        return None, "No series was read."
    chosen = next((choice for choice in analysis.series_choices if choice.chosen), None)
    slices = chosen.slices if chosen else analysis.finding.slab_count
    keys = (slice_of_slab(slab, analysis.finding.slab_count, slices) for slab in analysis.finding.key_slabs)
    return Preview(slices, tuple(keys), services().settings.research_mode and bool(analysis.finding.map_path)), ""


def _map_of(finding: Finding) -> ProbabilityMap | None:
    """Give the map that the page asks to be laid over a slice; None: it does not ask."""
    if request.args.get("map") != "1":
        return None
    if not services().settings.research_mode:
        abort(403, "What the model saw is shown in research mode alone.")
    try:
        return services().maps.read(finding.map_path)
    except StoreError as error:
        abort(404, str(error))


def _slice(study: Study, series_instance_uid: str, slice_index: int) -> PreviewSlice:
    instances = [
        instance
        for instance in services().studies.instances_of(study.study_instance_uid)
        if instance.series_instance_uid == series_instance_uid
    ]
    return services().volumes.slice_of(series_instance_uid, instances, slice_index)


def _number(name: str, default: float, bounds: tuple[float, float]) -> float:
    value = request.args.get(name, default, type=float)
    if not bounds[0] <= value <= bounds[1]:  # also refuses NaN
        abort(400, f"{name} must lie between {bounds[0]:.0f} and {bounds[1]:.0f} HU.")
    return value

"""The operations on studies: list, one study, and what readers do."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Response

from triage.finding import Finding
from triage.ledger.feedback import Opinion
from triage.ledger.reading import Answer, Entry
from triage.ledger.studies import Analysis, Event
from worklist_ui.access import reader
from worklist_ui.answers import GONE, HTTP_STATUS
from worklist_ui.api import models
from worklist_ui.api.operations import operation
from worklist_ui.list_page import ListQuery, list_page, summary_of
from worklist_ui.problems import problem
from worklist_ui.services import services
from worklist_ui.wording import standing_detail, standing_of

ONE = "/studies/<int(max=9223372036854775807):study_id>"  # what SQLite can hold; a larger number is not found
NO_SUCH, NOT_DONE = 404, 409


@operation("GET", "/studies", query=models.StudyQuery, answer=models.StudyPage)
def list_studies(query: models.StudyQuery) -> models.StudyPage:
    """List studies.

    In reading order: flagged and unread first, then STAT requests, then arrival. Every study ever received is
    on the list with `view=all`, in exactly one state.
    """
    snapshot, cap = services().live.snapshot(), services().settings.overtaking_cap_minutes
    asked = ListQuery(
        view=query.view.value,
        standing=query.state,
        search=query.q.strip(),
        sort=query.sort.value if query.sort else "",
        descending=query.descending,
        page=query.page,
        reader=reader(),
    )
    page = list_page(snapshot, asked, rows_per_page=query.limit, overtaking_cap_s=None if cap is None else cap * 60)
    summary = summary_of(snapshot, reader())
    return models.StudyPage(
        studies=[item_of(entry) for entry in page.entries] if query.page <= page.pages else [],
        page=query.page,
        pages=page.pages,
        found=page.found,
        received=summary.received,
        counts=dict(summary.by_standing),
        model_away=snapshot.away.cause if snapshot.away else None,
    )


@operation("GET", ONE, answer=models.StudyDetail, problems=(NO_SUCH,))
def show_study(study_id: int) -> models.StudyDetail | Response:
    """Give one study with its analyses, history and feedback."""
    entry = services().reading.entry(study_id)
    if entry is None:
        return problem(NO_SUCH, GONE)
    uid = entry.study.study_instance_uid
    return models.StudyDetail(
        study=item_of(entry),
        analyses=[_analysis(analysis) for analysis in services().studies.analyses_of(uid)],
        events=[_event(event) for event in services().studies.events_of(uid)],
        feedback=[_opinion(opinion) for opinion in services().feedback.opinions_on(uid)],
    )


@operation("POST", f"{ONE}/claim", answer=models.StepDone, problems=(NO_SUCH, NOT_DONE))
def claim(study_id: int) -> models.StepDone | Response:
    """Take a study to read.

    Two readers never get the same study: the second one is answered 409. A claim that is not followed by a read lapses.
    """
    now = services().clock()
    answer = services().reading.claim(study_id, reader(), expires_before=_expires_before(now), now=now)
    return _step(study_id, answer, changed="The study has been read.")


@operation("POST", f"{ONE}/release", answer=models.StepDone, problems=(NO_SUCH, NOT_DONE))
def release(study_id: int) -> models.StepDone | Response:
    """Give a claimed study back to all."""
    answer = services().reading.release(study_id, reader(), now=services().clock())
    return _step(study_id, answer)


@operation("POST", f"{ONE}/read", body=models.Seen, answer=models.StepDone, problems=(NO_SUCH, NOT_DONE))
def mark_read(study_id: int, body: models.Seen) -> models.StepDone | Response:
    """Take a study off the open list, because its report is made.

    `revision` is that of the study which was read: if images came since, nothing is done.
    """
    now = services().clock()
    answer = services().reading.mark_read(
        study_id, reader(), revision=body.revision, expires_before=_expires_before(now), now=now
    )
    return _step(study_id, answer, changed="Images came since this revision. Look at the study again.")


@operation("POST", f"{ONE}/undo", answer=models.StepDone, problems=(NO_SUCH, NOT_DONE))
def undo_read(study_id: int) -> models.StepDone | Response:
    """Put a study that was marked as read back on the open list; only who marked it may."""
    answer = services().reading.undo_read(study_id, reader(), now=services().clock())
    return _step(study_id, answer)


@operation("POST", f"{ONE}/feedback", body=models.FeedbackGiven, answer=models.StepDone, problems=(NO_SUCH, NOT_DONE))
def give_feedback(study_id: int, body: models.FeedbackGiven) -> models.StepDone | Response:
    """Agree with the model, or disagree with a reason.

    The opinion belongs to this reader and to the analysis that counts now; a later one takes its place.
    """
    answer = services().feedback.give(
        study_id, reader(), revision=body.revision, reason=body.reason, note=body.note, now=services().clock()
    )
    return _step(study_id, answer, changed="There is another result since this revision, or none.")


def item_of(entry: Entry) -> models.StudyItem:
    """Give one line of the list as the API has it."""
    study, header = entry.study, entry.study.header
    return models.StudyItem(
        study_id=study.study_id,
        study_instance_uid=study.study_instance_uid,
        change=entry.change,
        revision=study.revision,
        state=standing_of(entry),
        detail=standing_detail(entry),
        not_analysed_reason=study.reason,
        priority="stat" if study.priority == "stat" else "routine",
        patient=models.Patient(
            name=header.patient_name,
            patient_id=header.patient_id,
            birth_date=header.patient_birth_date,
            sex=header.patient_sex,
            age=header.patient_age,
        ),
        accession_number=header.accession_number,
        description=header.study_description,
        study_date=header.study_date,
        calling_ae_title=study.calling_ae_title,
        images=study.instance_count,
        first_image_at=_time(study.first_image_at),
        last_image_at=_time(study.last_image_at),
        found_at=_when(study.found_at),
        flagged=entry.flagged,
        flag_raised_at=_when(study.flag_raised_at),
        probability=entry.probability,
        volume_ml=entry.volume_ml,
        model=entry.model_name or None,
        model_version=entry.model_version,
        reading_state=study.reading_state,
        claimed_by=study.claimed_by or None,
        claimed_at=_when(study.claimed_at),
        read_by=study.read_by or None,
        read_at=_when(study.read_at),
    )


def _step(study_id: int, answer: Answer, *, changed: str = "") -> models.StepDone | Response:
    """Answer a step: the study as it is after it, or why nothing was done."""
    entry = services().reading.entry(study_id)
    if answer is Answer.GONE or entry is None:
        return problem(NO_SUCH, GONE)
    if HTTP_STATUS[answer] == NOT_DONE:
        holder = entry.study.claimed_by or entry.study.read_by or "Somebody else"
        detail = f"Nothing was done: {holder} has the study." if answer is Answer.TAKEN else changed
        return problem(NOT_DONE, detail)
    return models.StepDone(answer="done" if answer is Answer.DONE else "already", study=item_of(entry))


def _analysis(analysis: Analysis) -> models.AnalysisItem:
    finding: Finding | None = analysis.finding
    return models.AnalysisItem(
        at=_time(analysis.at),
        revision=analysis.revision,
        outcome=analysis.outcome,
        superseded=analysis.superseded,
        reason=analysis.reason,
        detail=analysis.detail,
        flagged=finding.flagged if finding else None,
        probability=finding.probability if finding else None,
        volume_ml=finding.volume_ml if finding else None,
        model=finding.model_name if finding else None,
        model_version=finding.model_version if finding else None,
        series_instance_uid=finding.series_instance_uid if finding else None,
    )


def _event(event: Event) -> models.EventItem:
    return models.EventItem(at=_time(event.at), kind=event.kind, actor=event.actor or None, detail=event.detail or "")


def _opinion(opinion: Opinion) -> models.OpinionItem:
    return models.OpinionItem(
        reader=opinion.reader, at=_time(opinion.at), agrees=opinion.agrees, reason=opinion.reason, note=opinion.note
    )


def _expires_before(now: float) -> float:
    return now - services().settings.claim_minutes * 60


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _when(at: float | None) -> datetime | None:
    return None if at is None else _time(at)

"""What the pages work with: one value a running worklist, handed to the factory and found through the app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flask import current_app

from triage.ledger import Ledger
from triage.ledger.audit import AuditTrail
from triage.ledger.external_identities import ExternalIdentities
from triage.ledger.feedback import Feedback
from triage.ledger.image_search import ImageSearch
from triage.ledger.reading import Reading
from triage.ledger.retrievals import Retrievals
from triage.ledger.saved_views import SavedViews
from triage.ledger.studies import Studies
from triage.ledger.tokens import Tokens
from triage.ledger.users import Users
from triage.ledger.work import WorkQueue
from triage.settings import Settings, WorklistSettings
from worklist_ui.dicomweb.disclosures import Disclosures
from worklist_ui.intake import IntakeWatch
from worklist_ui.live import LiveList
from worklist_ui.looks import Looks
from worklist_ui.rate_limit import RateLimit
from worklist_ui.shown import Shown
from worklist_ui.volumes import MapCache, VolumeCache

Clock = Callable[[], float]
EXTENSION = "ich_triage"


@dataclass(frozen=True)
class Services:
    """The ledger seen from each side, and what this process keeps in memory."""

    settings: WorklistSettings
    clock: Clock
    studies: Studies
    reading: Reading
    feedback: Feedback
    users: Users
    saved_views: SavedViews
    tokens: Tokens
    identities: ExternalIdentities
    images: ImageSearch
    disclosures: Disclosures
    folder: Path  # of the store: what paths in the ledger are below
    queue: WorkQueue
    audit: AuditTrail
    live: LiveList
    intake: IntakeWatch
    volumes: VolumeCache
    maps: MapCache
    sign_in_rate: RateLimit
    shown: Shown
    looks: Looks


def make_services(settings: Settings, ledger: Ledger, clock: Clock) -> Services:
    """Put the services of one process together."""
    reading, studies = Reading(ledger), Studies(ledger)
    return Services(
        settings=settings.worklist,
        clock=clock,
        studies=studies,
        reading=reading,
        feedback=Feedback(ledger),
        users=Users(ledger),
        saved_views=SavedViews(ledger),
        tokens=Tokens(ledger),
        identities=ExternalIdentities(ledger),
        images=ImageSearch(ledger),
        disclosures=Disclosures(Retrievals(ledger)),
        folder=settings.storage.folder,
        queue=WorkQueue(ledger),
        audit=AuditTrail(ledger),
        live=LiveList(reading, studies, settings.worklist, clock),
        intake=IntakeWatch(ledger, settings, clock),
        volumes=VolumeCache(settings.storage.folder, settings.worklist.preview_cache_bytes),
        maps=MapCache(settings.storage.folder),
        sign_in_rate=RateLimit(settings.worklist.sign_ins_per_minute, per_s=60.0),
        shown=Shown(),
        looks=Looks(),
    )


def services() -> Services:
    """Give the services of the app that answers this request."""
    found: Services = current_app.extensions[EXTENSION]
    return found

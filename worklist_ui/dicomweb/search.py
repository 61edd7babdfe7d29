"""QIDO-RS: searching for studies, series and instances (PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, abort, request, url_for

from triage.ledger.image_search import Level, Results
from worklist_ui.dicomweb.attributes import instance_attributes, series_attributes, study_attributes
from worklist_ui.dicomweb.json_model import Attributes, array
from worklist_ui.dicomweb.negotiation import JSON, NotAcceptable, choose, wanted_from
from worklist_ui.dicomweb.query import Query, query_from
from worklist_ui.services import services

pages = Blueprint("dicomweb_search", __name__, url_prefix="/dicomweb")


@pages.get("/studies")
def studies() -> Response:
    """Search for studies."""
    query = _query(Level.STUDY, {})
    found = _found(services().images.studies, query)
    folder = services().folder
    return _answer(query, found, [study_attributes(item, query, folder, _retrieve_url) for item in found.records])


@pages.get("/series")
@pages.get("/studies/<study_instance_uid>/series")
def series(study_instance_uid: str | None = None) -> Response:
    """Search for series, in all studies or in one."""
    query = _query(Level.SERIES, {"StudyInstanceUID": study_instance_uid})
    found = _found(services().images.series, query)
    given = [
        series_attributes(item, query, services().folder, _retrieve_url, alone=study_instance_uid is None)
        for item in found.records
    ]
    return _answer(query, found, given)


@pages.get("/instances")
@pages.get("/studies/<study_instance_uid>/instances")
@pages.get("/studies/<study_instance_uid>/series/<series>/instances")
def instances(study_instance_uid: str | None = None, series: str | None = None) -> Response:
    """Search for instances, in all studies, in one, or in one series."""
    query = _query(Level.INSTANCE, {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": series})
    found = _found(services().images.instances, query)
    folder = services().folder
    return _answer(query, found, [instance_attributes(item, query, folder, _retrieve_url) for item in found.records])


def _query(level: Level, of_path: Mapping[str, str | None]) -> Query:
    """Read what is asked; UIDs of the address count as matching keys."""
    try:
        choose(wanted_from(request.headers, request.args), (JSON, "application/json"))
        query = query_from(request.args, level, most=services().settings.dicomweb_most_results)
    except NotAcceptable as error:
        abort(406, str(error))
    except ValueError as error:
        abort(400, str(error))
    given = {keyword: uid for keyword, uid in of_path.items() if uid is not None}
    if any(query.keys.get(keyword, uid) != uid for keyword, uid in given.items()):
        abort(400, "The address and a matching key name different studies or series.")
    return Query({**query.keys, **given}, query.limit, query.offset, query.include, query.include_all, query.not_done)


def _found(search: Any, query: Query) -> Any:
    try:
        return search(query.keys, limit=query.limit, offset=query.offset)
    except ValueError as error:
        abort(400, str(error))


def _answer(query: Query, found: Results[Any], given: list[Attributes]) -> Response:
    service = url_for("dicomweb_search.studies", _external=True).removesuffix("/studies")
    warnings = list(query.not_done)
    if found.remaining:
        warnings.append(f"There are {found.remaining} additional results that can be requested.")
    response = Response("".join(array(given)), content_type=JSON) if given else Response(status=204)
    for warning in warnings:
        response.headers.add("Warning", f"299 {service}: {warning}")
    return response


def _retrieve_url(study: str, series: str | None = None, instance: str | None = None) -> str:
    return url_for(
        "dicomweb_retrieve.instances", study_instance_uid=study, series=series, instance=instance, _external=True
    )

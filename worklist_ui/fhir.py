"""The audit trail as FHIR R4 AuditEvent resources (hl7.org/fhir/R4/auditevent.html), for other systems to keep."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from triage.ledger.audit import AuditRecord

EVENT_TYPES = "http://terminology.hl7.org/CodeSystem/audit-event-type"
DICOM_CODES = "http://dicom.nema.org/resources/ontology/DCM"
ENTITY_TYPES = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLES = "http://terminology.hl7.org/CodeSystem/object-role"
LOGIN = {"sign_in": ("110122", "Login"), "sign_out": ("110123", "Logout"), "use_link": ("110122", "Login")}


def audit_event(record: AuditRecord) -> dict[str, Any]:
    """Give one row as an AuditEvent."""
    deed = record.deed
    return {
        "resourceType": "AuditEvent",
        "id": str(record.audit_id),
        "type": _type(deed.action),
        "subtype": [{"system": "urn:ich-triage:action", "code": deed.action}],
        "action": "R" if deed.action.startswith(("view", "search", "retrieve")) else "E",
        "recorded": datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds"),
        "outcome": _outcome(deed.outcome),
        "agent": [_agent(record)],
        "source": {"observer": {"display": "ich-triage worklist"}},
        "entity": _entities(record),
    }


def _type(action: str) -> dict[str, str]:
    if action in LOGIN:
        return {"system": DICOM_CODES, "code": "110114", "display": "User Authentication"}
    return {"system": EVENT_TYPES, "code": "rest", "display": "RESTful Operation"}


def _outcome(status: int) -> str:
    """Give "0" for success, "4" for what was refused, "8" for what failed at our side."""
    return "0" if status < 400 else "4" if status < 500 else "8"


def _agent(record: AuditRecord) -> dict[str, Any]:
    deed = record.deed
    agent: dict[str, Any] = {"who": {"identifier": {"value": deed.actor or "unknown"}}, "requestor": True}
    if deed.role:
        agent["role"] = [{"text": deed.role}]
    if deed.peer_host:
        agent["network"] = {"address": deed.peer_host, "type": "2"}
    return agent


def _entities(record: AuditRecord) -> list[dict[str, Any]]:
    deed = record.deed
    entities: list[dict[str, Any]] = []
    if deed.patient_id:
        entities.append(
            {
                "what": {"identifier": {"value": deed.patient_id}},
                "type": {"system": ENTITY_TYPES, "code": "1", "display": "Person"},
                "role": {"system": OBJECT_ROLES, "code": "1", "display": "Patient"},
            }
        )
    if deed.study_instance_uid:
        entities.append(
            {
                "what": {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{deed.study_instance_uid}"}},
                "type": {"system": ENTITY_TYPES, "code": "2", "display": "System Object"},
                "role": {"system": OBJECT_ROLES, "code": "3", "display": "Report"},
            }
        )
    seal = {"type": "seal", "valueString": record.seal}
    detail = [{"type": "detail", "valueString": deed.detail}] if deed.detail else []
    entities.append({"name": "row of the audit trail", "detail": [seal, *detail]})
    return entities

"""The ledger's tables, each change a step that is applied once and recorded by sqlite-utils.

A step that has been released is never edited: add another. Times (`*_at`) are seconds since the epoch, UTC.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

migrations = Migrations("ich-triage")


@migrations()
def m001_studies_and_instances(db: Database) -> None:
    """Studies, their instances, and what was received but kept apart."""
    db.table("studies").create(
        {
            "study_id": int,
            "study_instance_uid": str,
            "state": str,
            "revision": int,
            "change": int,  # counts every write to any study: what a live list asks for
            "instance_count": int,
            "first_image_at": float,
            "last_image_at": float,
            "calling_ae_title": str,
            "called_ae_title": str,
            "priority": str,
            "patient_name": str,
            "patient_id": str,
            "patient_birth_date": str,
            "patient_sex": str,
            "patient_age": str,
            "accession_number": str,
            "study_description": str,
            "study_date": str,
            "study_time": str,
            "body_part_examined": str,
            "institution_name": str,
            "referring_physician_name": str,
            "reason": str,
            "detail": str,
            "partial": int,
            "completed_by": str,
            "complete_at": float,
            "queued_at": float,
            "started_at": float,
            "found_at": float,
            "shown_at": float,
            "opened_at": float,
            "read_at": float,
            "not_before": float,
            "attempts": int,
            "lease_owner": str,
            "lease_expires_at": float,
            "fence": int,
            "flag_raised_at": float,
            "reading_state": str,
            "claimed_by": str,
            "claimed_at": float,
            "read_by": str,
        },
        pk="study_id",
        not_null={"study_instance_uid", "state", "revision", "change", "instance_count", "fence", "attempts"},
        defaults={
            "revision": 1,
            "instance_count": 0,
            "fence": 0,
            "attempts": 0,
            "partial": 0,
            "priority": "routine",
            "reading_state": "unread",
            "claimed_by": "",
            "read_by": "",
            "detail": "",
            "completed_by": "",
        },
    )
    db.table("studies").create_index(["study_instance_uid"], unique=True)
    db.table("studies").create_index(["state", "queued_at"])
    db.table("studies").create_index(["change"])
    db.table("studies").create_index(["reading_state", "first_image_at"])
    db.table("instances").create(
        {
            "sop_instance_uid": str,
            "study_instance_uid": str,
            "series_instance_uid": str,
            "sop_class_uid": str,
            "transfer_syntax_uid": str,
            "path": str,
            "size_bytes": int,
            "sha256": str,
            "received_at": float,
            "calling_ae_title": str,
            "called_ae_title": str,
            "modality": str,
            "image_type": str,
            "series_number": int,
            "series_description": str,
            "instance_number": int,
            "image_position_mm": str,
            "image_orientation": str,
            "rows": int,
            "columns": int,
            "number_of_frames": int,
        },
        pk="sop_instance_uid",
        not_null={"study_instance_uid", "series_instance_uid", "path", "sha256", "received_at"},
    )
    db.table("instances").create_index(["study_instance_uid", "series_instance_uid"])


@migrations()
def m002_kept_apart(db: Database) -> None:
    """Images that arrived under a known UID with other content, and data that could not be taken as an instance."""
    db.table("conflicts").create(
        {
            "conflict_id": int,
            "sop_instance_uid": str,
            "study_instance_uid": str,
            "path": str,
            "size_bytes": int,
            "sha256": str,
            "received_at": float,
            "calling_ae_title": str,
        },
        pk="conflict_id",
    )
    db.table("conflicts").create_index(["sop_instance_uid", "sha256"], unique=True)
    db.table("conflicts").create_index(["study_instance_uid"])
    db.table("quarantine").create(
        {
            "quarantine_id": int,
            "path": str,
            "size_bytes": int,
            "received_at": float,
            "calling_ae_title": str,
            "status": int,
            "reason": str,
        },
        pk="quarantine_id",
    )


@migrations()
def m003_analyses_and_events(db: Database) -> None:
    """Every run's result, superseded ones too, and who did what when."""
    db.table("analyses").create(
        {
            "analysis_id": int,
            "study_instance_uid": str,
            "revision": int,
            "at": float,
            "outcome": str,
            "superseded": int,
            "flagged": int,
            "probability": float,
            "volume_ml": float,
            "reason": str,
            "detail": str,
            "model_name": str,
            "model_version": int,
            "finding": str,
            "series_choices": str,
        },
        pk="analysis_id",
        not_null={"study_instance_uid", "revision", "at", "outcome", "superseded"},
    )
    db.table("analyses").create_index(["study_instance_uid", "superseded"])
    db.table("events").create(
        {
            "event_id": int,
            "study_instance_uid": str,
            "at": float,
            "kind": str,
            "actor": str,
            "detail": str,
        },
        pk="event_id",
    )
    db.table("events").create_index(["study_instance_uid"])


@migrations()
def m004_users(db: Database) -> None:
    """Who may sign in to the worklist."""
    db.table("users").create(
        {
            "username": str,
            "password_hash": str,
            "role": str,
            "created_at": float,
            "disabled": int,
            "failed_sign_ins": int,
            "locked_until": float,
        },
        pk="username",
        not_null={"password_hash", "role", "created_at"},
        defaults={"disabled": 0, "failed_sign_ins": 0},
    )


@migrations()
def m201_sessions_and_links(db: Database) -> None:
    """Who is signed in, and one-time links that let a person choose a password; tokens only as SHA-256."""
    db.table("sessions").create(
        {
            "token_sha256": str,
            "username": str,
            "started_at": float,
            "seen_at": float,
        },
        pk="token_sha256",
        not_null={"username", "started_at", "seen_at"},
    )
    db.table("sessions").create_index(["username"])
    db.table("one_time_links").create(
        {
            "token_sha256": str,
            "username": str,  # empty: the person who opens it chooses one
            "role": str,
            "created_at": float,
            "expires_at": float,
            "used_at": float,
        },
        pk="token_sha256",
        not_null={"role", "created_at", "expires_at"},
    )


@migrations()
def m202_feedback(db: Database) -> None:
    """What readers say of an analysis: agree, or disagree with a reason; training may learn from it."""
    db.table("feedback").create(
        {
            "feedback_id": int,
            "study_instance_uid": str,
            "revision": int,
            "analysis_id": int,
            "reader": str,
            "at": float,
            "agrees": int,
            "reason": str,
            "note": str,
            "superseded": int,
        },
        pk="feedback_id",
        not_null={"study_instance_uid", "revision", "reader", "at", "agrees", "superseded"},
        defaults={"superseded": 0},
    )
    db.table("feedback").create_index(["study_instance_uid", "superseded"])


@migrations()
def m301_workers(db: Database) -> None:
    """What each worker last said of itself and of the model: where the worklist's banner comes from."""
    db.table("workers").create(
        {
            "owner": str,
            "seen_at": float,
            "model_available": int,
            "detail": str,
        },
        pk="owner",
        not_null={"seen_at", "model_available"},
    )


@migrations()
def m101_paths_indexed(db: Database) -> None:
    """Find the row of a file: what the listener asks at start for each file that it did not see recorded."""
    db.table("instances").create_index(["path"])
    db.table("conflicts").create_index(["path"])


@migrations()
def m501_api_tokens(db: Database) -> None:
    """Tokens of programs, only as SHA-256: whose, for what and until when."""
    db.table("api_tokens").create(
        {
            "token_id": int,
            "token_sha256": str,
            "username": str,
            "scopes": str,  # with spaces between
            "label": str,
            "created_at": float,
            "expires_at": float,
            "revoked_at": float,
            "used_at": float,
        },
        pk="token_id",
        not_null={"token_sha256", "username", "scopes", "created_at", "expires_at"},
        defaults={"label": ""},
    )
    db.table("api_tokens").create_index(["token_sha256"], unique=True)
    db.table("api_tokens").create_index(["username"])


@migrations()
def m502_external_identities(db: Database) -> None:
    """Which account belongs to whom at an identity provider: names alone never join two people."""
    db.table("external_identities").create(
        {"issuer": str, "subject": str, "username": str, "created_at": float},
        pk=("issuer", "subject"),
        not_null={"username", "created_at"},
    )
    db.table("external_identities").create_index(["username"], unique=True)


@migrations()
def m401_reconciliations(db: Database) -> None:
    """Comparisons with the PACS, and the studies that each found incomplete."""
    db.table("reconciliations").create(
        {
            "reconciliation_id": int,
            "started_at": float,
            "ended_at": float,
            "first_day": str,
            "last_day": str,
            "studies_expected": int,
            "studies_complete": int,
            "instances_expected": int,
            "instances_present": int,
            "instances_fetched": int,
            "error": str,
        },
        pk="reconciliation_id",
        not_null={"started_at", "ended_at", "first_day", "last_day", "error"},
    )
    db.table("reconciliation_gaps").create(
        {
            "reconciliation_id": int,
            "study_instance_uid": str,
            "study_date": str,
            "expected": int,
            "present": int,
            "state": str,
            "attempts": int,
            "detail": str,
        },
        not_null={"reconciliation_id", "study_instance_uid", "expected", "present", "state"},
    )
    db.table("reconciliation_gaps").create_index(["reconciliation_id"])


@migrations()
def m203_audit_trail(db: Database) -> None:
    """Who saw or did what with which patient: rows are added and never changed, each sealed with the one before."""
    db.table("audit_trail").create(
        {
            "audit_id": int,
            "at": float,
            "actor": str,
            "role": str,
            "action": str,
            "outcome": int,
            "peer_host": str,
            "study_instance_uid": str,
            "patient_id": str,
            "detail": str,
            "seal": str,
        },
        pk="audit_id",
        not_null={"at", "actor", "action", "outcome", "seal"},
    )
    db.table("audit_trail").create_index(["study_instance_uid"])
    db.table("audit_trail").create_index(["actor"])
    for verb in ("UPDATE", "DELETE"):
        db.execute(
            f"CREATE TRIGGER audit_trail_no_{verb.lower()} BEFORE {verb} ON audit_trail"
            " BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
        )


@migrations()
def m102_commitments(db: Database) -> None:
    """What senders asked to be committed to, and whether they have been told."""
    db.table("commitments").create(
        {
            "commitment_id": int,
            "transaction_uid": str,
            "ae_title": str,
            "host": str,
            "result": str,
            "attempts": int,
            "requested_at": float,
            "next_at": float,
            "told_at": float,
            "gave_up_at": float,
        },
        pk="commitment_id",
        not_null={"transaction_uid", "ae_title", "host", "result", "attempts", "requested_at", "next_at"},
    )
    db.table("commitments").create_index(["told_at", "gave_up_at", "next_at"])


@migrations()
def m204_saved_views(db: Database) -> None:
    """Views of the list that readers keep."""
    db.table("saved_views").create(
        {"username": str, "name": str, "query": str}, pk=("username", "name"), not_null={"query"}
    )


@migrations()
def m205_list_columns(db: Database) -> None:
    """Which columns of the list a reader has chosen, in order, with commas between."""
    db.table("list_columns").create({"username": str, "columns": str}, pk="username", not_null={"columns"})


@migrations()
def m103_blake3(db: Database) -> None:
    """Content is known by BLAKE3, which takes a twentieth of SHA-256's time where the processor has no SHA unit."""
    for table in ("instances", "conflicts"):
        db.execute(f"ALTER TABLE {table} RENAME COLUMN sha256 TO blake3")
        db.execute(f"UPDATE {table} SET blake3 = 'sha256:' || blake3")  # noqa: S608 - what was taken before

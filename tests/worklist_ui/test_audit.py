"""The audit trail: each view of a patient, sealed; what was changed is found."""

from __future__ import annotations

import csv
import json
import sqlite3
from io import StringIO

import pytest
from click.testing import CliRunner

from triage.errors import StoreError
from triage.ledger.audit import FIRST_SEAL, AuditTrail, Deed
from worklist_ui.audit_cli import audit


@pytest.fixture
def trail(ledger):
    return AuditTrail(ledger)


def deeds(trail):
    return [(record.deed.actor, record.deed.action, record.deed.outcome) for record in trail.records()]


def three_rows(trail):
    for number in range(3):
        trail.add(Deed(actor="reader", action="view_study", outcome=200, patient_id=f"P{number}"), now=float(number))


def without_triggers(ledger, sql, *values):
    """Do to the file what somebody with the file in their hands can do."""
    outside = sqlite3.connect(ledger.path)
    outside.execute("DROP TRIGGER IF EXISTS audit_trail_no_update")
    outside.execute("DROP TRIGGER IF EXISTS audit_trail_no_delete")
    outside.execute(sql, values)
    outside.commit()
    outside.close()


class TestChain:
    def test_untouched_trail_is_whole(self, trail):
        three_rows(trail)

        verdict = trail.verify()

        assert (verdict.rows, verdict.broken_at) == (3, None)
        assert verdict.last_seal == [record.seal for record in trail.records()][-1]

    def test_empty_trail_is_whole(self, trail):
        assert trail.verify().last_seal == FIRST_SEAL

    @pytest.mark.parametrize(
        ("sql", "broken_at"),
        [
            ("UPDATE audit_trail SET patient_id = 'P9' WHERE audit_id = 2", 2),
            ("UPDATE audit_trail SET at = at + 0.001 WHERE audit_id = 1", 1),
            ("DELETE FROM audit_trail WHERE audit_id = 2", 3),
            ("DELETE FROM audit_trail WHERE audit_id = 1", 2),
            ("UPDATE audit_trail SET seal = 'x' WHERE audit_id = 3", 3),
        ],
    )
    def test_first_broken_row_is_named(self, trail, ledger, sql, broken_at):
        three_rows(trail)

        without_triggers(ledger, sql)

        assert trail.verify().broken_at == broken_at

    def test_rows_cut_off_at_the_end_are_found_by_a_seal_kept_elsewhere(self, trail, ledger):
        three_rows(trail)
        kept = trail.verify().last_seal

        without_triggers(ledger, "DELETE FROM audit_trail WHERE audit_id = 3")

        assert trail.verify().broken_at is None
        assert not trail.has_seal(kept)

    @pytest.mark.parametrize("sql", ["UPDATE audit_trail SET actor = 'x'", "DELETE FROM audit_trail"])
    def test_table_refuses_changes(self, trail, ledger, sql):
        three_rows(trail)

        with pytest.raises(StoreError, match="append-only"), ledger.transaction() as db:
            db.execute(sql)


class TestWhatIsNoted:
    def test_view_of_a_patient_is_noted_with_who_and_whom(self, department, radiologist, trail):
        study = department.analyse(flagged=True)

        radiologist.get(f"/studies/{study.study_id}/")

        deed = list(trail.records())[-1].deed
        assert (deed.actor, deed.role, deed.action, deed.outcome) == ("reader", "radiologist", "view_study", 200)
        assert (deed.patient_id, deed.study_instance_uid) == ("P0001", study.study_instance_uid)
        assert deed.peer_host == "127.0.0.1"

    def test_sign_in_and_its_refusal_are_noted(self, radiologist, person, trail):
        person().sign_in("reader", "wrong")

        assert deeds(trail)[0] == ("reader", "sign_in", 303)
        assert deeds(trail)[-1] == ("", "sign_in", 401)

    def test_every_step_is_noted_also_when_it_is_refused(self, department, radiologist, person, trail):
        study = department.analyse(flagged=True)
        other = person("other")

        radiologist.post(f"/studies/{study.study_id}/claim", json=True)
        other.post(f"/studies/{study.study_id}/claim", json=True)
        radiologist.post(f"/studies/{study.study_id}/claim", json=True)

        assert [deed for deed in deeds(trail) if deed[1] == "claim"] == [
            ("reader", "claim", 200),
            ("other", "claim", 409),
            ("reader", "claim", 200),
        ]

    def test_what_a_role_may_not_do_is_noted(self, department, person, trail):
        study = department.analyse(flagged=True)

        person("tech", role="technologist").post(f"/studies/{study.study_id}/claim")

        assert ("tech", "claim", 403) in deeds(trail)

    def test_looking_on_is_one_look_for_five_minutes(self, department, radiologist, trail):
        study = department.analyse(flagged=True, slices=3)

        for _ in range(3):
            for number in range(3):
                radiologist.get(f"/studies/{study.study_id}/slices/{number}.jpg")
        department.now += 301
        radiologist.get(f"/studies/{study.study_id}/slices/0.jpg")

        assert deeds(trail).count(("reader", "view_images", 200)) == 2

    def test_what_cannot_be_noted_is_not_shown(self, department, radiologist, ledger):
        study = department.analyse(flagged=True)
        with ledger.transaction() as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON audit_trail BEGIN SELECT RAISE(ABORT, 'full'); END")

        for _ in range(2):
            response = radiologist.get(f"/studies/{study.study_id}/")

            assert response.status_code == 503
            assert b"Doe" not in response.data

    def test_account_that_was_changed_is_named(self, person, radiologist, trail):
        person("chief", role="administrator").post("/accounts/reader/role", {"role": "auditor"})

        [deed] = [record.deed for record in trail.records() if record.deed.action == "accounts.change_role"]
        assert (deed.actor, deed.detail) == ("chief", "reader auditor")


class TestPage:
    def test_auditor_comes_to_the_trail_and_sees_no_study(self, department, person):
        study = department.analyse(flagged=True)
        auditor = person("auditor", role="auditor")

        home = auditor.get("/", follow_redirects=True)

        assert home.request.path == "/audit"
        assert "all whole" in home.get_data(as_text=True)
        assert auditor.get(f"/studies/{study.study_id}/").status_code == 403

    def test_trail_of_one_patient(self, department, radiologist, person):
        for study in (department.analyse("One^A", flagged=True), department.analyse("Two^B", flagged=True)):
            radiologist.get(f"/studies/{study.study_id}/")

        page = person("auditor", role="auditor").get("/audit?patient_id=P0002").get_data(as_text=True)

        assert page.count("view study") == 1

    def test_broken_row_is_named_on_the_page(self, department, radiologist, person, ledger):
        without_triggers(ledger, "UPDATE audit_trail SET actor = 'nobody' WHERE audit_id = 1")

        assert "Row 1 is broken" in person("auditor", role="auditor").get("/audit").get_data(as_text=True)


class TestCommand:
    @pytest.fixture
    def run(self, ledger, tmp_path):
        config = tmp_path / "triage.toml"
        config.write_text(f'[storage]\nfolder = "{ledger.path.parent}"\n')
        return lambda *arguments: CliRunner().invoke(audit, [*arguments, "--config", str(config)])

    def test_verify_gives_the_last_seal_or_names_the_broken_row(self, run, trail, ledger):
        three_rows(trail)
        whole = run("verify")
        without_triggers(ledger, "UPDATE audit_trail SET actor = 'x' WHERE audit_id = 2")
        broken = run("verify")

        assert whole.exit_code == 0
        assert "3 rows, all whole" in whole.output
        assert broken.exit_code == 1
        assert "Row 2 is broken" in broken.output

    def test_verify_misses_a_seal_that_was_cut_off(self, run, trail):
        three_rows(trail)

        assert run("verify", "--seal", "f" * 64).exit_code == 1
        assert run("verify", "--seal", trail.verify().last_seal).exit_code == 0

    def test_export_gives_fhir_audit_events(self, run, department, radiologist):
        study = department.analyse(flagged=True)
        radiologist.get(f"/studies/{study.study_id}/")

        events = [json.loads(line) for line in run("export").output.splitlines()]

        assert {event["resourceType"] for event in events} == {"AuditEvent"}
        view = events[-1]
        assert view["action"] == "R"
        assert view["outcome"] == "0"
        assert view["agent"][0]["who"]["identifier"]["value"] == "reader"
        assert [entity["what"]["identifier"]["value"] for entity in view["entity"][:2]] == [
            "P0001",
            f"urn:oid:{study.study_instance_uid}",
        ]

    def test_export_as_csv_runs_no_formula(self, run, trail):
        trail.add(Deed(actor="reader", action="view_study", outcome=200, patient_id='=HYPERLINK("x")'), now=1.0)

        rows = list(csv.DictReader(StringIO(run("export", "--format", "csv").output)))

        assert rows[0]["patient_id"] == '\'=HYPERLINK("x")'

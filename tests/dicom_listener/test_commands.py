"""The commands listen, send and echo, as a person calls them."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from dicom_listener.cli import echo, listen, send
from dicom_listener.part10 import split_file
from dicom_listener.reconcile_cli import reconcile
from dicom_listener.reconcile_health import reconcile_health
from tests.builders import ct_series, encoded, write_files
from tests.dicom_listener.conftest import Running, association, push, queued
from tests.dicom_listener.raw_scu import store


def test_send_pushes_a_folder_and_counts_what_is_no_dicom(listener: Running, tmp_path: Path) -> None:
    series = ct_series(slices=30)
    write_files(series, tmp_path / "scan" / "deep")
    (tmp_path / "scan" / "notes.txt").write_text("no DICOM")

    result = CliRunner().invoke(send, ["--port", str(listener.port), "--associations", "3", str(tmp_path / "scan")])

    assert result.exit_code == 0, result.output
    assert "30 of 30 accepted" in result.stdout
    assert "1 other files left out" in result.stderr
    assert queued(listener, series[0].StudyInstanceUID).instance_count == 30
    rows = {item.sop_instance_uid: item.path for item in listener.studies.instances_of(series[0].StudyInstanceUID)}
    _, data = split_file((listener.folder / rows[series[7].SOPInstanceUID]).read_bytes())
    assert bytes(data) == encoded(series[7])


def test_send_names_the_uids_of_the_data_set_where_the_file_meta_has_others(listener: Running, tmp_path: Path) -> None:
    series = ct_series(slices=30)
    for ds in series:  # as anonymisers leave it
        ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID[:50]}.77"
        ds.preamble = bytes(128)
        ds.save_as(tmp_path / f"{ds.InstanceNumber}.dcm", enforce_file_format=False)  # does not mend the file meta

    result = CliRunner().invoke(send, ["--port", str(listener.port), str(tmp_path)])

    assert result.exit_code == 0, result.output
    assert queued(listener, series[0].StudyInstanceUID).instance_count == 30


def test_send_says_what_was_refused(listener: Running, tmp_path: Path) -> None:
    [good, bad] = ct_series(slices=2)
    del bad.StudyInstanceUID
    write_files([good, bad], tmp_path)

    result = CliRunner().invoke(send, ["--port", str(listener.port), str(tmp_path)])

    assert result.exit_code == 1
    assert "1 of 2 accepted, 1 0xA900" in result.stdout
    assert "IM0002.dcm: 0xA900, the data set does not match its SOP class, or lacks a UID" in result.stderr


def test_send_to_nobody_fails(tmp_path: Path) -> None:
    write_files(ct_series(slices=1), tmp_path)

    result = CliRunner().invoke(send, ["--port", "1", str(tmp_path)])

    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr


def test_send_of_nothing_fails(listener: Running, tmp_path: Path) -> None:
    result = CliRunner().invoke(send, ["--port", str(listener.port), str(tmp_path)])

    assert result.exit_code == 1


def test_echo_answers(listener: Running) -> None:
    result = CliRunner().invoke(echo, ["127.0.0.1", str(listener.port), "ICHTRIAGE"])

    assert result.exit_code == 0
    assert "0x0000" in result.stdout


def test_echo_to_a_wrong_ae_title_fails(listener: Running) -> None:
    result = CliRunner().invoke(echo, ["127.0.0.1", str(listener.port), "OTHER"])

    assert result.exit_code == 1
    assert "rejected" in result.stderr


def test_listen_names_a_port_in_use(listener: Running, tmp_path: Path) -> None:
    config = tmp_path / "triage.toml"
    taken = f'[listener]\nhost = "127.0.0.1"\nport = {listener.port}\n'
    config.write_text(f'[storage]\nfolder = "{tmp_path}/other"\n{taken}')

    result = CliRunner().invoke(listen, ["--config", str(config)])

    assert result.exit_code == 2
    assert f"Port {listener.port} on 127.0.0.1 cannot be opened" in result.stderr


def test_listen_names_an_unknown_setting(tmp_path: Path) -> None:
    config = tmp_path / "triage.toml"
    config.write_text("[listener]\nprot = 11112\n")

    result = CliRunner().invoke(listen, ["--config", str(config)])

    assert result.exit_code == 2
    assert "listener.prot is no setting" in result.stderr


def test_answers_are_never_taken_by_the_reactor(listener: Running) -> None:
    [ct] = ct_series(slices=1, rows=4, columns=4)
    data = encoded(ct)
    with association(listener.port, [ct]) as established:
        statuses = {store(established, data, sop_instance_uid=ct.SOPInstanceUID) for _ in range(200)}

    assert statuses == {0}
    assert push(listener.port, [ct]) == [0]


def test_health_of_reconcile_is_that_comparisons_are_made(tmp_path: Path) -> None:
    config = tmp_path / "triage.toml"
    pacs = '[reconcile]\npacs_host = "127.0.0.1"\npacs_port = 1\nevery_minutes = '
    config.write_text(f'[storage]\nfolder = "{tmp_path / "var"}"\n{pacs}60\n')

    def health() -> tuple[int, str]:
        result = CliRunner().invoke(reconcile_health, ["--config", str(config)])
        return result.exit_code, result.output

    assert health() == (1, "Error: There is no ledger yet.\n")
    CliRunner().invoke(reconcile, ["--once", "--config", str(config)])  # nobody answers, and the result says so
    assert health() == (0, "The last comparison ended 0 minutes ago.\n")
    config.write_text(config.read_text().replace("minutes = 60", "minutes = 0.000001"))
    assert health()[0] == 1

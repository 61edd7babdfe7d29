"""Who may send, what is set for a sender, and TLS."""

from __future__ import annotations

import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context

from dicom_listener.tls import days_left, tls_context
from tests.builders import ct_series, encoded
from tests.dicom_listener.conftest import SUCCESS, association, push, queued, running, settings_for
from tests.dicom_listener.raw_peer import A_ASSOCIATE_AC, RawPeer, associate_rq
from tests.dicom_listener.raw_scu import store, with_value
from triage.errors import ConfigError

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def rejection(port: int, *, calling: str) -> tuple[int, int, int]:
    rejected = AE(calling).associate(
        "127.0.0.1", port, contexts=[build_context(CT_IMAGE_STORAGE)], ae_title="ICHTRIAGE"
    )
    assert rejected.is_rejected
    answer = rejected.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def test_unknown_sender_is_rejected_where_only_known_ones_may_send(tmp_path: Path) -> None:
    with running(tmp_path, senders=[{"ae_title": "PACS"}], only_known_senders=True) as listener:
        assert rejection(listener.port, calling="STRANGER") == (1, 1, 3)
        assert push(listener.port, ct_series(slices=1)) == [SUCCESS]


def test_known_sender_from_another_host_is_rejected(tmp_path: Path) -> None:
    with running(tmp_path, senders=[{"ae_title": "PACS", "hosts": ["192.0.2.7"]}]) as listener:
        assert rejection(listener.port, calling="PACS") == (1, 1, 3)
        assert push(listener.port, ct_series(slices=1), calling="OTHER") == [SUCCESS]


def test_limit_of_one_sender_leaves_the_others_alone(tmp_path: Path) -> None:
    [ct] = ct_series(slices=1)
    with (
        running(tmp_path, senders=[{"ae_title": "PACS", "max_associations": 1}]) as listener,
        association(listener.port, [ct]),
    ):
        assert rejection(listener.port, calling="PACS") == (2, 3, 2)
        assert push(listener.port, [ct], calling="OTHER") == [SUCCESS]


def test_quiet_period_and_priority_of_a_sender(tmp_path: Path) -> None:
    series = ct_series(slices=3)
    sender = {"ae_title": "ER", "quiet_period_s": 0.3, "priority": "stat"}
    with running(tmp_path, senders=[sender], quiet_period_s=30.0, cap_s=60.0) as listener:
        push(listener.port, series, calling="ER")
        study = queued(listener, series[0].StudyInstanceUID, timeout_s=5.0)

    assert (study.completed_by, study.priority) == ("silence", "stat")


def test_character_set_of_a_sender_wins_over_what_its_images_say(tmp_path: Path) -> None:
    [ct] = ct_series(slices=1, SpecificCharacterSet="ISO_IR 100")
    data = with_value(encoded(ct), 0x0010, 0x0010, "Иванов".encode("iso8859_5"))
    with (
        running(tmp_path, senders=[{"ae_title": "PACS", "character_set": "ISO_IR 144"}]) as listener,
        association(listener.port, [ct]) as established,
    ):
        assert store(established, data, sop_instance_uid=ct.SOPInstanceUID) == SUCCESS
        study = listener.studies.by_uid(ct.StudyInstanceUID)

    assert study is not None
    assert study.header.patient_name == "Иванов"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed server certificate, valid for ten days, and one of a client."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10", "-subj", f"/CN={name}",
                   "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
    return folder


def tls_settings(certificates: Path, **more: Any) -> dict[str, Any]:
    return {"tls_certificate": certificates / "server.pem", "tls_key": certificates / "server.key", **more}


def client_context(certificates: Path, *, with_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "server.pem")
    context.check_hostname = False
    if with_certificate:
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


def push_over_tls(port: int, context: ssl.SSLContext, ct: Dataset | None = None) -> list[int]:
    ct = ct or ct_series(slices=1)[0]
    ae = AE("PACS")
    contexts = [build_context(CT_IMAGE_STORAGE, ct.file_meta.TransferSyntaxUID)]
    established = ae.associate("127.0.0.1", port, contexts=contexts, ae_title="ICHTRIAGE", tls_args=(context, "server"))
    assert established.is_established
    try:
        return [established.send_c_store(ct).Status]
    finally:
        established.release()


def test_images_come_over_tls_and_nothing_comes_without(tmp_path: Path, certificates: Path) -> None:
    [ct] = ct_series(slices=1, rows=512, columns=512)  # PDUs of 128 KiB
    with running(tmp_path, **tls_settings(certificates)) as listener:
        assert push_over_tls(listener.port, client_context(certificates), ct) == [SUCCESS]
        [file] = listener.files()
        assert file.read_bytes().endswith(encoded(ct))
        with RawPeer(listener.port) as plain:
            assert plain.associate() != A_ASSOCIATE_AC


def test_peer_that_never_shakes_hands_holds_nobody_up(tmp_path: Path, certificates: Path) -> None:
    settings = tls_settings(certificates, negotiation_timeout_s=1.0)
    with running(tmp_path, **settings) as listener, RawPeer(listener.port) as silent:
        began = time.monotonic()
        assert push_over_tls(listener.port, client_context(certificates)) == [SUCCESS]
        assert time.monotonic() - began < 5.0
        assert silent.is_closed_within(5.0)


def test_client_certificate_is_asked_for_and_checked(tmp_path: Path, certificates: Path) -> None:
    settings = tls_settings(certificates, tls_client_ca=certificates / "client.pem")
    with running(tmp_path, **settings) as listener:
        assert push_over_tls(listener.port, client_context(certificates, with_certificate=True)) == [SUCCESS]
        with RawPeer(listener.port) as peer:
            bare = client_context(certificates).wrap_socket(peer.connection, do_handshake_on_connect=False)
            assert not _is_served(bare)
            bare.close()


def _is_served(connection: ssl.SSLSocket) -> bool:
    """In TLS 1.3 a client learns only after its handshake that its certificate was missed."""
    try:
        connection.do_handshake()
        connection.sendall(associate_rq([(CT_IMAGE_STORAGE.encode(), [b"1.2.840.10008.1.2.1"])]))
        return bool(connection.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def test_old_tls_is_refused(tmp_path: Path, certificates: Path) -> None:
    settings = settings_for(tmp_path, **tls_settings(certificates)).listener
    context = tls_context(settings)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    names = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert names
    assert all(name.startswith("ECDHE-") and "GCM" in name for name in names)


def test_days_left_of_a_certificate(certificates: Path) -> None:
    assert 9.9 < days_left(certificates / "server.pem") <= 10.0
    assert days_left(certificates / "server.pem", now=time.time() + 11 * 86400) < 0


def test_tls_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"bad\.pem cannot be used. Expected a PEM certificate"):
        tls_context(settings_for(tmp_path, tls_certificate=tmp_path / "bad.pem").listener)
    with pytest.raises(ConfigError, match=r"need listener\.tls_certificate"):
        tls_context(settings_for(tmp_path, tls_key=tmp_path / "bad.pem").listener)

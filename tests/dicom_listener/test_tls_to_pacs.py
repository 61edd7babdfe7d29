"""TLS as the user of a service: towards a PACS that asks for a certificate, and towards our own port."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dicom_listener.cli import echo, send
from dicom_listener.pacs_comparison import Period
from dicom_listener.reconcile import Reconciler
from dicom_listener.self_check import has_fault, self_check
from dicom_listener.tls import client_tls, pacs_tls
from tests.builders import ct_series, write_files
from tests.dicom_listener.conftest import Running, running, settings_for
from tests.dicom_listener.orthanc import Orthanc, running_orthanc
from tests.dicom_listener.test_metrics import get
from triage.errors import ConfigError
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage
from triage.settings import ReconcileSettings, Settings

DAY = date.today() - timedelta(days=300)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates that it signed: of the PACS, made out to pacs.example, and of the listener."""
    folder = tmp_path_factory.mktemp("pem")

    def openssl(*words: str) -> None:
        try:
            subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10", "-subj", "/CN=authority",
            "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    for name in ("pacs", "listener"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.csr")  # fmt: skip
        (folder / "san").write_text(f"subjectAltName=DNS:{name}.example")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "10", "-extfile", "san", "-out", f"{name}.pem")  # fmt: skip
        (folder / f"{name}-both.pem").write_text(
            (folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text()
        )
    for key in folder.glob("*.key"):
        key.chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def orthanc(pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A PACS that speaks TLS only, and only with whom the authority knows."""
    tls = client_tls(pem / "ca.pem", pem / "listener.pem", pem / "listener.key", server_name="pacs.example")
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(pem / "pacs.pem"),
        "DicomTlsPrivateKey": str(pem / "pacs.key"),
        "DicomTlsTrustedCertificates": str(pem / "ca.pem"),
        "DicomTlsRemoteCertificateRequired": True,
    }
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), tls=tls, **options) as it:
        yield it


@pytest.fixture
def received(pem: Path, tmp_path: Path) -> Iterator[Running]:
    """A listener with TLS that asks for certificates, and takes from ORTHANC only what its own host sends."""
    tls = {"tls_certificate": pem / "listener.pem", "tls_key": pem / "listener.key", "tls_client_ca": pem / "ca.pem"}
    senders = [{"ae_title": "ORTHANC", "hosts": ["192.0.2.7"], "username": "archive"}]
    with running(tmp_path / "var", senders=senders, only_known_senders=True, metrics_port=0, **tls) as it:
        yield it


def settings_of(pem: Path, received: Running, orthanc: Orthanc, **changes: Any) -> Settings:
    values = {
        "pacs_host": "127.0.0.1", "pacs_port": orthanc.port, "pacs_ae_title": "ORTHANC", "confirm_after_s": 0.0,
        "fetch_wait_s": 1.0, "timeout_s": 10.0, "retrieve": "get", "tls_ca": pem / "ca.pem",
        "tls_certificate": pem / "listener.pem", "tls_key": pem / "listener.key", "tls_server_name": "pacs.example",
    }  # fmt: skip
    listener = received.listener._settings.model_copy(update={"port": received.port})
    settings = settings_for(received.folder)
    return settings.model_copy(update={"listener": listener, "reconcile": ReconcileSettings(**(values | changes))})


def compare(settings: Settings) -> Coverage:
    ledger = Ledger(settings.storage.ledger_path)
    try:
        return Reconciler(settings, ledger).run(Period(DAY, DAY))
    finally:
        ledger.close()


def test_missing_study_is_fetched_over_tls_past_the_bounds_of_its_sender(
    pem: Path, received: Running, orthanc: Orthanc
) -> None:
    """What we fetch comes from this host, in the name of the PACS: it must not be rejected as not from there."""
    series = ct_series(slices=5, StudyDate=f"{DAY:%Y%m%d}")
    orthanc.keep(series)

    coverage = compare(settings_of(pem, received, orthanc))

    assert (coverage.error, coverage.instances_present, coverage.instances_fetched) == ("", 5, 5)
    [calling] = {item.calling_ae_title for item in received.studies.instances_of(series[0].StudyInstanceUID)}
    assert calling == "ORTHANC"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tls_server_name": "other.example"}, "The certificate of ORTHANC at .* does not do: .*other.example"),
        ({"tls_ca": "pacs-of-another-authority"}, "does not do: "),
        ({"tls_certificate": None, "tls_key": None}, "Does it ask for a client certificate"),
        ({"tls_certificate": None, "tls_key": None, "tls_ca": None}, "Does it speak TLS"),
    ],
    ids=["other name", "other authority", "no certificate of ours", "no TLS"],
)
def test_what_is_wrong_with_tls_is_reported(
    pem: Path, received: Running, orthanc: Orthanc, changes: dict[str, Any], said: str
) -> None:
    if changes.get("tls_ca"):
        changes = changes | {"tls_ca": pem / "listener.pem"}

    coverage = compare(settings_of(pem, received, orthanc, **changes))

    assert re.search(said, coverage.error), coverage.error


def test_own_port_is_checked_over_tls_as_a_process_of_this_host(pem: Path, received: Running, orthanc: Orthanc) -> None:
    checks = self_check(settings_of(pem, received, orthanc))

    assert not has_fault(checks), checks
    found = {check.what: check.found for check in checks}
    assert found[f"DICOM port {received.port}"] == "the running listener answers C-ECHO, by TLS"
    for setting in ("listener.tls_client_ca, ca.pem", "reconcile.tls_certificate, listener.pem"):
        assert found[setting] in ("expires in 10 days", "expires in 9 days")


def test_days_of_each_certificate_are_shown(received: Running) -> None:
    text = get(received, "/metrics")[1]

    days = re.findall(r'^ich_listener_certificate_days_left\{setting="(.*)"\} (\S+)$', text, re.MULTILINE)
    assert [setting for setting, _ in days] == ["listener.tls_certificate", "listener.tls_client_ca"]
    assert all(9.8 < float(left) <= 10.0 for _, left in days)
    notes = json.loads(get(received, "/health")[1])["notes"]
    assert notes[0].startswith("listener.tls_certificate: the certificate expires in ")


def test_echo_and_send_speak_tls(pem: Path, received: Running, tmp_path: Path) -> None:
    write_files(ct_series(slices=1), tmp_path / "scan")
    tls = ["--tls-ca", str(pem / "ca.pem"), "--tls-name", "listener.example"]
    shown = [*tls, "--tls-certificate", str(pem / "listener-both.pem")]
    where = ["127.0.0.1", str(received.port), "ICHTRIAGE"]
    config = tmp_path / "triage.toml"
    config.write_text(
        f'[storage]\nfolder = "{received.folder}"\n[listener]\ntls_certificate = "{pem / "listener.pem"}"\n'
        f'tls_key = "{pem / "listener.key"}"\ntls_client_ca = "{pem / "ca.pem"}"\n'
    )
    run = CliRunner().invoke

    assert run(echo, [*where, "--config", str(config)]).exit_code == 0
    assert "rejected the association (1/1/3)" in run(echo, [*where, *shown]).stderr  # only known senders may
    assert "Does it ask for a client certificate" in run(echo, [*where, *tls]).stderr
    refused = run(send, ["--port", str(received.port), *shown, str(tmp_path / "scan")])
    assert "rejected the association (1/1/3)" in refused.stderr
    assert run(echo, [*where, "--tls-certificate", str(pem / "listener-both.pem")]).exit_code == 2


def test_token_is_for_this_user_alone(received: Running) -> None:
    assert (received.folder / "listener.token").stat().st_mode & 0o777 == 0o600


def test_files_that_do_not_belong_together_are_named(pem: Path) -> None:
    with pytest.raises(ConfigError, match=r"need reconcile\.tls_ca"):
        pacs_tls(ReconcileSettings(tls_certificate=pem / "listener.pem"))
    with pytest.raises(ConfigError, match=r"none\.pem cannot be read: No such file"):
        pacs_tls(ReconcileSettings(tls_ca=pem / "none.pem"))
    with pytest.raises(ConfigError, match=r"san holds no certificate of an authority"):
        pacs_tls(ReconcileSettings(tls_ca=pem / "san"))
    with pytest.raises(ConfigError, match=r"The key in .*listener\.key is not that of the certificate .*pacs\.pem"):
        pacs_tls(
            ReconcileSettings(tls_ca=pem / "ca.pem", tls_certificate=pem / "pacs.pem", tls_key=pem / "listener.key")
        )

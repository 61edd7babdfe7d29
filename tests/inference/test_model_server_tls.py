"""TLS and mutual TLS with keys and certificates in TF Serving's own file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from inference.channel import tls_credentials
from inference.cli import client_of
from inference.model_server.server import ModelServer
from inference.serving_client import ServingClient
from triage.errors import ConfigError, ServingUnavailable
from triage.settings import ServerSettings, WorkerSettings

NO_FILES = {"tls_authority": None, "tls_certificate": None, "tls_key": None}
PLAIN = {"tls": False, **NO_FILES}

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs Debian's openssl to make certificates")


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """An authority, and a certificate of it for the server and one for a client."""
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    for name in ("server", "client"):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text("subjectAltName=DNS:localhost")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return folder


@pytest.fixture
def start(keys, tmp_path, threshold_model):
    servers = []

    def _start(*, client_verify: bool) -> str:
        (tmp_path / "threshold").mkdir()
        (tmp_path / "threshold" / "1").symlink_to(threshold_model)
        lines = [f"server_key: {quoted(keys / 'server.key')}", f"server_cert: {quoted(keys / 'server.pem')}"]
        lines += [f"custom_ca: {quoted(keys / 'ca.pem')}", f"client_verify: {str(client_verify).lower()}"]
        (tmp_path / "ssl.config").write_text("\n".join(lines))
        options = {"port": 0, "rest_port": 0, "ssl_config_file": tmp_path / "ssl.config"}
        server = ModelServer(ServerSettings(models_folder=tmp_path, **options))
        servers.append(server)
        return f"localhost:{server.start().grpc}"

    yield _start
    for server in servers:
        server.stop()


def quoted(file: Path) -> str:
    return '"' + file.read_text().replace("\n", "\\n") + '"'


def test_a_client_that_knows_the_authority_is_answered(start, keys):
    address = start(client_verify=False)

    with ServingClient(address, "threshold", credentials=tls_credentials(keys / "ca.pem")) as client:
        assert client.spec()[1] == 1


def test_plain_text_is_not_answered(start):
    with ServingClient(start(client_verify=False), "threshold", timeout_s=2) as client:
        with pytest.raises(ServingUnavailable):
            client.spec()
        assert not client.available()


def test_mutual_tls_asks_for_the_client_s_certificate(start, keys):
    address = start(client_verify=True)
    known = tls_credentials(keys / "ca.pem", keys / "client.pem", keys / "client.key")

    with ServingClient(address, "threshold", credentials=known) as client:
        assert client.spec()[1] == 1
    with (
        ServingClient(address, "threshold", timeout_s=2, credentials=tls_credentials(keys / "ca.pem")) as stranger,
        pytest.raises(ServingUnavailable),
    ):
        stranger.spec()


def test_a_file_without_key_is_refused(tmp_path, threshold_model):
    (tmp_path / "threshold").mkdir()
    (tmp_path / "threshold" / "1").symlink_to(threshold_model)
    (tmp_path / "ssl.config").write_text("client_verify: true")

    with pytest.raises(ConfigError, match="lacks server_key or server_cert"):
        ModelServer(
            ServerSettings(models_folder=tmp_path, port=0, rest_port=0, ssl_config_file=tmp_path / "ssl.config")
        ).start()


def test_a_certificate_needs_its_key(tmp_path):
    with pytest.raises(ConfigError, match="Mutual TLS needs a certificate and its key"):
        tls_credentials(certificate=tmp_path / "client.pem")
    with pytest.raises(ConfigError, match="cannot be read"):
        tls_credentials(tmp_path / "none.pem")


def settings_of(keys: Path, **options) -> WorkerSettings:
    files = {"tls_authority": keys / "ca.pem", "tls_certificate": keys / "client.pem", "tls_key": keys / "client.key"}
    return WorkerSettings(**{"model_name": "threshold", "tls": True, "request_timeout_s": 2} | files | options)


def test_a_worker_s_settings_speak_mutual_tls(start, keys):
    address = start(client_verify=True)

    with client_of(settings_of(keys, endpoint=address)) as client:
        assert client.spec()[1] == 1
    for strange in ({"tls_authority": keys / "client.pem"}, {"tls_certificate": None, "tls_key": None}, PLAIN):
        with client_of(settings_of(keys, endpoint=address, **strange)) as client, pytest.raises(ServingUnavailable):
            client.spec()


def test_an_endpoint_reached_by_address_is_known_by_its_name(start, keys):
    by_address = start(client_verify=False).replace("localhost", "127.0.0.1")

    with client_of(settings_of(keys, endpoint=by_address, tls_server_name="localhost")) as client:
        assert client.spec()[1] == 1
    with client_of(settings_of(keys, endpoint=by_address)) as client, pytest.raises(ServingUnavailable):
        client.spec()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tls": False}, "spoken to in plain text"),
        ({"tls": False, **NO_FILES, "tls_server_name": "models.example"}, "spoken to in plain text"),
        ({"tls_key": None}, "needs a certificate and its key"),
        ({"tls_authority": Path("none.pem")}, "No such file or directory: none.pem"),
    ],
)
def test_tls_settings_that_do_not_fit_keep_the_worker_from_starting(keys, options, text):
    with pytest.raises(ConfigError, match=text):
        client_of(settings_of(keys, **options))

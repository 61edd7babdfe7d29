"""All settings of the four processes: default, then TOML, then environment, checked once at start.

`ICH_TRIAGE_LISTENER__PORT=104` in the environment wins over `[listener] port = 104` in the file, and that over the
default here. CONFIGURATION.md lists them all.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from triage.errors import ConfigError

ENVIRONMENT_PREFIX = "ICH_TRIAGE_"


class StorageSettings(BaseModel, frozen=True, extra="forbid"):
    """Where images and the ledger are kept; one folder on one local disk, shared by the processes of this host."""

    folder: Path = Path("var")  # holds ledger.sqlite, instances/, incoming/ and quarantine/

    @property
    def ledger_path(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger.sqlite"


class SenderSettings(BaseModel, frozen=True, extra="forbid"):
    """One sender, by its calling AE title."""

    ae_title: str = Field(min_length=1, max_length=16)  # as it calls itself
    hosts: tuple[str, ...] = ()  # addresses that it sends from; none: any
    max_associations: int | None = Field(default=None, ge=1)  # open at once; None: as listener.max_associations
    quiet_period_s: float | None = Field(default=None, gt=0)  # instead of listener.quiet_period_s
    priority: str = Field(default="routine", pattern="^(routine|stat)$")  # stat: its studies are read before others
    commitment_port: int | None = Field(default=None, ge=1, le=65535)  # where it takes storage commitment reports
    character_set: str = ""  # of its texts, e.g. "ISO_IR 144", whatever the images say; empty: as they say
    username: str = ""  # user that it must show (PS3.7 D.3.3.7); empty: what it shows is not looked at
    passcode_hash: str = Field(default="", repr=False)  # as `ich-triage passcode` prints it; empty: none is asked for


class ListenerSettings(BaseModel, frozen=True, extra="forbid"):
    """The C-STORE port."""

    ae_title: str = Field(default="ICHTRIAGE", min_length=1, max_length=16)  # PS3.5 6.2, VR AE
    host: str = "0.0.0.0"  # noqa: S104 - a PACS is another host; one machine only: 127.0.0.1
    port: int = Field(default=11112, ge=0, le=65535)  # 0: any free one, printed at start
    require_called_ae_title: bool = True  # reject associations for another AE title than ours
    max_associations: int = Field(default=64, ge=1)  # open at once; more are rejected for the time being
    max_pdu_bytes: int = Field(default=131072, ge=4096, le=1048576)  # asked of senders; larger PDUs are faster
    network_timeout_s: float = Field(default=60.0, gt=0)  # an association without a word for this long is aborted
    negotiation_timeout_s: float = Field(default=15.0, gt=0)  # a connection must ask for an association within this
    min_free_bytes: int = Field(default=2_000_000_000, ge=0)  # below this much free disk, images are refused (0xA700)
    max_object_bytes: int = Field(default=512_000_000, ge=1)  # of one image; a sender of more is cut off
    quarantine_max_bytes: int = Field(default=5_000_000_000, ge=0)  # of what could not be taken as an instance
    quarantine_max_objects: int = Field(default=10_000, ge=0)  # of these; beyond either bound: 0xA700, nothing kept
    settle_s: float = Field(default=1.0, ge=0)  # after the release of a whole study: another association may follow
    moved_on_s: float = Field(default=5.0, ge=0)  # a whole study whose association has gone on to others: it may return
    quiet_period_s: float = Field(default=20.0, gt=0)  # without evidence, a study is complete after this much silence
    cap_s: float = Field(default=60.0, gt=0)  # with something missing, it goes on as partial after this much silence
    head_coverage_mm: float = Field(default=100.0, gt=0)  # along the normal; less is no whole head
    senders: tuple[SenderSettings, ...] = ()  # what is special about some senders
    only_known_senders: bool = False  # reject calling AE titles that are not in senders
    tls_certificate: Path | None = None  # PEM; with it the port speaks TLS and nothing else
    tls_key: Path | None = None  # PEM, if the key is not in the certificate's file
    tls_client_ca: Path | None = None  # PEM; with it senders need a certificate that it signed
    metrics_host: str = "127.0.0.1"  # where metrics and health are served
    metrics_port: int | None = Field(default=None, ge=0, le=65535)  # HTTP /metrics and /health; None: not at all


class ReconcileSettings(BaseModel, frozen=True, extra="forbid"):
    """The comparison of the ledger with what the PACS has."""

    pacs_host: str = "127.0.0.1"  # where the PACS answers C-FIND
    pacs_port: int = Field(default=104, ge=1, le=65535)  # TCP
    pacs_ae_title: str = Field(default="PACS", min_length=1, max_length=16)  # of the PACS
    ae_title: str = Field(default="ICHTRIAGE", min_length=1, max_length=16)  # we ask as this; the PACS must know it
    listener_host: str = ""  # where our own port is reached; empty: on this host, as listener.host says
    tls_ca: Path | None = None  # PEM; with it the PACS is spoken to by TLS, its certificate must be signed by this
    tls_certificate: Path | None = None  # PEM; ours, if the PACS asks for one
    tls_key: Path | None = None  # PEM, if the key is not in the certificate's file
    tls_server_name: str = ""  # that the PACS's certificate is made out to; empty: pacs_host
    username: str = ""  # user that the PACS is shown (PS3.7 D.3.3.7); empty: none
    passcode: SecretStr | None = Field(default=None, repr=False)  # with it; from the environment, never from a file
    retrieve: str = Field(default="move", pattern="^(move|get|none)$")  # how missing images are fetched
    days: int = Field(default=1, ge=1, le=366)  # today and so many days less one before it are asked for
    after_midnight_minutes: float = Field(default=120.0, ge=0)  # yesterday is asked for as well until then
    every_minutes: float = Field(default=60.0, gt=0)  # from one comparison to the next
    confirm_after_s: float = Field(default=60.0, ge=0)  # images must be missing for so long before they are fetched
    fetch_wait_s: float = Field(default=60.0, ge=0)  # how long fetched images may take to arrive
    timeout_s: float = Field(default=60.0, gt=0)  # of one answer of the PACS
    max_attempts: int = Field(default=3, ge=1)  # runs that try to fetch one study
    match_modality: bool = True  # ask for CT only; off where the PACS finds none then: all is asked for and sifted here
    head_words: tuple[str, ...] = (
        "HEAD", "BRAIN", "SKULL", "CRANI", "NEURO", "CEREBR", "STROKE", "KOPF", "SCHAEDEL", "SCHÄDEL", "TETE", "TÊTE",
        "TESTA", "CABEZA",
    )  # fmt: skip  # a study named or described otherwise is no head CT, unless images of it were pushed to us


class WorkerSettings(BaseModel, frozen=True, extra="forbid"):
    """The process that reads queued studies through the model."""

    endpoint: str = "127.0.0.1:8500"  # gRPC target of TF Serving; several with commas between are taken in turns
    model_name: str = "ich_unet"
    request_timeout_s: float = Field(default=60.0, gt=0)  # for one Predict
    lease_s: float = Field(default=120.0, gt=0)  # a killed worker's study is run again after this
    poll_interval_s: float = Field(default=0.25, gt=0)  # how often an idle worker looks for a queued study
    retry_after_s: float = Field(default=2.0, gt=0)  # a study waits this long when the model is away
    max_attempts: int = Field(default=3, ge=1)  # runs of one study that may end in a killed worker
    tls: bool = False  # speak TLS to the endpoint
    tls_authority: Path | None = None  # PEM of who signed its certificate; None: the authorities that gRPC knows
    tls_certificate: Path | None = None  # PEM of our own, for mutual TLS
    tls_key: Path | None = None  # PEM, its private key
    tls_server_name: str = ""  # name that the endpoint's certificate must have; empty: the host in `endpoint`
    metrics_host: str = "127.0.0.1"  # where metrics and health are served
    metrics_port: int | None = Field(default=None, ge=0, le=65535)  # HTTP /metrics and /health; None: not at all


class ServerSettings(BaseModel, frozen=True, extra="forbid"):
    """The embedded model server, which answers as TF Serving does."""

    models_folder: Path = Path("models")  # one folder a model, and in it one a version: models/ich_unet/1/
    models_config_file: Path | None = None  # TF Serving's models.config; None: every model of the folder
    batching_parameters_file: Path | None = None  # TF Serving's file of that name; None: each request runs alone
    monitoring_config_file: Path | None = None  # TF Serving's file of that name; None: metrics at their usual path
    ssl_config_file: Path | None = None  # TF Serving's SSLConfig with keys and certificates in it; None: plain text
    labels_before_available: bool = False  # a label may name a version that is still loading, as at start all are
    host: str = "127.0.0.1"  # the endpoint has no sign-in: other hosts only in a closed network
    port: int = Field(default=8500, ge=0, le=65535)  # gRPC; 0: any free one, printed at start
    rest_port: int = Field(default=8501, ge=0, le=65535)  # HTTP, JSON and metrics; 0: any free one
    poll_interval_s: float = Field(default=1.0, gt=0)  # how often the folders are looked at for new versions
    load_retries: int = Field(default=0, ge=0)  # further tries for a version that fails to load
    load_retry_interval_s: float = Field(default=60.0, ge=0)  # between them
    intra_op_threads: int = Field(default=0, ge=0)  # threads of one operation; 0: as many as the machine has cores
    inter_op_threads: int = Field(default=0, ge=0)  # operations at once; 0: as many as the machine has cores
    grpc_threads: int = Field(default=8, ge=2)  # requests answered at once
    requests_in_flight: int = Field(default=128, ge=1)  # answered and waiting; more get RESOURCE_EXHAUSTED
    largest_message_bytes: int = Field(default=2**31 - 1, gt=0, le=2**31 - 1)  # of one request
    reply_tensor_content: bool = False  # outputs as tensor_content instead of the *_val fields that old clients read


class WorklistSettings(BaseModel, frozen=True, extra="forbid"):
    """The reading list in the browser."""

    host: str = "127.0.0.1"  # other hosts only behind TLS: certificate here, or a proxy in front
    port: int = Field(default=8080, ge=0, le=65535)  # 0: any free one, printed at start
    allowed_hosts: tuple[str, ...] = ()  # names by which browsers may ask, beside localhost; empty: `host`
    certificate: Path | None = None  # PEM, with `certificate_key`: serve HTTPS
    certificate_key: Path | None = None  # PEM
    behind_tls_proxy: bool = False  # a proxy ends TLS and sets X-Forwarded-For, -Proto and -Host
    session_idle_minutes: float = Field(default=240.0, gt=0)  # without a click or key for this long: sign in again
    session_hours: float = Field(default=12.0, gt=0)  # after this long in any case: sign in again
    lock_after_failures: int = Field(default=5, ge=1)  # wrong passwords in a row that lock an account
    lock_minutes: float = Field(default=15.0, gt=0)  # how long it stays locked
    sign_ins_per_minute: int = Field(default=20, ge=1)  # tries from one address, right or wrong
    link_hours: float = Field(default=24.0, gt=0)  # how long a one-time link may be used
    claim_minutes: float = Field(default=30.0, gt=0)  # a claimed study that is not read is free again after this
    overtaking_cap_minutes: float = Field(default=240.0, gt=0)  # flags overtake older studies for so long
    rows_per_page: int = Field(default=100, ge=10, le=500)  # of the list
    open_lists: int = Field(default=250, ge=1)  # browsers that get changes pushed; further ones ask every 2 s
    model_away_after_s: float = Field(default=60.0, gt=0)  # a worker silent, or a study queued, for this long: banner
    preview_cache_bytes: int = Field(default=1_000_000_000, ge=0)  # volumes kept in memory for previews
    research_mode: bool = False  # keeps and shows what the model saw where; for research, never for reading
    # Other people's programs: tokens, DICOMweb, sign-in by an identity provider (OpenID Connect)
    token_days_at_most: float = Field(default=366.0, gt=0)  # no token is made for longer
    dicomweb_most_results: int = Field(default=500, ge=1, le=10_000)  # of one search; further ones by offset
    dicomweb_origins: tuple[str, ...] = ()  # other sites whose pages may ask, e.g. "https://viewer.example" (CORS)
    oidc_issuer: str = ""  # address of the identity provider; empty: sign-in by password only
    oidc_client_id: str = ""  # by which the provider knows this worklist
    oidc_client_secret: SecretStr | None = Field(default=None, repr=False)  # from the environment, never from a file
    oidc_scopes: str = "openid profile email"  # asked of the provider
    oidc_name_claim: str = "preferred_username"  # becomes the account's name
    oidc_role_claim: str = "groups"  # a text or a list of texts
    oidc_roles: dict[str, str] = {}  # value of that claim: role; who has none of them is refused
    viewer_url: str = ""  # "open in viewer": with {study_instance_uid}, {accession_number} or {patient_id}


class LogSettings(BaseModel, frozen=True, extra="forbid"):
    """Logs on stderr; never patient data."""

    level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    format: str = Field(default="auto", pattern="^(auto|json|console)$")  # auto: console on a terminal, else json


class Settings(BaseSettings):
    """Everything that can be set; each section is passed down to the process that needs it."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    storage: StorageSettings = StorageSettings()
    listener: ListenerSettings = ListenerSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    worker: WorkerSettings = WorkerSettings()
    server: ServerSettings = ServerSettings()
    worklist: WorklistSettings = WorklistSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file: no .env file and no secrets folder is read behind anybody's back."""
        return env_settings, init_settings


def load_settings(config: Path | None = None) -> Settings:
    """Read the settings once, at the front.

    Args:
        config: a TOML file; None: defaults and environment only.

    Raises:
        ConfigError: the file is missing or no TOML, a value does not fit, or a key is unknown (the known ones are
            named).
    """
    _check_environment()
    try:
        return Settings(**_read_toml(config))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    except SettingsError as error:
        raise ConfigError(
            f"A setting of the environment cannot be read: {error}. Lists and tables are JSON."
        ) from error


def _read_toml(config: Path | None) -> Mapping[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file cannot be read: {error.strerror}: {config}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file is no TOML: {error}.") from error


def _check_environment() -> None:
    """Refuse a variable whose section does not exist: pydantic-settings passes it over in silence."""
    for name in os.environ:
        section, separator, _ = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if name.startswith(ENVIRONMENT_PREFIX) and separator and section not in Settings.model_fields:
            raise ConfigError(f"{name} sets nothing; sections known here: {', '.join(sorted(Settings.model_fields))}.")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"{name} is no setting; known here: {', '.join(_known_beside(item['loc']))}.")
        else:
            lines.append(f"{name}: {item['msg']}.")
    return "\n".join(lines)


def _known_beside(location: tuple[int | str, ...]) -> list[str]:
    fields = Settings.model_fields
    for part in location[:-1]:
        section = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
        fields = section.model_fields
    return sorted(fields)

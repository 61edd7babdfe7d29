"""Programs that ask by token, and a worklist that really serves: gunicorn in a process of its own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, JPEG2000Lossless, RLELossless
from werkzeug.http import parse_options_header
from werkzeug.test import TestResponse

from tests.worklist_ui.ledger_fill import Department
from triage.ledger import Ledger
from triage.ledger.intake import Intake, Received
from triage.ledger.tokens import Tokens
from triage.ledger.users import Users
from triage.study import Instance, PatientHeader, Study
from worklist_ui.bearer import new_secret
from worklist_ui.scopes import Scope

FOREVER = 4e9


@dataclass
class Program:
    """A client that shows a token with every request."""

    client: FlaskClient
    secret: str

    def get(self, path: str, accept: str | None = None, **headers: str) -> TestResponse:
        return self.client.get(path, headers=self._headers(accept) | headers)

    def post(self, path: str, body: object = None) -> TestResponse:
        return self.client.post(path, json=body, headers=self._headers(None))

    def _headers(self, accept: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"} | ({"Accept": accept} if accept else {})


def token_for(
    ledger: Ledger, *scopes: Scope, username: str = "program", role: str = "service", expires_at: float = FOREVER
) -> str:
    """Make a token, and its account if there is none."""
    if Users(ledger).by_name(username) is None:
        Users(ledger).add(username, role=role, password_hash="", now=0.0)
    secret = new_secret()
    Tokens(ledger).add(secret, username, scopes=scopes, expires_at=expires_at, now=0.0)
    return secret


def program(app: Flask, ledger: Ledger, *scopes: Scope, **options: object) -> Program:
    """Make a program with a token."""
    return Program(app.test_client(), token_for(ledger, *scopes, **options))


@contextmanager
def running_worklist(folder: Path, **settings: object) -> Iterator[str]:
    """Serve a storage folder by `ich-triage worklist` on a free port; gives its address."""
    config = folder / "triage.toml"
    lines = ["[storage]", f"folder = {json.dumps(str(folder))}", "[worklist]", "port = 0", 'host = "127.0.0.1"']
    config.write_text("\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]))
    command = [sys.executable, "-m", "ich_triage", "worklist", "--config", str(config)]
    with (folder / "worklist.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            said = process.stdout.readline()
            assert said, (folder / "worklist.log").read_text()
            yield f"http://127.0.0.1:{json.loads(said)['worklist_port']}"
        finally:
            process.terminate()
            process.wait(timeout=90)
            process.stdout.close()


def keep(department: Department, datasets: Sequence[Dataset]) -> Study:
    """Receive instances as they are, in whatever transfer syntax each one says that it has."""
    now = department.now
    received = [Received(_kept(department.folder, ds, now), _header(ds)) for ds in datasets]
    Intake(department.ledger).register(received, now=now)
    study = department.studies.by_uid(datasets[0].StudyInstanceUID)
    assert study is not None
    return study


def in_syntax(ds: Dataset, syntax: str) -> Dataset:
    """Give an uncompressed CT instance in another transfer syntax."""
    if syntax == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
    if syntax == JPEG2000Lossless:
        codestream = BytesIO()
        plane = Image.frombytes("I;16", (ds.Columns, ds.Rows), ds.PixelData)
        plane.save(codestream, "JPEG2000", no_jp2=True, irreversible=False)
        ds.PixelData, ds.PixelRepresentation = encapsulate([codestream.getvalue()]), 0
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
        ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    return ds


def parts_of(response: TestResponse) -> list[tuple[dict[str, str], bytes]]:
    """Split a multipart/related answer into headers and content of each part."""
    kind, options = parse_options_header(response.content_type)
    assert kind == "multipart/related"
    boundary = f"--{options['boundary']}".encode()
    first, *middle, last = response.data.split(boundary)
    assert (first, last) == (b"", b"--\r\n")
    return [_part(piece) for piece in middle]


def _part(piece: bytes) -> tuple[dict[str, str], bytes]:
    head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    return headers, content.removesuffix(b"\r\n")


def _kept(folder: Path, ds: Dataset, now: float) -> Instance:
    path = Path("instances") / f"{ds.SOPInstanceUID}.dcm"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    syntax = ds.file_meta.TransferSyntaxUID
    known = {} if syntax.is_encapsulated or syntax.is_private else {
        "implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian,
    }  # fmt: skip
    ds.save_as(folder / path, enforce_file_format=True, **known)
    content = (folder / path).read_bytes()
    return Instance(
        sop_instance_uid=ds.SOPInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        study_instance_uid=ds.StudyInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        transfer_syntax_uid=syntax,
        path=path,
        size_bytes=len(content),
        blake3=hashlib.sha256(content).hexdigest(),
        received_at=now,
        calling_ae_title="CT99",
        modality=ds.Modality,
        series_number=ds.SeriesNumber,
        series_description=ds.get("SeriesDescription", ""),
        instance_number=ds.InstanceNumber,
        rows=ds.Rows,
        columns=ds.Columns,
        number_of_frames=int(ds.get("NumberOfFrames") or 1),
    )


def _header(ds: Dataset) -> PatientHeader:
    return PatientHeader(
        patient_name=str(ds.PatientName),
        patient_id=ds.PatientID,
        accession_number=ds.get("AccessionNumber", ""),
        study_date=ds.get("StudyDate", ""),
        study_time=ds.get("StudyTime", ""),
        study_description=ds.get("StudyDescription", ""),
    )

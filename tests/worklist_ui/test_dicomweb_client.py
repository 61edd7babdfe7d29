"""Other people's DICOMweb clients against the worklist as it is served: dicomweb-client, and OHIF's requests."""

from __future__ import annotations

import numpy as np
import pytest
import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, generate_uid
from requests.exceptions import HTTPError

from tests.builders import ct_series, head_hu
from tests.dicom_listener.conftest import running
from tests.worklist_ui.ledger_fill import Department
from tests.worklist_ui.programs import in_syntax, keep, running_worklist, token_for
from triage.ledger import Ledger
from triage.ledger.studies import Studies
from worklist_ui.scopes import Scope

VIEWER_SITE = "https://viewer.example"
SLICES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(folder):
    """A worklist in a process of its own over one plain and one compressed study; address, token and studies."""
    ledger = Ledger(folder / "ledger.sqlite")
    department = Department(folder, ledger)
    volume = head_hu(SLICES)
    volume[:, 30:34, 30:34] = 80
    plain = keep(department, ct_series(hu=volume, StudyDate="20260102"))
    packed_uid, series_uid = generate_uid(), generate_uid()
    packed = ct_series(hu=volume, study_instance_uid=packed_uid, series_instance_uid=series_uid)
    for ds in packed:
        ds.PatientName, ds.StudyDate = "Roe^Max", "20251231"
    keep(department, [in_syntax(ds, JPEG2000Lossless) for ds in packed])
    secret = token_for(ledger, Scope.IMAGES_READ)
    with running_worklist(folder, dicomweb_origins=[VIEWER_SITE]) as address:
        yield address, secret, plain.study_instance_uid, packed_uid
    lines = Studies(ledger).events_of(packed_uid)
    ledger.close()
    assert {line.actor for line in lines if line.kind == "retrieved"} == {"program"}  # after all tests of this module


class Session(requests.Session):
    """Names the host with its port: dicomweb-client leaves it out, and every address in an answer would lack it."""

    def prepare_request(self, request):
        request.headers.pop("Host", None)
        return super().prepare_request(request)


@pytest.fixture(scope="module")
def client(site):
    address, secret, *_ = site
    session = Session()
    session.headers["Authorization"] = f"Bearer {secret}"
    return DICOMwebClient(f"{address}/dicomweb", session=session)


@pytest.fixture(scope="module")
def open_door(site, folder):
    """A listener on the worklist's storage folder, and a client that may bring images."""
    ledger = Ledger(folder / "ledger.sqlite")
    session = Session()
    session.headers["Authorization"] = f"Bearer {token_for(ledger, Scope.IMAGES_WRITE, username='modality')}"
    with running(folder):
        yield DICOMwebClient(f"{site[0]}/dicomweb", session=session)
    ledger.close()


def series_of(client, study):
    [found] = client.search_for_series(study)
    return Dataset.from_json(found).SeriesInstanceUID


def test_searching(client, site):
    _, _, plain, packed = site

    found = {Dataset.from_json(item).StudyInstanceUID for item in client.search_for_studies()}
    named = [Dataset.from_json(item) for item in client.search_for_studies(search_filters={"PatientName": "Roe*"})]

    assert found == {plain, packed}
    assert [str(ds.PatientName) for ds in named] == ["Roe^Max"]
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    assert len(client.search_for_studies(limit=1, offset=1)) == 1
    assert len(client.search_for_instances(plain)) == SLICES
    assert len(client.search_for_instances(get_remaining=True, limit=3)) == 2 * SLICES


def test_whole_study_is_unpacked_for_a_client_that_names_no_syntax(client, site):
    _, _, _, packed = site

    datasets = client.retrieve_study(packed)

    assert len(datasets) == SLICES
    middle = sorted(datasets, key=lambda ds: ds.InstanceNumber)[1]
    assert middle.pixel_array[32, 32] == 80 + 1024


def test_whole_study_as_it_is_stored(client, site):
    _, _, _, packed = site

    datasets = client.retrieve_study(packed, media_types=(("application/dicom", "*"),))

    assert {ds.file_meta.TransferSyntaxUID for ds in datasets} == {JPEG2000Lossless}


def test_streamed_series_and_single_instance(client, site):
    _, _, plain, _ = site
    series = series_of(client, plain)

    [*datasets] = client.iter_series(plain, series)
    one = client.retrieve_instance(plain, series, datasets[0].SOPInstanceUID)

    assert len(datasets) == SLICES
    assert one == datasets[0]


def test_metadata_and_the_pixels_that_it_points_to(client, site):
    _, _, plain, _ = site

    items = client.retrieve_study_metadata(plain)
    ds = Dataset.from_json(
        items[0], bulk_data_uri_handler=lambda _tag, _vr, uri: bytes(client.retrieve_bulkdata(uri)[0])
    )

    assert len(items) == SLICES
    assert np.frombuffer(ds.PixelData, "<i2").reshape(64, 64)[32, 32] == 80 + 1024
    assert ds.PatientName == "Doe^Jane"


@pytest.mark.parametrize("media_type", ["application/octet-stream", "image/jp2"])
def test_frames(client, site, media_type):
    _, _, _, packed = site
    series = series_of(client, packed)
    instance = Dataset.from_json(client.search_for_instances(packed, series)[0]).SOPInstanceUID

    [frame] = client.retrieve_instance_frames(packed, series, instance, [1], media_types=(media_type,))

    if media_type == "image/jp2":
        assert frame.startswith(b"\xff\x4f\xff\x51")
    else:
        assert np.frombuffer(frame, "<i2").reshape(64, 64)[32, 32] == 80 + 1024


def test_pictures(client, site):
    _, _, plain, _ = site
    series = series_of(client, plain)
    instance = Dataset.from_json(client.search_for_instances(plain, series)[0]).SOPInstanceUID

    png = client.retrieve_instance_rendered(
        plain, series, instance, media_types=("image/png",), params={"window": "40,80,linear"}
    )
    jpeg = client.retrieve_instance_frames_rendered(plain, series, instance, [1], media_types=("image/jpeg",))

    assert png.startswith(b"\x89PNG")
    assert jpeg.startswith(b"\xff\xd8")


def test_client_without_a_token_gets_nothing(site):
    stranger = DICOMwebClient(f"{site[0]}/dicomweb")

    with pytest.raises(HTTPError, match="401"):
        stranger.search_for_studies()


def test_viewer_of_another_site_reads_a_study_as_ohif_does(site):
    """Preflight, study list, series, series metadata, then each image's frame, all across origins with a token."""
    address, secret, plain, _ = site
    root = f"{address}/dicomweb"
    browser = requests.Session()
    browser.headers.update({"Origin": VIEWER_SITE})
    asked = browser.options(
        f"{root}/studies",
        headers={"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"},
    )
    assert asked.status_code == 204
    browser.headers["Authorization"] = f"Bearer {secret}"
    json = {"Accept": "application/dicom+json"}

    studies = browser.get(
        f"{root}/studies",
        params={"limit": 101, "offset": 0, "fuzzymatching": "false", "includefield": "00081030,00080060",
                "StudyDate": "20260101-20260131"},
        headers=json,
    )  # fmt: skip
    assert [item["0020000D"]["Value"] for item in studies.json()] == [[plain]]
    series = browser.get(f"{root}/studies/{plain}/series", params={"includefield": "0008103E"}, headers=json).json()
    series_uid = series[0]["0020000E"]["Value"][0]
    metadata = browser.get(f"{root}/studies/{plain}/series/{series_uid}/metadata", headers=json).json()
    assert len(metadata) == SLICES
    for item in metadata:
        frame = browser.get(
            f"{root}/studies/{plain}/series/{series_uid}/instances/{item['00080018']['Value'][0]}/frames/1",
            headers={"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"},
        )
        assert frame.status_code == 200
        assert frame.headers["Access-Control-Allow-Origin"] == VIEWER_SITE
        assert frame.headers["Content-Type"].startswith("multipart/related")
        assert len(frame.content) > 64 * 64 * 2


def test_storing_and_reading_back(client, open_door):
    series = ct_series(slices=3)
    study = series[0].StudyInstanceUID
    for ds in series:
        ds.preamble = bytes(128)  # else the client writes no DICOM file

    report = open_door.store_instances(series)

    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [
        ds.SOPInstanceUID for ds in series
    ]
    assert "FailedSOPSequence" not in report
    assert {ds.SOPInstanceUID for ds in client.retrieve_study(study)} == {ds.SOPInstanceUID for ds in series}

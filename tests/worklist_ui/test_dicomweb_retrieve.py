"""WADO-RS: files as they are stored or unpacked, metadata, bulk data, frames and pictures; and the trace of it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.builders import ct_series, head_hu, secondary_capture
from tests.worklist_ui.programs import in_syntax, keep, parts_of, program
from triage.ledger.audit import AuditTrail
from worklist_ui.dicomweb.rendering import Window, windowed
from worklist_ui.scopes import Scope

ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'
UNPACKED = f'multipart/related; type="application/dicom"; transfer-syntax={ExplicitVRLittleEndian}'
NOT_SAID = 'multipart/related; type="application/dicom"'
OCTETS = 'multipart/related; type="application/octet-stream"'
SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEG2000Lossless,
]


@pytest.fixture
def viewer(app, ledger):
    return program(app, ledger, Scope.IMAGES_READ)


def pixels(hu=40):
    """(64, 64) int16, as `ct_series` stores it."""
    return (np.rint(head_hu(1, hu=hu)[0]) + 1024).astype("<i2")


def one_image(syntax=ExplicitVRLittleEndian, **header):
    [ds] = ct_series(slices=1, **header)
    return in_syntax(ds, syntax)


def address(ds, *more):
    path = f"/dicomweb/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    return "/".join([path, *more])


def stored_bytes(department, ds):
    return (department.folder / "instances" / f"{ds.SOPInstanceUID}.dcm").read_bytes()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_files_are_given_as_they_are_stored(viewer, department, syntax):
    ds = one_image(syntax)
    keep(department, [ds])

    [(headers, content)] = parts_of(viewer.get(address(ds), ANY))

    assert content == stored_bytes(department, ds)
    assert headers["Content-Type"] == f"application/dicom; transfer-syntax={syntax}"
    assert headers["Content-Location"] == f"http://localhost{address(ds)}"


@pytest.mark.parametrize("accept", [UNPACKED, NOT_SAID])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_files_are_unpacked_where_that_is_asked_for(viewer, department, syntax, accept):
    ds = one_image(syntax)
    keep(department, [ds])

    [(headers, content)] = parts_of(viewer.get(address(ds), accept))

    unpacked = pydicom.dcmread(BytesIO(content))
    assert unpacked.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert headers["Content-Type"] == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    assert (unpacked.SOPInstanceUID, unpacked.PatientName) == (ds.SOPInstanceUID, ds.PatientName)
    np.testing.assert_array_equal(unpacked.pixel_array, pixels())


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_frames_are_unpacked(viewer, department, syntax):
    ds = one_image(syntax)
    keep(department, [ds])

    [(headers, content)] = parts_of(viewer.get(address(ds, "frames", "1"), f"{OCTETS}; transfer-syntax=*"))

    assert headers["Content-Type"] == f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    np.testing.assert_array_equal(np.frombuffer(content, "<i2").reshape(64, 64), pixels())


@pytest.mark.parametrize(
    "accept", ['multipart/related; type="image/jp2"', f"image/jp2; transfer-syntax={JPEG2000Lossless}", "image/*"]
)
def test_compressed_frame_is_given_as_it_is_stored(viewer, department, accept):
    ds = one_image(JPEG2000Lossless)
    keep(department, [ds])

    response = viewer.get(address(ds, "frames", "1"), accept)

    content = parts_of(response)[0][1] if accept.startswith("multipart") else response.data
    assert content.startswith(b"\xff\x4f\xff\x51")  # start of a JPEG 2000 codestream and of its SIZ marker
    with Image.open(BytesIO(content)) as image:
        assert image.size == (64, 64)


def test_frames_are_given_in_the_order_asked_for(viewer, department):
    ds = one_image(NumberOfFrames=3)
    ds.PixelData = b"".join(np.full((64, 64), value, "<i2").tobytes() for value in (1, 2, 3))
    keep(department, [ds])

    parts = parts_of(viewer.get(address(ds, "frames", "3,1"), OCTETS))

    assert [content[:2] for _, content in parts] == [b"\x03\x00", b"\x01\x00"]
    assert [headers["Content-Location"][-9:] for headers, _ in parts] == ["/frames/3", "/frames/1"]


@pytest.mark.parametrize(("frames", "status"), [("0", 404), ("2", 404), ("1,2", 404), ("x", 400), ("1,", 400)])
def test_frame_that_is_not_there(viewer, department, frames, status):
    ds = one_image()
    keep(department, [ds])

    assert viewer.get(address(ds, "frames", frames)).status_code == status


@pytest.mark.parametrize(
    ("more", "accept"),
    [
        ((), f'multipart/related; type="application/dicom"; transfer-syntax={JPEGLSLossless}'),
        ((), "image/jpeg"),
        ((), 'multipart/related; type="application/dicom+xml"'),
        (("frames", "1"), "image/jls"),
        (("metadata",), 'multipart/related; type="application/dicom+xml"'),
        (("rendered",), "image/gif"),
        (("bulkdata", "7FE00010"), "image/png"),
    ],
)
def test_what_cannot_be_given_so_is_refused_with_what_can(viewer, department, more, accept):
    ds = one_image()
    keep(department, [ds])

    response = viewer.get(address(ds, *more), accept)

    assert (response.status_code, response.content_type) == (406, "application/problem+json")
    assert "can be given as" in response.json["detail"]


def test_image_that_cannot_be_unpacked_is_given_as_it_is_or_refused(viewer, department):
    ds = one_image(RLELossless)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.103")  # MPEG-4, read by nothing here
    keep(department, [ds])

    assert viewer.get(address(ds), NOT_SAID).status_code == 200
    assert viewer.get(address(ds), UNPACKED).status_code == 406
    assert viewer.get(address(ds, "frames", "1"), OCTETS).status_code == 406


def test_one_file_may_come_without_envelope(viewer, department):
    ds = one_image()
    keep(department, [ds])

    response = viewer.get(address(ds), "application/dicom")

    assert response.content_type == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    assert response.data == stored_bytes(department, ds)


def test_study_and_series_are_given_whole(viewer, department):
    images = ct_series(slices=3)
    page = secondary_capture(images[0].StudyInstanceUID)
    study = keep(department, [*images, page])
    base = f"/dicomweb/studies/{study.study_instance_uid}"

    whole = parts_of(viewer.get(base, ANY))
    series = parts_of(viewer.get(f"{base}/series/{images[0].SeriesInstanceUID}", ANY))

    assert [content for _, content in series] == [stored_bytes(department, ds) for ds in images]
    assert len(whole) == 4


def test_study_with_a_file_gone_is_given_in_part(viewer, department):
    images = ct_series(slices=3)
    study = keep(department, images)
    (department.folder / "instances" / f"{images[1].SOPInstanceUID}.dcm").unlink()

    response = viewer.get(f"/dicomweb/studies/{study.study_instance_uid}", ANY)

    assert response.status_code == 206
    assert [content for _, content in parts_of(response)] == [
        stored_bytes(department, ds) for ds in (images[0], images[2])
    ]


@pytest.mark.parametrize("more", ["", "/metadata", "/series/1.2", "/series/1.2/instances/3", "/thumbnail"])
@pytest.mark.parametrize("uid", ["1.2.3", "..%2f..%2fetc", "%00", "'--"])
def test_unknown_study_is_not_there(viewer, uid, more):
    assert viewer.get(f"/dicomweb/studies/{uid}{more}").status_code == 404


def test_instance_is_not_found_below_another_study(viewer, department):
    ds, other = one_image(), one_image()
    keep(department, [ds])
    keep(department, [other])

    response = viewer.get(address(ds).replace(ds.StudyInstanceUID, other.StudyInstanceUID))

    assert response.status_code == 404


class TestMetadata:
    def test_header_without_pixels(self, viewer, department):
        ds = one_image(JPEG2000Lossless)
        keep(department, [ds])

        [found] = viewer.get(address(ds, "metadata")).json

        assert found["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}
        assert found["00280010"] == {"vr": "US", "Value": [64]}
        assert found["00280030"] == {"vr": "DS", "Value": [3.5, 3.5]}
        assert found["00083002"] == {"vr": "UI", "Value": [JPEG2000Lossless]}  # Available Transfer Syntax UID
        assert found["7FE00010"]["BulkDataURI"] == f"http://localhost{address(ds, 'bulkdata', '7FE00010')}"
        assert not [name for name in found if name.startswith("0002")]

    def test_address_of_pixels_leads_to_them(self, viewer, department):
        ds = one_image(JPEG2000Lossless)
        keep(department, [ds])
        [found] = viewer.get(address(ds, "metadata")).json

        [(_, content)] = parts_of(viewer.get(found["7FE00010"]["BulkDataURI"], OCTETS))

        np.testing.assert_array_equal(np.frombuffer(content, "<i2").reshape(64, 64), pixels())

    def test_large_value_in_a_sequence_is_given_by_its_address(self, viewer, department):
        ds, item = one_image(), Dataset()
        item.add_new(0x00091001, "OB", b"\x07" * 2000)
        item.add_new(0x00090010, "LO", "OURS")
        item.add_new(0x00091002, "OB", b"\x08" * 4)
        ds.add_new(0x00081140, "SQ", [Dataset(), item])
        keep(department, [ds])

        [found] = viewer.get(address(ds, "metadata")).json
        inner = found["00081140"]["Value"][1]

        assert found["00081140"]["Value"][0] == {}
        assert inner["00091002"] == {"vr": "OB", "InlineBinary": "CAgICA=="}
        assert viewer.get(inner["00091001"]["BulkDataURI"], "application/octet-stream").data == b"\x07" * 2000

    @pytest.mark.parametrize("path", ["00100010", "00081140/0/00091001", "x", "7FE00010/1", "00080060/0/1"])
    def test_address_that_leads_nowhere(self, viewer, department, path):
        ds = one_image()
        keep(department, [ds])

        assert viewer.get(address(ds, "bulkdata", path)).status_code == 404

    def test_values_that_break_their_rules_do_not_hide_the_others(self, viewer, department):
        ds = one_image()
        with pydicom.config.disable_value_validation():
            ds.add_new(0x00180050, "LO", "about five")  # Slice Thickness is a DS
            ds.add_new(0x00181200, "DA", "31.12.2025")
            ds.add_new(0x00189087, "FD", float("nan"))
            ds.SpecificCharacterSet = "ISO_IR 100"
            ds.PatientName = "Müller^\x1b\x07<script>"
            keep(department, [ds])

        [found] = viewer.get(address(ds, "metadata")).json

        assert found["00180050"]["Value"] == ["about five"]
        assert found["00181200"]["Value"] == ["31.12.2025"]
        assert found["00189087"] == {"vr": "FD"}
        assert found["00080005"]["Value"] == ["ISO_IR 192"]
        assert found["00100010"]["Value"][0]["Alphabetic"].startswith("Müller")

    def test_file_that_is_damaged_does_not_hide_the_others(self, viewer, department):
        images = ct_series(slices=2)
        study = keep(department, images)
        (department.folder / "instances" / f"{images[0].SOPInstanceUID}.dcm").write_bytes(b"garbage")

        found = viewer.get(f"/dicomweb/studies/{study.study_instance_uid}/metadata").json

        assert {item["00080018"]["Value"][0] for item in found} == {ds.SOPInstanceUID for ds in images}


class TestRendered:
    def draw(self, viewer, ds, query="", accept="image/png", *more):
        response = viewer.get(address(ds, *more, "rendered") + query, accept)
        assert response.status_code == 200, response.json
        assert response.content_type == accept
        with Image.open(BytesIO(response.data)) as image:
            return np.asarray(image)

    def test_window_makes_grey(self, viewer, department):
        ds = one_image()
        keep(department, [ds])

        brain = self.draw(viewer, ds, "?window=40,80,linear")
        bright = self.draw(viewer, ds, "?window=0,40,linear")

        middle = brain.shape[0] // 2
        assert brain[middle, middle] == 129  # 40 HU in the middle of 0 to 80: 255 x (0.5 / 79 + 0.5)
        assert bright[middle, middle] == 255

    def test_every_picture_carries_the_warning(self, viewer, department):
        ds = one_image(hu=-1000)
        keep(department, [ds])

        grey = self.draw(viewer, ds, "?window=40,80,linear")

        top, bottom = grey[: len(grey) // 8], grey[-len(grey) // 8 :]
        assert (top > 200).sum() > 100
        assert (bottom > 200).sum() > 100

    def test_viewport_is_kept(self, viewer, department):
        ds = one_image()
        keep(department, [ds])

        assert self.draw(viewer, ds, "?viewport=200,100").shape == (100, 100)
        assert self.draw(viewer, ds, "?viewport=700,700,0,0,5,5", "image/jpeg").shape == (700, 700)

    def test_inverted_image_is_drawn_as_it_is_meant(self, viewer, department):
        ds = one_image(PhotometricInterpretation="MONOCHROME1")
        keep(department, [ds])

        grey = self.draw(viewer, ds, "?window=40,80,linear")

        assert grey[len(grey) // 2, 2] == 255  # air, left of the head

    def test_colour_page_is_drawn(self, viewer, department):
        ds = secondary_capture(
            "1.2.3",
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            PlanarConfiguration=0,
            PixelData=bytes([250, 0, 0]) * 256,
        )
        keep(department, [ds])

        colours = self.draw(viewer, ds)

        assert tuple(colours[len(colours) // 2, 3]) == (250, 0, 0)

    def test_single_frame_is_drawn(self, viewer, department):
        ds = one_image(NumberOfFrames=2)
        ds.PixelData = pixels(hu=0).tobytes() + pixels(hu=80).tobytes()
        keep(department, [ds])

        second = self.draw(viewer, ds, "?window=40,80,linear", "image/png", "frames", "2")

        assert second[len(second) // 2, len(second) // 2] == 255
        assert viewer.get(address(ds, "frames", "3", "rendered")).status_code == 404

    def test_thumbnail_is_small(self, viewer, department):
        images = ct_series(slices=3)
        study = keep(department, images)

        response = viewer.get(f"/dicomweb/studies/{study.study_instance_uid}/thumbnail")

        with Image.open(BytesIO(response.data)) as image:
            assert (image.format, image.size) == ("JPEG", (128, 128))

    @pytest.mark.parametrize(
        "query",
        ["window=40", "window=a,b,linear", "window=40,0,linear", "window=40,80,cubic", "window=nan,80,linear",
         "viewport=0,10", "viewport=10", "viewport=99999,10", "quality=0", "quality=x"],
    )  # fmt: skip
    def test_parameter_that_makes_no_sense_is_refused(self, viewer, department, query):
        ds = one_image()
        keep(department, [ds])

        assert viewer.get(address(ds, "rendered") + f"?{query}").status_code == 400

    def test_image_without_pixels_has_no_picture(self, viewer, department):
        ds = one_image()
        del ds.PixelData
        keep(department, [ds])

        assert viewer.get(address(ds, "rendered")).status_code == 404
        assert viewer.get(address(ds), UNPACKED).status_code == 200


@pytest.mark.parametrize(
    ("function", "expected"),
    [("linear", [0, 0, 129, 255]), ("linear-exact", [0, 0, 128, 255]), ("sigmoid", [5, 30, 128, 250])],
)
def test_window_functions_are_those_of_the_standard(function, expected):
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3, centre 40 and width 80, at -40, 0, 40 and 120."""
    grey = windowed(np.array([-40, 0, 40, 120], np.float32), Window(40, 80, function))

    np.testing.assert_allclose(grey, expected, atol=1)


class TestTrace:
    def lines(self, department, study):
        events = department.studies.events_of(study.study_instance_uid)
        return [(event.actor, event.detail) for event in events if event.kind == "retrieved"]

    def test_retrieval_stands_in_the_study_s_history_with_the_token(self, viewer, department):
        study = keep(department, ct_series(slices=1))

        viewer.get(f"/dicomweb/studies/{study.study_instance_uid}")

        assert self.lines(department, study) == [("program", "instances by DICOMweb, token 1")]

    def test_retrieval_stands_in_the_audit_trail_with_patient_and_token(self, viewer, department, ledger):
        study = keep(department, ct_series(slices=1))

        viewer.get(f"/dicomweb/studies/{study.study_instance_uid}")
        viewer.get("/dicomweb/studies")

        deeds = [record.deed for record in AuditTrail(ledger).records()]
        assert [(deed.actor, deed.action, deed.detail) for deed in deeds] == [
            ("program", "retrieve_instances", "token 1"),
            ("program", "search_images", "token 1"),
        ]
        assert (deeds[0].study_instance_uid, deeds[0].patient_id) == (study.study_instance_uid, "P0001")

    def test_hundreds_of_frames_are_one_line_for_ten_minutes(self, viewer, department):
        ds = one_image()
        study = keep(department, [ds])

        for _ in range(5):
            viewer.get(address(ds, "frames", "1"))
        department.now += 601
        viewer.get(address(ds, "frames", "1"))

        assert len(self.lines(department, study)) == 2

    def test_what_was_refused_is_not_noted_as_given(self, viewer, department):
        ds = one_image()
        study = keep(department, [ds])

        viewer.get(address(ds), "image/jpeg")
        viewer.get(address(ds, "frames", "9"))

        assert self.lines(department, study) == []

    def test_reader_leaves_a_trace_too(self, radiologist, department):
        study = keep(department, ct_series(slices=1))

        radiologist.get(f"/dicomweb/studies/{study.study_instance_uid}/metadata")

        assert self.lines(department, study) == [("reader", "metadata by DICOMweb")]

    def test_nothing_is_given_that_cannot_be_noted(self, viewer, department, ledger):
        ds = one_image()
        keep(department, [ds])
        viewer.get("/dicomweb/studies")  # notes the token's use
        with ledger.transaction() as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk full'); END")

        response = viewer.get(address(ds))

        assert response.status_code == 503
        assert stored_bytes(department, ds)[:200] not in response.data

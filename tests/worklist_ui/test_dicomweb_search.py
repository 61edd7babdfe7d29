"""QIDO-RS: what is found, how it is written, and what is refused."""

from __future__ import annotations

import pytest

from tests.builders import ct_series, localizer
from tests.worklist_ui.programs import keep, program
from triage.settings import WorklistSettings
from worklist_ui.scopes import Scope

PATIENT_NAME, PATIENT_ID, STUDY_UID, SERIES_UID, SOP_UID = "00100010", "00100020", "0020000D", "0020000E", "00080018"
WARNING_OF_FUZZY = "The fuzzymatching parameter is not supported. Only literal matching has been performed."


@pytest.fixture
def viewer(app, ledger):
    return program(app, ledger, Scope.IMAGES_READ)


def values(response, tag):
    """Give the first value of an attribute in each result; [] for an answer without any."""
    if response.status_code == 204:
        return []
    assert response.status_code == 200, response.json
    assert response.content_type == "application/dicom+json"
    return [item[tag].get("Value", [None])[0] for item in response.json]


@pytest.fixture
def three(department):
    """Three studies, newest last."""
    return [
        department.analyse("Doe^Jane", flagged=True, study_date="20260102", study_time="081500"),
        department.analyse("Döring^Änne=山田^花子", flagged=False, study_date="20260103", study_time="101500.5"),
        department.analyse("O'Neil_%[x]", flagged=False, study_date="20260104", patient_id="A[1]"),
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["P0001", "P0002", "A[1]"]),
        ("PatientID=P0001", ["P0001"]),
        ("00100020=P0001", ["P0001"]),
        ("PatientID=p0001", []),
        ("PatientID=P*", ["P0001", "P0002"]),
        ("PatientID=P000?", ["P0001", "P0002"]),
        ("PatientID=A[1]", ["A[1]"]),
        ("PatientID=A[*", ["A[1]"]),
        ("PatientID=*", ["P0001", "P0002", "A[1]"]),
        ("PatientID=", ["P0001", "P0002", "A[1]"]),
        ("PatientName=doe^jane", ["P0001"]),
        ("PatientName=DOE*", ["P0001"]),
        ("PatientName=doe", []),
        ("PatientName=D%C3%B6ring^%C3%84nne", ["P0002"]),
        ("PatientName=*%E5%B1%B1%E7%94%B0*", ["P0002"]),
        ("PatientName=O'Neil_%25[x]", ["A[1]"]),
        ("PatientName=O'Neil__[x]", []),
        ("AccessionNumber=A0002", ["P0002"]),
        ("StudyDate=20260103", ["P0002"]),
        ("StudyDate=20260103-", ["P0002", "A[1]"]),
        ("StudyDate=-20260103", ["P0001", "P0002"]),
        ("StudyDate=20260102-20260103", ["P0001", "P0002"]),
        ("StudyTime=0800-1015", ["P0001", "P0002"]),
        ("StudyTime=1015", ["P0002"]),
        ("StudyDate=20260102&PatientName=D*", ["P0001"]),
        ("ModalitiesInStudy=CT", ["P0001", "P0002", "A[1]"]),
        ("ModalitiesInStudy=MR", []),
        ("ModalitiesInStudy=MR,CT", ["P0001", "P0002", "A[1]"]),
        ("StudyInstanceUID=1.2.3", []),
        ("PatientName=' OR 1=1 --", []),
    ],
)
def test_studies_are_matched(viewer, three, query, found):
    assert sorted(values(viewer.get(f"/dicomweb/studies?{query}"), PATIENT_ID)) == sorted(found)


def test_several_uids_find_several_studies(viewer, three):
    uids = ",".join(study.study_instance_uid for study in three[:2])

    assert len(viewer.get(f"/dicomweb/studies?StudyInstanceUID={uids}").json) == 2


def test_result_names_what_the_standard_asks_for(viewer, department):
    study = keep(department, [*ct_series(slices=3, StudyTime="081500", StudyID="77")])

    [found] = viewer.get("/dicomweb/studies").json

    assert found[PATIENT_NAME] == {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}
    assert found["00080061"] == {"vr": "CS", "Value": ["CT"]}
    assert found["00200010"] == {"vr": "SH", "Value": ["77"]}  # Study ID, read from a file
    assert found["00201206"] == {"vr": "IS", "Value": [1]}
    assert found["00201208"] == {"vr": "IS", "Value": [3]}
    assert found["00081190"]["Value"] == [f"http://localhost/dicomweb/studies/{study.study_instance_uid}"]
    required = {"00080020", "00080030", "00080050", "00080056", "00080061", "00080090", "00081190", "00100010"}
    assert required | {"00100020", "00100030", "00100040", STUDY_UID, "00200010", "00201206", "00201208"} <= set(found)


def test_names_in_several_scripts_are_given_by_group(viewer, three):
    [found] = viewer.get("/dicomweb/studies?PatientID=P0002").json

    assert found[PATIENT_NAME]["Value"] == [{"Alphabetic": "Döring^Änne", "Ideographic": "山田^花子"}]


def test_hostile_name_cannot_break_the_json(viewer, department):
    name = 'X^"},{\\\u202e\x00</script>' + "A" * 65_536
    department.receive(name)

    assert values(viewer.get("/dicomweb/studies"), PATIENT_NAME) == [{"Alphabetic": name}]


def test_results_come_in_pages(viewer, three):
    first = viewer.get("/dicomweb/studies?limit=2")
    second = viewer.get("/dicomweb/studies?limit=2&offset=2")

    assert values(first, PATIENT_ID) == ["A[1]", "P0002"]
    assert values(second, PATIENT_ID) == ["P0001"]
    warning = "299 http://localhost/dicomweb: There are 1 additional results that can be requested."
    assert (first.headers["Warning"], second.headers.get("Warning")) == (warning, None)


class TestMany:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(dicomweb_most_results=2)

    def test_no_answer_is_larger_than_the_site_allows(self, viewer, three):
        assert len(viewer.get("/dicomweb/studies?limit=1000").json) == 2


def test_nothing_found_is_an_answer_without_content(viewer):
    response = viewer.get("/dicomweb/studies?PatientID=nobody")

    assert (response.status_code, response.data) == (204, b"")


def test_fuzzy_matching_is_not_done_and_says_so(viewer, three):
    response = viewer.get("/dicomweb/studies?PatientName=Doe^Jane&fuzzymatching=true")

    assert values(response, PATIENT_ID) == ["P0001"]
    assert response.headers["Warning"] == f"299 http://localhost/dicomweb: {WARNING_OF_FUZZY}"


def test_key_that_cannot_be_matched_is_named(viewer, three):
    response = viewer.get("/dicomweb/studies?PatientWeight=70")

    assert len(response.json) == 3
    assert response.headers["Warning"].endswith("PatientWeight cannot be matched here and was ignored.")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("PatientNam=x", "no attribute 'PatientNam'"),
        ("99999999=x", "no attribute '99999999'"),
        ("limit=-1", "limit takes a whole number"),
        ("limit=1.5", "limit takes a whole number"),
        ("offset=x", "offset takes a whole number"),
        ("offset=99999999999999999999", "offset takes a whole number"),
        ("StudyDate=yesterday", "StudyDate takes YYYYMMDD"),
        ("StudyDate=-", "StudyDate takes YYYYMMDD"),
        ("includefield=Nonsense", "no attribute 'Nonsense'"),
        ("PatientID=1&PatientID=2", "PatientID is given twice"),
    ],
)
def test_question_that_cannot_be_understood_is_refused_with_the_reason(viewer, query, says):
    response = viewer.get(f"/dicomweb/studies?{query}")

    assert (response.status_code, response.content_type) == (400, "application/problem+json")
    assert says in response.json["detail"]


@pytest.mark.parametrize("accept", ["application/dicom+json", "application/json", "*/*", "text/html, */*;q=0.1"])
def test_results_are_json(viewer, three, accept):
    assert viewer.get("/dicomweb/studies", accept).status_code == 200


def test_results_are_not_given_as_xml(viewer, three):
    response = viewer.get("/dicomweb/studies", 'multipart/related; type="application/dicom+xml"')

    assert response.status_code == 406


@pytest.fixture
def study_of_two_series(department):
    images = ct_series(slices=3, SeriesDescription="THIN", BodyPartExamined="HEAD")
    return keep(department, [*images, localizer(images[0].StudyInstanceUID)])


def test_series_of_a_study(viewer, study_of_two_series):
    found = viewer.get(f"/dicomweb/studies/{study_of_two_series.study_instance_uid}/series").json

    assert [item["00200011"]["Value"] for item in found] == [[1], [2]]
    assert [item["0008103E"]["Value"] for item in found] == [["SCOUT"], ["THIN"]]
    assert [item["00201209"]["Value"] for item in found] == [[1], [3]]
    assert PATIENT_NAME not in found[0]


def test_series_of_all_studies_come_with_their_patient(viewer, study_of_two_series):
    found = viewer.get("/dicomweb/series?SeriesDescription=TH*&Modality=CT").json

    assert [item[PATIENT_NAME]["Value"][0]["Alphabetic"] for item in found] == ["Doe^Jane"]


def test_further_attributes_are_read_from_the_file(viewer, study_of_two_series):
    uid = study_of_two_series.study_instance_uid

    plain = viewer.get(f"/dicomweb/studies/{uid}/series").json[1]
    named = viewer.get(f"/dicomweb/studies/{uid}/series?includefield=BodyPartExamined,00080070").json[1]
    everything = viewer.get(f"/dicomweb/studies/{uid}/series?includefield=all").json[1]

    assert "00180015" not in plain
    assert named["00180015"] == everything["00180015"] == {"vr": "CS", "Value": ["HEAD"]}
    assert "00080070" in named


def test_instances_of_a_series(viewer, study_of_two_series):
    uid = study_of_two_series.study_instance_uid
    series = viewer.get(f"/dicomweb/studies/{uid}/series").json[1][SERIES_UID]["Value"][0]

    found = viewer.get(f"/dicomweb/studies/{uid}/series/{series}/instances").json

    assert [item["00200013"]["Value"] for item in found] == [[1], [2], [3]]
    assert [item["00280100"]["Value"] for item in found] == [[16]] * 3  # Bits Allocated, read from the file
    assert len({item[SOP_UID]["Value"][0] for item in found}) == 3
    assert len(viewer.get(f"/dicomweb/studies/{uid}/instances").json) == 4
    assert len(viewer.get("/dicomweb/instances?InstanceNumber=2").json) == 1


def test_address_and_key_that_contradict_each_other_are_refused(viewer, study_of_two_series):
    response = viewer.get(f"/dicomweb/studies/{study_of_two_series.study_instance_uid}/series?StudyInstanceUID=1.2.3")

    assert response.status_code == 400


def test_study_is_found_although_its_file_is_gone(viewer, department):
    study = department.analyse(flagged=True)
    for instance in department.studies.instances_of(study.study_instance_uid):
        (department.folder / instance.path).unlink()

    assert values(viewer.get("/dicomweb/studies?includefield=all"), STUDY_UID) == [study.study_instance_uid]


def test_reader_searches_with_the_session_too(radiologist, three):
    assert len(radiologist.get("/dicomweb/studies").json) == 3


class TestOtherSite:
    @pytest.fixture
    def worklist_settings(self):
        return WorklistSettings(dicomweb_origins=("https://viewer.example",))

    def test_named_site_may_ask(self, app, viewer, three):
        origin = {"Origin": "https://viewer.example"}
        asked = app.test_client().options(
            "/dicomweb/studies", headers=origin | {"Access-Control-Request-Headers": "authorization"}
        )
        answer = viewer.get("/dicomweb/studies", **origin)

        assert asked.status_code == 204
        assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
        for response in (asked, answer):
            assert response.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
            assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
            assert "Access-Control-Allow-Credentials" not in response.headers

    def test_other_sites_and_other_pages_stay_closed(self, app, viewer, three):
        foreign = viewer.get("/dicomweb/studies", Origin="https://evil.example")
        page = app.test_client().get("/sign-in", headers={"Origin": "https://viewer.example"})

        assert "Access-Control-Allow-Origin" not in foreign.headers
        assert "Access-Control-Allow-Origin" not in page.headers

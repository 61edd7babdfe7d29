"""What a search gives of each study, series and instance (PS3.18 10.6.3.3): from the ledger, else from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from triage.errors import UnreadableInstance
from triage.ledger.image_search import FoundInstance, FoundSeries, FoundStudy
from triage.study import Instance, Study
from worklist_ui.dicomweb.json_model import Attributes, attributes_of, person_name
from worklist_ui.dicomweb.query import Query, is_binary
from worklist_ui.dicomweb.stored import read

Address = Callable[..., str]

# Given at each level when all are asked for: the modules of PS3.3 that belong to it.
STUDY_MORE = (
    "PatientAge", "PatientSize", "PatientWeight", "OtherPatientIDs", "StudyID", "InstitutionName",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "ProcedureCodeSequence", "PatientComments",
)  # fmt: skip
SERIES_MORE = (
    "Laterality", "SeriesDate", "SeriesTime", "BodyPartExamined", "ProtocolName", "Manufacturer",
    "ManufacturerModelName", "StationName", "OperatorsName", "PatientPosition", "FrameOfReferenceUID",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "RequestAttributesSequence",
)  # fmt: skip
# What the Standard asks for at a level and the ledger does not keep.
STUDY_FROM_FILE = ("StudyID", "TimezoneOffsetFromUTC")
SERIES_FROM_FILE = (
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "RequestAttributesSequence",
)  # fmt: skip
INSTANCE_FROM_FILE = ("BitsAllocated",)


def study_attributes(found: FoundStudy, query: Query, folder: Path, address: Address) -> Attributes:
    """Give one study of a search."""
    more = STUDY_MORE if query.include_all else ()
    given = _of_study(found.study) | _attributes(
        ModalitiesInStudy=found.modalities,
        NumberOfStudyRelatedSeries=found.series_count,
        NumberOfStudyRelatedInstances=found.instance_count,
        RetrieveURL=address(found.study.study_instance_uid),
    )
    return _with_file(given, found.sample, {*STUDY_FROM_FILE, *more, *query.include}, folder)


def series_attributes(found: FoundSeries, query: Query, folder: Path, address: Address, *, alone: bool) -> Attributes:
    """Give one series of a search; `alone`: not below one study, so the study's attributes come with it."""
    sample = found.sample
    given = _attributes(
        StudyInstanceUID=sample.study_instance_uid,
        Modality=sample.modality,
        SeriesInstanceUID=sample.series_instance_uid,
        SeriesNumber=sample.series_number,
        SeriesDescription=sample.series_description,
        NumberOfSeriesRelatedInstances=found.instance_count,
        InstanceAvailability="ONLINE",
        RetrieveURL=address(sample.study_instance_uid, sample.series_instance_uid),
    )
    wanted = {*SERIES_FROM_FILE, *(SERIES_MORE if query.include_all else ()), *query.include}
    return _with_file((_of_study(found.study) if alone else {}) | given, sample, wanted, folder)


def instance_attributes(found: FoundInstance, query: Query, folder: Path, address: Address) -> Attributes:
    """Give one instance of a search."""
    item = found.instance
    given = _attributes(
        StudyInstanceUID=item.study_instance_uid,
        SeriesInstanceUID=item.series_instance_uid,
        Modality=item.modality,
        SOPClassUID=item.sop_class_uid,
        SOPInstanceUID=item.sop_instance_uid,
        InstanceNumber=item.instance_number,
        Rows=item.rows,
        Columns=item.columns,
        NumberOfFrames=item.number_of_frames if item.number_of_frames > 1 else None,
        InstanceAvailability="ONLINE",
        AvailableTransferSyntaxUID=item.transfer_syntax_uid,
        RetrieveURL=address(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid),
    )
    if query.include_all:
        return _whole_header(item, folder) | given
    return _with_file(given, item, {*INSTANCE_FROM_FILE, *query.include}, folder)


def _of_study(study: Study) -> Attributes:
    header = study.header
    return _attributes(
        StudyInstanceUID=study.study_instance_uid,
        StudyDate=header.study_date,
        StudyTime=header.study_time,
        AccessionNumber=header.accession_number,
        StudyDescription=header.study_description,
        ReferringPhysicianName=header.referring_physician_name,
        PatientName=header.patient_name,
        PatientID=header.patient_id,
        PatientBirthDate=header.patient_birth_date,
        PatientSex=header.patient_sex,
        InstanceAvailability="ONLINE",
    )


def _attributes(**values: Any) -> Attributes:
    """Give attributes by keyword; empty ones without value, as the Standard wants them named."""
    return {f"{tag_for_keyword(keyword):08X}": _attribute(keyword, value) for keyword, value in values.items()}


def _attribute(keyword: str, value: Any) -> dict[str, Any]:
    vr = dictionary_VR(keyword)
    if value is None or value == "" or value == ():
        return {"vr": vr}
    if vr == "PN":
        return {"vr": vr, "Value": [person_name(value)]}
    return {"vr": vr, "Value": list(value) if isinstance(value, tuple) else [value]}


def _with_file(given: Attributes, sample: Instance, keywords: set[str], folder: Path) -> Attributes:
    """Add what the ledger does not keep, read from one file; without the file it is left out."""
    tags = [tag_for_keyword(keyword) or 0 for keyword in keywords if not is_binary(keyword)]
    missing = [tag for tag in tags if f"{tag:08X}" not in given]
    return _sorted(_from_file(sample, missing, folder) | given)


def _from_file(sample: Instance, tags: Sequence[int], folder: Path) -> Attributes:
    if not tags:
        return {}
    try:
        ds = read(folder, sample, pixels=False, tags=[*tags, 0x00080005])
    except UnreadableInstance:
        return {}
    wanted = {f"{tag:08X}" for tag in tags}
    found = attributes_of(ds, address=lambda _path: "")
    return {name: value for name, value in found.items() if name in wanted}


def _whole_header(item: Instance, folder: Path) -> Attributes:
    try:
        found = attributes_of(read(folder, item, pixels=False), address=lambda _path: "")
    except UnreadableInstance:
        return {}
    return {name: value for name, value in found.items() if "BulkDataURI" not in value}


def _sorted(attributes: Attributes) -> Attributes:
    return dict(sorted(attributes.items()))

"""What a received data set says of itself: its UIDs, geometry, and whose study it is."""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass

from dicom_listener.disk import Bytes
from dicom_listener.elements import Encoding, Truncated, pick_elements
from dicom_listener.text import text_of
from dicom_listener.uids import checked_uid
from triage.errors import UnreadableInstance
from triage.study import PatientHeader

IMPLICIT_VR = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2"})  # the second: GE's private one
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
INFLATED_MAX = 4 * 1024 * 1024  # bytes of a deflated data set that are looked at: headers are smaller, bombs larger

CHARACTER_SET = 0x00080005
IMAGE_TYPE = 0x00080008
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
MODALITY = 0x00080060
SERIES_DESCRIPTION = 0x0008103E
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
SERIES_NUMBER = 0x00200011
INSTANCE_NUMBER = 0x00200013
IMAGE_POSITION = 0x00200032
IMAGE_ORIENTATION = 0x00200037
NUMBER_OF_FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
PATIENT_TEXT = {
    0x00100010: "patient_name",
    0x00100020: "patient_id",
    0x00100030: "patient_birth_date",
    0x00100040: "patient_sex",
    0x00101010: "patient_age",
    0x00080050: "accession_number",
    0x00081030: "study_description",
    0x00080020: "study_date",
    0x00080030: "study_time",
    0x00180015: "body_part_examined",
    0x00080080: "institution_name",
    0x00080090: "referring_physician_name",
}
WANTED = frozenset(
    {CHARACTER_SET, IMAGE_TYPE, SOP_CLASS_UID, SOP_INSTANCE_UID, MODALITY, SERIES_DESCRIPTION, STUDY_INSTANCE_UID,
     SERIES_INSTANCE_UID, SERIES_NUMBER, INSTANCE_NUMBER, IMAGE_POSITION, IMAGE_ORIENTATION, NUMBER_OF_FRAMES, ROWS,
     COLUMNS, *PATIENT_TEXT}
)  # fmt: skip

_INTEGER = re.compile(rb"\s*([+-]?[0-9]{1,12})")
_INTEGER_MAX = 2**31 - 1  # VR IS


class BadUid(UnreadableInstance):
    """A UID that every instance must have is missing or is no UID."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is missing or is no UID; expected digits and dots, at most 64 characters")


@dataclass(frozen=True)
class Header:
    """The part of a data set that the ledger keeps; geometry is None where there is none."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    image_type: tuple[str, ...]
    series_number: int | None
    series_description: str
    instance_number: int | None
    image_position_mm: tuple[float, float, float] | None
    image_orientation: tuple[float, ...] | None
    rows: int | None
    columns: int | None
    number_of_frames: int
    patient: PatientHeader


def read_header(data: Bytes, transfer_syntax_uid: str, *, total: int | None = None, character_set: str = "") -> Header:
    """Read the header of a data set as it came.

    Args:
        data: the data set, or its beginning.
        transfer_syntax_uid: of the presentation context.
        total: bytes of the whole data set if `data` is its beginning.
        character_set: Specific Character Set to read the texts by, whatever the data set says; empty: as it says.

    Raises:
        UnreadableInstance: it does not parse, or ends inside an element.
        BadUid: a UID that every instance must have is missing or is no UID.
    """
    size = len(data) if total is None else total
    encoding = Encoding(transfer_syntax_uid not in IMPLICIT_VR, transfer_syntax_uid == BIG_ENDIAN)
    if transfer_syntax_uid in DEFLATED:
        data, size = _inflated(data)
    elements = _elements(data, encoding, size)
    if character_set:
        elements[CHARACTER_SET] = character_set.encode("ascii", "replace")
    return _header_from(elements, big_endian=encoding.big_endian)


def _elements(data: Bytes, encoding: Encoding, total: int) -> dict[int, bytes]:
    """Pick by the transfer syntax, else by the other VR encoding, which some senders mix up."""
    try:
        return pick_elements(data, encoding, WANTED, total=total)
    except UnreadableInstance as error:
        if isinstance(error, Truncated) and encoding.explicit_vr:
            raise
        cause = error
    other = Encoding(not encoding.explicit_vr, encoding.big_endian)
    try:
        elements = pick_elements(data, other, WANTED, total=total)
    except UnreadableInstance:
        raise cause from None
    if SOP_INSTANCE_UID not in elements:  # bytes that happen to fit, with nothing of DICOM in them
        raise cause
    return elements


def _inflated(data: Bytes) -> tuple[bytes, int]:
    """Give the beginning of a deflated data set (PS3.5 A.5) and the size to check it against."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, INFLATED_MAX)
    except zlib.error as error:
        raise UnreadableInstance("the data set cannot be inflated") from error
    if inflater.eof:
        return inflated, len(inflated)
    if not inflater.unconsumed_tail:
        raise UnreadableInstance("the deflated data set ends too early")
    return inflated, 2**62  # its true size is not known, and need not be


def _header_from(elements: dict[int, bytes], *, big_endian: bool) -> Header:
    charset = elements.get(CHARACTER_SET, b"")
    patient = {name: text_of(elements[tag], charset) for tag, name in PATIENT_TEXT.items() if tag in elements}
    position = _decimals(elements.get(IMAGE_POSITION), 3)
    frames = _integer(elements.get(NUMBER_OF_FRAMES))
    return Header(
        sop_class_uid=_uid(elements, SOP_CLASS_UID, "SOP Class UID"),
        sop_instance_uid=_uid(elements, SOP_INSTANCE_UID, "SOP Instance UID"),
        study_instance_uid=_uid(elements, STUDY_INSTANCE_UID, "Study Instance UID"),
        series_instance_uid=_uid(elements, SERIES_INSTANCE_UID, "Series Instance UID"),
        modality=text_of(elements.get(MODALITY, b"")),
        image_type=tuple(text_of(part) for part in elements.get(IMAGE_TYPE, b"").split(b"\\")),
        series_number=_integer(elements.get(SERIES_NUMBER)),
        series_description=text_of(elements.get(SERIES_DESCRIPTION, b""), charset),
        instance_number=_integer(elements.get(INSTANCE_NUMBER)),
        image_position_mm=None if position is None else (position[0], position[1], position[2]),
        image_orientation=_decimals(elements.get(IMAGE_ORIENTATION), 6),
        rows=_unsigned_short(elements.get(ROWS), big_endian=big_endian),
        columns=_unsigned_short(elements.get(COLUMNS), big_endian=big_endian),
        number_of_frames=frames if frames is not None and frames > 0 else 1,
        patient=PatientHeader(**patient),
    )


def _uid(elements: dict[int, bytes], tag: int, name: str) -> str:
    uid = checked_uid(elements.get(tag, b""))
    if uid is None:
        raise BadUid(name)
    return uid


def _integer(value: bytes | None) -> int | None:
    """Read VR IS; what does not read as a whole number in its range is as good as absent."""
    match = _INTEGER.match(value or b"")
    number = int(match[1]) if match else None
    return number if number is not None and abs(number) <= _INTEGER_MAX else None


def _decimals(value: bytes | None, count: int) -> tuple[float, ...] | None:
    """Read VR DS of a fixed multiplicity; what does not read as finite numbers is as good as absent."""
    try:
        numbers = tuple(float(part) for part in (value or b"").rstrip(b"\0 ").split(b"\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _unsigned_short(value: bytes | None, *, big_endian: bool) -> int | None:
    if value is None or len(value) != 2:
        return None
    return int(struct.unpack(">H" if big_endian else "<H", value)[0])

"""Reading a header from bytes as they came: every encoding, any text, and only named errors from anything else."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import JPEG2000Lossless

from dicom_listener.elements import Truncated
from dicom_listener.header import BadUid, Header, read_header
from dicom_listener.text import text_of
from dicom_listener.uids import checked_uid
from tests.builders import ct_series, encoded
from triage.errors import UnreadableInstance

EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"


def one_ct(**header: object) -> Dataset:
    [ct] = ct_series(slices=1, rows=8, columns=8, **header)
    return ct


def in_implicit_vr(ct: Dataset) -> bytes:
    ct.file_meta.TransferSyntaxUID = type(ct.file_meta.TransferSyntaxUID)(IMPLICIT)
    return encoded(ct)


def test_header_has_what_the_ledger_keeps() -> None:
    ct = one_ct()

    header = read_header(encoded(ct), EXPLICIT)

    assert (header.sop_instance_uid, header.study_instance_uid) == (ct.SOPInstanceUID, ct.StudyInstanceUID)
    assert (header.modality, header.rows, header.columns, header.series_number) == ("CT", 8, 8, 2)
    assert header.image_position_mm == tuple(ct.ImagePositionPatient)
    assert header.patient.patient_birth_date == "19560304"


def test_vr_encoding_that_the_sender_mixed_up_is_read() -> None:
    ct = one_ct()
    explicit, implicit = encoded(ct), in_implicit_vr(ct)

    assert read_header(explicit, IMPLICIT) == read_header(implicit, EXPLICIT) == read_header(explicit, EXPLICIT)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_nested_sequences_of_undefined_length_are_passed_over(syntax: str) -> None:
    ct, inner, outer = one_ct(), Dataset(), Dataset()
    inner.PatientName = "Not^This^One"
    inner.is_undefined_length_sequence_item = True
    outer.ReferencedSeriesSequence = DicomSequence([inner, inner])
    outer["ReferencedSeriesSequence"].is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    ct.ReferencedStudySequence = DicomSequence([outer])
    ct["ReferencedStudySequence"].is_undefined_length = True

    data = encoded(ct) if syntax == EXPLICIT else in_implicit_vr(ct)

    assert read_header(data, syntax).patient.patient_name == "Doe^Jane"


def test_encapsulated_pixels_must_have_their_end() -> None:
    ct = one_ct()
    del ct.PixelData
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0) + struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"\xff\x4f\xff\x51"
    head = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    whole = encoded(ct) + head + item + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)

    assert read_header(whole, str(JPEG2000Lossless)).rows == 8
    for missing in (1, 8, 10):
        with pytest.raises(Truncated):
            read_header(whole[:-missing], str(JPEG2000Lossless))


def test_deflated_data_set_is_read_and_its_end_is_asked_for() -> None:
    ct = one_ct()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(encoded(ct)) + deflater.flush()

    assert read_header(deflated, DEFLATED) == read_header(encoded(ct), EXPLICIT)
    with pytest.raises(UnreadableInstance):
        read_header(deflated[:-20], DEFLATED)


def test_deflated_bomb_costs_no_memory() -> None:
    ct = one_ct()
    ct.PixelData = bytes(200_000_000)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(encoded(ct)) + deflater.flush()
    assert len(bomb) < 1_000_000

    assert read_header(bomb, DEFLATED).rows == 8


def test_beginning_of_a_large_data_set_is_enough() -> None:
    ct = one_ct()
    whole = encoded(ct)

    assert read_header(whole[:-64], EXPLICIT, total=len(whole)).rows == 8


def test_sequences_nested_without_end_are_refused() -> None:
    element = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(UnreadableInstance):
        read_header(element * 5000, EXPLICIT)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_missing_uid_is_named(keyword: str) -> None:
    ct = one_ct()
    delattr(ct, keyword)
    with pytest.raises(BadUid, match="is missing or is no UID"):
        read_header(encoded(ct), EXPLICIT)


def test_numbers_that_are_none_are_absent() -> None:
    data = encoded(one_ct(ImagePositionPatient=None, InstanceNumber=None, SeriesNumber=None))
    bad = (
        struct.pack("<HH2sH", 0x0020, 0x0013, b"IS", 4)
        + b"1e9 "
        + struct.pack("<HH2sH", 0x0020, 0x0032, b"DS", 8)
        + b"nan\\1\\1 "
    )
    place = data.index(struct.pack("<HH", 0x0020, 0x0037))

    header = read_header(data[:place] + bad + data[place:], EXPLICIT)

    assert header.image_position_mm is None
    assert header.instance_number == 1  # what stands before the nonsense
    assert header.series_number is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, IMPLICIT, DEFLATED, "1.2.840.10008.1.2.2", "1.2.3"]))
def test_any_bytes_give_a_header_or_a_named_error(data: bytes, syntax: str) -> None:
    _header_or_named_error(data, syntax)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 10_000))
def test_changed_and_cut_data_sets_give_a_header_or_a_named_error(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place % len(data)] = value
    _header_or_named_error(bytes(data[: len(data) - cut % len(data)]), EXPLICIT)


def _header_or_named_error(data: bytes, syntax: str) -> None:
    try:
        header = read_header(data, syntax)
    except UnreadableInstance:
        return
    assert isinstance(header, Header)


@pytest.mark.parametrize(
    ("value", "character_set", "text"),
    [
        (b"Doe^Jane ", b"", "Doe^Jane"),
        ("Müller".encode(), b"ISO_IR 192", "Müller"),
        ("Müller".encode("latin-1"), b"ISO_IR 100", "Müller"),
        ("Müller".encode("latin-1"), b"", "Müller"),
        ("Müller".encode(), b"", "Müller"),
        ("Müller".encode(), b"UTF-8", "Müller"),
        ("Иванов".encode("iso8859_5"), b"ISO_IR 144", "Иванов"),
        ("Иванов".encode(), b"ISO_IR 6", "Иванов"),
        (b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", b"\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎"),
        ("王^小东".encode("gb18030"), b"GB18030", "王^小东"),
        (b"a\x1b[31mb\x00\n", b"", "a[31mb"),
        (b"\xff\xfe\x80", b"ISO_IR 192", "ÿþ"),
    ],
)  # fmt: skip
def test_text_is_decoded_as_well_as_can_be(value: bytes, character_set: bytes, text: str) -> None:
    assert text_of(value, character_set) == text


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=40), st.sampled_from([b"", b"ISO_IR 192", b"\\ISO 2022 IR 87\\ISO 2022 IR 159", b"x", b"\xff"])
)
def test_text_is_never_an_error(value: bytes, character_set: bytes) -> None:
    text = text_of(value, character_set)

    assert text.encode().decode() == text.strip()  # a page and a row can hold it


@pytest.mark.parametrize(
    ("value", "uid"),
    [(b"1.2.3\0", "1.2.3"), (b"1.2.3 ", "1.2.3"), (b"1.02.3", "1.02.3"), (b"1." * 31 + b"12", "1." * 31 + "12")],
)
def test_uid_is_taken_without_its_padding(value: bytes, uid: str) -> None:
    assert checked_uid(value) == uid


WHOLE = encoded(one_ct())

"""Recorded good traffic of the C-STORE port, and seeded ways of breaking it."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from tests.builders import ct_series, encoded, with_file_meta
from tests.dicom_listener.raw_peer import CT_IMAGE_STORAGE, EXPLICIT_VR, associate_rq, p_data, pdu, store_rq

MARKER = "PLANTEDNAME"  # stands in each data set where a patient's name and number do; no log may hold it
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)
LENGTHS = (0, 1, 7, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
MUTATIONS_MAX = 6

Mutation = Callable[[bytearray, random.Random], None]


@cache
def data_sets() -> Mapping[str, bytes]:
    """Give one small CT image in each way of encoding elements, by transfer syntax."""
    return {
        str(ExplicitVRLittleEndian): encoded(with_file_meta(_image(), ExplicitVRLittleEndian)),
        str(ImplicitVRLittleEndian): encoded(with_file_meta(_image(), ImplicitVRLittleEndian)),
        str(ExplicitVRBigEndian): encoded(with_file_meta(_image(), ExplicitVRBigEndian)),
        str(DeflatedExplicitVRLittleEndian): _deflated(encoded(with_file_meta(_image(), ExplicitVRLittleEndian))),
        str(JPEGLosslessSV1): encoded(_encapsulated()),
    }


@cache
def conversation() -> tuple[bytes, bytes]:
    """Give what a good sender says: its request, and from its first image to its release."""
    image = _image()
    data = data_sets()[str(ExplicitVRLittleEndian)]
    parts = [data[start : start + 400] for start in range(0, len(data), 400)]
    pieces = b"".join(p_data(1, 2 if part is parts[-1] else 0, part) for part in parts)
    contexts = [(CT_IMAGE_STORAGE, [EXPLICIT_VR]), (b"1.2.840.10008.1.1", [b"1.2.840.10008.1.2"])]
    return associate_rq(contexts), p_data(1, 3, store_rq(image.SOPInstanceUID)) + pieces + pdu(5, bytes(4))


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Break one thing, or a few."""
    broken = bytearray(content)
    for _ in range(draw.randint(1, MUTATIONS_MAX)):
        if not broken:
            break
        draw.choice(_MUTATIONS)(broken, draw)
    return bytes(broken)


def _image() -> Dataset:
    [ct] = ct_series(slices=1, rows=4, columns=4, PatientName=f"{MARKER}^A", PatientID=f"{MARKER}1",
                     StudyInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3.4.5", SOPInstanceUID="1.2.3.4.5.6",
                     StudyDescription=f"{MARKER} HEAD")  # fmt: skip
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ct.SOPClassUID, "1.2.3"
    outer = Dataset()
    outer.ReferencedImageSequence = Sequence([item])
    outer.is_undefined_length = True
    ct.RequestAttributesSequence = Sequence([outer])
    ct["RequestAttributesSequence"].is_undefined_length = True
    return ct


def _encapsulated() -> Dataset:
    image = with_file_meta(_image(), JPEGLosslessSV1)
    image.PixelData = encapsulate([bytes(range(40)), bytes(30)])
    image["PixelData"].is_undefined_length = True
    return image


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def _flip_a_bit(content: bytearray, draw: random.Random) -> None:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _set_a_byte(content: bytearray, draw: random.Random) -> None:
    content[draw.randrange(len(content))] = draw.choice((*INTERESTING, draw.randrange(256)))


def _set_a_length(content: bytearray, draw: random.Random) -> None:
    form = draw.choice((">L", "<L", ">H", "<H"))
    size = struct.calcsize(form)
    if len(content) >= size:
        value = draw.choice((*LENGTHS, draw.randrange(2**16)))
        struct.pack_into(form, content, draw.randrange(len(content) - size + 1), value % 256**size)


def _cut_out(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    del content[start : start + draw.choice((1, 2, 4, 8, 100))]


def _cut_off(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def _insert(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    content[start:start] = draw.randbytes(draw.choice((1, 2, 4, 8, 300)))


def _repeat(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    part = content[start : start + draw.randint(1, 200)]
    content[start:start] = part * draw.choice((1, 1, 2, 20))


_MUTATIONS: tuple[Mutation, ...] = (_flip_a_bit, _set_a_byte, _set_a_length, _cut_out, _cut_off, _insert, _repeat)

"""Stored instances in another transfer syntax, and single frames."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.filewriter import dcmwrite
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from triage.errors import UnreadableInstance
from worklist_ui.dicomweb.negotiation import AS_STORED, NOT_SAID
from worklist_ui.dicomweb.stored import lenient

# Media types of single compressed frames (PS3.18 table 8.7.3-5), by the stored transfer syntax.
FRAME_MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}


def syntax_for(stored: str, asked: Sequence[str]) -> str | None:
    """Give the transfer syntax in which a stored instance can be given, or None.

    Args:
        stored: the instance's own.
        asked: in order of liking; "*" takes any, "" means the default, which is Explicit VR Little Endian unless the
            pixels cannot be given so (PS3.18 8.7.3.5.2).
    """
    for syntax in asked:
        if syntax in (AS_STORED, stored):
            return stored
        if syntax in (ExplicitVRLittleEndian, NOT_SAID) and can_be_unpacked(stored):
            return ExplicitVRLittleEndian
        if syntax == NOT_SAID:
            return stored
    return None


def can_be_unpacked(transfer_syntax_uid: str) -> bool:
    """Say whether pixels in a transfer syntax can be read here."""
    syntax = UID(transfer_syntax_uid)
    if not syntax.is_transfer_syntax or syntax.is_private:
        return False
    if not syntax.is_encapsulated:
        return True
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def as_explicit_little_endian(ds: FileDataset) -> bytes:
    """Give an instance as a file in Explicit VR Little Endian.

    Raises:
        UnreadableInstance: its pixels cannot be decoded.
    """
    try:
        with lenient():
            return _rewritten(ds)
    except Exception as error:  # decoders raise what they like; each means that it cannot be given so
        raise UnreadableInstance(f"The image cannot be unpacked: {type(error).__name__}.") from error


def _rewritten(ds: FileDataset) -> bytes:
    stored = ds.file_meta.TransferSyntaxUID
    if stored.is_encapsulated and "PixelData" in ds:
        ds.decompress(as_rgb=False, generate_instance_uid=False)
    if stored == ExplicitVRBigEndian:
        ds.decode()
        _swap_words(ds)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.preamble = ds.preamble or bytes(128)
    buffer = BytesIO()
    # force_encoding: pydicom would rather not turn words around; that was done above
    dcmwrite(buffer, ds, implicit_vr=False, little_endian=True, force_encoding=True)
    return buffer.getvalue()


def _swap_words(ds: FileDataset) -> None:
    """Turn 16-bit words around: pydicom keeps the bytes of OW values as they were."""
    for element in ds.iterall():
        if element.VR == "OW" and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, ">u2").astype("<u2").tobytes()


def frame_count(ds: FileDataset) -> int:
    """Give how many frames an image has; 0 if it is none."""
    if "PixelData" not in ds:
        return 0
    try:
        return max(1, int(ds.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


def raw_frame(ds: FileDataset, frame_number: int) -> bytes:
    """Give one frame's pixels uncompressed, little endian.

    Raises:
        UnreadableInstance: they cannot be decoded.
    """
    try:
        with lenient():
            decoder = get_decoder(ds.file_meta.TransferSyntaxUID)
            array, _ = decoder.as_array(ds, index=frame_number - 1, raw=True)
    except Exception as error:  # as above
        raise UnreadableInstance(f"The frame cannot be unpacked: {type(error).__name__}.") from error
    return bytes(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def stored_frame(ds: FileDataset, frame_number: int) -> bytes:
    """Give one compressed frame as it was stored.

    Raises:
        UnreadableInstance: its fragments cannot be told apart.
    """
    try:
        return get_frame(ds.PixelData, frame_number - 1, number_of_frames=frame_count(ds))
    except Exception as error:  # as above
        raise UnreadableInstance(f"The frame cannot be found: {type(error).__name__}.") from error

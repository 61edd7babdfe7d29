"""The DICOM File Meta Information that is written in front of a received data set (PS3.10 7.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_listener.elements import Encoding, end_of_group, pick_elements
from dicom_listener.uids import checked_uid
from triage.errors import UnreadableInstance

# From a UUID (PS3.5 B.2); it names this implementation in files and in associations.
IMPLEMENTATION_CLASS_UID = "2.25.211498730365541548879708915686798168275"
IMPLEMENTATION_VERSION_NAME = "ICHTRIAGE_0_1"  # VR SH, 16 characters at most
PREAMBLE = bytes(128) + b"DICM"


def file_header(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> bytes:
    """Give preamble and File Meta Information; with the data set's bytes behind it, a Part 10 file."""
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", sop_class_uid.encode("ascii")),
            _element(0x0003, b"UI", sop_instance_uid.encode("ascii")),
            _element(0x0010, b"UI", transfer_syntax_uid.encode("ascii")),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")),
            _element(0x0016, b"AE", source_ae_title.encode("ascii", "replace")),
        )
    )
    return PREAMBLE + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """Encode one element of group 0002, always Explicit VR Little Endian."""
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    if vr == b"OB":
        return struct.pack("<HH2sHL", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


@dataclass(frozen=True)
class FileMeta:
    """What matters here of the File Meta Information."""

    transfer_syntax_uid: str
    source_ae_title: str


def split_file(content: bytes) -> tuple[FileMeta, memoryview]:
    """Take a Part 10 file apart: its File Meta Information, and the data set's bytes as they were received.

    Raises:
        UnreadableInstance: it has no complete File Meta Information.
    """
    start = len(PREAMBLE)
    if content[128:start] != b"DICM":
        raise UnreadableInstance("no DICOM file: the mark DICM after 128 bytes is missing")
    end = end_of_group(content, start, 0x0002)
    meta = pick_elements(content[start:end], Encoding(), (0x00020010, 0x00020016), total=end - start)
    syntax = checked_uid(meta.get(0x00020010, b""))
    if syntax is None:
        raise UnreadableInstance("the File Meta Information names no transfer syntax")
    source = meta.get(0x00020016, b"").decode("ascii", "replace").strip()
    return FileMeta(syntax, source), memoryview(content)[end:]

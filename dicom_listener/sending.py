"""Sending folders of DICOM files by C-STORE, for trying things and for demonstrations (PS3.4 Annex B, as SCU)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info
from pynetdicom import AE, _config, build_context
from pynetdicom.association import Association

from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.peer import (
    CONNECT_S,
    Peer,
    PeerUnreachable,
    check_reachable,
    reactor_held,
    why_not_established,
)

CONTEXTS_MAX = 128  # presentation contexts in one association (PS3.8 9.3.2.2)
ACCEPTED = frozenset({0x0000, 0xB000, 0xB006, 0xB007})  # PS3.4 Table B.2-1: Success, and warnings: stored as well


@dataclass(frozen=True)
class DicomFile:
    """A Part 10 file and what its association must offer."""

    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str
    true_to_meta: bool  # the file meta names the UIDs that the data set has


@dataclass(frozen=True)
class Sent:
    """What became of one file; status None: no answer, or no context for it."""

    file: DicomFile
    status: int | None

    @property
    def accepted(self) -> bool:
        """Whether the peer has taken the image."""
        return self.status in ACCEPTED


def find_files(paths: Iterable[Path]) -> tuple[list[DicomFile], int]:
    """Find the DICOM files among files and in folders, in order of path; give also the count of others."""
    found, others = [], 0
    for path in paths:
        for file in sorted(_walk(path)):
            described = _describe(file)
            if described is None:
                others += 1
            else:
                found.append(described)
    return found, others


def send_files(
    files: Sequence[DicomFile], peer: Peer, *, associations: int = 1, on_sent: Callable[[Sent], None] | None = None
) -> list[Sent]:
    """Send files over one or more associations at once, dealt out in turn.

    Args:
        files: what to send.
        peer: where to.
        associations: how many at once.
        on_sent: called for each file from the association's thread.

    Raises:
        PeerUnreachable: an association was not accepted.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # the data set's bytes as they are in the file
    shares = [files[start::associations] for start in range(associations)]
    lock = threading.Lock()

    def tell(sent: Sent) -> None:
        if on_sent is not None:
            with lock:
                on_sent(sent)

    with ThreadPoolExecutor(associations) as pool:
        results = list(pool.map(lambda share: _send_share(share, peer, tell), shares))
    return [sent for share in results for sent in share]


def verify(peer: Peer, *, timeout_s: float = 10.0) -> int:
    """Send one C-ECHO and give its status (PS3.4 Annex A).

    Raises:
        PeerUnreachable: no association, or no answer.
    """
    ae = _application_entity(peer, timeout_s)
    association = _associate(ae, peer, [("1.2.840.10008.1.1", "1.2.840.10008.1.2")])
    with _closed_at_the_end(association), reactor_held(association):
        status = association.send_c_echo()
    if "Status" not in status:
        raise PeerUnreachable(f"{peer.host}:{peer.port} gave no answer to C-ECHO within {timeout_s:g} s.")
    return int(status.Status)


def _walk(path: Path) -> Iterator[Path]:
    if path.is_dir():
        return (file for file in path.rglob("*") if file.is_file())
    return iter([path])


def _describe(path: Path) -> DicomFile | None:
    try:
        meta = read_file_meta_info(path)
        syntax = str(meta.TransferSyntaxUID)
        ds = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        sop_class = str(ds.SOPClassUID)
        named = str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("MediaStorageSOPInstanceUID", ""))
        true_to_meta = named == (sop_class, str(ds.get("SOPInstanceUID", "")))
    except (InvalidDicomError, OSError, AttributeError, ValueError, EOFError):
        return None
    if sop_class == "1.2.840.10008.1.3.10":  # a DICOMDIR is no image
        return None
    return DicomFile(path, sop_class, syntax, true_to_meta)


def _send_share(files: Sequence[DicomFile], peer: Peer, tell: Callable[[Sent], None]) -> list[Sent]:
    results = []
    for part in _by_contexts(files):
        association = _associate(_application_entity(peer, 60.0), peer, _wanted(part))
        with _closed_at_the_end(association), reactor_held(association):
            for file in part:
                sent = Sent(file, _store(association, file))
                tell(sent)
                results.append(sent)
    return results


def _by_contexts(files: Sequence[DicomFile]) -> Iterator[list[DicomFile]]:
    """Cut into runs that one association's presentation contexts can carry."""
    run: list[DicomFile] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        wanted = (file.sop_class_uid, file.transfer_syntax_uid)
        if wanted not in contexts and len(contexts) == CONTEXTS_MAX:
            yield run
            run, contexts = [], set()
        contexts.add(wanted)
        run.append(file)
    if run:
        yield run


def _wanted(files: Sequence[DicomFile]) -> list[tuple[str, str]]:
    return list(islice(dict.fromkeys((file.sop_class_uid, file.transfer_syntax_uid) for file in files), CONTEXTS_MAX))


def _application_entity(peer: Peer, timeout_s: float) -> AE:
    ae = AE(ae_title=peer.calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.connection_timeout = CONNECT_S
    return ae


def _associate(ae: AE, peer: Peer, wanted: Sequence[tuple[str, str]]) -> Association:
    check_reachable(peer)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in wanted]
    association = peer.associate(ae, contexts)
    if not association.is_established:
        raise PeerUnreachable(f"{peer} {why_not_established(association, peer)}")
    return association


@contextmanager
def _closed_at_the_end(association: Association) -> Iterator[None]:
    """Release an association, and close its socket also where the peer has gone."""
    connection = association.dul.socket.socket
    try:
        yield
    finally:
        if association.is_established:
            association.release()
        connection.close()


def _store(association: Association, file: DicomFile) -> int | None:
    """Send one file's data set as it is; None: the peer took no such context, or did not answer."""
    if not association.is_established:
        return None
    try:
        # by path, pynetdicom takes the command's UIDs from the file meta, which anonymisers leave as they were
        status = association.send_c_store(file.path if file.true_to_meta else dcmread(file.path))
    except (ValueError, AttributeError, RuntimeError, OSError):
        return None
    return int(status.Status) if "Status" in status else None

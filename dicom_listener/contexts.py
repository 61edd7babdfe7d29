"""Which presentation contexts this port accepts, and in which transfer syntax (PS3.8 9.3.2.2, PS3.4 B.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from dicom_listener.proposals import context_of
from dicom_listener.uids import checked_uid

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"  # Push Model
PUBLIC = "1.2.840.10008."
PUBLIC_STORAGE = "1.2.840.10008.5.1.4.1.1."  # retired storage classes, and those newer than pynetdicom, are here
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
REMEMBERED_CLASSES = 512  # pynetdicom knows some 200 of storage; asked for each image and each context
FIRST_CHOICE = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)  # what every sender and reader has


def supported_contexts(requested: Iterable[PresentationContext]) -> list[PresentationContext]:
    """Give what to support of what a sender proposes.

    Made for each association from its own proposals: it is a hundred times faster than copying every storage class
    with every transfer syntax, and takes private ones by the same rule.
    """
    syntaxes: dict[UID, list[UID]] = {}
    for context in requested:
        abstract = context.abstract_syntax
        if abstract is not None and is_taken(abstract):
            syntaxes.setdefault(abstract, []).extend(context.transfer_syntax)
    return [context_of(abstract, preferred(offered)) for abstract, offered in syntaxes.items()]


def is_taken(abstract_syntax: str) -> bool:
    """Whether a SOP class is taken: Verification, Storage Commitment, storage, and any of unknown use."""
    return abstract_syntax in (VERIFICATION, STORAGE_COMMITMENT) or is_storage(abstract_syntax)


@lru_cache(maxsize=REMEMBERED_CLASSES)
def is_storage(sop_class_uid: str) -> bool:
    """Whether a SOP class is stored: public storage classes, and private ones of unknown use."""
    if checked_uid(sop_class_uid.encode("ascii", "replace")) is None:
        return False
    service = uid_to_service_class(sop_class_uid)
    if service is ServiceClass:  # unknown to pynetdicom
        return not sop_class_uid.startswith(PUBLIC) or sop_class_uid.startswith(PUBLIC_STORAGE)
    return issubclass(service, StorageServiceClass)


def preferred(offered: Sequence[UID]) -> list[UID]:
    """Order transfer syntaxes: uncompressed little endian first, then as the sender likes it."""
    unique = list(dict.fromkeys(offered))
    return sorted(unique, key=lambda syntax: FIRST_CHOICE.index(syntax) if syntax in FIRST_CHOICE else 2)

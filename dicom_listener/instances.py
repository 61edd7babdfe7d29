"""From the header of a data set to the ledger's Instance."""

from __future__ import annotations

from pathlib import Path

from dicom_listener.header import Header
from triage.study import Instance


def instance_from(
    header: Header,
    *,
    path: Path,
    transfer_syntax_uid: str,
    size_bytes: int,
    blake3: str,
    received_at: float,
    calling_ae_title: str,
    called_ae_title: str,
) -> Instance:
    """Join what a data set says of itself with how it came."""
    return Instance(
        sop_instance_uid=header.sop_instance_uid,
        series_instance_uid=header.series_instance_uid,
        study_instance_uid=header.study_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        path=path,
        size_bytes=size_bytes,
        blake3=blake3,
        received_at=received_at,
        calling_ae_title=calling_ae_title,
        called_ae_title=called_ae_title,
        modality=header.modality,
        image_type=header.image_type,
        series_number=header.series_number,
        series_description=header.series_description,
        instance_number=header.instance_number,
        image_position_mm=header.image_position_mm,
        image_orientation=header.image_orientation,
        rows=header.rows,
        columns=header.columns,
        number_of_frames=header.number_of_frames,
    )

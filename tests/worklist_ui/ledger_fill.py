"""Studies put on the list the way they get there: registered, completed, claimed by a worker, recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from tests.builders import ct_series
from triage.finding import Component, Finding, OperatingPoint, SeriesChoice
from triage.ledger import Ledger
from triage.ledger.intake import Intake, Received
from triage.ledger.studies import Studies
from triage.ledger.work import WorkQueue
from triage.study import Claim, Instance, NotAnalysedReason, PatientHeader, Study

LINE = OperatingPoint(study_probability=0.5, voxel_probability=0.5, smallest_component_ml=0.1, rule="the tests' line")


@dataclass
class Department:
    """A ledger and its store, and what a listener and a worker do with them."""

    folder: Path
    ledger: Ledger
    now: float = 1_767_340_000.0
    received: int = 0
    studies: Studies = field(init=False)

    def __post_init__(self) -> None:
        self.studies = Studies(self.ledger)

    def receive(
        self, name: str = "Doe^Jane", *, at: float | None = None, slices: int = 3, stat: bool = False, **header: str
    ) -> Study:
        """Receive the first images of a new study, without finishing it."""
        self.received += 1
        values = {
            "patient_name": name,
            "patient_id": f"P{self.received:04d}",
            "patient_sex": "F",
            "patient_age": "069Y",
            "accession_number": f"A{self.received:04d}",
            "study_description": "CT HEAD WO CONTRAST",
            "study_date": "20260102",
        }
        datasets = ct_series(slices=slices)
        self._register(datasets, PatientHeader(**values | header), at=self.now if at is None else at, stat=stat)
        return self._study(datasets[0].StudyInstanceUID)

    def receive_more(self, study: Study, slices: int = 1, *, at: float | None = None) -> Study:
        """Receive late images of a known study."""
        late = ct_series(slices=slices, study_instance_uid=study.study_instance_uid)
        self._register(late, study.header, at=self.now if at is None else at, stat=False)
        return self._study(study.study_instance_uid)

    def queue(self, name: str = "Doe^Jane", **options: Any) -> Study:
        """Receive a whole study."""
        return self.complete(self.receive(name, **options))

    def complete(self, study: Study) -> Study:
        """Say that a study is whole."""
        Intake(self.ledger).complete(
            study.study_instance_uid,
            instance_count=study.instance_count,
            completed_by="geometry",
            now=self.now,
        )
        return self._study(study.study_instance_uid)

    def analyse(self, name: str = "Doe^Jane", *, flagged: bool, probability: float = 0.0, **options: Any) -> Study:
        """Receive a study and record what a worker found."""
        study = self.queue(name, **options)
        return self.find(study, flagged=flagged, probability=probability)

    def find(self, study: Study, *, flagged: bool, probability: float = 0.0) -> Study:
        """Record a finding for a queued study."""
        claim = self._claim(study)
        series_uid = self.studies.instances_of(study.study_instance_uid)[0].series_instance_uid
        found = finding(series_uid, study.instance_count, flagged=flagged, probability=probability)
        WorkQueue(self.ledger).record(claim, found, now=self.now)
        return self._study(study.study_instance_uid)

    def refuse(self, study: Study, reason: NotAnalysedReason, measured: str) -> Study:
        """Record that the model must not read a queued study."""
        WorkQueue(self.ledger).refuse(self._claim(study), reason, measured, now=self.now)
        return self._study(study.study_instance_uid)

    def fail(self, study: Study, cause: str) -> Study:
        """Record a fault of ours for a queued study."""
        WorkQueue(self.ledger).fail(self._claim(study), cause, now=self.now)
        return self._study(study.study_instance_uid)

    def give_back(self, study: Study) -> Study:
        """Put a queued study off, because the model is away."""
        WorkQueue(self.ledger).give_back(
            self._claim(study), "The model does not answer.", not_before=self.now + 2, now=self.now
        )
        return self._study(study.study_instance_uid)

    def start(self, study: Study) -> Claim:
        """Let a worker begin with a queued study."""
        return self._claim(study)

    def again(self, study: Study) -> Study:
        """Read a study anew."""
        return self._study(study.study_instance_uid)

    def _claim(self, study: Study) -> Claim:
        queue = WorkQueue(self.ledger)
        for _ in range(1000):
            claim = queue.claim_next(owner="worker", lease_s=600, now=self.now)
            assert claim is not None, "the study is not queued"
            if claim.study.study_id == study.study_id:
                return claim
        raise AssertionError("the study is not queued")

    def _register(self, datasets: Sequence[Dataset], header: PatientHeader, *, at: float, stat: bool) -> None:
        received = [Received(self._store(ds, at), header, priority="stat" if stat else "routine") for ds in datasets]
        Intake(self.ledger).register(received, now=at)

    def _store(self, ds: Dataset, at: float) -> Instance:
        path = Path("instances") / f"{ds.SOPInstanceUID}.dcm"
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(self.folder / path, enforce_file_format=True)
        content = (self.folder / path).read_bytes()
        return Instance(
            sop_instance_uid=ds.SOPInstanceUID,
            series_instance_uid=ds.SeriesInstanceUID,
            study_instance_uid=ds.StudyInstanceUID,
            sop_class_uid=ds.SOPClassUID,
            transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
            path=path,
            size_bytes=len(content),
            blake3=hashlib.sha256(content).hexdigest(),
            received_at=at,
            calling_ae_title="CT99",
            modality="CT",
            instance_number=ds.InstanceNumber,
        )

    def _study(self, uid: str) -> Study:
        study = self.studies.by_uid(uid)
        assert study is not None
        return study


def finding(series_instance_uid: str, slices: int, *, flagged: bool, probability: float = 0.0) -> Finding:
    """What a model says of a study whose slices are its slabs."""
    component = Component(volume_ml=12.3, largest_probability=0.97, slab_range=(1, 1))
    choice = SeriesChoice(series_instance_uid, 2, "HEAD 5.0", slices, True, None, f"{slices} axial slices")
    return Finding(
        flagged=flagged,
        probability=probability or (0.93 if flagged else 0.04),
        volume_ml=12.3 if flagged else 0.0,
        components=(component,) if flagged else (),
        key_slabs=(1, 0, 2)[: min(3, slices)],
        model_name="ich_unet",
        model_version=1,
        operating_point=LINE,
        series_instance_uid=series_instance_uid,
        series_choices=(choice,),
        slab_count=slices,
        seconds={"select": 0.1, "build": 0.2, "predict": 1.5, "find": 0.05},
    )

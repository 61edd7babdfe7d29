"""Networks whose answers can be worked out on paper: a threshold on HU is a perfect reader of the built heads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from triage.errors import ServingError
from triage.finding import Calibration, ModelSpec, OperatingPoint

THRESHOLD_SPEC = ModelSpec(
    name="threshold",
    rows=192,
    columns=192,
    spacing_mm=(5.0, 1.25, 1.25),
    context=1,
    operating_point=OperatingPoint(
        study_probability=0.5, voxel_probability=0.5, smallest_component_ml=0.5, rule="for tests"
    ),
    calibration=Calibration(score_ml=1.0, slope=1.0, intercept=0.0),
    training_data_sha256="0" * 64,
    code_version="test",
)


def small_spec(side: int, *, pixel_mm: float) -> ModelSpec:
    """Describe a U-Net of a test's, on slabs of `side` x `side` pixels."""
    point = THRESHOLD_SPEC.operating_point.model_copy(update={"smallest_component_ml": 0.1})
    changed = {"rows": side, "columns": side, "spacing_mm": (5.0, pixel_mm, pixel_mm), "operating_point": point}
    return THRESHOLD_SPEC.model_copy(update=changed | {"name": "ich_unet"})


@dataclass
class ThresholdNetwork:
    """Calls every voxel blood whose own slab lies between 60 and 90 HU, but for thin rims of bone.

    Between skull and air some pixels of any image fall into that range: regions of one pixel's width do not count.
    """

    model_spec: ModelSpec = THRESHOLD_SPEC
    version: int = 1
    error: ServingError | None = None  # raised instead of any answer
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def spec(self) -> tuple[ModelSpec, int]:
        if self.error:
            raise self.error
        return self.model_spec, self.version

    def predict(self, hu: npt.NDArray[np.int16], *, spec: ModelSpec, version: int) -> npt.NDArray[np.float32]:
        if self.error:
            raise self.error
        assert (spec, version) == (self.model_spec, self.version)
        self.asked.append(hu.shape)
        own = hu[..., hu.shape[-1] // 2]
        blood = ndimage.binary_opening((own >= 60) & (own <= 90), structure=np.ones((1, 5, 5), bool))
        return np.where(blood, 0.99, 0.01).astype(np.float32)

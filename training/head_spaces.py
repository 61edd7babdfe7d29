"""The spaces of a head in which blood can lie: drawn for a phantom, estimated for a real scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatField = npt.NDArray[np.floating[Any]]  # float32 where it is large
BoolField = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeadSpaces:
    """Where brain, fluid and bone lie; all fields (Z, Y, X).

    Attributes:
        x_mm: to the patient's left of the midline.
        y_mm: to the back.
        z_mm: to the vertex.
        depth_mm: below the inner table of the skull, negative in bone and outside.
        intracranial: all that lies within the skull.
        brain: grey and white matter.
        ventricles: the ventricles' fluid.
        csf: fluid of sulci, fissures and cisterns.
        spacing_mm: (z, y, x) of the fields.
    """

    x_mm: FloatField
    y_mm: FloatField
    z_mm: FloatField
    depth_mm: FloatField
    intracranial: BoolField
    brain: BoolField
    ventricles: BoolField
    csf: BoolField
    spacing_mm: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, mL."""
        return float(np.prod(self.spacing_mm)) / 1000.0

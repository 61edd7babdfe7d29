"""Which maps of a reply are taken, and which are refused."""

from __future__ import annotations

import numpy as np
import pytest

from inference import wire
from inference.predict_reply import probability_maps
from triage.errors import ServingError


def reply(values: list[float], values_field: int = wire.FLOAT_VAL) -> bytes:
    maps = np.array(values, "<f4").reshape(1, 1, -1)
    return wire.predict_response_bytes(
        b"", {"probability": wire.tensor_parts(wire.DT_FLOAT, maps.shape, maps, values_field=values_field)}
    )


@pytest.mark.parametrize("values_field", [wire.FLOAT_VAL, wire.TENSOR_CONTENT])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1.0, 1.0000005, -0.0000005])
def test_probabilities_are_taken_as_they_are(value, values_field):
    maps = probability_maps(reply([0.5, value, 0.25], values_field), "probability", (1, 1, 3))

    assert maps.tobytes() == np.array([0.5, value, 0.25], np.float32).tobytes()


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 1.00001, -0.00001, 3.4e38])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(ServingError, match="expected 0 to 1"):
        probability_maps(reply([0.5, value, 0.25]), "probability", (1, 1, 3))

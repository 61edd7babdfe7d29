"""A U-Net of almost no work on the tensors of another model, to measure what is around a run by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.export import export_model
from training.network import build_network, fold_normalisation
from training.settings import NetworkSettings
from triage.finding import ModelSpec

SMALL = NetworkSettings(widths=(2, 4))


@contextmanager
def small_network(spec: ModelSpec) -> Iterator[Path]:
    """Give a folder of models in which a small network takes the place of the one that `spec` describes."""
    size = (spec.rows, spec.columns)
    served = fold_normalisation(build_network(SMALL, size), SMALL, size)
    with tempfile.TemporaryDirectory(prefix="ich-triage-bench-") as folder:
        export_model(served, spec, Path(folder) / spec.name, 1)
        yield Path(folder)

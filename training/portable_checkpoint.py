"""Checkpoints that every Keras backend reads: the arrays of network and optimiser, in their order, in one file."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from triage.errors import ConfigError

NAME = re.compile(r"step-(\d+)\.npz")
KEPT = 3


def write_portable(folder: Path, step: int, network: keras.Model, optimiser: keras.optimizers.Optimizer) -> Path:
    """Write the checkpoint of a step beside and rename it, then drop all but the newest.

    Raises:
        ConfigError: it cannot be written; the ones before stay whole.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {"step": np.array(step)}
    arrays |= {f"network-{place}": np.asarray(value) for place, value in enumerate(network.get_weights())}
    values = (variable.numpy() for variable in optimiser.variables)
    arrays |= {f"optimiser-{place}": value for place, value in enumerate(values)}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    path = folder / f"step-{step}.npz"
    beside = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(
            f"The checkpoint of step {step} cannot be written to {folder}: {error.strerror}. Make room and go on with "
            "--resume."
        ) from error
    for old in sorted(_steps(folder))[:-KEPT]:
        (folder / f"step-{old}.npz").unlink()
    return path


def newest_portable(folder: Path) -> tuple[int, Path | None]:
    """Find the newest of a folder; step 0 and None where there is none."""
    step = max(_steps(folder), default=0)
    return step, folder / f"step-{step}.npz" if step else None


def read_portable(path: Path, network: keras.Model, optimiser: keras.optimizers.Optimizer | None = None) -> int:
    """Fill a network, and its optimiser where one is given; the step that they had reached.

    Raises:
        ConfigError: the file cannot be read, or is of another network.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            network.set_weights([arrays[f"network-{place}"] for place in range(len(network.weights))])
            if optimiser is not None:
                for place, variable in enumerate(optimiser.variables):
                    variable.assign(arrays[f"optimiser-{place}"])
            return int(arrays["step"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"The checkpoint {path} is not of the network that the settings name.") from error


def _steps(folder: Path) -> list[int]:
    return [int(found[1]) for path in folder.glob("step-*.npz") if (found := NAME.fullmatch(path.name))]

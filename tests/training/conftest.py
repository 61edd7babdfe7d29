"""Tiny sources and runs for the trainer's tests."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.small_runs import CROP, GRID, PHANTOMS
from training.settings import RunSettings


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Where all tests keep what they convert, so that each source is converted once."""
    return tmp_path_factory.mktemp("shards")


def run_settings(folder: Path, shards: Path, *, tracking=None, validation=False) -> RunSettings:
    """A run on three small phantoms that a few seconds can train; a longer one where it is validated."""
    return RunSettings.model_validate(
        {
            "folder": folder / "run",
            "shards": shards,
            "steps_per_round": 10 if validation else 2,
            "rounds_per_validation": 10,
            "grid": GRID,
            "network": {"widths": (4, 8)},
            "optimiser": {"steps": 20 if validation else 4, "batch": 4, "crop": CROP, "warmup_steps": 1},
            "tracking": tracking or {"on": False},  # a new database takes seconds to lay out
            "source": [PHANTOMS],
            "validation": [PHANTOMS | {"seed": 6}] if validation else [],
        }
    )


@pytest.fixture
def small_run(tmp_path, shards) -> RunSettings:
    """A run on three small phantoms that a few seconds can train."""
    return run_settings(tmp_path, shards)


@pytest.fixture(scope="session")
def validated_run(tmp_path_factory, shards) -> RunSettings:
    """A run that was validated and tracked to its end, for tests that look at what it left."""
    from training.run import train_network

    settings = run_settings(tmp_path_factory.mktemp("validated"), shards, tracking={"on": True}, validation=True)
    train_network(settings, resume=False, say=lambda _: None)
    return settings


@pytest.fixture
def tiny_ct_ich(tmp_path) -> Path:
    """Two patients of two slices in ct-ich's layout, the second slice of the second with blood."""
    folder = tmp_path / "ct-ich"
    for name in ("brain", "bone", "mask"):
        (folder / name).mkdir(parents=True)
    rows = [_slice(folder, patient, number, patient == 50 and number == 2) for patient in (49, 50) for number in (1, 2)]
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _slice(folder, patient, number, blood):
    name = f"{patient:03d}_{number:02d}"
    brain = np.zeros((384, 384), np.uint8)
    brain[96:288, 96:288] = 128  # 128 / 255 * 120 - 20 = 40.2 HU
    bone = np.zeros((192, 192), np.uint8)
    bone[48:144, 48:144] = 75
    Image.fromarray(brain).save(folder / "brain" / f"{name}.jpg", quality=100)
    Image.fromarray(bone).save(folder / "bone" / f"{name}.jpg", quality=100)
    if blood:
        mask = np.zeros((384, 384), bool)
        mask[150:170, 150:170] = True
        Image.fromarray(mask).save(folder / "mask" / f"{name}.png")
    kinds = dict.fromkeys(("IVH", "IPH", "SAH", "EDH", "SDH"), "0") | {"IPH": str(int(blood))}
    return {"slice": name, "patient": patient, "slice_no": number, "any": int(blood), **kinds, "fold": patient - 49}

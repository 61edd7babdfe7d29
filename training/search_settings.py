"""A search of settings: one TOML file that names a run to vary, what may vary, and the score that decides."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, model_validator

from training.settings import RunSettings, checked_settings, checked_toml, read_toml


class Parameter(BaseModel, frozen=True, extra="forbid"):
    """One setting that varies: within a range, or among choices."""

    key: str  # dotted, as `optimiser.learning_rate`; `source.0.bleed_weight` names the first source's
    low: float | None = None
    high: float | None = None
    log: bool = False  # drawn by its magnitude
    whole: bool = False  # a whole number
    choices: tuple[Any, ...] = ()

    @model_validator(mode="after")
    def _has_one_kind_of_values(self) -> Parameter:
        ranged = self.low is not None and self.high is not None
        if ranged == bool(self.choices) or (ranged and self.low >= self.high):  # type: ignore[operator]
            raise ValueError(f"{self.key} needs either low < high, or choices")
        return self


class SearchSettings(BaseModel, frozen=True, extra="forbid"):
    """One search; its trials are ordinary runs."""

    run: Path  # the TOML file of the run that is varied, from this file's folder
    folder: Path  # of the trials' runs and of search.db, which lets the search go on
    score: str  # of a validation, as `ct-ich/slice_dice`; the higher the better
    trials: int = Field(default=20, gt=0)  # in all, those of earlier calls too
    seed: int = 1
    unpruned_trials: int = Field(default=5, ge=0)  # run to their end before any is given up early
    parameter: tuple[Parameter, ...] = Field(min_length=1)


def read_search(path: Path) -> SearchSettings:
    """Read a search's TOML file.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a wrong value; each is named.
    """
    search = checked_toml(SearchSettings, read_toml(path), path)
    return search.model_copy(update={"run": path.parent / search.run})


def trial_settings(search: SearchSettings, values: dict[str, Any]) -> RunSettings:
    """Give the settings of one trial; the same values always have the same folder, so that a broken one goes on.

    Raises:
        ConfigError: the run's file is wrong, or names no such setting.
    """
    content = read_toml(search.run)
    for key, value in values.items():
        _put(content, key.split("."), value)
    name = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    content["folder"] = str(search.folder / f"trial-{name}")
    content.setdefault("shards", str(search.folder / "shards"))
    return checked_settings(content, search.run)


def _put(content: Any, keys: list[str], value: Any) -> None:
    *sections, last = keys
    for section in sections:
        content = content[int(section)] if section.isdecimal() else content.setdefault(section, {})
    content[last] = value

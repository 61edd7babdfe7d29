"""Single values of a pydicom data set, read so that a malformed element counts as absent and never as an error."""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue


def text(ds: Dataset, keyword: str) -> str:
    """Give an element as text; empty where it is absent or cannot be decoded."""
    return "\\".join(texts(ds, keyword))


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Give each value of an element as text, without empty ones."""
    value = _value(ds, keyword)
    if value is None:
        return ()
    values = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return tuple(str(item).strip() for item in values if str(item).strip())


def whole(ds: Dataset, keyword: str) -> int | None:
    """Give an element of one number without its fraction, or None."""
    found = numbers(ds, keyword, 1)
    return None if found is None else int(found[0])


def numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Give an element of exactly `count` finite numbers, or None."""
    try:
        found = tuple(float(item) for item in texts(ds, keyword))
    except ValueError:
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def _value(ds: Dataset, keyword: str) -> Any:
    try:
        return ds.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises many types for a malformed element; it then counts as absent
        return None

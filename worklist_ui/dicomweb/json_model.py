"""A data set in the DICOM JSON model (PS3.18 annex F); large binary values become addresses."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from worklist_ui.dicomweb.stored import lenient

INLINE_AT_MOST_BYTES = 1024  # larger binary values are fetched by their address
Address = Callable[[str], str]
Attributes = dict[str, dict[str, Any]]
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_DECIMAL, _WHOLE = frozenset({"FL", "FD", "DS"}), frozenset({"SL", "SS", "UL", "US", "IS", "SV", "UV"})


def attributes_of(ds: Dataset, address: Address, path: str = "") -> Attributes:
    """Give a data set as DICOM JSON.

    Args:
        ds: file meta elements and group lengths are left out, as the model says.
        address: of a binary value, for its path: tags in hexadecimal with item numbers from 0 between, by slashes.
        path: of the item that `ds` is; empty for a whole data set.

    An element whose value breaks its VR is given as text where that is possible, and without value where not.
    """
    found: Attributes = {}
    with lenient():
        for tag in sorted(ds.keys()):
            if tag.element == 0 or tag.group == 2:
                continue
            name = f"{tag:08X}"
            try:
                found[name] = _attribute(ds[tag], address, f"{path}{name}")
            except Exception:  # noqa: BLE001 - one value that pydicom cannot convert must not hide the others
                found[name] = {"vr": "UN"}
    if "00080005" in found:
        found["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # PS3.18 F.2.1: JSON is UTF-8
    return found


def as_json(attributes: Attributes) -> str:
    """Write attributes as JSON; escaped, so that no text from a header can break it."""
    return json.dumps(attributes, allow_nan=False, separators=(",", ":"))


def array(items: Iterable[Attributes]) -> Iterator[str]:
    """Write a JSON array piece by piece: the metadata of a large series need not fit into memory."""
    yield "["
    for number, item in enumerate(items):
        yield ("," if number else "") + as_json(item)
    yield "]"


def element_at(ds: Dataset, path: str) -> DataElement | None:
    """Give the element that an address of `attributes_of` names, or None."""
    parts = path.split("/")
    if len(parts) % 2 == 0:
        return None
    try:
        for tag, number in zip(parts[:-1:2], parts[1::2], strict=True):
            ds = ds[int(tag, 16)].value[int(number)]
        element: DataElement = ds[int(parts[-1], 16)]
    except (KeyError, ValueError, IndexError, TypeError):
        return None
    return element


def _attribute(element: DataElement, address: Address, path: str) -> dict[str, Any]:
    vr = str(element.VR)
    vr = vr.split(" ")[-1] if " " in vr else vr  # "US or SS" stays where a file does not say
    if vr == "SQ":
        items = [attributes_of(item, address, f"{path}/{number}/") for number, item in enumerate(element.value)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if vr in _BINARY:
        return {"vr": vr, **_binary(element.value, address, path)}
    values = [_value(value, vr) for value in _values(element.value)]
    return {"vr": vr, "Value": values} if any(value is not None for value in values) else {"vr": vr}


def _binary(value: Any, address: Address, path: str) -> dict[str, str]:
    content = bytes(value or b"")
    if not content:
        return {}
    if len(content) > INLINE_AT_MOST_BYTES or path.endswith("7FE00010"):
        return {"BulkDataURI": address(path)}
    return {"InlineBinary": base64.b64encode(content).decode()}


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]


def _value(value: Any, vr: str) -> Any:
    if value is None or value == "":
        return None
    if vr == "PN":
        return person_name(str(value)) or None
    if vr == "AT":
        return f"{int(value):08X}"
    if vr in _DECIMAL | _WHOLE:
        return _number(value, vr)
    return str(value)


def _number(value: Any, vr: str) -> Any:
    """Give a number; a text that is none stays a text (PS3.18 F.2.2: IS and DS may be strings)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(number):
        return None
    return int(value) if vr in _WHOLE and number == int(number) else number


def person_name(text: str) -> dict[str, str]:
    """Give a PN value's component groups by name (PS3.18 F.2.2)."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {name: group for name, group in groups if group}

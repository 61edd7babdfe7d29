"""What a search asks for (PS3.18 8.3.4): matching keys, attributes to include, and which page of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from werkzeug.datastructures import MultiDict

from triage.ledger.image_search import Level, matchable

CONTROLS = frozenset({"limit", "offset", "includefield", "fuzzymatching"})
LARGEST_OFFSET = 2**31


@dataclass(frozen=True)
class Query:
    """One search as it will be done."""

    keys: Mapping[str, str]  # DICOM keyword to value
    limit: int
    offset: int = 0
    include: frozenset[str] = frozenset()  # keywords beyond those that are always given
    include_all: bool = False
    not_done: tuple[str, ...] = field(default=())  # what was asked and is not supported, for the Warning header


def query_from(args: MultiDict[str, str], level: Level, *, most: int) -> Query:
    """Read a query.

    Args:
        args: of the address; keywords or tags, as in `00100010` or `PatientName`.
        level: what is searched for.
        most: results in one answer; a higher limit is cut to this.

    Raises:
        ValueError: an attribute that DICOM does not know, or a value that cannot be understood.
    """
    keys: dict[str, str] = {}
    not_done: list[str] = []
    for name, value in args.items(multi=True):
        if name in CONTROLS:
            continue
        keyword = keyword_of(name)
        if keyword not in matchable(level):
            not_done.append(f"{keyword} cannot be matched here and was ignored.")
        elif keys.setdefault(keyword, value) != value:
            raise ValueError(f"{keyword} is given twice.")
    if args.get("fuzzymatching", "false").lower() == "true":
        not_done.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
    include, include_all = _included(args)
    return Query(
        keys,
        limit=min(_whole(args, "limit", most), most),
        offset=_whole(args, "offset", 0),
        include=include,
        include_all=include_all,
        not_done=tuple(not_done),
    )


def keyword_of(name: str) -> str:
    """Give the keyword for a keyword or a tag of eight hexadecimal digits.

    Raises:
        ValueError: DICOM's dictionary has no such attribute.
    """
    if len(name) == 8 and all(character in "0123456789abcdefABCDEF" for character in name):
        keyword = keyword_for_tag(int(name, 16))
    else:
        keyword = name if tag_for_keyword(name) is not None else ""
    if not keyword:
        raise ValueError(f"There is no attribute {name[:64]!r} in DICOM; give a keyword or a tag as in 00100010.")
    return keyword


def _included(args: MultiDict[str, str]) -> tuple[frozenset[str], bool]:
    names = [name.strip() for value in args.getlist("includefield") for name in value.split(",")]
    wanted = {name for name in names if name and name.lower() != "all"}
    if any("." in name for name in wanted):  # attributes in sequences: the sequence is given whole
        wanted = {name.split(".")[0] for name in wanted}
    return frozenset(keyword_of(name) for name in wanted), any(name.lower() == "all" for name in names)


def _whole(args: MultiDict[str, str], name: str, default: int) -> int:
    text = args.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not text.isascii() or int(text[:12]) > LARGEST_OFFSET:
        raise ValueError(f"{name} takes a whole number from 0; received {text[:40]!r}.")
    return int(text)


def is_binary(keyword: str) -> bool:
    """Say whether an attribute holds bulk data, which no search gives."""
    return dictionary_VR(keyword).split(" ")[0] in ("OB", "OW", "OF", "OD", "OL", "OV", "UN")

"""Searching the ledger for studies, series and instances by matching keys (PS3.4 C.2.2.2), and finding their files.

What the ledger does not keep of a header cannot be matched here; `KEYS` says what can, at each level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Generic, TypeVar

from triage.ledger.connection import Ledger
from triage.ledger.rows import instance_from, study_from
from triage.study import Instance, Study


class Level(IntEnum):
    """The levels of the Study Root model (PS3.4 C.6.2)."""

    STUDY = 0
    SERIES = 1
    INSTANCE = 2


class Matching(Enum):
    """How the values of a key are compared (PS3.4 C.2.2.2.1 to C.2.2.2.5)."""

    UID = "uid"  # one, or a list
    TEXT = "text"  # wild cards, case counts
    NAME = "name"  # wild cards, case of ASCII letters does not count
    RANGE = "range"  # of dates or times
    NUMBER = "number"
    MODALITIES = "modalities"  # one series of the study has it


@dataclass(frozen=True)
class Key:
    """One attribute that can be matched: its level, its column, how."""

    level: Level
    column: str
    matching: Matching


KEYS: Mapping[str, Key] = {
    "StudyInstanceUID": Key(Level.STUDY, "studies.study_instance_uid", Matching.UID),
    "PatientName": Key(Level.STUDY, "studies.patient_name", Matching.NAME),
    "PatientID": Key(Level.STUDY, "studies.patient_id", Matching.TEXT),
    "PatientBirthDate": Key(Level.STUDY, "studies.patient_birth_date", Matching.RANGE),
    "PatientSex": Key(Level.STUDY, "studies.patient_sex", Matching.TEXT),
    "AccessionNumber": Key(Level.STUDY, "studies.accession_number", Matching.TEXT),
    "StudyDate": Key(Level.STUDY, "studies.study_date", Matching.RANGE),
    "StudyTime": Key(Level.STUDY, "studies.study_time", Matching.RANGE),
    "StudyDescription": Key(Level.STUDY, "studies.study_description", Matching.TEXT),
    "ReferringPhysicianName": Key(Level.STUDY, "studies.referring_physician_name", Matching.NAME),
    "InstitutionName": Key(Level.STUDY, "studies.institution_name", Matching.TEXT),
    "ModalitiesInStudy": Key(Level.STUDY, "instances.modality", Matching.MODALITIES),
    "SeriesInstanceUID": Key(Level.SERIES, "instances.series_instance_uid", Matching.UID),
    "Modality": Key(Level.SERIES, "instances.modality", Matching.TEXT),
    "SeriesNumber": Key(Level.SERIES, "instances.series_number", Matching.NUMBER),
    "SeriesDescription": Key(Level.SERIES, "instances.series_description", Matching.TEXT),
    "SOPInstanceUID": Key(Level.INSTANCE, "instances.sop_instance_uid", Matching.UID),
    "SOPClassUID": Key(Level.INSTANCE, "instances.sop_class_uid", Matching.UID),
    "InstanceNumber": Key(Level.INSTANCE, "instances.instance_number", Matching.NUMBER),
    "Rows": Key(Level.INSTANCE, "instances.rows", Matching.NUMBER),
    "Columns": Key(Level.INSTANCE, "instances.columns", Matching.NUMBER),
    "NumberOfFrames": Key(Level.INSTANCE, "instances.number_of_frames", Matching.NUMBER),
}


@dataclass(frozen=True)
class FoundStudy:
    """A study with what is counted over its images; `sample` is one of them."""

    study: Study
    modalities: tuple[str, ...]
    series_count: int
    instance_count: int
    sample: Instance


@dataclass(frozen=True)
class FoundSeries:
    """A series; `sample` is one of its instances."""

    study: Study
    sample: Instance
    instance_count: int


@dataclass(frozen=True)
class FoundInstance:
    """An instance and its study."""

    study: Study
    instance: Instance


Record = TypeVar("Record")
_SAME_STUDY = "instances.study_instance_uid = studies.study_instance_uid"
_WITH_INSTANCES = f"studies, instances WHERE {_SAME_STUDY}"
_STUDIES = f"studies WHERE EXISTS (SELECT 1 FROM instances WHERE {_SAME_STUDY})"  # noqa: S608 - without joining all


@dataclass(frozen=True)
class Results(Generic[Record]):
    """One page of what was found, and how many more there are after it."""

    records: tuple[Record, ...]
    remaining: int


class ImageSearch:
    """Read-only: what is where.

    Args:
        ledger: of the studies and instances.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def studies(self, keys: Mapping[str, str], *, limit: int, offset: int) -> Results[FoundStudy]:
        """Find studies that fit all keys, newest first.

        Args:
            keys: DICOM keyword to value; each one of `matchable`.
            limit: how many at most.
            offset: how many to pass over.

        Raises:
            ValueError: a value does not fit its key; the message names the key.
        """
        rows, remaining = self._page("studies.study_id", keys, limit, offset, tables=_STUDIES)
        return Results(tuple(self._found_study(row[0]) for row in rows), remaining)

    def series(self, keys: Mapping[str, str], *, limit: int, offset: int) -> Results[FoundSeries]:
        """Find series that fit all keys, by study and series number; arguments as for `studies`."""
        grouped = "studies.study_id, instances.series_instance_uid"
        rows, remaining = self._page(
            grouped, keys, limit, offset, extra=", MIN(instances.rowid)", order="MIN(instances.series_number)"
        )
        return Results(tuple(self._found_series(*row) for row in rows), remaining)

    def instances(self, keys: Mapping[str, str], *, limit: int, offset: int) -> Results[FoundInstance]:
        """Find instances that fit all keys, by study, series and instance number; arguments as for `studies`."""
        grouped = "studies.study_id, instances.series_instance_uid, instances.rowid"
        rows, remaining = self._page(grouped, keys, limit, offset, order="instances.instance_number")
        return Results(
            tuple(FoundInstance(self._study(row[0]), self._instance(row[2])) for row in rows),
            remaining,
        )

    def files(
        self, study_instance_uid: str, series_instance_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> list[Instance]:
        """Give the instances of a study, a series or one instance, by series and instance number; empty: none."""
        sql = "SELECT * FROM instances WHERE study_instance_uid = ?"
        values = [study_instance_uid]
        for column, value in (("series_instance_uid", series_instance_uid), ("sop_instance_uid", sop_instance_uid)):
            if value is not None:
                sql += f" AND {column} = ?"
                values.append(value)
        sql += " ORDER BY series_number, series_instance_uid, instance_number, rowid"
        return [instance_from(row) for row in self._ledger.db.query(sql, values)]

    def _page(
        self,
        grouped: str,
        keys: Mapping[str, str],
        limit: int,
        offset: int,
        *,
        tables: str = "",
        extra: str = "",
        order: str = "",
    ) -> tuple[list[tuple[Any, ...]], int]:
        where, values = condition(keys)
        base = f"FROM {tables or _WITH_INSTANCES} AND {where} GROUP BY {grouped}"
        ordered = f"studies.study_id DESC{f', {order}' if order else ''}, {grouped}"
        # Columns come from this module's table, values are bound.
        rows = self._ledger.db.execute(
            f"SELECT {grouped}{extra} {base} ORDER BY {ordered} LIMIT ? OFFSET ?",
            [*values, limit, offset],
        ).fetchall()
        if not offset and len(rows) < limit:
            return rows, 0
        total = self._ledger.db.execute(f"SELECT COUNT(*) FROM (SELECT 1 {base})", values).fetchone()[0]  # noqa: S608
        return rows, max(0, total - offset - len(rows))

    def _found_study(self, study_id: int) -> FoundStudy:
        study = self._study(study_id)
        row = self._ledger.db.execute(
            "SELECT COUNT(DISTINCT series_instance_uid), COUNT(*), MIN(rowid), GROUP_CONCAT(DISTINCT modality)"
            " FROM instances WHERE study_instance_uid = ?",
            [study.study_instance_uid],
        ).fetchone()
        modalities = tuple(sorted(name for name in (row[3] or "").split(",") if name))
        return FoundStudy(study, modalities, row[0], row[1], self._instance(row[2]))

    def _found_series(self, study_id: int, series_instance_uid: str, rowid: int) -> FoundSeries:
        study = self._study(study_id)
        count = self._ledger.db.execute(
            "SELECT COUNT(*) FROM instances WHERE study_instance_uid = ? AND series_instance_uid = ?",
            [study.study_instance_uid, series_instance_uid],
        ).fetchone()[0]
        return FoundSeries(study, self._instance(rowid), count)

    def _study(self, study_id: int) -> Study:
        return study_from(next(iter(self._ledger.db.query("SELECT * FROM studies WHERE study_id = ?", [study_id]))))

    def _instance(self, rowid: int) -> Instance:
        return instance_from(next(iter(self._ledger.db.query("SELECT * FROM instances WHERE rowid = ?", [rowid]))))


def condition(keys: Mapping[str, str]) -> tuple[str, list[Any]]:
    """Give the SQL condition for matching keys, and its values.

    Raises:
        ValueError: a value does not fit its key.
    """
    parts, values = ["1"], []
    for keyword, value in keys.items():
        key = KEYS[keyword]
        if value in ("", "*"):
            continue  # universal matching
        part, bound = _COMPARISONS[key.matching](keyword, key.column, value)
        parts.append(part)
        values += bound
    return " AND ".join(parts), values


Condition = tuple[str, list[Any]]


def _uid(_keyword: str, column: str, value: str) -> Condition:
    uids = value.replace("\\", ",").split(",")
    return f"{column} IN ({','.join('?' * len(uids))})", list(uids)


def _text(_keyword: str, column: str, value: str) -> Condition:
    if "*" not in value and "?" not in value:
        return f"{column} = ?", [value]
    return f"{column} GLOB ?", [value.replace("[", "[[]")]


def _name(_keyword: str, column: str, value: str) -> Condition:
    """Match the whole name, or its first component group: what is asked for seldom has the ideographic one."""
    pattern = value
    for character in "\\%_":
        pattern = pattern.replace(character, f"\\{character}")
    pattern = pattern.replace("*", "%").replace("?", "_")
    return f"({column} LIKE ? ESCAPE '\\' OR {column} LIKE ? ESCAPE '\\')", [pattern, f"{pattern}=%"]


def _range(keyword: str, column: str, value: str) -> Condition:
    lowest, dash, highest = value.partition("-")
    ends = [end.replace(":", "") for end in (lowest, highest if dash else lowest)]
    if not any(ends) or any(not end.replace(".", "").isdecimal() for end in ends if end):
        raise ValueError(f"{keyword} takes YYYYMMDD, HHMMSS, or a range with a dash between; received {value[:40]!r}.")
    if not dash and "." not in value and len(ends[0]) == 8:
        return f"{column} = ?", [ends[0]]
    parts, values = [f"{column} <> ''"], []
    for end, sign in zip(ends, (">=", "<="), strict=True):
        if end:
            # Compared as far as the range is written: 10 o'clock ends at 10:59:59.
            parts.append(f"substr({column}, 1, {len(end)}) {sign} ?")
            values.append(end)
    return f"({' AND '.join(parts)})", values


def _number(keyword: str, column: str, value: str) -> Condition:
    if not value.lstrip("-").isdecimal() or len(value) > 18:
        raise ValueError(f"{keyword} takes a whole number; received {value[:40]!r}.")
    return f"{column} = ?", [int(value)]


def _modalities(_keyword: str, _column: str, value: str) -> Condition:
    part, bound = _text("", "beside.modality", value)
    if "," in value or "\\" in value:
        part, bound = _uid("", "beside.modality", value)
    inner = f"SELECT 1 FROM instances AS beside WHERE beside.study_instance_uid = studies.study_instance_uid AND {part}"  # noqa: S608
    return f"EXISTS ({inner})", bound


_COMPARISONS = {
    Matching.UID: _uid,
    Matching.TEXT: _text,
    Matching.NAME: _name,
    Matching.RANGE: _range,
    Matching.NUMBER: _number,
    Matching.MODALITIES: _modalities,
}


def matchable(level: Level) -> Sequence[str]:
    """Give the keywords that a search at a level takes: those of its own level and above (PS3.18 10.6.1.1)."""
    return [keyword for keyword, key in KEYS.items() if key.level <= level]

"""Which series of a study the model reads, and why not the others.

Each series meets the same checks in the same order; the first that fails is its reason, with what was measured. Among
those that pass, the one nearest to the model's slabs wins: a thick soft-tissue brain before a thin one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.uid import CTImageStorage, LegacyConvertedEnhancedCTImageStorage

from triage.ct_series import MAX_TILT_DEGREES, SeriesHeader, sort_slices, tilt_degrees
from triage.errors import UnsuitableSeries
from triage.finding import ModelSpec, SeriesChoice
from triage.study import NotAnalysedReason

MIN_SLICES = 10
MIN_COVERAGE_MM = 100.0  # a head is 130 mm and more from the foramen magnum to the vertex
THICKEST_MM = 8.0  # beyond it a 5 mL bleed lies in a single slice
CT_CLASSES = frozenset({str(CTImageStorage), str(LegacyConvertedEnhancedCTImageStorage)})

HEAD_WORDS = re.compile(r"HEAD|BRAIN|SKULL|CRANI|NEURO|CEREBR|KOPF|SCHAEDEL|SCHÄDEL|TETE|TÊTE|CEREBRO|TESTA|CABEZA")
OTHER_BODY_WORDS = re.compile(
    r"CHEST|THORAX|ABDOM|PELVI|SPINE|LUMBAR|NECK|LUNG|KNEE|HIP|SHOULDER|FOOT|ANKLE|WRIST|HEART|CARDIAC|SINUS|ORBIT|"
    r"TEMPORAL|FACIAL|DENTAL|MANDIB"
)
WITHOUT_CONTRAST = re.compile(r"W/?O\b|WITHOUT|NON[ -]?CON|UNENHANCED|\bNC(CT)?\b|PLAIN|\bNATIV|SANS|SENZA|SIN CONTR")
WITH_CONTRAST = re.compile(r"\bCTA\b|ANGIO|CONTRAST|\bC\+|\+C\b|VENOGR|\bCTV\b|PERFUSION|\bCTP\b|POST[ -]?CON|\bWITH\b")
NO_AGENT = frozenset({"", "NONE", "NO", "N", "WITHOUT", "NOT GIVEN"})
BONE_WORDS = re.compile(r"\bBONE|\bOSS|KNOCHEN|HUESO")
# GE BONE, BONEPLUS, EDGE, DETAIL; Siemens H60 and sharper, Hr60; Canon FC30 and FC80; Philips YA to YD, D and E
BONE_KERNELS = re.compile(
    r"^(BONE.*|EDGE.*|LUNG.*|DETAIL|HC?[6-9]\d\w*|[UHB][RV]?[6-9]\d\w*|J[6-9]\d\w*|FC[38]\d|Y[A-D]|D|E)$"
)
NOT_SLICES = frozenset({"MIP", "MINIP", "PROJECTION IMAGE", "VOLUME", "3D", "PERFUSION", "CBF", "CBV", "MTT", "TTP"})


@dataclass(frozen=True)
class Selection:
    """The series to read, with all that were looked at.

    Attributes:
        series: the chosen one; None when no series fits.
        choices: every series, chosen or not, in the order of the study.
        reason: why none fits; None when one was chosen.
        measured: what was found for that reason.
    """

    series: SeriesHeader | None
    choices: tuple[SeriesChoice, ...]
    reason: NotAnalysedReason | None = None
    measured: str = ""


def select_series(series: Sequence[SeriesHeader], spec: ModelSpec) -> Selection:
    """Choose the one series of a study that the model reads.

    When none fits, the study's reason is that of the series that passed the most checks: "uneven gaps" of the brain
    series says more than "localizer" of its scout.
    """
    checked = [(header, *_first_failure(header)) for header in series]
    fit = [header for header, _, refusal in checked if refusal is None]
    best = min(fit, key=lambda header: _distance_from_ideal(header, spec)) if fit else None
    choices = tuple(_choice(header, refusal, chosen=header is best) for header, _, refusal in checked)
    if best is not None:
        return Selection(best, choices)
    furthest = max(checked, key=lambda item: (item[1], len(item[0].slices)), default=None)
    if furthest is None or furthest[2] is None:
        return Selection(None, choices, NotAnalysedReason.NOT_CT, "no image series")
    return Selection(None, choices, furthest[2].reason, furthest[2].measured)


def _first_failure(header: SeriesHeader) -> tuple[int, UnsuitableSeries | None]:
    """Run the checks in order: how many were passed, and the first refusal."""
    for passed, check in enumerate(CHECKS):
        try:
            check(header)
        except UnsuitableSeries as refusal:
            return passed, refusal
    return len(CHECKS), None


def _is_ct(header: SeriesHeader) -> None:
    if header.modality != "CT" or (header.sop_class_uid not in CT_CLASSES and not _is_secondary_capture(header)):
        raise UnsuitableSeries(
            NotAnalysedReason.NOT_CT,
            f"modality {header.modality or 'absent'} in SOP class {header.sop_class_uid or 'absent'}; "
            "expected CT Image Storage",
        )


def _is_no_localizer(header: SeriesHeader) -> None:
    if header.is_localizer:
        raise UnsuitableSeries(NotAnalysedReason.LOCALIZER, f"{len(header.slices)} images marked LOCALIZER")


def _is_slices(header: SeriesHeader) -> None:
    marked = sorted(NOT_SLICES.intersection(header.image_type))
    if _is_secondary_capture(header) or marked:
        found = ", ".join(marked) or "Secondary Capture"
        raise UnsuitableSeries(NotAnalysedReason.DERIVED, f"{len(header.slices)} images are {found}; expected slices")


def _is_head(header: SeriesHeader) -> None:
    words = f"{header.body_part} {header.description}".upper()
    other = OTHER_BODY_WORDS.search(words)
    if other and not HEAD_WORDS.search(words):
        raise UnsuitableSeries(NotAnalysedReason.NOT_HEAD, f"named {other[0].lower()}; expected head or brain")


def _is_without_contrast(header: SeriesHeader) -> None:
    words = header.description.upper()
    if header.contrast_agent.upper() not in NO_AGENT:
        raise UnsuitableSeries(NotAnalysedReason.CONTRAST, "a contrast agent is named; expected none")
    if WITH_CONTRAST.search(words) and not WITHOUT_CONTRAST.search(words):
        raise UnsuitableSeries(NotAnalysedReason.CONTRAST, "named as with contrast; expected none")


def _is_soft_kernel(header: SeriesHeader) -> None:
    kernel = header.kernel.upper().split(" ")[0]
    if BONE_KERNELS.match(kernel) or BONE_WORDS.search(header.description.upper()):
        raise UnsuitableSeries(
            NotAnalysedReason.BONE_KERNEL, f"kernel {header.kernel or 'named bone'}; expected a soft-tissue one"
        )


def _has_enough_slices(header: SeriesHeader) -> None:
    if len(header.slices) < MIN_SLICES:
        raise UnsuitableSeries(
            NotAnalysedReason.TOO_FEW_SLICES, f"{len(header.slices)} slices; expected at least {MIN_SLICES}"
        )


def _is_axial(header: SeriesHeader) -> None:
    angle = tilt_degrees(header)
    if angle > MAX_TILT_DEGREES:
        raise UnsuitableSeries(
            NotAnalysedReason.NOT_AXIAL, f"{angle:.0f} degrees from axial; expected at most {MAX_TILT_DEGREES:.0f}"
        )


def _is_even(header: SeriesHeader) -> None:
    _, spacing_mm = sort_slices(header)
    if spacing_mm > THICKEST_MM:
        raise UnsuitableSeries(
            NotAnalysedReason.UNEVEN_GAPS, f"slices {spacing_mm:.1f} mm apart; expected at most {THICKEST_MM:.0f} mm"
        )


def _covers_a_head(header: SeriesHeader) -> None:
    slices, spacing_mm = sort_slices(header)
    covered_mm = len(slices) * spacing_mm
    if covered_mm < MIN_COVERAGE_MM:
        raise UnsuitableSeries(
            NotAnalysedReason.SHORT_COVERAGE, f"{covered_mm:.0f} mm covered; expected at least {MIN_COVERAGE_MM:.0f} mm"
        )


CHECKS: tuple[Callable[[SeriesHeader], None], ...] = (
    _is_ct,
    _is_slices,
    _is_no_localizer,
    _is_head,
    _is_without_contrast,
    _is_soft_kernel,
    _has_enough_slices,
    _is_axial,
    _is_even,
    _covers_a_head,
)


def _is_secondary_capture(header: SeriesHeader) -> bool:
    return header.sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1.7")


def _distance_from_ideal(header: SeriesHeader, spec: ModelSpec) -> tuple[bool, float, float, int]:
    slices, spacing_mm = sort_slices(header)
    derived = "DERIVED" in header.image_type
    from_slab = round(abs(spacing_mm - spec.spacing_mm[0]), 1)  # 4.8 and 5.0 mm differ, 4.99 and 5.0 do not
    return derived, from_slab, -len(slices) * spacing_mm, header.series_number or 0


def _choice(header: SeriesHeader, refusal: UnsuitableSeries | None, *, chosen: bool) -> SeriesChoice:
    return SeriesChoice(
        series_instance_uid=header.series_instance_uid,
        series_number=header.series_number,
        description=header.description,
        slices=len(header.slices),
        chosen=chosen,
        reason=None if refusal is None else refusal.reason,
        measured=_measured_fit(header, chosen=chosen) if refusal is None else refusal.measured,
    )


def _measured_fit(header: SeriesHeader, *, chosen: bool) -> str:
    slices, spacing_mm = sort_slices(header)
    found = f"{len(slices)} slices, {spacing_mm:.2f} mm apart"
    return found if chosen else f"{found}; another series is nearer to the model's slabs"

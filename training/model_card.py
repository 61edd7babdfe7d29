"""The model card: what a served model was made of, what it is for, and how well it did, from measured figures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.report import Scores
from training.settings import CtIchSource, PastedSource, PhantomSource, RunSettings, SourceSettings
from triage.finding import ModelSpec

HEAD = """# Model card: {name}, version {version}

Suspected intracranial haemorrhage on non-contrast head CT: a small 2-D U-Net that gives each voxel a probability of
blood.

## What it is for

To sort the list of studies that a radiologist is going to read anyway, flagged ones first. It makes no diagnosis and
rules nothing out: a study that is not flagged is read all the same. It is no medical device, nobody has cleared it, and
no patient may be treated on its word.

## What it takes and gives

| | |
|---|---|
| input `{input_name}` | (N, {rows}, {columns}, {channels}) int16 HU: slabs of {spacing} mm (z, y, x) with neighbours |
| output `{output_name}` | (N, {rows}, {columns}) float32, probability of blood |
| signature `spec` | `rows` (N,) int16, any values; `json` (N,) string: this description and its lines |
| study probability | sigmoid({slope:g} * logit(score) {intercept:+g}); score: mean of the highest {score_ml:g} mL |
| flagged | study probability at or above {line:g} |
| regions | voxels at or above {voxel:g}, from {smallest:g} mL |
| how the lines were drawn | {rule} |

Windowing and scaling lie in the graph; normalisation is folded into the convolutions; nothing is compiled by XLA.

## Data

{data}

ct-ich: Hssayeni M. et al., *Computed Tomography Images for Intracranial Hemorrhage Detection and Segmentation*,
v1.0.0, PhysioNet, doi:10.13026/w8q8-ky94, and *Data* 2020, 5(1), 14; licence CC BY 4.0. It was used here regrouped and
reduced in size. Its images carry no pixel spacing: 0.6 mm in-plane and 5 mm between slices were assumed, so
millilitres on it are plausible, not true. SHA-256 of the converted training data:
`{data_sha256}`.

## Training

{steps} steps of {batch} slabs of {crop} voxels{minutes}. Widths {widths}.{beginning}

```
{commands}
```

## Scores

On patients that neither training nor the choice of lines ever saw, with 95 % intervals (Wilson for shares; bootstrap
over patients for the others).

"""

VALIDATION = """
## Scores on validation patients

Training never saw them, but the lines and the calibration were chosen on them: read these as too good.

"""

LIMITS = """
## Limits

* Training saw the real blood of {bleeding} patients. ct-ich's are trauma cases of one source, mean age 28, mostly with
  epidural blood; subdural, subarachnoid and intraventricular blood come from a handful each: no claim about them holds.
* The test set is small; read the intervals, not the figures.
* Blood drawn into phantoms and pasted into heads is easier than blood. Scores on phantoms say that the chain works,
  and nothing about patients.
* Small, thin and isodense bleeds are missed. A study that is not flagged may bleed.
* Never tried on: contrast, children, post-operative heads, metal, haemorrhagic tumours, other scanners' kernels.
"""


@dataclass(frozen=True)
class Making:
    """How a version's weights were made."""

    steps: int
    seconds: float  # of the steps together; nan where the run kept no record
    bleeding_patients: int  # real ones, whose blood training saw
    command: str  # that published


def card_text(
    spec: ModelSpec,
    settings: RunSettings,
    making: Making,
    *,
    version: int,
    tested: Sequence[Scores],
    validated: Sequence[Scores],
) -> str:
    """Write the card as Markdown."""
    head = HEAD.format(
        **spec.model_dump(include={"name", "input_name", "output_name", "rows", "columns", "context"}),
        version=version,
        channels=2 * spec.context + 1,
        spacing=" x ".join(f"{value:g}" for value in spec.spacing_mm),
        slope=spec.calibration.slope,
        intercept=spec.calibration.intercept,
        score_ml=spec.calibration.score_ml,
        line=spec.operating_point.study_probability,
        voxel=spec.operating_point.voxel_probability,
        smallest=spec.operating_point.smallest_component_ml,
        rule=spec.operating_point.rule,
        data=_data(settings),
        data_sha256=spec.training_data_sha256,
        steps=making.steps,
        batch=settings.optimiser.batch,
        crop=" x ".join(str(side) for side in settings.optimiser.crop),
        beginning=f"\nBegun with the weights of `{settings.warm_start}`." if settings.warm_start else "",
        minutes="" if np.isnan(making.seconds) else f"; they took {making.seconds / 60:.0f} minutes",
        commands="\n".join(_commands(making.command)),
        widths=", ".join(str(width) for width in settings.network.widths),
    )
    scores = "\n".join(_section(score) for score in tested)
    chosen = VALIDATION + "\n".join(_short_section(score) for score in validated)
    return head + scores + chosen + LIMITS.format(bleeding=making.bleeding_patients)


def _commands(command: str) -> list[str]:
    """Give the commands that made the version: publishing alone comes after a run of the same configuration."""
    words = shlex.split(command)
    if "publish" not in words:
        return [command]
    config = next((word for word in words if word.endswith(".toml")), "")
    return [f"ich-triage train {config}", command]


def _data(settings: RunSettings) -> str:
    parts = (("Training", settings.source), ("Validation", settings.validation), ("Test", settings.test))
    rows = [f"| {part} | {_described(source)} |" for part, sources in parts for source in sources]
    return "\n".join(["| part | scans |", "|---|---|", *rows])


def _described(source: SourceSettings) -> str:
    if isinstance(source, CtIchSource):
        return f"ct-ich, folds {_listed(source.folds)}"
    if isinstance(source, PastedSource):
        return (
            f"bleed-free heads of ct-ich, folds {_listed(source.folds)}, {source.copies} times each with pasted blood"
        )
    if isinstance(source, PhantomSource):
        return (
            f"{source.count} phantoms of seed {source.seed}, {source.bleed_share:.0%} with blood of "
            f"{source.bleed_ml[0]:g} to {source.bleed_ml[1]:g} mL"
        )
    return f"{source.kind}, folds {_listed(source.folds)}"


def _listed(folds: tuple[int, ...]) -> str:
    return ", ".join(str(fold) for fold in folds)


def _short_section(score: Scores) -> str:
    rows = [
        f"### {score.source}: {score.studies} studies, {score.bleeding} with blood",
        "",
        "| | |",
        "|---|---|",
        f"| area under the ROC curve, studies | {score.study_auc} |",
        f"| sensitivity | {score.sensitivity} |",
        f"| specificity | {score.specificity} |",
        f"| Dice, mean over slabs with blood | {score.slice_dice} slabs |",
        f"| Brier score of the study probability | {score.brier:.3f} |",
        "",
    ]
    return "\n".join(rows)


def _section(score: Scores) -> str:
    lower, upper = score.limits_of_agreement_ml
    rows = [
        f"| predicted minus true mL | {score.volume_error_ml}; limits of agreement {lower:.1f} to {upper:.1f} |",
        *(f"| sensitivity, {name} | {estimate} |" for name, estimate in score.sensitivity_by_volume.items()),
        *(f"| sensitivity, {name} | {estimate} |" for name, estimate in score.sensitivity_by_kind.items()),
        f"| missed | {'; '.join(score.missed) or 'none'} |",
        "",
    ]
    return _short_section(score) + "\n".join(rows)

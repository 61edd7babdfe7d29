"""The docs name every setting with its default, every command, every state and every reason."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from ich_triage import COMMANDS
from training.settings import RunSettings
from triage.settings import Settings, load_settings
from triage.study import REASON_TEXT, NotAnalysedReason, StudyState

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "CONFIGURATION.md"
PACKAGES = ("triage", "dicom_listener", "inference", "worklist_ui", "training")
DOCS = (ROOT / "README.md", ROOT / "ARCHITECTURE.md", CONFIGURATION, *(ROOT / name / "README.md" for name in PACKAGES))
NO_SETTING = {"ICH_TRIAGE_TEST_DATA"}


@dataclass(frozen=True)
class Row:
    """One setting as a table shows it."""

    section: str
    key: str
    environment: str
    default: str
    allowed: str

    def markdown(self) -> str:
        name = f"`{self.key}`" + (f"<br>`{self.environment}`" if self.environment else "")
        return f"| {name} | {self.default} | {self.allowed} | ? |"


def product_rows() -> Iterator[Row]:
    for name, section in Settings.model_fields.items():
        for key, field in section.annotation.model_fields.items():
            environment = f"ICH_TRIAGE_{name}__{key}".upper()
            yield Row(f"[{name}]", key, environment, default_of(field), allowed_of(field))


def training_rows(model: type[BaseModel] = RunSettings, section: str = "run") -> Iterator[Row]:
    for key, field in model.model_fields.items():
        below = list(models_in(field.annotation))
        if not below and key != "kind":
            yield Row(section, key, "", default_of(field), allowed_of(field))
        for each in below:
            kind = each.model_fields.get("kind")
            name = f'[[source]] kind = "{kind.default}"' if kind else f"[{key}]"
            yield from training_rows(each, name)


def known_rows() -> list[Row]:
    """Give each setting once, in the order of the code; validation and test take the same sources as training."""
    return list(dict.fromkeys((*product_rows(), *training_rows())))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "unset"
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)}`"


def allowed_of(field: FieldInfo) -> str:
    """Say which values a field takes, as far as its type and bounds tell."""
    bounds = {type(bound): bound for bound in field.metadata}
    if choices := [choice for choice in get_args(field.annotation) if isinstance(choice, str)]:
        return ", ".join(f"`{choice}`" for choice in choices)
    if pattern := next((bound.pattern for bound in field.metadata if getattr(bound, "pattern", None)), None):
        return ", ".join(f"`{choice}`" for choice in pattern.strip("^$()").split("|"))
    if field.annotation is bool:
        return "`true`, `false`"
    if annotated_types.MaxLen in bounds:
        shortest = bounds[annotated_types.MinLen].min_length
        return f"{shortest} to {bounds[annotated_types.MaxLen].max_length} characters"
    return range_of(bounds) or kind_of(field.annotation)


def range_of(bounds: dict[type, Any]) -> str:
    low = f"{bounds[annotated_types.Ge].ge:g}" if annotated_types.Ge in bounds else ""
    above = f"more than {bounds[annotated_types.Gt].gt:g}" if annotated_types.Gt in bounds else ""
    high = number(bounds[annotated_types.Le].le) if annotated_types.Le in bounds else ""
    if low and high:
        return f"{low} to {high}"
    return " and ".join(
        part for part in (f"at least {low}" if low else above, f"at most {high}" if high else "") if part
    )


def number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def kind_of(annotation: Any) -> str:
    named = {str: "text", Path: "path", int: "whole number", float: "number", SecretStr: "secret"}
    arguments = get_args(annotation)
    if type(None) in arguments:
        return kind_of(arguments[0])
    kinds = [named[each] for each in (annotation, *arguments) if each in named]
    if get_origin(annotation) is tuple:
        return f"list of {kinds[0]}s" if kinds else "list"
    if get_origin(annotation) in {dict, Mapping}:
        return f"table of {named[arguments[1]]}s" if arguments[1] in named else "table"
    return kinds[0] if kinds else "table"


TABLE_ROW = re.compile(r"^\| `(\w+)`(?:<br>`(\w+)`)? \| (.*?) \| (.*?) \| (.*) \|$")
SECTIONS = re.compile(r"`([^`]+)`")  # of a heading; sections with the same settings share one


def documented_rows() -> dict[Row, str]:
    """Give each row of CONFIGURATION.md with its explanation."""
    rows, sections = {}, []
    for line in CONFIGURATION.read_text(encoding="utf-8").splitlines():
        if line.startswith(("## ", "### ")):
            sections = SECTIONS.findall(line)
        elif cells := TABLE_ROW.match(line):
            key, environment, default, allowed, explanation = cells.groups()
            rows |= {Row(each, key, environment or "", default, allowed): explanation for each in sections}
    return rows


def test_configuration_has_every_setting_with_its_default_and_range():
    documented = documented_rows()

    missing = [f"{row.section}: {row.markdown()}" for row in known_rows() if row not in documented]

    assert missing == [], "\n".join(["CONFIGURATION.md lacks or contradicts:", *missing])


def test_configuration_has_no_setting_that_the_code_has_not():
    known = known_rows()

    assert [f"{row.section}: {row.markdown()}" for row in documented_rows() if row not in known] == []


def test_configuration_explains_every_setting():
    assert [row.key for row, explanation in documented_rows().items() if len(explanation.split()) < 3] == []


def toml_examples() -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", CONFIGURATION.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_examples_of_configuration_are_accepted(tmp_path):
    for example in toml_examples():
        values = tomllib.loads(example)
        if "source" in values:
            RunSettings.model_validate(values)
            continue
        path = tmp_path / "triage.toml"
        path.write_text(example, encoding="utf-8")
        load_settings(path)
    assert len(toml_examples()) >= 2


def test_environment_names_in_the_docs_are_settings():
    known = {row.environment for row in product_rows()} | NO_SETTING
    sources = [*DOCS, ROOT / "docker-compose.yml", ROOT / "docker" / "Dockerfile", ROOT / "docker" / "README.md"]

    unknown = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources
        if path.is_file()
        for name in re.findall(r"ICH_TRIAGE_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8"))
        if name not in known and not any(each.startswith(f"{name}__") for each in known)
    ]

    assert unknown == []


def docs() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in DOCS if path.is_file())


def test_every_document_is_there():
    assert [path.relative_to(ROOT).as_posix() for path in DOCS if not path.is_file()] == []


def test_every_command_is_in_the_docs():
    """In README.md, ARCHITECTURE.md or a package's README."""
    text = docs()

    assert [f"ich-triage {name}" for name in COMMANDS if not re.search(rf"ich-triage {name}\b", text)] == []


@pytest.mark.parametrize("words", [StudyState, NotAnalysedReason])
def test_every_state_and_reason_is_in_the_docs(words):
    """Between backticks in README.md, ARCHITECTURE.md or a package's README."""
    text = docs()

    assert [word.value for word in words if f"`{word.value}`" not in text] == []


def test_every_reason_has_a_text_for_the_reading_list():
    assert set(REASON_TEXT) == set(NotAnalysedReason)


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "triage"])
def test_readme_of_a_process_shows_a_command(package):
    readme = ROOT / package / "README.md"

    assert readme.is_file()
    own = [name for name, (module, *_) in COMMANDS.items() if module.startswith(f"{package}.")]
    assert re.search(rf"ich-triage (?:{'|'.join(own)})\b", readme.read_text(encoding="utf-8"))

"""What the repository's text says: no host of a registry, no path of one machine, no dead link, no wrong command."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from ich_triage import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE_BYTES = 16 * 1024 * 1024
# Written apart, so that this file does not hold what it looks for.
REGISTRY = re.compile(
    "|".join(
        map(re.escape, ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.", "ana" + "conda.org", "ghcr" + ".io"))
    ),
    re.IGNORECASE,
)
ONE_MACHINE = re.compile(r"(?<![\w./$}<-])/(?:" + "wo" + "rk|ro" + r"ot|home/\w+|Users/\w+)/")
LEFTOVER = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME")) + r")\b")
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
OUR_COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(?:python -m ich_triage|ich-triage)\s+(.*)$")
MODULE_COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?python3? -m ([\w.]+)")


@cache
def files() -> tuple[Path, ...]:
    """Give the repository's files: tracked, and those that would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no git checkout: which files belong to the repository is not known")
    paths = (ROOT / name for name in sorted(set(listed.stdout.split("\0"))) if name)
    return tuple(path for path in paths if path.is_file())


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def text_files() -> list[Path]:
    return [path for path in files() if b"\0" not in path.read_bytes()]


def markdown_files() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def found(pattern: re.Pattern[str]) -> list[str]:
    """Give file, line and text of each match in the repository."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in text_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if (match := pattern.search(line))
    ]


@pytest.mark.parametrize("pattern", [REGISTRY, ONE_MACHINE, LEFTOVER], ids=["registry", "one_machine", "leftover"])
def test_text_does_not_say(pattern):
    assert found(pattern) == []


def test_no_file_is_too_large():
    large = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in files()}

    assert {name: size for name, size in large.items() if size > LARGEST_FILE_BYTES} == {}


@pytest.mark.parametrize("first", ["wo" + "rk", "ro" + "ot", "home/anna", "Users/anna"])
def test_paths_of_one_machine_are_noticed(first):
    assert ONE_MACHINE.search(f"cd /{first}/main")
    assert ONE_MACHINE.search(f'"/{first}/.venv"')
    assert not ONE_MACHINE.search(f"http://host/{first}/7")


def test_links_between_files_lead_somewhere():
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in markdown_files()
        for target in LINK.findall(FENCE.sub("", text_of(path)))
        if not leads_somewhere(path, target)
    ]

    assert dead == []


def leads_somewhere(path: Path, target: str) -> bool:
    if re.match(r"[a-z][a-z+.-]*:", target):
        return True  # another site; not asked in a test
    name, _, anchor = target.partition("#")
    linked = (path.parent / name).resolve() if name else path
    if not linked.exists():
        return False
    return not anchor or linked.suffix != ".md" or anchor in anchors(text_of(linked))


def anchors(markdown: str) -> set[str]:
    """Give the anchors that a forge makes of headings: small letters, hyphens for blanks, the rest dropped."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", FENCE.sub("", markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def fenced_lines(path: Path) -> Iterator[str]:
    """Give each command line of a Markdown file's fenced blocks, continued lines joined."""
    for block in FENCE.findall(text_of(path)):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())


def documented_commands() -> list[tuple[str, str]]:
    """Give where each `ich-triage ...` stands in the Markdown and in the commands' own help, and its arguments."""
    shown = [
        (str(path.relative_to(ROOT)), match.group(1))
        for path in markdown_files()
        for line in fenced_lines(path)
        if (match := OUR_COMMAND.match(line))
    ]
    return shown + [(f"help of {name}", example) for name in COMMANDS for example in examples_in_help(name)]


def examples_in_help(name: str) -> list[str]:
    return [
        match.group(1)
        for command in with_subcommands(cli.get_command(click.Context(cli), name))
        for line in f"{command.help or ''}\n{command.epilog or ''}".replace("Example: ", "\n").splitlines()
        if (match := OUR_COMMAND.match(line.strip()))
    ]


def with_subcommands(command: click.Command | None) -> Iterator[click.Command]:
    assert command is not None
    yield command
    if isinstance(command, click.Group):
        for name in command.commands:
            yield from with_subcommands(command.commands[name])


def fault_in(arguments: str) -> str | None:
    """Say what is wrong with the arguments of `ich-triage`; None if its commands and options exist."""
    given = shlex.split(re.split(r"\s(?:[|<&;#]|\d?>)", f" {arguments}")[0])
    command: click.Command = cli
    try:
        while isinstance(command, click.Group):
            below, given = step_into(command, given)
            if below is None:
                return None
            command = below
        command.make_parser(click.Context(command)).parse_args(given)
    except click.UsageError as error:
        return error.format_message()
    return None


def step_into(group: click.Group, given: list[str]) -> tuple[click.Command | None, list[str]]:
    """Find the sub-command as the group itself does, its default one too; None: there are only options of the group."""
    context = click.Context(group, resilient_parsing=True)
    group.parse_args(context, list(given))
    words = [*context._protected_args, *context.args]
    if not words:
        return None, []
    _, command, rest = group.resolve_command(click.Context(group), words)
    return command, rest


def test_documented_commands_and_options_exist():
    wrong = [f"{where}: ich-triage {arguments}: {fault}"
             for where, arguments in documented_commands()
             if (fault := fault_in(arguments))]  # fmt: skip

    assert wrong == []


def test_a_wrong_option_is_noticed():
    assert fault_in("listen --config triage.toml") is None
    assert fault_in("listen --confg triage.toml")
    assert fault_in("lissen")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example(name):
    command = cli.get_command(click.Context(cli), name)

    lacking = [each.name for each in with_subcommands(command)
               if not isinstance(each, click.Group) and "Example:" not in f"{each.help}{each.epilog}"]  # fmt: skip

    assert lacking == []


def test_documented_modules_exist():
    missing = [
        f"{path.relative_to(ROOT)}: python -m {match.group(1)}"
        for path in markdown_files()
        for line in fenced_lines(path)
        if (match := MODULE_COMMAND.match(line)) and importlib.util.find_spec(match.group(1)) is None
    ]

    assert missing == []


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([a-z][\w-]*)\s*:", text_of(ROOT / "Makefile"), re.MULTILINE))

    missing = [
        f"{path.relative_to(ROOT)}: make {target}"
        for path in markdown_files()
        for target in re.findall(r"(?:^|`)(?:\$ )?make ([a-z][\w-]*)", text_of(path), re.MULTILINE)
        if target not in targets
    ]

    assert missing == []

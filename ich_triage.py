"""The command `ich-triage`: one line a subcommand, each handed over to the package that has it.

A package is imported when its command is called, so that a listener host needs no TensorFlow and `--help` is quick.
"""

from __future__ import annotations

import importlib
import sys

import click

# command: (module, attribute, extra that it needs, one line of help)
COMMANDS = {
    "listen": ("dicom_listener.cli", "listen", "listener", "Receive DICOM images (C-STORE)."),
    "send": ("dicom_listener.cli", "send", "listener", "Push a folder of DICOM files to a C-STORE port."),
    "echo": ("dicom_listener.cli", "echo", "listener", "Try a DICOM port (C-ECHO)."),
    "passcode": ("dicom_listener.passcode_cli", "passcode", "listener", "Hash the passcode that a sender must show."),
    "storage": ("dicom_listener.storage_cli", "storage", "listener", "Check images on disk; list the quarantine."),
    "conformance": ("dicom_listener.conformance_cli", "conformance", "listener", "Print the conformance statement."),
    "reconcile": (
        "dicom_listener.reconcile_cli",
        "reconcile",
        "listener",
        "Compare with the PACS; fetch what is missing.",
    ),
    "work": ("inference.cli", "work", "worker", "Read queued studies through the model."),
    "serve": ("inference.serve_cli", "serve", "server", "Serve models as TF Serving does (gRPC and REST)."),
    "worklist": ("worklist_ui.cli", "worklist", "worklist", "Show the reading list in the browser."),
    "users": ("worklist_ui.cli", "users", "worklist", "Manage who may sign in to the worklist."),
    "audit": ("worklist_ui.audit_cli", "audit", "worklist", "Check and export the audit trail."),
    "opinions": ("worklist_ui.opinions_cli", "opinions", "worklist", "Give readers' opinions to training."),
    "train": ("training.cli", "train", "train", "Train, evaluate and export the U-Net."),
    "data": ("training.data_cli", "data", "train", "Check, convert and preview what training reads."),
    "phantoms": ("training.cli", "phantoms", "train", "Write synthetic head CTs with known bleeds."),
    "evaluate": ("training.cli", "evaluate", "train", "Score a served model by patient, with intervals."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's package only when it is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Name the commands in the order of a study's path."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; a missing package names the extra to install."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, extra, _ = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"`ich-triage {cmd_name}` needs the package {error.name}: pip install 'ich-triage[{extra}]'"
            ) from error
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, _, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ich-triage")
def cli() -> None:
    """Head CTs in by DICOM, suspected intracranial haemorrhage on top of the reading list."""


def main(argv: list[str] | None = None) -> int:
    """Run a command: 0 done, 1 failed, 2 usage."""
    try:
        cli.main(args=argv, prog_name="ich-triage", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

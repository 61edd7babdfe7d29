"""The command passcode."""

from __future__ import annotations

import click

from dicom_listener.user_identity import PasscodeHash


@click.command("passcode")
@click.password_option(
    "--passcode", prompt="Passcode of the sender", prompt_required=True, help="Asked for if left out."
)
def passcode(passcode: str) -> None:
    """Hash a sender's passcode: print the line of [[listener.senders]] that it is checked by.

    Example: ich-triage passcode
    """
    click.echo(f'passcode_hash = "{PasscodeHash.of(passcode)}"')

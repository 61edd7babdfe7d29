"""Accounts in the browser, for administrators: open, close, another role, a link for a new password."""

from __future__ import annotations

import secrets

import structlog
from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from triage.ledger.users import User
from worklist_ui.access import reader
from worklist_ui.names import USERNAME, USERNAME_RULE
from worklist_ui.roles import Role
from worklist_ui.services import services

pages = Blueprint("accounts", __name__, url_prefix="/accounts")
log = structlog.get_logger()


@pages.get("")
def show() -> ResponseReturnValue:
    """List the accounts."""
    return _page()


@pages.post("")
def invite() -> ResponseReturnValue:
    """Make a one-time link by which a new person chooses a password."""
    username = request.form.get("username", "").strip().lower()
    role = _role()
    if not USERNAME.fullmatch(username):
        abort(400, USERNAME_RULE)
    if services().users.by_name(username) is not None:
        abort(409, "There is an account of this name already.")
    return _page(link=_link(username, role), link_for=username)


@pages.post("/<username>/reset")
def reset(username: str) -> ResponseReturnValue:
    """Make a one-time link by which a person chooses a new password."""
    user = _user(username)
    return _page(link=_link(user.username, Role(user.role)), link_for=user.username)


@pages.post("/<username>/role")
def change_role(username: str) -> ResponseReturnValue:
    """Give an account another role."""
    user, role = _user(username), _role()
    _not_oneself(user)
    services().users.set_role(user.username, role.value)
    log.info("role_changed", username=user.username, role=role.value)
    return _done(f"{user.username} is {role.value.replace('_', ' ')} now.")


@pages.post("/<username>/disable")
def disable(username: str) -> ResponseReturnValue:
    """Close an account and end its sessions."""
    user = _user(username)
    _not_oneself(user)
    services().users.disable(user.username)
    log.info("account_closed", username=user.username)
    return _done(f"The account {user.username} is closed.")


@pages.post("/<username>/enable")
def enable(username: str) -> ResponseReturnValue:
    """Open a closed or locked account again."""
    user = _user(username)
    services().users.enable(user.username)
    log.info("account_opened", username=user.username)
    return _done(f"The account {user.username} is open.")


def _page(link: str = "", link_for: str = "") -> ResponseReturnValue:
    return render_template(
        "accounts.html",
        accounts=services().users.all(),
        roles=[*Role],
        now=services().clock(),
        link=link,
        link_for=link_for,
        link_hours=services().settings.link_hours,
        myself=reader(),
    )


def _done(message: str) -> ResponseReturnValue:
    flash(message, "done")
    return redirect(url_for("accounts.show"), 303)


def _user(username: str) -> User:
    user = services().users.by_name(username)
    if user is None:
        abort(404, "There is no such account.")
    return user


def _not_oneself(user: User) -> None:
    """Keep the last administrator from locking the door behind them."""
    if user.username == reader():
        abort(400, "Nobody closes or changes their own account; ask another administrator.")


def _role() -> Role:
    try:
        return Role(request.form.get("role", ""))
    except ValueError:
        abort(400, f"The role must be one of: {', '.join(Role)}.")


def _link(username: str, role: Role) -> str:
    token, now = secrets.token_urlsafe(24), services().clock()
    expires_at = now + services().settings.link_hours * 3600
    services().users.add_link(token, role=role.value, username=username, now=now, expires_at=expires_at)
    return url_for("sign_in.link_form", token=token, _external=True)

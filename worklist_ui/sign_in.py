"""Signing in and out, and one-time links by which a person chooses a password."""

from __future__ import annotations

import secrets

import structlog
from flask import Blueprint, abort, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from triage.errors import StoreError
from triage.ledger.users import OneTimeLink, User
from worklist_ui import passwords
from worklist_ui.access import TOKEN, SignedIn
from worklist_ui.names import USERNAME, USERNAME_RULE
from worklist_ui.roles import Permission, may
from worklist_ui.services import services

pages = Blueprint("sign_in", __name__)
log = structlog.get_logger()

HOMES = {
    Permission.SEE: "reading_list.show",
    Permission.AUDIT: "audit.show",
    Permission.LEARN: "opinions.show",
}  # the first that a role may see
WRONG = "This name and password do not fit together."
TOO_MANY = "Too many tries from your address. Wait a minute."


@pages.get("/")
def home() -> ResponseReturnValue:
    """Go to the first page that the person's role may see."""
    user: SignedIn = g.user
    found = (page for permission, page in HOMES.items() if may(user.role, permission))
    return redirect(url_for(next(found, "sign_in.nothing")), 303)


@pages.get("/nothing-here")
def nothing() -> ResponseReturnValue:
    """Tell a role that works by programs alone that there is no page for it."""
    text = "Your role has no pages here; it works with the commands and the programs' addresses."
    return render_template("problem.html", title="Signed in", text=text, status="")


@pages.get("/sign-in")
def form() -> ResponseReturnValue:
    """Show the form."""
    return render_template("sign_in.html", after=request.args.get("after", ""))


@pages.post("/sign-in")
def enter() -> ResponseReturnValue:
    """Check name and password; the answer to a wrong name, password or a locked account is the same."""
    now = services().clock()
    if not services().sign_in_rate.allows(request.remote_addr or "", now=now):
        log.warning("sign_in_refused", reason="rate", peer_host=request.remote_addr)
        return _refused(TOO_MANY, 429)
    username = request.form.get("username", "").strip().lower()
    user = services().users.by_name(username)
    right = passwords.is_right(
        request.form.get("password", "")[: passwords.LONGEST + 1], services().users.password_hash(username)
    )
    reason = _why_not(user, right=right, now=now)
    if user is None or reason:
        # Never the name: people type passwords into the wrong field.
        log.warning("sign_in_refused", reason=reason, peer_host=request.remote_addr)
        return _refused(WRONG, 401)
    start_session(user, now)
    return redirect(own_address(request.form.get("after", "")) or url_for("sign_in.home"), 303)


@pages.post("/sign-out")
def leave() -> ResponseReturnValue:
    """End the session."""
    services().users.close_session(session.get(TOKEN, ""))
    session.clear()
    return redirect(url_for("sign_in.form"), 303)


@pages.get("/link/<token>")
def link_form(token: str) -> ResponseReturnValue:
    """Show the form on which a person chooses a password."""
    return render_template("choose_password.html", link=_usable_link(token), complaint="")


@pages.post("/link/<token>")
def use_link(token: str) -> ResponseReturnValue:
    """Use a link up: open or change the account, and sign in."""
    link = _usable_link(token)
    username = link.username or request.form.get("username", "").strip().lower()
    password = request.form.get("password", "")
    complaint = passwords.complaint(password)
    if not USERNAME.fullmatch(username):
        complaint = USERNAME_RULE
    elif password != request.form.get("again", ""):
        complaint = "The two passwords differ."
    if complaint:
        return render_template("choose_password.html", link=link, complaint=complaint), 422
    now = services().clock()
    try:
        user = services().users.use_link(
            token, username=username, password_hash=passwords.hash_password(password), now=now
        )
    except StoreError as error:
        return render_template("choose_password.html", link=link, complaint=str(error)), 409
    if user is None:
        abort(404, "This link has been used or has expired. Ask for a new one.")
    log.info("link_used", role=user.role)
    start_session(user, now)
    return redirect(url_for("sign_in.home"), 303)


def _why_not(user: User | None, *, right: bool, now: float) -> str:
    """Give the reason why a sign-in is refused; empty: it is not. Counts a wrong password."""
    if user is None:
        return "unknown_name"
    if user.disabled:
        return "disabled"
    lock_s = services().settings.lock_minutes * 60
    if user.locked_until is not None and 0 < user.locked_until - now <= lock_s:  # longer: the clock was set back
        return "locked"
    if right:
        return ""
    settings = services().settings
    locked = services().users.record_failure(
        user.username, lock_after=settings.lock_after_failures, lock_s=settings.lock_minutes * 60, now=now
    )
    return "wrong_password_locked" if locked else "wrong_password"


def start_session(user: User, now: float) -> None:
    """Open a session under a new token: one that was there before the sign-in is worth nothing after it."""
    session.clear()
    session.permanent = True
    session[TOKEN] = secrets.token_urlsafe(32)
    settings = services().settings
    services().users.close_sessions_before(
        now - settings.session_hours * 3600, now - settings.session_idle_minutes * 60
    )
    services().users.open_session(session[TOKEN], user.username, now=now)
    g.signed_in_as = user.username  # for the audit trail: this request began without a user
    log.info("signed_in", username=user.username, role=user.role)


def _refused(message: str, status: int) -> ResponseReturnValue:
    return render_template("sign_in.html", after=request.form.get("after", ""), complaint=message), status


def own_address(after: str) -> str:
    """Give the page to go on to, if it is one of ours: never another site's."""
    ours = after.startswith("/") and not after.startswith(("//", "/\\")) and after.isprintable()
    return after if ours else ""


def _usable_link(token: str) -> OneTimeLink:
    now = services().clock()
    if not services().sign_in_rate.allows(request.remote_addr or "", now=now):
        abort(429, TOO_MANY)
    link = services().users.link(token, now=now)
    if link is None:
        abort(404, "This link has been used or has expired. Ask for a new one.")
    return link

"""Who is signed in, and whether they may have what they ask for; run before every request."""

from __future__ import annotations

from dataclasses import dataclass

from flask import abort, g, redirect, request, session, url_for
from flask.typing import ResponseReturnValue

from worklist_ui.answers import wants_json
from worklist_ui.roles import PERMISSIONS, ROUTES, Permission, Role, may
from worklist_ui.services import services

TOKEN = "session_token"  # noqa: S105 - the name of the field
TOUCH_EVERY_S = 60.0  # a session's use is noted once a minute, not with each picture
BACKGROUND = frozenset({"reading_list.rows", "reading_list.stream"})  # the page asks by itself: nobody is there


@dataclass(frozen=True)
class SignedIn:
    """The person who asks."""

    username: str
    role: Role


def check_access() -> ResponseReturnValue | None:
    """Let a request through, ask to sign in, or refuse."""
    if request.endpoint is None:
        return None  # 404 or 405, which needs no permission
    g.user = _signed_in()
    permission = ROUTES.get(request.endpoint)
    if permission is None:
        abort(403)
    if permission is Permission.ANYBODY:
        return None
    if g.user is None:
        return _ask_to_sign_in()
    if not may(g.user.role, permission):
        abort(403, f"The role {g.user.role.value.replace('_', ' ')} may not {permission.value}.")
    return None


def still_signed_in() -> bool:
    """Say whether the session of a request that goes on for hours still counts."""
    return _signed_in() is not None


def reader() -> str:
    """Give the name of who is signed in; only on routes that ask for it."""
    user: SignedIn = g.user
    return user.username


def _signed_in() -> SignedIn | None:
    token = session.get(TOKEN)
    found = services().users.session(token) if token else None
    if token is None or found is None:
        return None
    now = services().clock()
    settings = services().settings
    idle_s = now - found.seen_at
    if idle_s > settings.session_idle_minutes * 60 or now - found.started_at > settings.session_hours * 3600:
        services().users.close_session(token)
        return None
    user = services().users.by_name(found.username)
    if user is None or user.disabled or user.role not in PERMISSIONS:
        return None
    if idle_s > TOUCH_EVERY_S and request.endpoint not in BACKGROUND:
        services().users.touch_session(token, now=now)
    return SignedIn(user.username, Role(user.role))


def _ask_to_sign_in() -> ResponseReturnValue:
    if wants_json() or request.endpoint in BACKGROUND:
        return {"answer": "signed_out", "message": "You are signed out. Sign in again."}, 401
    after = request.full_path if request.method == "GET" and request.path != "/" else ""
    return redirect(url_for("sign_in.form", after=after or None), 303)

"""Who is signed in, and whether they may have what they ask for; run before every request."""

from __future__ import annotations

from dataclasses import dataclass

from flask import abort, g, redirect, request, session, url_for
from flask.typing import ResponseReturnValue

from worklist_ui import bearer
from worklist_ui.answers import wants_json
from worklist_ui.problems import for_program, problem
from worklist_ui.roles import PERMISSIONS, ROUTES, Permission, Role, may
from worklist_ui.scopes import SCOPES
from worklist_ui.services import services

TOKEN = "session_token"  # noqa: S105 - the name of the field
TOUCH_EVERY_S = 60.0  # a session's use is noted once a minute, not with each picture
BACKGROUND = frozenset(
    {"reading_list.rows", "reading_list.stream", "reading_list.flags"}
)  # the page asks by itself: nobody is there


@dataclass(frozen=True)
class SignedIn:
    """The person, or the program, who asks."""

    username: str
    role: Role
    scopes: frozenset[str] | None = None  # of the token that was shown; None: signed in by a browser's session
    token_id: int | None = None


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
    if g.user.scopes is not None:
        return _check_scope(request.endpoint, g.user.scopes)
    if for_program():  # exempt from the check that pages have, because tokens need none
        bearer.check_csrf()
    return None


def still_signed_in() -> bool:
    """Say whether the session of a request that goes on for hours still counts."""
    return _signed_in() is not None


def reader() -> str:
    """Give the name of who is signed in; only on routes that ask for it."""
    user: SignedIn = g.user
    return user.username


def _signed_in() -> SignedIn | None:
    secret = bearer.shown_secret()
    return _by_session() if secret is None else _by_token(secret)


def _by_token(secret: str) -> SignedIn | None:
    try:
        user, token = bearer.owner_of(secret)
    except bearer.TokenRefused as refusal:
        g.token_refusal = str(refusal)
        return None
    if user.role not in PERMISSIONS:
        return None
    return SignedIn(user.username, Role(user.role), token.scopes, token.token_id)


def _check_scope(endpoint: str, scopes: frozenset[str]) -> ResponseReturnValue | None:
    """Refuse a token that was not made for this."""
    wanted = SCOPES.get(endpoint)
    if wanted is None:
        return problem(403, "A token opens the addresses of programs only; pages are for people.")
    if wanted & scopes:
        return None
    names = " or ".join(sorted(wanted))
    challenge = f'Bearer error="insufficient_scope", scope="{" ".join(sorted(wanted))}"'
    return problem(403, f"This needs a token with the scope {names}.", headers={"WWW-Authenticate": challenge})


def _by_session() -> SignedIn | None:
    token = session.get(TOKEN)
    found = services().users.session(token) if token else None
    if token is None or found is None:
        return None
    now = services().clock()
    settings = services().settings
    # a clock that was set back must not make a session last: what lies far ahead is as old as what lies far back
    idle_s, age_s = abs(now - found.seen_at), abs(now - found.started_at)
    if idle_s > settings.session_idle_minutes * 60 or age_s > settings.session_hours * 3600:
        services().users.close_session(token)
        return None
    user = services().users.by_name(found.username)
    if user is None or user.disabled or user.role not in PERMISSIONS:
        return None
    if idle_s > TOUCH_EVERY_S and request.endpoint not in BACKGROUND:
        services().users.touch_session(token, now=now)
    return SignedIn(user.username, Role(user.role))


def _ask_to_sign_in() -> ResponseReturnValue:
    if for_program() or "token_refusal" in g:
        refusal = g.get("token_refusal", "")
        challenge = 'Bearer realm="ich-triage"' + (', error="invalid_token"' if refusal else "")
        detail = refusal or "Sign in, or show a token as Authorization: Bearer."
        return problem(401, detail, headers={"WWW-Authenticate": challenge})
    if wants_json() or request.endpoint in BACKGROUND:
        return {"answer": "signed_out", "message": "You are signed out. Sign in again."}, 401
    after = request.full_path if request.method == "GET" and request.path != "/" else ""
    return redirect(url_for("sign_in.form", after=after or None), 303)

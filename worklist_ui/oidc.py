"""Signing in by an identity provider: OpenID Connect, authorization code with PKCE (RFC 7636), by Authlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import structlog
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.flask_client import OAuth
from flask import Blueprint, Flask, Response, abort, current_app, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from joserfc.errors import JoseError

from triage.errors import ConfigError, StoreError
from triage.ledger.users import User
from triage.settings import WorklistSettings
from worklist_ui.names import USERNAME
from worklist_ui.roles import Role
from worklist_ui.services import services
from worklist_ui.sign_in import TOO_MANY, own_address, start_session

pages = Blueprint("oidc", __name__, url_prefix="/oidc")
log = structlog.get_logger()

PROVIDER = "provider"
AFTER = "oidc_after"  # in the session: the page to go on to
TIMEOUT_S = 10.0  # for one answer of the provider
LEEWAY_S = 60  # two hosts' clocks may differ by so much
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Whatever the provider or the library complains of: the person is not let in.
REFUSALS = (AuthlibBaseError, JoseError, requests.RequestException, ValueError, KeyError, TypeError, RuntimeError)


class NotLetIn(Exception):
    """Who the provider vouches for has no way in; the message is for the person, `reason` for the log."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def check(settings: WorklistSettings) -> None:
    """Say at the start what would refuse everybody later.

    Raises:
        ConfigError: a provider is named, but not all that is needed with it.
    """
    if not settings.oidc_issuer:
        return
    address = urlsplit(settings.oidc_issuer)
    if address.scheme != "https" and not (address.scheme == "http" and address.hostname in LOOPBACK):
        raise ConfigError("worklist.oidc_issuer must be an https address, as the provider's own document has it.")
    if not settings.oidc_client_id:
        raise ConfigError("worklist.oidc_client_id is empty; the provider gives one when this worklist is registered.")
    unknown = sorted(set(settings.oidc_roles.values()) - set(Role))
    if unknown or not settings.oidc_roles:
        found = f"there is no role {', '.join(unknown)}" if unknown else "nobody could sign in: it is empty"
        raise ConfigError(f"worklist.oidc_roles: {found}; roles are {', '.join(Role)}.")


def register(app: Flask, settings: WorklistSettings) -> None:
    """Let people sign in by the provider of the settings, if there is one; nothing is asked of it yet."""
    check(settings)
    app.jinja_env.globals["identity_provider"] = bool(settings.oidc_issuer)
    app.register_blueprint(pages)
    if settings.oidc_issuer:
        secret = settings.oidc_client_secret
        OAuth(app).register(
            PROVIDER,
            client_id=settings.oidc_client_id,
            client_secret=secret.get_secret_value() if secret else None,
            server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": settings.oidc_scopes,
                "code_challenge_method": "S256",
                "default_timeout": TIMEOUT_S,
                "leeway": 0,  # else an access token that lives a minute counts as expired at once
                **({} if secret else {"token_endpoint_auth_method": "none"}),  # a public client has PKCE alone
            },
        )


@pages.get("/sign-in")
def start() -> ResponseReturnValue:
    """Send the person to the provider, with a state, a nonce and a code challenge that are kept in the session."""
    if not services().sign_in_rate.allows(request.remote_addr or "", now=services().clock()):
        abort(429, TOO_MANY)
    client = _client()
    try:
        response: Response = client.authorize_redirect(url_for("oidc.callback", _external=True))
    except REFUSALS as error:
        log.warning("identity_provider_failed", error_type=type(error).__name__)
        return _page(502, "The identity provider does not answer", "Try again, or sign in by name and password.")
    session[AFTER] = own_address(request.args.get("after", ""))
    return response


@pages.get("/callback")
def callback() -> ResponseReturnValue:
    """Take the person back: check all that the provider says, find the account, start a session."""
    now, after = services().clock(), session.get(AFTER, "")
    try:
        user = _account(_claims(), now)
    except NotLetIn as refusal:
        log.warning("sign_in_refused", reason=refusal.reason, peer_host=request.remote_addr)
        return _page(403, "You cannot sign in here", str(refusal))
    except REFUSALS as error:
        log.warning(
            "sign_in_refused", reason="oidc", error_type=type(error).__name__, peer_host=request.remote_addr
        )  # fmt: skip
        return _page(400, "This sign-in did not work", "What the identity provider sent does not hold. Begin again.")
    start_session(user, now)
    return redirect(after or url_for("sign_in.home"), 303)


def role_of(claims: Mapping[str, Any], settings: WorklistSettings) -> Role | None:
    """Give the role for a person's claims: the first of the settings' values that the claim has; None: none."""
    found = claims.get(settings.oidc_role_claim)
    values = found if isinstance(found, list) else [found]
    named = next((role for value, role in settings.oidc_roles.items() if value in values), None)
    return None if named is None else Role(named)


def _claims() -> dict[str, Any]:
    """Exchange the code for the ID token and check it: signature, issuer, audience, times, nonce."""
    settings, client = services().settings, _client()
    token = client.authorize_access_token(
        leeway=LEEWAY_S,
        claims_options={
            "iss": {"essential": True, "value": settings.oidc_issuer},
            "aud": {"essential": True, "value": settings.oidc_client_id},
            "exp": {"essential": True},
            "sub": {"essential": True},
        },
    )
    claims = dict(token["userinfo"])
    wanted = {settings.oidc_name_claim, settings.oidc_role_claim}
    if not wanted <= claims.keys() and client.server_metadata.get("userinfo_endpoint"):
        more = dict(client.userinfo(token=token))
        if more.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2
            raise ValueError("the provider's two answers speak of different people")
        claims = more | claims
    return claims


def _account(claims: Mapping[str, Any], now: float) -> User:
    """Give the account of whom the claims speak of.

    Raises:
        NotLetIn: no role, no usable name, or the account is closed.
    """
    settings = services().settings
    role = role_of(claims, settings)
    if role is None:
        raise NotLetIn(
            "oidc_no_role", "You are known, but have no role on this worklist. Ask your PACS administrator for one."
        )
    claim = claims.get(settings.oidc_name_claim)
    name = claim.strip().lower() if isinstance(claim, str) else ""
    if not USERNAME.fullmatch(name):
        raise NotLetIn("oidc_no_name", "The identity provider gives no name that an account here can have.")
    try:
        name = services().identities.account_for(
            settings.oidc_issuer, str(claims["sub"]), wanted_name=name, role=role.value, now=now
        )
    except StoreError as error:
        raise NotLetIn("oidc_name_taken", f"{error} Ask your PACS administrator.") from error
    user = services().users.by_name(name)
    if user is None or user.disabled:
        raise NotLetIn("disabled", "Your account here is closed. Ask your PACS administrator.")
    return user


def _client() -> Any:
    found = current_app.extensions.get("authlib.integrations.flask_client")
    if found is None:
        abort(404, "This worklist knows no identity provider.")
    return found.create_client(PROVIDER)


def _page(status: int, title: str, text: str) -> ResponseReturnValue:
    return render_template("problem.html", title=title, text=text, status=status), status

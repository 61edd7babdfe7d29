"""The worklist's Flask application."""

from __future__ import annotations

import time
from datetime import timedelta
from urllib.parse import urlsplit

from flask import Flask, Response, g, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf import CSRFProtect
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.middleware.proxy_fix import ProxyFix

from triage.errors import StoreError
from triage.ledger import Ledger
from triage.settings import Settings
from worklist_ui import (
    accounts,
    audit_page,
    health,
    intake_page,
    oidc,
    opinions_page,
    reading_list,
    saved_views,
    sign_in,
    steps,
    study,
    wording,
)
from worklist_ui.access import check_access
from worklist_ui.answers import wants_json
from worklist_ui.api import reference as api
from worklist_ui.auditing import note_in_audit_trail
from worklist_ui.dicomweb import cross_origin
from worklist_ui.dicomweb import retrieve as dicomweb_retrieve
from worklist_ui.dicomweb import search as dicomweb_search
from worklist_ui.dicomweb import store as dicomweb_store
from worklist_ui.problems import for_program, problem
from worklist_ui.roles import Permission, may
from worklist_ui.services import EXTENSION, Clock, make_services

PAGES = (
    health.pages,
    sign_in.pages,
    reading_list.pages,
    saved_views.pages,
    study.pages,
    steps.pages,
    accounts.pages,
    audit_page.pages,
    intake_page.pages,
    opinions_page.pages,
)
PROGRAMS = (dicomweb_search.pages, dicomweb_retrieve.pages, dicomweb_store.pages, api.pages)
LARGEST_FORM_BYTES = 64 * 1024
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def create_app(settings: Settings, ledger: Ledger, *, secret_key: bytes, clock: Clock = time.time) -> Flask:
    """Build the application.

    Args:
        settings: `worklist` and `storage` are read.
        ledger: the studies, users and sessions.
        secret_key: signs the session cookie; the same in all processes of this worklist.
        clock: seconds since the epoch.
    """
    app = Flask("worklist_ui")
    over_tls = is_over_tls(settings)
    app.config.update(
        SECRET_KEY=secret_key,
        MAX_CONTENT_LENGTH=LARGEST_FORM_BYTES,
        TRUSTED_HOSTS=trusted_hosts(settings),
        SESSION_COOKIE_NAME="__Host-ich-triage" if over_tls else "ich-triage",
        SESSION_COOKIE_SECURE=over_tls,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=timedelta(hours=settings.worklist.session_hours),
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a list stays open all day
        SEND_FILE_MAX_AGE_DEFAULT=timedelta(hours=1),
    )
    app.extensions[EXTENSION] = make_services(settings, ledger, clock)
    csrf = CSRFProtect(app)
    for blueprint in PAGES:
        app.register_blueprint(blueprint)
    for blueprint in PROGRAMS:
        app.register_blueprint(blueprint)
        csrf.exempt(blueprint)  # access.py asks for it, unless a token is shown
    oidc.register(app, settings.worklist)
    app.before_request(cross_origin.preflight)
    app.before_request(check_access)
    app.after_request(cross_origin.opened)  # runs after the next: the last one registered is the first to run
    app.after_request(_secured)
    app.after_request(note_in_audit_trail)  # runs before the one above: what was registered last comes first
    app.register_error_handler(CSRFError, _csrf_failed)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(StoreError, _ledger_refused)
    _give_templates_words(app)
    if settings.worklist.behind_tls_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    return app


def is_over_tls(settings: Settings) -> bool:
    """Say whether browsers reach this worklist by HTTPS."""
    return settings.worklist.behind_tls_proxy or settings.worklist.certificate is not None


def trusted_hosts(settings: Settings) -> list[str]:
    """Give the host names that a request may carry; any other is refused (DNS rebinding).

    Loopback's names always count: a health check on this machine uses them, and no other site can.
    """
    named = settings.worklist.allowed_hosts
    wildcard = settings.worklist.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    own = () if named or wildcard else (urlsplit(f"//{settings.worklist.host}").hostname or "",)
    return [*LOOPBACK_NAMES, *named, *own]


def _give_templates_words(app: Flask) -> None:
    for name in (
        "clean",
        "person",
        "age_sex",
        "duration",
        "moment",
        "clock_time",
        "percent",
        "millilitres",
        "gigabytes",
        "coded",
    ):
        app.add_template_filter(getattr(wording, name), name)
    app.jinja_env.globals.update(
        STANDINGS=wording.STANDINGS,
        EVENTS=wording.EVENTS,
        COMPLETED_BY=wording.COMPLETED_BY,
        GAPS=wording.GAPS,
        DISAGREEMENTS=wording.DISAGREEMENTS,
        standing_of=wording.standing_of,
        standing_detail=wording.standing_detail,
        Permission=Permission,
    )
    app.context_processor(_page_context)


def _page_context() -> dict[str, object]:
    user = g.get("user")
    return {
        "user": user,
        "may": lambda permission: user is not None and may(user.role, permission),
        "theme": "light" if request.cookies.get("theme") == "light" else "dark",
    }


def _secured(response: Response) -> Response:
    response.headers.update(HEADERS)
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if request.endpoint != "static":
        # Patients' data stay out of every cache; single routes may say otherwise.
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _csrf_failed(_error: CSRFError) -> ResponseReturnValue:
    if for_program():
        return problem(400, "A browser's session sends its page's token as X-CSRFToken; programs show a bearer token.")
    return _problem(400, "This page has expired", "Load it again and repeat what you did; nothing was changed.")


def _ledger_refused(_error: StoreError) -> ResponseReturnValue:
    return _problem(503, "Not saved", "The ledger takes no writes just now. Nothing was changed; try again.")


def _http_error(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < 400:
        return error
    if isinstance(error, SecurityError):  # a host name that is not ours: no page can be built for it
        return Response("This host name is not served here.", status=400, mimetype="text/plain")
    titles = {
        400: "This request makes no sense",
        403: "Not for your role",
        404: "Not here",
        405: "Not this way",
        413: "Too much",
        429: "Too many tries",
    }
    return _problem(error.code, titles.get(error.code, "That did not work"), error.description or "")


def _problem(status: int, title: str, text: str) -> ResponseReturnValue:
    if for_program():
        return problem(status, text)
    if wants_json():
        return {"answer": "refused", "message": f"{title}. {text}"}, status
    return render_template("problem.html", title=title, text=text, status=status), status

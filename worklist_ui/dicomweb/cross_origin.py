"""Which other sites' pages may read answers of DICOMweb: a viewer that is served elsewhere (CORS, Fetch standard)."""

from __future__ import annotations

from flask import Response, request

from worklist_ui.services import services

PATH = "/dicomweb/"


def preflight() -> Response | None:
    """Answer a browser that asks whether a page of another site may ask; it shows no sign-in yet."""
    if request.method != "OPTIONS" or not _allowed():
        return None
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD",
        "Access-Control-Allow-Headers": "Authorization, Accept, Range",
        "Access-Control-Max-Age": "600",
    }
    return Response(status=204, headers=headers)


def opened(response: Response) -> Response:
    """Let the page read the answer; it shows a token, as cookies are not sent to us by other sites."""
    if _allowed():
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = "Content-Location, Warning, WWW-Authenticate"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers.add("Vary", "Origin")
    return response


def _allowed() -> bool:
    origins = services().settings.dicomweb_origins
    return request.path.startswith(PATH) and request.headers.get("Origin", "") in origins

"""The OpenAPI document, and a page to read it: drawn here, with nothing from elsewhere."""

from __future__ import annotations

from flask import jsonify, render_template
from flask.typing import ResponseReturnValue

from worklist_ui.api import changes, operations, studies
from worklist_ui.api.openapi import document

PARTS = (studies, changes)  # imported, so that their operations stand in the table
pages = operations.pages


@pages.get("/openapi.json")
def openapi() -> ResponseReturnValue:
    """Give the document that describes this API."""
    return jsonify(document())


@pages.get("/")
def reference() -> ResponseReturnValue:
    """Show the document to people."""
    return render_template("api.html", document=document())

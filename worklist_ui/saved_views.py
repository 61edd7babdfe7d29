"""Keeping a view of the list under a name, forgetting it, and choosing columns."""

from __future__ import annotations

from urllib.parse import parse_qsl

from flask import Blueprint, abort, flash, redirect, request, url_for
from flask.typing import ResponseReturnValue

from triage.ledger.saved_views import MOST_VIEWS, SavedView
from worklist_ui.access import reader
from worklist_ui.columns import chosen
from worklist_ui.list_page import ListQuery, query_from
from worklist_ui.services import services
from worklist_ui.wording import clean

pages = Blueprint("saved_views", __name__, url_prefix="/views")

LONGEST_NAME = 30
LONGEST_QUERY = 500


@pages.post("")
def keep() -> ResponseReturnValue:
    """Keep the view that the page shows."""
    name = clean(request.form.get("name", ""), LONGEST_NAME)
    if not name:
        abort(400, "A view needs a name.")
    address = _shown().address()  # only what a query can say is kept
    if not services().saved_views.keep(reader(), SavedView(name, address)):
        abort(409, f"You have {MOST_VIEWS} views; forget one first.")
    flash(f"The view {name} is kept.", "done")
    return redirect(url_for("reading_list.show") + address, 303)


@pages.post("/forget")
def forget() -> ResponseReturnValue:
    """Forget a view."""
    name = request.form.get("name", "")
    known = services().saved_views.forget(reader(), name)
    flash(f"The view {clean(name, LONGEST_NAME)} is forgotten." if known else "There is no such view.", "done")
    return redirect(url_for("reading_list.show"), 303)


@pages.post("/columns")
def choose_columns() -> ResponseReturnValue:
    """Show the view with other columns: in this view alone, or in all of the reader's from now on."""
    columns = chosen(request.form.getlist("column"))
    if request.form.get("scope") == "view":
        return redirect(url_for("reading_list.show") + _shown().address(columns=",".join(columns)), 303)
    services().saved_views.choose_columns(reader(), columns)
    flash("Your columns are kept." if columns else "Your list has the usual columns again.", "done")
    return redirect(url_for("reading_list.show") + _shown().address(columns=None), 303)


def _shown() -> ListQuery:
    """Give the view that the form was on."""
    asked = dict(parse_qsl(request.form.get("query", "")[:LONGEST_QUERY].lstrip("?")))
    return query_from(asked, reader())

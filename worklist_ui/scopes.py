"""What a token may be used for, and the scope that each route for programs asks for.

A token never does more than the account that it belongs to: the role's permission is asked for as well. A route that
is not in `SCOPES` takes no token at all: pages are for people.
"""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """What a token is for."""

    STUDIES_READ = "studies:read"  # the list, a study, its changes
    STUDIES_WRITE = "studies:write"  # claim, release, read, feedback
    IMAGES_READ = "images:read"  # DICOMweb
    IMAGES_WRITE = "images:write"  # STOW-RS


ANY_SCOPE: frozenset[Scope] = frozenset(Scope)
_READ, _WRITE = frozenset({Scope.STUDIES_READ}), frozenset({Scope.STUDIES_WRITE})
_IMAGES = frozenset({Scope.IMAGES_READ})

# endpoint: any of these scopes opens it
SCOPES: dict[str, frozenset[Scope]] = {
    "dicomweb_search.studies": _IMAGES,
    "dicomweb_search.series": _IMAGES,
    "dicomweb_search.instances": _IMAGES,
    "dicomweb_retrieve.instances": _IMAGES,
    "dicomweb_retrieve.metadata": _IMAGES,
    "dicomweb_retrieve.bulkdata": _IMAGES,
    "dicomweb_retrieve.frames": _IMAGES,
    "dicomweb_retrieve.rendered": _IMAGES,
    "dicomweb_retrieve.rendered_frame": _IMAGES,
    "dicomweb_retrieve.thumbnail": _IMAGES,
    "dicomweb_store.instances": frozenset({Scope.IMAGES_WRITE}),
    "api.openapi": ANY_SCOPE,
    "api.reference": ANY_SCOPE,
    "api.list_studies": _READ,
    "api.show_study": _READ,
    "api.events": _READ,
    "api.claim": _WRITE,
    "api.release": _WRITE,
    "api.mark_read": _WRITE,
    "api.undo_read": _WRITE,
    "api.give_feedback": _WRITE,
}

"""Who may do what: roles, their permissions, and the permission that each route asks for.

A route that is not in `ROUTES` is refused to everybody, so a new page is closed until somebody opens it here.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class Role(StrEnum):
    """What a person, or a program, is here for."""

    RADIOLOGIST = "radiologist"
    SUPERVISOR = "supervisor"  # a radiologist who may also hand out studies
    TECHNOLOGIST = "technologist"
    ADMINISTRATOR = "administrator"  # of the PACS
    DATA_SCIENTIST = "data_scientist"
    AUDITOR = "auditor"
    SERVICE = "service"  # a program, by token


class Permission(Enum):
    """What a route asks of who calls it."""

    ANYBODY = "anybody"  # also without being signed in
    SIGNED_IN = "signed in"
    SEE = "see studies and patients"
    READ = "claim, read, agree or disagree"
    REASSIGN = "give a study to another reader"
    RERUN = "send a study to the model again"
    MANAGE_USERS = "manage users"
    AUDIT = "see the audit trail"
    LEARN = "see how far readers agree with the model"
    OPERATE = "see how images come in"
    BRING = "bring images"


_READER = frozenset({Permission.SEE, Permission.READ})

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.RADIOLOGIST: _READER,
    Role.SUPERVISOR: _READER | {Permission.REASSIGN, Permission.RERUN, Permission.LEARN},
    Role.TECHNOLOGIST: frozenset({Permission.SEE, Permission.RERUN, Permission.OPERATE, Permission.BRING}),
    Role.ADMINISTRATOR: frozenset(
        {
            Permission.SEE,
            Permission.REASSIGN,
            Permission.RERUN,
            Permission.MANAGE_USERS,
            Permission.AUDIT,
            Permission.OPERATE,
            Permission.BRING,
            Permission.LEARN,
        }
    ),
    Role.DATA_SCIENTIST: frozenset({Permission.LEARN}),
    Role.AUDITOR: frozenset({Permission.AUDIT}),
    Role.SERVICE: frozenset({Permission.SEE, Permission.BRING}),
}

ROUTES: dict[str, Permission] = {
    "static": Permission.ANYBODY,
    "health.health": Permission.ANYBODY,
    "sign_in.form": Permission.ANYBODY,
    "sign_in.enter": Permission.ANYBODY,
    "sign_in.link_form": Permission.ANYBODY,
    "sign_in.use_link": Permission.ANYBODY,
    "oidc.start": Permission.ANYBODY,
    "oidc.callback": Permission.ANYBODY,
    "sign_in.leave": Permission.SIGNED_IN,
    "sign_in.home": Permission.SIGNED_IN,
    "sign_in.nothing": Permission.SIGNED_IN,
    "audit.show": Permission.AUDIT,
    "intake.show": Permission.OPERATE,
    "opinions.show": Permission.LEARN,
    "accounts.show": Permission.MANAGE_USERS,
    "accounts.invite": Permission.MANAGE_USERS,
    "accounts.reset": Permission.MANAGE_USERS,
    "accounts.change_role": Permission.MANAGE_USERS,
    "accounts.disable": Permission.MANAGE_USERS,
    "accounts.enable": Permission.MANAGE_USERS,
    "saved_views.keep": Permission.SEE,
    "saved_views.forget": Permission.SEE,
    "saved_views.choose_columns": Permission.SEE,
    "reading_list.show": Permission.SEE,
    "reading_list.rows": Permission.SEE,
    "reading_list.stream": Permission.SEE,
    "reading_list.flags": Permission.SEE,
    "reading_list.next_study": Permission.SEE,
    "study.show": Permission.SEE,
    "study.slice_image": Permission.SEE,
    "steps.claim": Permission.READ,
    "steps.release": Permission.READ,
    "steps.mark_read": Permission.READ,
    "steps.undo_read": Permission.READ,
    "steps.agree": Permission.READ,
    "steps.disagree": Permission.READ,
    "steps.withdraw": Permission.READ,
    "steps.reassign": Permission.REASSIGN,
    "steps.queue_again": Permission.RERUN,
    # Other people's programs; scopes.py has what a token must be made for.
    "dicomweb_search.studies": Permission.SEE,
    "dicomweb_search.series": Permission.SEE,
    "dicomweb_search.instances": Permission.SEE,
    "dicomweb_store.instances": Permission.BRING,
    "dicomweb_retrieve.instances": Permission.SEE,
    "dicomweb_retrieve.metadata": Permission.SEE,
    "dicomweb_retrieve.bulkdata": Permission.SEE,
    "dicomweb_retrieve.frames": Permission.SEE,
    "dicomweb_retrieve.rendered": Permission.SEE,
    "dicomweb_retrieve.rendered_frame": Permission.SEE,
    "dicomweb_retrieve.thumbnail": Permission.SEE,
    "api.openapi": Permission.SIGNED_IN,
    "api.reference": Permission.SIGNED_IN,
    "api.list_studies": Permission.SEE,
    "api.show_study": Permission.SEE,
    "api.events": Permission.SEE,
    "api.claim": Permission.READ,
    "api.release": Permission.READ,
    "api.mark_read": Permission.READ,
    "api.undo_read": Permission.READ,
    "api.give_feedback": Permission.READ,
}


def may(role: Role, permission: Permission) -> bool:
    """Say whether a signed-in role has a permission."""
    return permission in (Permission.ANYBODY, Permission.SIGNED_IN) or permission in PERMISSIONS[role]

"""What a token of the API may be used for, beside the rights of its user: to read, to edit, to send.

A token is whatever has `scopes`; who makes them and keeps them is not known here.
"""

READ, EDIT, SEND = "read", "edit", "send"

# Acts by the permission for them. Every other act is an edit.
ACTS = {
    "campaigns.send_workflow": SEND,
    "delivery.hold_engine": SEND,
    "delivery.change_delivery": SEND,
    "delivery.change_composition": SEND,
}


def scope_of(permission: str) -> str:
    """The scope for an act that needs this permission."""
    return ACTS.get(permission, EDIT)


def lacks_scope(token: object, scope: str) -> bool:
    """Whether something is done with a token that is not for it. A browser's session has no scopes, and may do what
    its user may."""
    scopes = getattr(token, "scopes", None)
    return scopes is not None and scope not in scopes


def without_scope(*scopes: str) -> str:
    """The refusal."""
    return f"This token is not for this: it lacks the scope {' or '.join(dict.fromkeys(scopes))}."

"""Whether a workflow that goes by the clocks of its recipients can know them."""

from campaigns.audiences.exceptions import AudienceError
from campaigns.audiences.stored import open_source
from campaigns.exceptions import BadStep
from campaigns.models import AudienceKind, Workflow
from campaigns.sequence import parse_delay
from delivery.core.window import ZONE_FIELD

# Whose fields are known here: no network, and no database of the operator's, is asked while a page is saved.
KNOWN = (AudienceKind.LIST, AudienceKind.CSV)


def zone_warning(workflow: Workflow) -> str:
    """What to tell an operator whose recipients have no time zone though one is asked for; "" when nothing is amiss, or
    nothing is known."""
    if workflow.audience.kind not in KNOWN or not _goes_by_their_clocks(workflow):
        return ""
    field = workflow.window_zone_field or ZONE_FIELD
    try:
        fields = open_source(workflow.audience).fields()
    except AudienceError:
        return ""
    if field in fields:
        return ""
    return (
        f"This workflow goes by the recipients' own clocks, and the audience {workflow.audience} has no field "
        f"“{field}” with their time zones: all of them go by the workflow's. It has: {', '.join(fields)}."
    )


def _goes_by_their_clocks(workflow: Workflow) -> bool:
    return workflow.window_per_recipient or any(map(_is_theirs, workflow.steps.values_list("delay", flat=True)))


def _is_theirs(delay: str) -> bool:
    try:
        return parse_delay(delay).theirs
    except BadStep:
        return False

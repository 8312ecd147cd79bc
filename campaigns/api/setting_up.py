"""What all that is set up has in common over REST: delivery's, of which campaigns use the same."""

from delivery.api.setting_up import (
    IdOrSlugField,
    SettingUpViewSet,
    StrictSerializer,
    by_field,
    delete,
    named,
    page_of,
    writing,
)

__all__ = [
    "IdOrSlugField",
    "SettingUpViewSet",
    "StrictSerializer",
    "by_field",
    "delete",
    "named",
    "page_of",
    "writing",
]

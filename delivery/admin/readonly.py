"""What may be looked at in the admin and not touched."""

from django.http import HttpRequest


class ReadOnly:
    """Mixed into a ModelAdmin or an inline: rows are shown to those who may view them, and that is all."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

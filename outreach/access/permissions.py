"""Who may use a view that says nothing of permissions itself."""

from typing import TYPE_CHECKING

from rest_framework.permissions import DjangoModelPermissions
from rest_framework.request import Request

from delivery.scopes import EDIT, READ, lacks_scope, without_scope

if TYPE_CHECKING:  # it loads the permission classes of the settings
    from rest_framework.views import APIView

READS = ("GET", "HEAD", "OPTIONS")


class ByModel(DjangoModelPermissions):
    """Who has the permissions of the view's model, also for reading it, and no token without the scope."""

    perms_map = DjangoModelPermissions.perms_map | {method: ["%(app_label)s.view_%(model_name)s"] for method in READS}

    def has_permission(self, request: Request, view: "APIView") -> bool:
        scope = READ if request.method in READS else EDIT
        if request.user.is_authenticated and lacks_scope(request.auth, scope):
            self.message = without_scope(scope)
            return False
        return super().has_permission(request, view)

"""Keys, tenants, projects and users to messages of the contract, and their changes back."""

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.ledger.v1 import identity_pb2, project_pb2, tenant_pb2, user_pb2
from services.ledger.api.mapping import timestamp_of
from services.ledger.domain.checks import invalid_field
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.members import Changes, Project, Tenant, User
from services.ledger.domain.plans import Plan
from services.ledger.domain.roles import Role

_ROLES = {
    Role.ADMIN: user_pb2.ROLE_ADMIN,
    Role.OPERATOR: user_pb2.ROLE_OPERATOR,
    Role.MEMBER: user_pb2.ROLE_MEMBER,
    Role.AUDITOR: user_pb2.ROLE_AUDITOR,
}
_OF_MESSAGE = {message: role for role, message in _ROLES.items()}


def bare_id(name: str) -> str:
    """The id within `projects/{id}` and its like; the empty string for itself."""
    return name.rpartition("/")[2]


def role_of(message: "user_pb2.Role.ValueType", path: str) -> Role:
    """The role. Raises InvalidArgument where none is said."""
    role = _OF_MESSAGE.get(message)
    if role is None:
        raise invalid_field(path, "must be one of the roles")
    return role


def role_message(role: Role | None) -> "user_pb2.Role.ValueType":
    """The role as callers see it."""
    return user_pb2.ROLE_UNSPECIFIED if role is None else _ROLES[role]


def key_message(key: ApiKey) -> identity_pb2.ApiKey:
    """A key as callers see it."""
    message = identity_pb2.ApiKey(
        name=key.name,
        display_name=key.display_name,
        scopes=sorted(key.scopes),
        create_time=timestamp_of(key.create_time),
        project=f"projects/{key.project}" if key.project else "",
        user=f"users/{key.user}" if key.user else "",
    )
    for name, time in (
        ("expire_time", key.expire_time),
        ("revoke_time", key.revoke_time),
        ("rotate_time", key.rotate_time),
        ("previous_secret_expire_time", key.previous_expire_time),
    ):
        if time is not None:
            getattr(message, name).CopyFrom(timestamp_of(time))
    return message


def tenant_message(tenant: Tenant) -> tenant_pb2.Tenant:
    """A tenant as callers see it."""
    return tenant_pb2.Tenant(
        name=f"tenants/{tenant.tenant_id}",
        display_name=tenant.display_name,
        domain=tenant.domain,
        active=tenant.active,
        plan=f"plans/{tenant.plan}",
        create_time=timestamp_of(tenant.create_time),
        update_time=timestamp_of(tenant.update_time),
    )


def project_message(project: Project) -> project_pb2.Project:
    """A project as callers see it."""
    return project_pb2.Project(
        name=f"projects/{project.project_id}",
        display_name=project.display_name,
        active=project.active,
        create_time=timestamp_of(project.create_time),
        update_time=timestamp_of(project.update_time),
    )


def user_message(user: User) -> user_pb2.User:
    """A user as callers see it."""
    return user_pb2.User(
        name=f"users/{user.user_id}",
        email=user.email,
        display_name=user.display_name,
        role=_ROLES[user.role],
        active=user.active,
        create_time=timestamp_of(user.create_time),
        update_time=timestamp_of(user.update_time),
    )


def plan_message(plan: Plan) -> tenant_pb2.Plan:
    """A plan as callers see it."""
    return tenant_pb2.Plan(
        name=plan.name,
        uploads_per_hour=plan.uploads_per_hour,
        calls_per_hour=plan.calls_per_hour,
        max_upload_bytes=plan.max_upload_bytes,
        max_concurrent_jobs=plan.max_concurrent_jobs,
    )


def changes_of(message: tenant_pb2.Tenant | project_pb2.Project | user_pb2.User, mask: FieldMask) -> Changes:
    """What the mask names, out of the message. Raises InvalidArgument for a mask that names nothing."""
    paths: Collection[str] = mask.paths
    if not paths:
        raise invalid_field("update_mask", "must name what is to change")
    return Changes(
        display_name=message.display_name if "display_name" in paths else None,
        domain=message.domain if "domain" in paths and isinstance(message, tenant_pb2.Tenant) else None,
        active=message.active if "active" in paths else None,
        role=role_of(message.role, "user.role") if "role" in paths and isinstance(message, user_pb2.User) else None,
    )

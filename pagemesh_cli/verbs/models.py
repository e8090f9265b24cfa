"""`pagemesh models`: which models a tenant lets answer."""

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.summarizer.v1 import model_policy_pb2
from pagemesh.summarizer.v1 import model_policy_service_pb2 as pb
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.listing import time_cell
from pagemesh_cli.verbs.options import Access, Json, connected, connecting

_OURS = "(that of the deployment)"

models = typer.Typer(no_args_is_help=True, help="See and choose which models may see the tenant's documents.")


@models.command("show")
@connecting
def show(*, as_json: Json = False, access: Access) -> None:
    """Print the tenant's default model, its order of fallback models, and the models that it allows."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        answer = client.unary(client.model_policy.GetModelPolicy, pb.GetModelPolicyRequest())
        _print(output, answer.model_policy, as_json=as_json)


@models.command("set")
@connecting
def set_policy(
    *,
    default: Annotated[
        str | None, typer.Option(metavar="MODEL", help="For requests that name none; '' for the deployment's.")
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="May answer where the one that was asked for cannot; again for the next."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL|PROVIDER/*", help="May see the documents, and no other; again for more."),
    ] = None,
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="Take the own order away.")] = False,
    allow_all: Annotated[bool, typer.Option("--allow-all", help="Let every model see the documents.")] = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Change what is named, and nothing else. It holds everywhere within a minute."""
    output = Output(as_json=as_json)
    named = {
        "default_model": default is not None,
        "fallback_models": bool(fallback) or no_fallback,
        "allowed_models": bool(allow) or allow_all,
    }
    with connected(output, access) as client:
        if (fallback and no_fallback) or (allow and allow_all):
            raise Failure("An option and its opposite were given.", ExitCode.USAGE, "BAD_OPTIONS")
        if not any(named.values()):
            raise Failure("Nothing is to change.", ExitCode.USAGE, "BAD_OPTIONS", advice="See --help.")
        request = pb.UpdateModelPolicyRequest(
            model_policy=model_policy_pb2.ModelPolicy(
                default_model=default or "", fallback_models=fallback, allowed_models=allow
            ),
            update_mask=FieldMask(paths=[path for path, is_named in named.items() if is_named]),
        )
        answer = client.unary(client.model_policy.UpdateModelPolicy, request)
        _print(output, answer.model_policy, as_json=as_json)


def _print(output: Output, policy: model_policy_pb2.ModelPolicy, *, as_json: bool) -> None:
    if as_json:
        output.result(message_json(policy))
        return
    output.write(f"default   {policy.default_model or _OURS}\n")
    output.write(f"fallback  {', '.join(policy.fallback_models) or _OURS}\n")
    output.write(f"allowed   {', '.join(policy.allowed_models) or '(all)'}\n")
    if policy.HasField("update_time"):
        output.note(f"changed {time_cell(policy.update_time)}", "dim")

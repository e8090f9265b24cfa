"""`pagemesh session`, `pagemesh idp` and `pagemesh keys demand-signatures`: credentials beside API keys."""

from pathlib import Path
from typing import Annotated

import typer

from pagemesh.ledger.v1 import credential_service_pb2, identity_provider_pb2
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.new_file import NewFile
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.request_signing import new_key, public_key_of
from pagemesh_cli.verbs.options import Access, Force, Json, connected, connecting

session = typer.Typer(no_args_is_help=True, help="Work with a token of half an hour in the place of a key.")
providers = typer.Typer(no_args_is_help=True, help="Have users log in with OpenID Connect issuers.")
_PAGE = 100


@session.command("create")
@connecting
def create_session(
    *,
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do; repeat for more. All that the key may by default.")
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the token there, closed to others, not on stdout.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Exchange the key for a token. Use it as PAGEMESH_API_KEY until it expires."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = credential_service_pb2.ExchangeTokenRequest(scopes=scope or ())
        file = None if output_file is None else NewFile(output_file, force=force)
        try:
            made = client.unary(client.credentials.ExchangeToken, request)
        except Failure:
            if file is not None:
                file.abandon()
            raise
        if file is not None:
            _keep(file, f"{made.access_token}\n".encode())
            made.access_token = ""
        if as_json:
            output.result(message_json(made))
            return
        if file is None:
            output.write(f"{made.access_token}\n")
        output.note(f"{made.session.name}: {', '.join(made.session.scopes)}; for {made.expires_in // 60} minutes")


@session.command("revoke")
@connecting
def revoke_session(
    name: Annotated[str, typer.Argument(metavar="SESSION", help="`sessions/{id}`.")],
    *,
    as_json: Json = False,
    access: Access,
) -> None:
    """End a session, at once and for good."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        answer = client.unary(client.credentials.RevokeSession, credential_service_pb2.RevokeSessionRequest(name=name))
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{name} revoked\n")


@providers.command("add")
@connecting
def add_provider(
    issuer: Annotated[str, typer.Argument(help="Its URL, exactly as its tokens say it in `iss`.")],
    audience: Annotated[str, typer.Argument(help="What its tokens have in `aud`: the client id there.")],
    *,
    display_name: Annotated[str, typer.Option("--name", help="What people will call it; the URL by default.")] = "",
    as_json: Json = False,
    access: Access,
) -> None:
    """Believe an issuer: the tenant's users log in with its tokens."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = credential_service_pb2.CreateIdentityProviderRequest(
            display_name=display_name or issuer[:100], issuer=issuer, audience=audience
        )
        made = client.unary(client.credentials.CreateIdentityProvider, request)
        if as_json:
            output.result(message_json(made))
        else:
            output.write(_line(made.identity_provider))


@providers.command("list")
@connecting
def list_providers(*, as_json: Json = False, access: Access) -> None:
    """Print the tenant's issuers."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        # A tenant has ten at most: they are one page.
        request = credential_service_pb2.ListIdentityProvidersRequest(page_size=_PAGE)
        answer = client.unary(client.credentials.ListIdentityProviders, request)
        if as_json:
            output.result(message_json(answer))
            return
        for provider in answer.identity_providers:
            output.write(_line(provider))


@providers.command("remove")
@connecting
def remove_provider(
    name: Annotated[str, typer.Argument(metavar="PROVIDER", help="`identityProviders/{id}`.")],
    *,
    as_json: Json = False,
    access: Access,
) -> None:
    """Believe an issuer no longer: its tokens are refused at once."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = credential_service_pb2.DeleteIdentityProviderRequest(name=name)
        answer = client.unary(client.credentials.DeleteIdentityProvider, request)
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{name} removed\n")


@connecting
def demand_signatures(
    name: Annotated[str, typer.Argument(metavar="KEY", help="`apiKeys/{id}`.")],
    key_file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Its private key, as PEM; made where it is not there.")
    ] = None,
    *,
    off: Annotated[bool, typer.Option("--off", help="Demand them no longer.")] = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Have a key demand signed requests (RFC 9421): whoever has the key alone can do nothing with it."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        if (key_file is None) is not off:
            raise Failure("Name the file of the private key, or --off.", ExitCode.USAGE, "BAD_SIGNING_KEY")
        public_key = b"" if key_file is None else _ensured(key_file)
        request = credential_service_pb2.SetSigningKeyRequest(name=name, public_key=public_key)
        answer = client.unary(client.credentials.SetSigningKey, request)
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{name} demands {'no signatures' if off else f'signatures by {key_file}'}\n")


def _ensured(path: Path) -> bytes:
    """The public key of the private one in the file, which is made where it is not there."""
    if path.exists():
        return public_key_of(path)
    pem, public_key = new_key()
    _keep(NewFile(path, force=False), pem)
    return public_key


def _keep(file: NewFile, secret: bytes) -> None:
    """Writes a secret that nobody else may read, not even for a moment."""
    try:
        file.close_to_others()
        file.write(secret)
        file.commit()
    except Failure:
        file.abandon()
        raise


def _line(provider: identity_provider_pb2.IdentityProvider) -> str:
    return f"{provider.name}  {provider.issuer}  {provider.audience}  {provider.display_name}\n"

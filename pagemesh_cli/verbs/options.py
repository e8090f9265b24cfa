"""Options that many verbs share, and how each verb connects and fails.

Help is rich markup: a bracket that is to be seen needs a backslash.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pagemesh_cli.client import Client
from pagemesh_cli.connection import resolve
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output
from pagemesh_cli.stack.errors import MissingPart, StackError

_PANEL = "Connection"

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, one object a line, and nothing else.")]
DataDirectory = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The stack's directory. \\[env: PAGEMESH_HOME; default: ~/.pagemesh]"),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="The edge, as https://host:port. \\[env: PAGEMESH_URL; default: the data directory's stack]",
        rich_help_panel=_PANEL,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        help="API key. Other users can see options: prefer the variable. \\[env: PAGEMESH_API_KEY]",
        rich_help_panel=_PANEL,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(help="CA to trust, as PEM. \\[env: PAGEMESH_CA_FILE]", rich_help_panel=_PANEL),
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        "--signing-key",
        help="Private key to sign calls with, for keys that demand it. \\[env: PAGEMESH_SIGNING_KEY_FILE]",
        rich_help_panel=_PANEL,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(min=0.1, max=3600, help="Seconds that the work may take.", rich_help_panel=_PANEL),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; only what fails is told.")]
PasswordFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|-", help="Where the password of an encrypted document is; asked for on a terminal otherwise."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]


@dataclass(frozen=True)
class Access:
    """Which edge, and how to log in there, as the command line says it."""

    url: Url = None
    key: Key = None
    ca_file: CaFile = None
    data_dir: DataDirectory = None
    signing_key: SigningKey = None


def connecting(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with an option for each field of Access in the place of its keyword parameter `access`."""
    signature = inspect.signature(verb, eval_str=True)
    options = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in inspect.signature(Access).parameters.values()
    ]
    own = [parameter for name, parameter in signature.parameters.items() if name != "access"]

    @functools.wraps(verb)
    def run(*arguments: Any, **values: Any) -> None:
        access = Access(**{option.name: values.pop(option.name) for option in options})
        verb(*arguments, access=access, **values)

    # What typer reads.
    run.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *options)}
    return run


@contextmanager
def failing(output: Output) -> Iterator[None]:
    """Turns what can go wrong into its message and exit code."""
    try:
        yield
    except Failure as failure:
        output.failure(failure)
        raise typer.Exit(failure.exit_code) from failure
    except MissingPart as error:
        output.failure(Failure(str(error), ExitCode.FAILED, "NOT_INSTALLED"))
        raise typer.Exit(ExitCode.FAILED) from error
    except StackError as error:
        output.failure(Failure(str(error), ExitCode.FAILED, "STACK"))
        raise typer.Exit(ExitCode.FAILED) from error
    except KeyboardInterrupt as error:
        output.note("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from error


@contextmanager
def connected(output: Output, access: Access) -> Iterator[Client]:
    """A client for the block, and its failures told."""
    with failing(output):
        connection = resolve(
            url=access.url,
            key=access.key,
            ca_file=access.ca_file,
            data_dir=access.data_dir,
            signing_key=access.signing_key,
        )
        with Client(connection) as client:
            yield client

"""Options that many verbs share, and how each verb connects and fails.

Help is rich markup: a bracket that is to be seen needs a backslash.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

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
Timeout = Annotated[
    float,
    typer.Option(min=0.1, max=3600, help="Seconds that the work may take.", rich_help_panel=_PANEL),
]


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
def connected(
    output: Output, *, url: str | None, key: str | None, ca_file: Path | None, data_dir: Path | None
) -> Iterator[Client]:
    """A client for the block, and its failures told."""
    with failing(output), Client(resolve(url=url, key=key, ca_file=ca_file, data_dir=data_dir)) as client:
        yield client

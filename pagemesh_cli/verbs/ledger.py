"""`pagemesh ledger`: the ledger's own commands, on the database of the stack on this machine."""

import os
from typing import Annotated

import typer

from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output
from pagemesh_cli.stack.layout import DataDir, default_root
from pagemesh_cli.stack.state import load_state
from pagemesh_cli.verbs.options import DataDirectory, failing

# Those of `python -m services.ledger` that mean the same here; whatever else it ends with is a failure.
_SHARED_EXIT_CODES = (ExitCode.OK, ExitCode.FAILED, ExitCode.USAGE)


def ledger(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND…", help="Such as `-- holds list`; `-- --help` shows all."),
    ],
    data_dir: DataDirectory = None,
) -> None:
    """Run a command of the ledger with the stack's own settings: budgets, and holds that nobody answers for."""
    with failing(Output()):
        data = DataDir((data_dir or default_root()).absolute())
        state = load_state(data)
        if state is None or not state.supervisor.alive():
            raise Failure(f"No stack is running on {data.root}.", ExitCode.UNREACHABLE, "NO_STACK")
        # Imported here: the servers come with pagemesh[stack], and the client verbs do without.
        from pagemesh_cli.stack.certificates import CertificateAuthority  # noqa: PLC0415 - see above
        from pagemesh_cli.stack.checkout import find_checkout  # noqa: PLC0415 - see above
        from pagemesh_cli.stack.credentials import load_credentials  # noqa: PLC0415 - see above
        from pagemesh_cli.stack.services import ServiceRunner  # noqa: PLC0415 - see above

        authority = CertificateAuthority(data.folder("pki"))
        runner = ServiceRunner(find_checkout(), data, authority, load_credentials(data), state.ports, dict(os.environ))
        code = runner.run("ledger", arguments)
        raise typer.Exit(code if code in _SHARED_EXIT_CODES else ExitCode.FAILED)

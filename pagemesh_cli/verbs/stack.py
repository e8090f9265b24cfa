"""`pagemesh up`, `down` and `status`: the stack on this machine."""

import datetime as dt
import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pagemesh_cli.connection import no_stack
from pagemesh_cli.failures import ExitCode
from pagemesh_cli.journal import Journal
from pagemesh_cli.output import Output
from pagemesh_cli.stack.layout import DataDir, default_root
from pagemesh_cli.stack.state import PartState, Phase, StackState, load_state
from pagemesh_cli.verbs.options import DataDirectory, Json, failing

_DOWN_TIMEOUT_S = 90.0


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once the stack is up; it runs on.")] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the edge; 0 takes any free one. All others move out of the way. \\[default: 8443]",
        ),
    ] = None,
    rate_limits: Annotated[
        bool, typer.Option("--rate-limits/--no-rate-limits", help="Without limits only for load tests.")
    ] = True,
    show_key: Annotated[
        bool, typer.Option("--show-key/--hide-key", help="Whether the first admin key is printed when it is made.")
    ] = True,
    as_log: Annotated[bool, typer.Option("--as-log", hidden=True)] = False,
    data_dir: DataDirectory = None,
) -> None:
    """Start the whole stack on this machine: Envoy, PostgreSQL, Valkey and the three services."""
    output = Journal() if as_log else Output()
    root = (data_dir or default_root()).absolute()
    with failing(output):
        # Imported here: the servers come with pagemesh[stack], and the client verbs do without.
        from pagemesh_cli.stack.preflight import require_packages  # noqa: PLC0415 - see `up`

        require_packages()
        from pagemesh_cli.stack.launch import UpOptions, run_stack  # noqa: PLC0415 - see `up`
        from pagemesh_cli.stack.settings import unknown_settings  # noqa: PLC0415 - see `up`

        for fault in unknown_settings(os.environ):
            output.warn(fault)
        begun = time.monotonic()
        if detach:
            _up_detached(output, root, port, rate_limits=rate_limits, show_key=show_key)
            return
        options = UpOptions(root=root, edge_port=port, rate_limits=rate_limits)

        def ready(state: StackState, secret: str | None) -> None:
            _announce(output, root, state, secret if show_key else None, begun)

        if not run_stack(options, output.note, ready):
            raise typer.Exit(ExitCode.INTERRUPTED)


def _announce(output: Output, root: Path, state: StackState, secret: str | None, begun: float) -> None:
    output.note(f"the stack is up after {time.monotonic() - begun:.1f} s", "green")
    if isinstance(output, Journal):
        return  # its reader knows where to look
    _print_access(output, root, state, secret)
    if secret is not None:
        output.note("this key is shown once; the client verbs on this machine find it in the data directory")


def _print_access(output: Output, root: Path, state: StackState, secret: str | None) -> None:
    """Lines for a shell: what other clients need to call this stack."""
    data = DataDir(root)
    output.write(f"export URL={state.url}\nexport CA={shlex.quote(str(data.ca_file))}\n")
    if secret is not None:
        output.write(f"export KEY={secret}\n")
    elif data.admin_file.exists():
        # The key itself stays off the screen: it was printed once, and this may be somebody else's terminal.
        read = f"""sed -n 's/.*"secret": "\\(.*\\)".*/\\1/p' {shlex.quote(str(data.admin_file))}"""
        output.write(f'export KEY="$({read})"\n')


def _up_detached(output: Output, root: Path, port: int | None, *, rate_limits: bool, show_key: bool) -> None:
    from pagemesh_cli.stack.background import start_in_background  # noqa: PLC0415 - see `up`
    from pagemesh_cli.stack.credentials import load_admin_key  # noqa: PLC0415 - see `up`

    data = DataDir(root)
    running = load_state(data) if root.exists() else None
    if running is not None and running.phase is Phase.RUNNING and data.is_locked():
        output.note(f"a stack is already running (pid {running.supervisor.pid})")
        _print_access(output, root, running, None)
        return
    begun, show_key = time.monotonic(), show_key and load_admin_key(data) is None
    state = start_in_background(root, port, rate_limits=rate_limits, report=output.note)
    key = load_admin_key(data)
    _announce(output, root, state, key.secret if show_key and key is not None else None, begun)


def down(data_dir: DataDirectory = None) -> None:
    """Stop the stack of the data directory, in good order."""
    output = Output()
    with failing(output):
        data = DataDir((data_dir or default_root()).absolute())
        state = load_state(data)
        if state is None:
            output.note("no stack is running")
            return
        stop_stack(data, state, output.note)


def stop_stack(data: DataDir, state: StackState, report: Callable[[str], None]) -> None:
    """Stops the stack and waits until nothing of it runs. Raises Failure where that cannot be reached."""
    from pagemesh_cli.stack.preflight import clear_leftovers  # noqa: PLC0415 - see `up`

    if state.supervisor.alive():
        state.supervisor.terminate()
        if not state.supervisor.wait_gone(_DOWN_TIMEOUT_S):
            report(f"it did not stop within {_DOWN_TIMEOUT_S:g} s: killing it")
            state.supervisor.kill()
            state.supervisor.wait_gone(_DOWN_TIMEOUT_S)
    with data.locked():
        clear_leftovers(data, report)
    report("the stack is down")


def status(as_json: Json = False, data_dir: DataDirectory = None) -> None:
    """Show every process of the stack; exit code 0 only where all of them are well."""
    output = Output(as_json=as_json)
    with failing(output):
        data = DataDir((data_dir or default_root()).absolute())
        state = load_state(data)
        if state is None:
            raise no_stack(data)
        rows = inspect(data, state)
        supervised = state.supervisor.alive()
        healthy = supervised and state.phase is Phase.RUNNING and all(row["healthy"] for row in rows)
        if as_json:
            output.result(
                {
                    "healthy": healthy,
                    "phase": state.phase if supervised else "dead",
                    "url": state.url,
                    "supervisorPid": state.supervisor.pid,
                    "parts": rows,
                }
            )
        else:
            _print_status(output, state, rows, supervised=supervised)
        if not healthy:
            raise typer.Exit(ExitCode.FAILED)


def inspect(data: DataDir, state: StackState) -> list[dict[str, object]]:
    """Each part, asked just now whether it is well."""
    from pagemesh_cli.stack.credentials import load_credentials  # noqa: PLC0415 - see `up`
    from pagemesh_cli.stack.health import Check, checks, missing_comforts  # noqa: PLC0415 - see `up`

    ask: dict[str, Check] = {}
    if data.secrets_file.exists():
        admin_socket = Path(state.admin_socket) if state.admin_socket else None
        ask = checks(state.ports, load_credentials(data), ca_file=data.ca_file, admin_socket=admin_socket)
    now = dt.datetime.now(dt.UTC)
    rows: list[dict[str, object]] = []
    for part in state.parts:
        problem = _problem(part, ask.get(part.name))
        uptime = (now - dt.datetime.fromisoformat(part.started_at)).total_seconds() if part.started_at else 0.0
        rows.append(
            {
                "name": part.name,
                "pid": part.process.pid if part.process else None,
                "port": part.port,
                "httpPort": state.ports.get(f"{part.name}_http"),
                "uptimeSeconds": round(max(uptime, 0.0)),
                "healthy": problem is None,
                "problem": problem,
                "optionalDown": missing_comforts(state.ports, part.name) if problem is None else [],
                "restarts": part.restarts,
                "lastExit": part.last_exit,
            }
        )
    return rows


def _problem(part: PartState, check: Callable[[int], None] | None) -> str | None:
    if part.process is None:
        return f"down: it {part.last_exit}; a restart is due"
    if not part.process.alive():
        return "its process is gone"
    if check is None:
        return "cannot be asked: the stack's secrets are missing"
    try:
        check(part.process.pid)
    except OSError as error:
        return str(error)
    return None


def _print_status(output: Output, state: StackState, rows: list[dict[str, object]], *, supervised: bool) -> None:
    table = Table("part", "pid", "port", "http", "uptime", "restarts", "health", box=None, pad_edge=False)
    for row in rows:
        uptime = str(dt.timedelta(seconds=int(str(row["uptimeSeconds"]))))
        cells = [row["name"], row["pid"], row["port"], row["httpPort"], uptime, row["restarts"]]
        table.add_row(*("-" if cell is None else str(cell) for cell in cells), _health(row))
    output.print(table)
    phase = state.phase.value if supervised else "dead: its supervisor is gone; `pagemesh up` starts it anew"
    output.write(f"\n{phase}, {state.url}, supervisor pid {state.supervisor.pid}\n")
    if any(row["httpPort"] for row in rows):
        output.write("http: http://127.0.0.1:PORT/readyz and /metrics of each service\n")


def _health(row: Mapping[str, Any]) -> Text:
    """What is wrong, or what could be better, and how it ended when it was last restarted."""
    if not row["healthy"]:
        health = Text(str(row["problem"]), style="red")
    elif row["optionalDown"]:
        health = Text(f"healthy, but {', '.join(row['optionalDown'])} is down", style="yellow")
    else:
        health = Text("healthy", style="green")
    if row["healthy"] and row["restarts"] and row["lastExit"]:
        health.append(f"; before, it {row['lastExit']}", style="yellow")
    return health

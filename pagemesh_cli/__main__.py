"""Starts the `pagemesh` command."""

import errno
import io
import os
import sys
from typing import Protocol, runtime_checkable

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)


@runtime_checkable
class _Refusal(Protocol):
    """What the parser of the command line raises; its class is typer's own affair, and has moved before."""

    exit_code: int

    def format_message(self) -> str: ...


def main() -> None:
    # Before gRPC is imported: its own log lines would stand between ours, which say the same in better words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _write_unicode()
    code = _run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        code = code or 1
        # The interpreter would try once more at its end, and complain.
        _drop_unwritten()
    sys.exit(code)


def _write_unicode() -> None:
    """Files and pipes get UTF-8, whatever the locale is, and a terminal what it can show. Names of files that are no
    text go out as they came in."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _run(arguments: list[str]) -> int:
    from pagemesh_cli.app import app  # noqa: PLC0415 - see `main`
    from pagemesh_cli.output import OutputLost  # noqa: PLC0415 - see `main`

    try:
        if not _wants_json(arguments):
            app(prog_name="pagemesh")  # ends by itself, with its own words about a wrong command line
            return 0
        return app(prog_name="pagemesh", standalone_mode=False) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except OutputLost as lost:
        return _tell_lost(lost.error)
    except OSError as error:
        # Help is written by others. What a file of a name refuses is no matter of stdout.
        if error.errno not in _WRITE_ERRORS or error.filename is not None:
            raise
        return _tell_lost(error)
    except Exception as error:
        if not isinstance(error, _Refusal):
            raise
        return _tell_refusal(error)


def _tell_lost(error: OSError) -> int:
    """A reader who had enough needs no words."""
    if not isinstance(error, BrokenPipeError):
        print(f"Cannot write the output: {error.strerror}.", file=sys.stderr)
    return 1


def _tell_refusal(refusal: _Refusal) -> int:
    from pagemesh_cli.failures import ExitCode, Failure  # noqa: PLC0415 - see `main`
    from pagemesh_cli.output import Output  # noqa: PLC0415 - see `main`

    advice = "`--help` shows what there is."
    Output(as_json=True).failure(Failure(refusal.format_message(), ExitCode.USAGE, "USAGE", advice=advice))
    return ExitCode.USAGE


def _wants_json(arguments: list[str]) -> bool:
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in ours


def _drop_unwritten() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    main()

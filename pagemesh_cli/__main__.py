"""Starts the `pagemesh` command."""

import os


def main() -> None:
    # Before gRPC is imported: its own log lines would stand between ours, which say the same in better words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from pagemesh_cli.app import app  # noqa: PLC0415

    app(prog_name="pagemesh")


if __name__ == "__main__":
    main()

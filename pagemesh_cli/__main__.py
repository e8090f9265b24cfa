"""Starts the `pagemesh` command."""

from pagemesh_cli.app import app


def main() -> None:
    app(prog_name="pagemesh")


if __name__ == "__main__":
    main()

"""The command in front of an edge whose answers a test chooses."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.stack.running import Command
from tests.stack.scripted_edge import Script, scripted_edge

Edge = Callable[[Script], Command]
"""Serves what the script says and answers the command that talks to it."""


@pytest.fixture
def edge(mesh_pki: CertificateAuthority, tmp_path: Path) -> Iterator[Edge]:
    with ExitStack() as stack:

        def command(script: Script) -> Command:
            url = stack.enter_context(scripted_edge(script, mesh_pki))
            return Command.on(
                tmp_path, PAGEMESH_URL=url, PAGEMESH_API_KEY="pm_x", PAGEMESH_CA_FILE=str(mesh_pki.ca_file)
            )

        yield command

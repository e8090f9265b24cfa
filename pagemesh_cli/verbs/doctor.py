"""`pagemesh doctor`: why does it not run, or why will it not tomorrow?"""

import typer
from rich.text import Text

from pagemesh_cli.failures import ExitCode
from pagemesh_cli.output import Output
from pagemesh_cli.stack.diagnosis import Finding, Grade, diagnose
from pagemesh_cli.stack.layout import DataDir, default_root
from pagemesh_cli.verbs.options import DataDirectory, Json, failing

_STYLES = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def doctor(as_json: Json = False, data_dir: DataDirectory = None) -> None:
    """Look at everything that the stack needs; exit code 1 where something keeps it from running."""
    output = Output(as_json=as_json)
    with failing(output):
        findings = diagnose(DataDir((data_dir or default_root()).absolute()))
        failed = any(finding.grade is Grade.FAIL for finding in findings)
        if as_json:
            output.result({"healthy": not failed, "findings": [finding.as_json() for finding in findings]})
        else:
            for finding in findings:
                _print(output, finding)
        if failed:
            raise typer.Exit(ExitCode.FAILED)


def _print(output: Output, finding: Finding) -> None:
    line = Text.assemble((f"{finding.grade:<4}", _STYLES[finding.grade]), f"  {finding.what}: {finding.found}")
    output.print(line, soft_wrap=True)
    if finding.advice:
        output.print(Text(f"      {finding.advice}"), soft_wrap=True)

"""The `pagemesh` command: which verbs there are."""

import importlib.metadata
from collections.abc import Callable
from typing import Annotated

import typer

from pagemesh_cli.verbs import (
    account,
    audit,
    budgets,
    credentials,
    demo,
    doctor,
    documents,
    embeddings,
    estimates,
    extract,
    fields,
    jobs,
    ledger,
    models,
    pictures,
    projects,
    questions,
    schemas,
    search,
    stack,
    summaries,
    tenants,
    upload,
    usage,
    users,
    webhooks,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Documents in, cited summaries out, and what each cost. Exit codes are in docs/cli.md.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pagemesh {importlib.metadata.version('pagemesh')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "Stack": (stack.up, stack.down, stack.status, doctor.doctor, demo.demo, ledger.ledger),
    "Documents": (
        upload.upload,
        extract.extract,
        pictures.render,
        search.search,
        summaries.summarize,
        embeddings.embed,
        estimates.estimate,
        questions.ask,
        fields.fields,
    ),
    "Account": (usage.usage, account.whoami, budgets.prices),
}
for panel, verbs in _VERBS.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)
app.add_typer(documents.documents, name="documents", rich_help_panel="Documents")
app.add_typer(schemas.schemas, name="schemas", rich_help_panel="Documents")
app.add_typer(jobs.jobs, name="jobs", rich_help_panel="Documents")
app.add_typer(models.models, name="models", rich_help_panel="Account")
app.add_typer(account.keys, name="keys", rich_help_panel="Account")
app.add_typer(projects.projects, name="projects", rich_help_panel="Account")
app.add_typer(users.users, name="users", rich_help_panel="Account")
app.add_typer(tenants.tenants, name="tenants", rich_help_panel="Stack")
app.add_typer(audit.audit, name="audit", rich_help_panel="Account")
app.add_typer(credentials.session, name="session", rich_help_panel="Account")
app.add_typer(credentials.providers, name="idp", rich_help_panel="Account")
account.keys.command("demand-signatures")(credentials.demand_signatures)
app.add_typer(budgets.budgets, name="budgets", rich_help_panel="Account")
app.add_typer(webhooks.webhooks, name="webhooks", rich_help_panel="Account")

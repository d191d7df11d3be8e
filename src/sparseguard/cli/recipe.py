"""Commands about recipes."""

from __future__ import annotations

import typer

from sparseguard.cli.console import print_json

recipe_app = typer.Typer(help="Describe recipes.", no_args_is_help=True)


@recipe_app.callback()
def _describe() -> None:
    """Describe recipes."""


@recipe_app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of recipes, from which editors complete and check them."""
    from sparseguard.pipeline.recipe.validation.document import recipe_schema

    print_json(recipe_schema())

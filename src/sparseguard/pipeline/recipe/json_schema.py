"""JSON schema of recipes as they are written: with names for tables, combined names and defaults left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

OPTIONAL = "x-optional"
"""Marks a property that validation requires and a recipe may leave out."""


@dataclass(frozen=True)
class ShortForm:
    """Annotation of a table that a recipe may write as its name.

    Args:
        names: known names.
        prefix: of names in short form; what follows it is the setting ``model`` of the component ``full``; empty: none.
        full: name of that component.
    """

    names: tuple[str, ...]
    prefix: str = ""
    full: str = ""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of either form."""
        tables = handler(core_schema)
        forms: list[dict[str, Any]] = [{"type": "string", "enum": list(self.names)}, tables]
        if self.prefix:
            name = {"type": "string", "pattern": f"^{self.prefix}.+$"}
            definition = handler.resolve_ref_schema({"$ref": tables["discriminator"]["mapping"][self.full]})
            settings = {key: value for key, value in definition["properties"].items() if key != "model"}
            forms += [name, {**definition, "properties": {**settings, "name": name}}]
        return {"anyOf": forms}


@dataclass(frozen=True)
class CombinedForm:
    """Annotation of an entry that a recipe may write as a name, or as several names combined.

    Args:
        names: known names.
        separator: put between combined names.
    """

    names: tuple[str, ...]
    separator: str

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of every form."""
        single, combined = handler(core_schema)["oneOf"]
        name = "|".join(map(re.escape, sorted(self.names)))
        pattern = f"^(?:{name})(?:{re.escape(self.separator)}(?:{name}))+$".replace(r"\-", "-")
        definition = handler.resolve_ref_schema(combined)
        definition["properties"]["name"]["pattern"] = pattern
        return {
            "anyOf": [
                {"type": "string", "enum": list(self.names)},
                {"type": "string", "pattern": pattern},
                single,
                combined,
            ]
        }


def relax(schema: Any) -> None:
    """Remove from ``required``, in place, the properties that a recipe may leave out."""
    if isinstance(schema, dict):
        properties = schema.get("properties", {})
        optional = [name for name, inner in properties.items() if isinstance(inner, dict) and inner.pop(OPTIONAL, 0)]
        if optional:
            schema["required"] = [name for name in schema["required"] if name not in optional]
        for inner in schema.values():
            relax(inner)
    elif isinstance(schema, list):
        for inner in schema:
            relax(inner)

"""JSON Schema (draft 2020-12) for the files that are no experiment's parameters; every fault becomes one line."""

from pathlib import Path

import jsonschema

from secondlook.errors import Mistake
from secondlook.study.files import read_yaml
from secondlook.study.parameters import known_keys


def check(value: object, schema: Path, where: str) -> None:
    """Raise Mistake for the first place where `value`, read in `where`, departs from the schema."""
    errors = sorted(
        jsonschema.Draft202012Validator(read_yaml(schema)).iter_errors(value), key=lambda e: (len(e.path), str(e.path))
    )
    if not errors:
        return
    error = errors[0]
    name = ".".join(str(part) for part in error.absolute_path) or "the whole file"
    if error.validator == "additionalProperties":
        known_keys(error.instance, error.schema["properties"], where)
    must = {
        "type": lambda: f"be of type {error.validator_value}",
        "enum": lambda: f"be one of {', '.join(map(str, error.validator_value))}",
        "required": lambda: f"have the key {error.message.split(chr(39))[1]!r}",
    }.get(error.validator, lambda: f"fit its schema ({error.message})")()
    got = "" if error.validator == "required" else f", got {error.instance!r}"
    raise Mistake(f"'{name}' in {where} must {must}{got}")

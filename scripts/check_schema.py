#!/usr/bin/env python3
"""Checks policy files against a JSON Schema with the field's own validator, for the tests.

usage: check_schema.py SCHEMA FILE…

Prints `FILE: ok`, or `FILE: PATH: message` for each violation. Exit status: 0 all are right, 1 some is not,
77 the validator cannot be installed here. It lives in a virtual environment of its own
(~/.cache/bgbackup/schema-venv).
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from qdrant_fixture import environment  # noqa: E402


def main() -> int:
    environment.enter(environment.SCHEMA)
    import jsonschema
    import yaml

    class Plain(yaml.SafeLoader):
        """The scalars of YAML 1.2's core schema: `on` and `22:00` are texts."""

    Plain.yaml_implicit_resolvers = {}
    for tag, pattern, first in [
        ("bool", r"^(?:true|false)$", "tf"),
        ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
        ("float", r"^[-+]?[0-9]+\.[0-9]+$", "-+0123456789"),
        ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ]:
        Plain.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", __import__("re").compile(pattern), list(first))

    schema = json.loads(Path(sys.argv[1]).read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    failed = False
    for name in sys.argv[2:]:
        errors = list(validator.iter_errors(yaml.load(Path(name).read_text(), Plain)))
        failed = failed or bool(errors)
        for error in errors:
            print(f"{name}: {error.json_path}: {error.message}")
        if not errors:
            print(f"{name}: ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

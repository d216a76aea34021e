"""The JSON Schema (draft 2020-12) of a matrix file, for editors: what pydantic knows of it, and the shorter forms that a file may have.

It checks one file by itself: keys, kinds and ranges. That names are there, and what goes together, says `harness plan`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel

from dskd.methods import METHODS
from dskd.text import AUTHORS
from dskd.training.options import TrainingOptions
from harness.config.matrix import Matrix
from harness.config.partial import KEYS
from harness.config.settings import RENAMED
from harness.config.sources import DATA_KINDS, MODEL_KINDS
from harness.protocols import PROTOCOLS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# A number, a flag or a choice may be a variable too. YAML 1.1 reads 1e-4 as text, and so does a variable's value: both are numbers here.
_VARIABLE = r"\$\{[^}]+\}"
_NUMBER = rf"^({_VARIABLE}|[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?)$"
_SIZE = rf"^\s*({_VARIABLE}|[0-9]+(\.[0-9]+)?\s*([KkMmGgTt][Ii]?[Bb])?)\s*$"


def matrix_schema(tasks: Iterable[str] = (), kinds: Iterable[str] = ()) -> Schema:
    """The schema. tasks: the names of those that are known; kinds: of jobs, for `resources`."""
    definitions: dict[str, Schema] = {"variable": {"type": "string", "pattern": _VARIABLE}}
    schema = _schema_of(Matrix, definitions)
    properties: Schema = schema["properties"]
    _training(definitions)
    _texts(definitions)
    _methods(definitions, properties)
    _sources(definitions, properties)
    _tasks(definitions, properties, tasks)
    _cells(definitions, properties)
    memory = definitions["ResourceRequest"]["properties"]["memory"]
    memory["anyOf"] = [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SIZE}, {"type": "null"}]
    request = {"$ref": "#/$defs/ResourceRequest"}
    properties["resources"] = {
        "type": "object", "description": "What the jobs of a kind need, in place of what is estimated.",
        "properties": dict.fromkeys(kinds, request), "additionalProperties": request,
    }  # fmt: skip
    text = {"type": "string", "minLength": 1}
    properties["extends"] = {
        "description": "Names or files of matrices whose keys this one has too; of several, the later wins.",
        "anyOf": [text, {"type": "array", "items": text, "minItems": 1, "uniqueItems": True}],
    }
    for former, name in RENAMED.items():
        properties[former] = {**properties[name], "deprecated": True}
    alone = {
        "required": schema.pop("required"),
        "anyOf": [
            {"properties": {"training": {"required": ["data"]}}},
            {"properties": {"axes": {"required": ["data"]}}, "required": ["axes"]},
        ],
    }
    own = {"title": "A matrix of the distillation harness", "anyOf": [alone, {"required": ["extends", "name"]}]}
    return {"$schema": DIALECT, **schema, **own, "$defs": {name: definitions[name] for name in sorted(definitions)}}


# --- what pydantic says ---


def _schema_of(model: type[BaseModel], definitions: dict[str, Schema]) -> Schema:
    """The schema of a model for a file. Those that it refers to join the definitions."""
    schema = model.model_json_schema()
    found = schema.pop("$defs", {})
    models = {each.__name__: each for each in _models_in(model, set())}
    for name, definition in found.items():
        if name not in definitions:
            definitions[name] = _for_files(_described(definition, models.get(name)))
    return _for_files(_described(schema, model))


def _models_in(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """A model and all that its fields hold."""

    def look(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
            _models_in(annotation, seen)
        for inner in get_args(annotation):
            look(inner)

    seen.add(model)
    for field in model.model_fields.values():
        look(field.annotation)
    return seen


_ATTRIBUTE = re.compile(r"^([a-z_]+(?:, [a-z_]+)*): (.+)$")


def _described(schema: Schema, model: type[BaseModel] | None) -> Schema:
    """A schema whose keys have the descriptions that the docstring of their class gives, and its first sentence as its own."""
    text = (schema.get("description") or "").strip()
    head, _, attributes = text.partition("Attributes:\n")
    if head:
        schema["description"] = " ".join(head.split())
    for line in re.sub(r"\n\s{6,}", " ", attributes).splitlines():
        if found := _ATTRIBUTE.match(line.strip()):
            for name in found[1].split(", "):
                if name in schema.get("properties", {}):
                    schema["properties"][name].setdefault("description", found[2])
    for name, field in (model.model_fields if model is not None else {}).items():
        # Names that an option had before are still taken.
        choices = field.validation_alias.choices[1:] if isinstance(field.validation_alias, AliasChoices) else ()
        for former in choices:
            schema["properties"][str(former)] = {**schema["properties"][name], "deprecated": True}
    return schema


def _for_files(schema: Any) -> Any:
    """A schema as a file is written: variables and numbers as text, names of entries checked, no titles."""
    if isinstance(schema, list):
        return [_for_files(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _for_files(each) for name, each in value.items()} if key == "properties" else _for_files(value)
        for key, value in schema.items()
        if key not in {"title", "patternProperties"} and not (key == "default" and isinstance(value, dict | type(None)))
    }
    for pattern, entry in schema.get("patternProperties", {}).items():
        made["propertyNames"] = {**made.get("propertyNames", {}), "pattern": pattern}
        made["additionalProperties"] = _for_files(entry)
    if "oneOf" in made:  # kinds are told apart by a key, and one kind may have several
        made["anyOf"] = made.pop("oneOf")
    if made.get("type") in {"integer", "number"} and "const" not in made:
        return made | {"type": [made["type"], "string"], "pattern": _NUMBER}
    if made.get("type") == "boolean":
        return made | {"type": ["boolean", "string"], "pattern": f"^{_VARIABLE}$"}
    if "enum" in made:
        described = {key: made.pop(key) for key in ("description", "default") if key in made}
        return described | {"anyOf": [made, {"$ref": "#/$defs/variable"}]}
    if made.get("type") == "string" and "pattern" in made:
        own = made["pattern"]
        made["pattern"] = f"{own}|{_VARIABLE}"
    return made


# --- shorter forms ---


def _training(definitions: dict[str, Schema]) -> None:
    """`training`, stages of models, and what replaces single options: the options stand beside the data set's name."""
    options = _schema_of(TrainingOptions, definitions)
    definitions["TrainingOptions"] = options
    data = definitions["Training"]["properties"]["data"]
    stage = {**options, "properties": {"data": data, **options["properties"]}}
    definitions["Training"] = stage  # without `data` in a matrix that extends another, or that has an axis of data
    definitions["Stage"] = {**stage, "required": ["data"]}
    shared = {key: value for key, value in options["properties"].items() if key != "max_length"}
    definitions["OwnTraining"] = {
        **options, "properties": shared, "description": "Training options that replace those of the matrix, one by one.",
    }  # fmt: skip
    for name in ("NewModel", "FirstLayersModel"):
        definitions[name]["properties"]["training"]["items"] = {"$ref": "#/$defs/Stage"}


def _methods(definitions: dict[str, Schema], properties: Schema) -> None:
    """`methods`: options beside the keys of an entry; which they are says its name, or its `method`."""
    own = definitions.pop("MethodSettings")["properties"]
    name = {"type": "string", "pattern": "^[^ ]+$"}
    axes = {
        "description": "The axes that this method is combined with; by default all of `axes`.",
        "anyOf": [
            {"type": "array", "items": name},
            {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
        ],
    }
    settings: Schema = {"axes": axes, "training": {"$ref": "#/$defs/OwnTraining"}}
    settings |= {key: own[key] for key in ("teacher_outputs", "text")}
    settings |= {former: {**settings[key], "deprecated": True} for former, key in RENAMED.items() if key in settings}
    for method, each in sorted(METHODS.items()):
        options = _schema_of(each.Options, definitions)
        retired = {key: {"deprecated": True} for key in getattr(each.Options, "retired", {})}
        definitions[f"method-{method}"] = {
            "type": "object", "description": options.get("description", ""), "additionalProperties": False,
            "properties": {"method": {"const": method}, **settings, **options["properties"], **retired},
        }  # fmt: skip
    outside = {"description": "A method from outside, file.py:Class.", "type": "string", "pattern": ":"}
    references = {method: {"$ref": f"#/$defs/method-{method}"} for method in sorted(METHODS)}
    variants: list[Schema] = [{**reference, "required": ["method"]} for reference in references.values()]
    variants.append({"type": "object", "properties": {**settings, "method": outside}, "required": ["method"]})
    definitions["Variant"] = {
        "description": "A variant of a method under another name: `method`, and its own settings.", "type": "object", "anyOf": variants,
    }  # fmt: skip
    # A shipped method's name may also stand for a variant of another method.
    named = {method: {"anyOf": [reference, {"$ref": "#/$defs/Variant"}]} for method, reference in references.items()}
    properties["methods"] |= {"properties": named, "additionalProperties": {"$ref": "#/$defs/Variant"}}
    settings_of_value = {key: settings[key] for key in ("training", "teacher_outputs", "text")}
    settings_of_none = {
        "type": "object", "properties": settings_of_value,
        "not": {"anyOf": [{"required": [key]} for key in ("method", "data", "axes")]},
    }  # fmt: skip
    value = {"anyOf": [{"type": "null"}, settings_of_none]}
    scalars = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": ["string", "number", "boolean"]}}
    text_axis = {
        "anyOf": [
            {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"$ref": "#/$defs/Text"}},
            {"type": "object", "minProperties": 1, "additionalProperties": value},
        ]
    }
    properties["axes"] = {
        "description": "Sets of settings that every method is combined with; `data` lists data sets (docs/sweeps.md).",
        "type": "object",
        "properties": {"data": {"$ref": "#/$defs/names"}, "text": text_axis},
        "propertyNames": {"not": {"enum": [key for key in KEYS if key != "data"]}},
        "additionalProperties": {
            "anyOf": [scalars, {"type": "object", "minProperties": 1, "additionalProperties": value}]
        },
    }
    text = {"type": "string", "minLength": 1}
    definitions["names"] = {
        "description": "A name, a group, or a list of these.",
        "anyOf": [text, {"type": "array", "items": text, "minItems": 1}],
    }
    properties["groups"] |= {
        "description": "Names for lists of names, which stand where lists of names do.",
        "additionalProperties": {"type": "array", "items": text, "minItems": 1},
    }


def _texts(definitions: dict[str, Schema]) -> None:
    """`text`: a name, or a mixture whose parts may be shares alone."""
    parts = definitions["Text"]["properties"]
    share = definitions["TeacherText"]["properties"]["share"]["anyOf"][0]
    for name in ("teacher", "student"):
        parts[name] = {"anyOf": [share, {"$ref": f"#/$defs/{name.title()}Text"}, {"type": "null"}]}
    _shortened(definitions, "Text", AUTHORS)


def _sources(definitions: dict[str, Schema], properties: Schema) -> None:
    """`data` and `models`: one kind each, told by its key; addresses and templates in their short forms."""
    for key, kinds in (("data", DATA_KINDS), ("models", MODEL_KINDS)):
        of_kind: dict[str, list[str]] = {}
        for tag, kind in kinds.items():
            of_kind.setdefault(kind.__name__, []).append(tag)
        for name, tags in of_kind.items():
            if len(tags) > 1:
                definitions[name]["anyOf"] = [{"required": [tag]} for tag in tags]
        properties[key]["additionalProperties"] = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in of_kind]}
    definitions["StepModel"] = {
        **definitions["StepModel"], "properties": {"step": definitions["StepModel"]["properties"]["step"]},
        "additionalProperties": True,
    }  # fmt: skip
    addresses = definitions["ServedSource"]["properties"]
    for tag in ("served", "completions", "chat"):
        several = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        addresses[tag] = {"description": addresses[tag].get("description", ""), "anyOf": [{"type": "string"}, several]}
    definitions["NewModel"]["properties"]["config"]["required"] = ["model_type"]
    _shortened(definitions, "Template", ["alpaca", "chat"])


def _shortened(definitions: dict[str, Schema], name: str, names: Iterable[str]) -> None:
    """Let a definition be one of several names as well."""
    definitions[name] = {"anyOf": [{"enum": list(names)}, {"$ref": "#/$defs/variable"}, definitions[name]]}


def _tasks(definitions: dict[str, Schema], properties: Schema, tasks: Iterable[str]) -> None:
    """`tasks`: settings or nothing. An entry under a name of its own says its `task`."""
    protocol = definitions["DecodingProtocol"]
    protocol["properties"]["name"] = {"enum": sorted(PROTOCOLS)}
    protocol["required"] = ["name"]
    _shortened(definitions, "DecodingProtocol", PROTOCOLS)
    settings = definitions["TaskSettings"]
    definitions["TaskSettings"] = {**settings, "type": ["object", "null"]}
    named = {**settings, "required": ["task"]}
    reference = {"$ref": "#/$defs/TaskSettings"}
    properties["tasks"] |= {
        "properties": dict.fromkeys(sorted(tasks), reference),
        "patternProperties": {r"^lm_eval/|\.py:|:validation$": reference},
        "additionalProperties": {"$ref": "#/$defs/NamedTask"},
    }
    definitions["NamedTask"] = named


def _cells(definitions: dict[str, Schema], properties: Schema) -> None:
    """`pairs`, `include` and `exclude`: names, groups and lists of them."""
    names = {"$ref": "#/$defs/names"}
    pair = definitions["Pair"]
    pair["properties"] = {key: {**names, "description": text} for key, text in _PAIR.items()}
    pair["properties"]["text"] = {
        "anyOf": [{"$ref": "#/$defs/Text"}], "description": "Who writes what its methods are trained on, where they do not say it.",
    }  # fmt: skip
    pair["required"] = ["teacher", "student", "methods"]
    scalar = {"type": ["string", "number", "boolean"]}
    values = {"anyOf": [scalar, {"type": "array", "items": scalar, "minItems": 1}]}
    keys = {key: {**values, "description": text} for key, text in _CELL.items()}
    entry = {"type": "object", "properties": keys, "minProperties": 1, "additionalProperties": values}
    properties["exclude"] = {
        "type": "array",
        "items": entry,
        "description": "Cells that are left out: those that have all keys of an entry.",
    }
    text = {"anyOf": [{"$ref": "#/$defs/Text"}, values]}  # a text, or values of an axis of that name
    included = {**entry, "properties": {**keys, "text": text}, "required": ["teacher", "student", "method"]}
    properties["include"] = {"type": "array", "items": included, "description": "Cells beside those of `pairs`."}
    definitions.pop("IncludedCell")


_PAIR = {
    "teacher": "A model, a group, or a list: a pair with each.",
    "student": "A model, a group, or a list: a pair with each.",
    "methods": "Methods, variants and groups.",
    "data": "The training set, where it is another than that of `training`; such pairs have tables of their own.",
}
_CELL = {
    "teacher": "A name, a group or a list; in `exclude` also a pattern.",
    "student": "A name, a group or a list; in `exclude` also a pattern.",
    "method": "A name, a group or a list; in `exclude` also a pattern.",
    "seed": "One seed or a list.",
    "task": "Only the evaluation on this entry of `tasks`.",
    "data": "The training set.",
}

"""A plugin's signature is its schema: read it, describe it, and validate a recipe's table against it."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError

from bench.errors import PluginError
from bench.registry import near_miss

__all__ = ["RESERVED", "Option", "Table", "describe", "options_model", "problems_of", "validate"]

#: Keys of a plugin's table that belong to the core; a plugin may not use them as options.
RESERVED: Mapping[str, tuple[str, ...]] = {
    "models": ("name", "weights", "freeze"),
    "datasets": ("name", "root"),
    "augmentations": ("name",),
}

#: How many positional parameters the core hands to a plugin of each kind.
_HANDED_OVER = {"models": 1, "datasets": 1, "augmentations": 0}


class Table(BaseModel):
    """A table of a recipe: frozen, typed strictly, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a table: its type in words, its default ('required' where there is none) and what it does."""

    name: str
    type: str
    default: str
    description: str = ""


def options_model(kind: str, plugin: Callable[..., Any]) -> type[BaseModel]:
    """The pydantic model of a plugin's options. Raises PluginError where the signature is no schema."""
    try:
        parameters = list(inspect.signature(plugin).parameters.values())
        hints = _option_types(plugin, [parameter.name for parameter in parameters[_HANDED_OVER[kind] :]])
    except (AttributeError, NameError, TypeError, ValueError) as cause:
        message = f"{kind} plugin {plugin!r}: its signature cannot be read: {cause}"
        raise PluginError(message, hint="use types that can be imported at run time") from cause
    faults = list(_signature_faults(kind, parameters, hints))
    if faults:
        name = getattr(plugin, "__qualname__", repr(plugin))
        raise PluginError(f"{kind} plugin {name}: {'; '.join(faults)}", hint="bench/kinds.py says what is asked")
    fields: dict[str, Any] = {
        parameter.name: (
            hints[parameter.name],
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters[_HANDED_OVER[kind] :]
    }
    try:
        return create_model(f"{kind} options", __config__=Table.model_config, **fields)
    except PydanticUserError as cause:
        raise PluginError(
            f"{kind} plugin {getattr(plugin, '__qualname__', plugin)!r}: {cause.message.partition('. ')[0]}",
            hint="options are of types that TOML can write: str, int, float, bool, Path, Literal, tuple of these",
        ) from cause


def describe(model: type[BaseModel]) -> tuple[Option, ...]:
    """The keys of a table with types and defaults in words."""
    return tuple(_describe_one(name, info) for name, info in model.model_fields.items())


def validate(model: type[BaseModel], table: Mapping[str, Any], key: str) -> tuple[dict[str, Any], list[str]]:
    """A table checked against its model: (values with defaults filled in, problems as 'dotted.key: what is wrong').

    Validation runs in JSON mode, so that TOML's arrays become tuples and its strings paths, and nothing else is
    converted: "3" is no integer.
    """
    try:
        checked = model.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        return {}, problems_of(error, model, key)
    return {name: getattr(checked, name) for name in model.model_fields}, []


def problems_of(error: ValidationError, model: type[BaseModel], key: str = "") -> list[str]:
    """Every problem of a table as one line: dotted key, what was given, what is allowed, the near miss."""
    lines: dict[str, str] = {}
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else ""
        dotted = ".".join(filter(None, [key, field]))
        given = json.dumps(problem["input"], default=str)[:60]
        if problem["type"] == "extra_forbidden":
            allowed = sorted(model.model_fields)
            miss = near_miss(field, allowed) or f"; allowed: {', '.join(allowed) or 'none'}"
            lines[dotted] = f"unknown key{miss}"
        elif problem["type"] == "missing" and len(problem["loc"]) > 1:  # an item of an array
            field_type = _words(model.model_fields[field].annotation)
            lines[dotted] = f"must be {field_type}, but {json.dumps(problem['input'], default=str)} was given"
        elif problem["type"] == "missing":
            lines[dotted] = "required, but not given"
        elif dotted in lines and field:  # the members of a union fail one by one; together they say what is allowed
            lines[dotted] = f"must be {_words(model.model_fields[field].annotation)}, but {given} was given"
        else:
            lines[dotted] = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}, but {given} was given"
    return [f"{dotted}: {text}" for dotted, text in lines.items()]


def _option_types(plugin: Callable[..., Any], options: Iterable[str]) -> dict[str, Any]:
    """The types of a plugin's options. What it takes and returns may be names that exist for type checkers only."""
    function = inspect.unwrap(plugin)
    annotations = {name: value for name, value in function.__annotations__.items() if name in options}
    shim = types.SimpleNamespace(__annotations__=annotations)
    return typing.get_type_hints(shim, globalns=getattr(function, "__globals__", {}), include_extras=True)


def _signature_faults(kind: str, parameters: list[inspect.Parameter], hints: Mapping[str, Any]) -> Iterator[str]:
    handed_over = _HANDED_OVER[kind]
    if len(parameters) < handed_over:
        yield f"takes {len(parameters)} parameters, the core hands over {handed_over}"
    for parameter in parameters[:handed_over]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            yield f"its first parameter {parameter.name!r} must be positional"
    for parameter in parameters[handed_over:]:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            yield f"takes *{parameter.name}: a schema needs named options"
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            yield f"option {parameter.name!r} must be keyword-only (put it after *)"
        elif parameter.name not in hints:
            yield f"option {parameter.name!r} has no type"
        if parameter.name.startswith("_") or hasattr(BaseModel, parameter.name):
            yield f"option {parameter.name!r} needs another name: pydantic keeps this one for itself"
        if parameter.name in RESERVED[kind]:
            yield f"option {parameter.name!r} is a key of the core"


def _describe_one(name: str, info: Any) -> Option:
    kind = _words(info.annotation)
    bounds = [
        f"{symbol} {getattr(meta, field):g}"
        for meta in info.metadata
        for field, symbol in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if getattr(meta, field, None) is not None
    ]
    if info.is_required():
        default = "required"
    else:
        value = info.get_default(call_default_factory=True)
        default = "" if value is None else json.dumps(value, default=str)
    return Option(name, " ".join([kind, ", ".join(bounds)]).strip(), default, info.description or "")


def _words(annotation: Any) -> str:
    """A type as a person would say it: 'int', '"a" | "b"', 'array of float'."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(json.dumps(value) for value in arguments)
    if origin is typing.Annotated:
        return _words(arguments[0])
    if origin in {tuple, list} and arguments:
        items = list(dict.fromkeys(_words(item) for item in arguments if item is not Ellipsis))
        count = "" if Ellipsis in arguments or origin is list else f"{len(arguments)} "
        return f"array of {count}{' | '.join(items)}"
    if arguments:
        return " | ".join(_words(item) for item in arguments if item is not type(None))
    return {"str": "string", "bool": "boolean", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation))
    )

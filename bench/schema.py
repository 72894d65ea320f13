"""A plugin's signature is its schema: read it, describe it, and validate a recipe's table against it."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError

from bench.errors import PluginError
from bench.registry import near_miss

__all__ = [
    "RESERVED",
    "Option",
    "Table",
    "describe",
    "options_model",
    "problems_of",
    "validate",
]

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
    """The keys of a table with types and defaults in words; those of an array's tables follow as "blocks.N.kernel"."""
    return tuple(_described(model))


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
    """Every problem of a table as one line: dotted key, what was given, what is allowed, the near miss.

    In a table inside of a table the key is the whole way: "model.blocks.2.kernel".
    """
    lines: dict[str, str] = {}
    for problem in error.errors():
        place = _place_of(problem["loc"], model)
        dotted = ".".join(filter(None, [key, *place.keys]))
        given = json.dumps(problem["input"], default=str)[:60]
        if problem["type"] == "extra_forbidden":
            allowed = sorted(place.table.model_fields)
            miss = near_miss(place.keys[-1], allowed) or f"; allowed: {', '.join(allowed) or 'none'}"
            lines[dotted] = f"unknown key{miss}"
        elif problem["type"] == "missing" and not place.inside:
            lines[dotted] = "required, but not given"
        elif place.type is not None and (problem["type"] in {"missing", "model_type"} or dotted in lines):
            # The members of a union fail one by one; together they say what is allowed.
            lines[dotted] = f"must be {_words(place.type)}, but {given} was given"
        else:
            lines[dotted] = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}, but {given} was given"
    return [f"{dotted}: {text}" for dotted, text in lines.items()]


class _Place(NamedTuple):
    """Where a problem is: the keys that lead there, the innermost table, the last key's type, and whether the problem
    is inside of that key's value.
    """

    keys: list[str]
    table: type[BaseModel]
    type: Any = None
    inside: bool = False


def _place_of(location: tuple[int | str, ...], model: type[BaseModel]) -> _Place:
    """Read pydantic's location, in which the members of a union stand among keys and positions."""
    keys: list[str] = []
    place, tables = _Place(keys, model), [model]
    for step in location:
        owner = next((table for table in tables if step in table.model_fields), None)
        member = next((table for table in tables if step == table.__name__), None)
        if not tables:  # an item of an array of plain values, or a member of a union of them
            return place._replace(inside=True)
        if owner:
            keys.append(str(step))
            place = _Place(keys, owner, owner.model_fields[str(step)].annotation)
            tables = _tables_in(place.type)
        elif member:
            tables = [member]
        elif isinstance(step, int):
            keys.append(str(step))
            place = _Place(keys, tables[0], tables[0])
        elif step == location[-1] and "[" not in step:  # an unknown key
            keys.append(step)
            place = _Place(keys, tables[0])
    return place


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    """The tables that a value of this type can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for argument in typing.get_args(annotation) for table in _tables_in(argument)]


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


def _described(model: type[BaseModel], prefix: str = "") -> Iterator[Option]:
    for name, info in model.model_fields.items():
        yield _describe_one(f"{prefix}{name}", info)
        for table in _tables_in(info.annotation):
            position = "" if info.annotation is table else "N."
            yield from _described(table, f"{prefix}{name}.{position}")


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
        default = "" if value is None else json.dumps(value, default=_plain)
    return Option(name, " ".join([kind, ", ".join(bounds)]).strip(), default, info.description or "")


def _plain(value: Any) -> Any:
    """A value in terms of JSON; of a table what differs from its defaults."""
    return value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else str(value)


def _words(annotation: Any) -> str:
    """A type as a person would say it: 'int', '"a" | "b"', 'array of float', 'array of tables {a, b}'."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"table {{{', '.join(annotation.model_fields)}}}"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(json.dumps(value) for value in arguments)
    if origin is typing.Annotated:
        return _words(arguments[0])
    if origin in {tuple, list} and arguments:
        items = list(dict.fromkeys(_words(item) for item in arguments if item is not Ellipsis))
        count = "" if Ellipsis in arguments or origin is list else f"{len(arguments)} "
        return f"array of {count}{' | '.join(items)}".replace("table {", "tables {")
    if arguments:
        return " | ".join(_words(item) for item in arguments if item is not type(None))
    return {"str": "string", "bool": "boolean", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation))
    )

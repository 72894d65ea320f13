"""Checks for every kind of plugin, and for those whose signature is a schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.schema import options_model, problems_of
from bench.testing._subject import CheckFailed, Subject, expect

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["COMMAND_CHECKS", "COMMON_CHECKS", "OPTION_CHECKS"]

_LONGEST = 100


def imports(subject: Subject) -> None:
    """The entry point can be imported and names a callable."""
    subject.load()


def has_docstring(subject: Subject) -> None:
    """It has a docstring whose first line, at most 100 characters, can stand in a list."""
    document = getattr(subject.load(), "__doc__", None) or getattr(subject.load(), "help", None) or ""
    first = inspect.cleandoc(document).partition("\n")[0]
    expect(bool(first), f"{subject.plugin.target} has no docstring: its first line is what `bench plugins` shows")
    expect(
        len(first) <= _LONGEST,
        f"the docstring's first line has {len(first)} characters: end it before {_LONGEST} and leave the rest to a "
        "second paragraph",
    )


def signature_is_schema(subject: Subject) -> None:
    """Its options are keyword-only and typed, and none has a name of the core's."""
    _model(subject)


def defaults_are_valid(subject: Subject) -> None:
    """Every default fits its own type and bounds."""
    from pydantic import ValidationError, create_model

    model = _model(subject)
    adjusted = create_model("defaults", __base__=model, __cls_kwargs__={"validate_default": True})
    try:
        adjusted()
    except ValidationError as error:
        problems = [line for line in problems_of(error, model) if not line.endswith("required, but not given")]
        expect(not problems, f"a default is not valid: {'; '.join(problems)}; change the default or the type")


def options_are_toml(subject: Subject) -> None:
    """The type of every option can be written in TOML."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    for name, info in _model(subject).model_fields.items():
        advice = "use str, int, float, bool, Path, Literal, tuple or dict of these"
        try:
            schema = TypeAdapter[Any](info.annotation).json_schema()  # type: ignore[arg-type]  # is never None in a model
        except PydanticUserError as cause:
            message = f"option {name!r}: {info.annotation} cannot be written in TOML; {advice}"
            raise CheckFailed(message) from cause
        expect(schema.get("type") != "null", f"option {name!r} can only be None, which TOML cannot write; {advice}")


def is_click_command(subject: Subject) -> None:
    """It is a click command, so that it can join the command line."""
    import click

    loaded: Any = subject.load()
    expect(
        isinstance(loaded, click.Command),
        f"{subject.plugin.target} is {type(loaded).__name__}, not a click.Command: decorate it with @click.command()",
    )


def _model(subject: Subject) -> type[BaseModel]:
    return options_model(subject.plugin.kind, subject.load())


COMMON_CHECKS: tuple[Callable[[Subject], None], ...] = (imports, has_docstring)
OPTION_CHECKS: tuple[Callable[[Subject], None], ...] = (signature_is_schema, defaults_are_valid, options_are_toml)
COMMAND_CHECKS: tuple[Callable[[Subject], None], ...] = (is_click_command,)

"""The commands of `bench`: the core's own, and those that other distributions declare as entry points."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["Commands"]


class Commands(click.Group):
    """The core's commands, and those that other distributions declare as entry points, imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, the core's first."""
        from bench.registry import installed

        return [*super().list_commands(ctx), *installed("commands")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command; one of an entry point is imported here."""
        from bench.registry import find, installed

        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in installed("commands"):
            return own
        command: Any = find("commands", cmd_name).load()
        return command if isinstance(command, click.Command) else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands with their first lines, and options; entry points are not imported for a press of TAB."""
        from bench.registry import installed

        rows = {name: command.get_short_help_str() for name, command in self.commands.items()}
        rows |= {name: claims[0].summary() for name, claims in installed("commands").items()}
        found = [CompletionItem(name, help=text) for name, text in rows.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the near miss of an unknown command."""
        from bench.registry import near_miss

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            message = error.message.rstrip(".") + (near_miss(args[0], self.list_commands(ctx)) if args else "")
            raise click.UsageError(message, ctx) from error

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  # click hands it over
        formatter: click.HelpFormatter,
    ) -> None:
        """Names and first lines; entry points are not imported for their help."""
        from bench.registry import installed

        rows = [(name, command.get_short_help_str(100)) for name, command in self.commands.items()]
        rows += [(name, claims[0].summary()) for name, claims in installed("commands").items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

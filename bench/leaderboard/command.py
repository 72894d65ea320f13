"""`bench leaderboard`: parse, call one library function, print."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["leaderboard"]

_PAGE = "recipes/README.md"


@click.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page to this file.")
@click.option(
    "--write",
    is_flag=False,
    flag_value=_PAGE,
    metavar="[FILE]",
    help=f"Keep the tables in FILE, and leaderboard.json beside it; default: {_PAGE}. Recipes are those beside it.",
)
def leaderboard(
    experiments: tuple[str, ...], *, as_json: bool, markdown: bool, html: Path | None, write: str | None
) -> None:
    """Rank the recipes on each dataset, with intervals; who cannot be told from the leader is tied.

    \b
    bench leaderboard
    bench leaderboard gtsrb --html leaderboard.html
    bench leaderboard --write
    """
    from bench.console import print_json, stdout
    from bench.leaderboard.board import build
    from bench.leaderboard.keeping import update
    from bench.leaderboard.terminal import print_board, print_kept

    if write is not None and not write.endswith(".md"):  # --write EXPERIMENT
        experiments, write = (*experiments, write), _PAGE
    kept = None
    if write is None:
        board = build(experiments)
    else:
        kept = update(Path(write), experiments)
        board = kept.board
    if html is not None:
        from bench.leaderboard.page import write_page

        write_page(board, html)
    if as_json:
        extra = {"page": str(html.resolve())} if html else {}
        print_json({**board.as_json(), **extra, **({"written": kept.as_json()} if kept else {})})
    elif markdown:
        from bench.leaderboard.markdown import render

        stdout().out(render(board), highlight=False)
    else:
        print_board(board, page=html)
    if kept is not None and not as_json:
        print_kept(kept)

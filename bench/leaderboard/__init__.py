"""The best run of each recipe on each dataset, with intervals, and which of them are tied with the leader."""

from __future__ import annotations

from bench.leaderboard.board import Board, Section, build
from bench.leaderboard.facts import Entry, Standing

__all__ = ["Board", "Entry", "Section", "Standing", "build"]

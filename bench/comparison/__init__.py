"""Runs side by side: figures with intervals, what differs between their recipes, and which differences are real."""

from __future__ import annotations

from bench.comparison.comparing import compare
from bench.comparison.model import Comparison, Costs, Entry, LeftOut, TestSet, Verdict

__all__ = ["Comparison", "Costs", "Entry", "LeftOut", "TestSet", "Verdict", "compare"]

"""Rerunning recorded runs, and saying whether the same came out."""

"""First-party datasets: one file an idea, declared as entry points in pyproject.toml."""

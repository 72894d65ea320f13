"""Search: trials of a recipe's [search.space], pruned early, resumable, weighed against measured costs."""

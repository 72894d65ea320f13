"""`bench data`: what a dataset looks like, and what is wrong with it, before anything is trained on it."""

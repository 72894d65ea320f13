"""An exported model behind HTTP: predictions, a page for people, and figures for monitoring."""

"""The commands that join the command line; each parses, calls one function and prints."""

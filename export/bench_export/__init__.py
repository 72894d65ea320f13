"""Export, parity gate, serving and latency. Nothing here is reached by name from the core."""

"""Latency, measured as MLPerf does and shown with its conditions."""

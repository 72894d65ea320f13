"""Reports: one self-contained HTML file about a run, a group of runs or an experiment."""

"""A latency record beside the run that it belongs to, and on the run's entry in MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import write_json
from bench_export.latency.page import write_page

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["PAGE", "RECORD", "log", "metrics"]

#: Names of the files in a run's folder `export`, and in MLflow's `latency`.
RECORD, PAGE = "latency.json", "latency.html"

_METRICS_A_CALL = 1000


def log(record: Mapping[str, Any], run: Run) -> str | None:
    """Write the record and its page into the run's folder, then log both and the metrics on its run of MLflow.

    Returns MLflow's run id; None where tracking is off. Raises BenchError where MLflow cannot be reached or the run was
    deleted there; the files are in the folder even so.
    """
    from bench.tracking import OFF, connect, sync, tracking_uri

    folder = run.folder / "export"
    write_json(folder / RECORD, record)
    write_page(record, folder / PAGE)
    uri = tracking_uri()
    if uri == OFF:
        return None
    run_id = sync(run, uri=uri)
    client = connect(uri)
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    now_ms = time.time_ns() // 1_000_000
    values = [Metric(name, value, now_ms, 0) for name, value in metrics(record).items()]
    try:
        for start in range(0, len(values), _METRICS_A_CALL):
            client.log_batch(run_id, metrics=values[start : start + _METRICS_A_CALL], synchronous=True)
        for name in (RECORD, PAGE):
            client.log_artifact(run_id, str(folder / name), "latency")
    except MlflowException as cause:
        message = str(cause).partition("\n")[0]
        raise BenchError(
            f"MLflow did not take the latencies: {message}", hint=f"they are in {folder / RECORD}"
        ) from cause
    return run_id


def metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Names that stay the same from record to record -> values.

    latency/CANDIDATE/MEASURE_p50_ms and so on, and MEASURE_samples_per_second, for every candidate; percentiles that
    were refused are missing. latency_p50_ms and so on are the recommended candidate's, end to end.
    """
    found: dict[str, float] = {}
    chosen = (record.get("recommendation") or {}).get("candidate")
    for one in record["candidates"]:
        place = f"latency/{_safe(one['name'])}"
        for measure, values in one["measures"].items():
            numbers = _numbers(values)
            found |= {f"{place}/{measure}_{name}": value for name, value in numbers.items()}
            if one["name"] == chosen and measure == "end_to_end":
                found |= {f"latency_{name}": value for name, value in numbers.items()}
        extra = {"peak_memory_mb": one.get("peak_memory_mb"), "size_mb": one.get("size_mb")}
        extra |= {"energy_j": one.get("energy_j"), **(one.get("cold_start") or {})}
        found |= {f"{place}/{name}": float(value) for name, value in extra.items() if value is not None}
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    levels = {f"p{level}_ms": at["value_ms"] for level, at in values["percentiles"].items() if "value_ms" in at}
    return {**levels, "mean_ms": values["mean_ms"], "samples_per_second": values["samples_per_second"]}


def _safe(name: str) -> str:
    """A candidate's name in the letters that MLflow allows."""
    return re.sub(r"[^\w. -]", "_", name)

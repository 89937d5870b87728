"""Dashboards beside the run folder: W&B online or offline, TensorBoard, MLflow. A run needs none of them.

``run`` one job as a W&B run (``connection`` online or offline, ``identity`` its names, ``record`` tables, figures,
artifacts, ``exported`` its model); ``session`` from a job's first second to its last; ``files`` and ``sync`` offline
runs; ``sweep`` the summary of a sweep; ``workspace`` the dashboard.
"""

from spectangle.tracking.session import Session
from spectangle.tracking.wandb_run import WandbRun

__all__ = ["Session", "WandbRun"]

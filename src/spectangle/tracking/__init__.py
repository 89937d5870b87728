"""Dashboards beside the run folder: W&B online or offline, TensorBoard, MLflow. A run needs none of them.

``session`` from a job's first second to its last; ``wandb_run`` one job as a W&B run (``connection`` online or offline,
``identity`` its names, ``record`` tables, figures, artifacts, ``exported`` its model), ``mlflow_run`` as an MLflow run;
``wandb_files`` and ``offline_runs`` what is sent later; ``workspace`` the dashboard. Only ``wandb_run`` loads wandb.
"""

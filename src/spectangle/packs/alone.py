"""What no pack can train: it trains alone."""

from omegaconf import DictConfig, OmegaConf

from spectangle.packs.stack import Stack

__all__ = ["why_alone"]


def why_alone(cfg: DictConfig) -> str | None:
    """Why a model cannot take its steps together with others, if so."""
    given = str(OmegaConf.select(cfg, "trainer.precision"))
    precision = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}.get(given, given)  # as Lightning reads it
    if precision not in Stack.PRECISIONS:
        return f"packs train in {' or '.join(Stack.PRECISIONS)}, not in {precision}"
    if OmegaConf.select(cfg, "model.dropout"):
        return "model.dropout draws random numbers of its own"
    if OmegaConf.select(cfg, "adversary.objective") == "flipped":
        return "adversary.objective=flipped draws random numbers of its own"
    if OmegaConf.select(cfg, "trainer.limit_train_batches") or OmegaConf.select(cfg, "trainer.overfit_batches"):
        return "the trainer limits the batches of an epoch"
    if OmegaConf.select(cfg, "trainer.detect_anomaly"):
        return "the trainer looks for anomalies in every step"
    callbacks = OmegaConf.select(cfg, "callbacks")
    nodes = callbacks.values() if isinstance(callbacks, DictConfig) else ()
    nodes = [node for node in nodes if isinstance(node, DictConfig)]
    if any(node.get("every_n_train_steps") or node.get("train_time_interval") for node in nodes):
        return "a checkpoint is saved in the middle of an epoch"
    return None

"""Load the autoencoder of a run."""

import logging

from spectangle.errors import SpectangleError
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.runs.folder import Run
from spectangle.version import VERSION

__all__ = ["load_autoencoder"]

PLAIN = f"{DisentanglingAutoencoder.__module__}.{DisentanglingAutoencoder.__qualname__}"
log = logging.getLogger(__name__)


def load_autoencoder(run: Run, checkpoint: str = "best") -> DisentanglingAutoencoder:
    """The trained autoencoder of a run, in evaluation mode on the CPU.

    Raises:
        SpectangleError: The checkpoint is not there, or does not fit this version.
    """
    path = run.path / "checkpoints" / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise SpectangleError(
            f"{run.path} has no {checkpoint} checkpoint yet; train it: spectangle train resume={run.path}"
        )
    made = run.config.get("model", {}).get("_target_", PLAIN)
    if made != PLAIN:
        log.warning(
            "%s was trained as %s and is read as a plain DisentanglingAutoencoder: where the class encodes or decodes "
            "in its own way, what is read is wrong.",
            run.path,
            made,
        )
    try:
        return DisentanglingAutoencoder.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
    except (RuntimeError, TypeError, KeyError, SpectangleError) as error:  # its options may have other names now
        made_by, reason = run.manifest.get("spectangle", "?"), str(error).splitlines()[-1].strip(" .")
        raise SpectangleError(
            f"{path} does not fit this version of spectangle ({VERSION}; the run was made by {made_by}): {reason}. "
            "Use the version of the run's manifest.json, or train it again."
        ) from error

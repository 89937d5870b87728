r"""Rebuild the emulator from the synthesis: ``python -m spectangle.synthetic.rebuild``.

Synthesise training stars, find the principal components of their spectra, train a network that predicts the component
scores, write the weights, and measure the error on stars that were never seen.

Shapes: S stars, V broadenings per star, N = S V spectra, K components, P pixels.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spectangle.processes import in_processes
from spectangle.synthetic.emulator import Emulator, features
from spectangle.synthetic.population import FASTEST, LIMITS, draw_labels, draw_vbroad, label_mixture
from spectangle.synthetic.simulation_progress import progress
from spectangle.synthetic.synthesis import fine_spectra, observe

__all__ = ["main", "star_errors"]

BATCH = 40  # stars that a process synthesises at a time
BROADENINGS = 4  # per star: they cost nothing beside the synthesis
WIDENED, UNIFORM = 0.25, 0.25  # shares of training stars from a widened mixture and from the whole box
LEARNING_RATE, BATCH_SIZE = 4e-3, 512
FEWEST_EPOCHS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Rebuild, save and check the emulator."""
    options = _parse(arguments)
    rng = np.random.default_rng(options.seed)
    labels, vbroad = draw_training_stars(options.stars, rng)
    spectra = synthesise_many(labels, vbroad, options.processes, "training stars")
    inputs = features(np.repeat(labels, BROADENINGS, axis=0), vbroad.ravel())
    emulator = train(inputs, spectra.reshape(len(inputs), -1), options)
    emulator.save(options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")
    report(emulator, options)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m spectangle.synthetic.rebuild",
        description="Synthesise training stars, train the emulator of the embedded survey, and measure its error.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--stars", type=int, default=8000, help="training stars to synthesise")
    parser.add_argument("--unseen", type=int, default=600, help="fresh stars that measure the error")
    parser.add_argument("--components", type=int, default=80, help="principal components")
    parser.add_argument("--hidden", type=int, default=256, help="width of the two hidden layers")
    parser.add_argument("--epochs", type=int, default=250, help="passes over the training stars")
    parser.add_argument("--processes", type=int, default=2, help="processes that synthesise")
    parser.add_argument("--seed", type=int, default=0, help="seed of labels, weights and batches")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("emulator.npz"), help="file to write")
    options = parser.parse_args(arguments)
    if options.stars < options.components or options.epochs < FEWEST_EPOCHS:
        parser.error(f"a network needs at least as many --stars as --components, and {FEWEST_EPOCHS} --epochs")
    return options


def draw_training_stars(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels [S, 4] and broadenings [S, V] that cover the population, its outskirts and the corners of the box."""
    widened, uniform = int(WIDENED * count), int(UNIFORM * count)
    box = rng.uniform(LIMITS[:, 0], LIMITS[:, 1], (uniform, 4))
    labels = np.concatenate(
        [draw_labels(count - widened - uniform, rng), label_mixture().sample(widened, rng, 1.8), box]
    )
    anywhere = FASTEST * rng.random((count, BROADENINGS - 1)) ** 2
    return labels, np.column_stack([draw_vbroad(labels, rng), anywhere])


def synthesise_many(labels: np.ndarray, vbroad: np.ndarray, processes: int, title: str) -> np.ndarray:
    """Synthesise stars [S, 4] at several broadenings each [S, V] in parallel: float32 spectra [S, V, P]."""
    starts = range(0, len(labels), BATCH)
    pieces = [(labels[start : start + BATCH], vbroad[start : start + BATCH]) for start in starts]
    spectra = {}
    with progress(title, len(labels)) as advance:
        for place, piece in in_processes(_synthesise_piece, None, pieces, processes, "use fewer processes."):
            spectra[place] = piece
            advance(len(piece))
    return np.concatenate([spectra[place] for place in range(len(pieces))])


def _synthesise_piece(_: None, labels: np.ndarray, vbroad: np.ndarray) -> np.ndarray:
    fine = fine_spectra(*labels.T)
    return np.stack([observe(fine, column) for column in vbroad.T], axis=1).astype(np.float32)


def principal_components(spectra: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean spectrum [P] and the strongest components [count, P] of spectra [N, P]."""
    mean = spectra.mean(0, dtype=np.float64)
    centred = spectra - mean.astype(np.float32)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return mean, vectors.T[::-1][:count]


def train(inputs: np.ndarray, spectra: np.ndarray, options: argparse.Namespace) -> Emulator:
    """Fit the network to the component scores by mean squared error, which is that of the flux."""
    import torch

    torch.manual_seed(options.seed)
    mean, components = principal_components(spectra, options.components)
    scores = (spectra - mean) @ components.T
    scale = float(scores.std())
    network = _network(inputs.shape[1], options.hidden, options.components)
    _optimise(network, torch.tensor(inputs).float(), torch.tensor(scores / scale).float(), options.epochs)
    state = [tensor.detach().numpy() for tensor in network.parameters()]  # weight, bias, weight, bias ...
    return Emulator([weight.T for weight in state[::2]], state[1::2], components * scale, mean)


def _network(inputs: int, hidden: int, outputs: int):
    from torch import nn

    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )


def _optimise(network, inputs, targets, epochs: int) -> None:
    """Train with Adam under a one-cycle learning rate."""
    import torch

    optimiser = torch.optim.Adam(network.parameters())
    steps = epochs * -(-len(inputs) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps, pct_start=0.1, final_div_factor=1e3)
    with progress("training", epochs) as advance:
        for _ in range(epochs):
            losses = []
            for batch in torch.randperm(len(inputs)).split(BATCH_SIZE):
                loss = (network(inputs[batch]) - targets[batch]).square().mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
            advance(1, f"loss {torch.stack(losses).mean():.2e}")


def star_errors(emulator: Emulator, labels: np.ndarray, vbroad: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Return the root mean square flux error of each star, [N]."""
    return np.sqrt(np.mean((emulator(labels, vbroad) - spectra) ** 2, axis=1))


def report(emulator: Emulator, options: argparse.Namespace) -> None:
    """Print the error on freshly synthesised stars of the population, and on stars spread evenly over the limits."""
    rng = np.random.default_rng([options.seed, 1])
    inside = draw_labels(options.unseen, rng)
    spread = rng.uniform(LIMITS[:, 0], LIMITS[:, 1], (options.unseen // 2, 4))
    for title, labels in (("population", inside), ("whole box", spread)):
        vbroad = draw_vbroad(labels, rng)
        spectra = synthesise_many(labels, vbroad[:, None], options.processes, f"unseen stars, {title}")[:, 0]
        errors = star_errors(emulator, labels, vbroad, spectra)
        median, high = np.percentile(errors, [50, 99])
        print(
            f"flux error (rms) of {len(errors)} unseen stars, {title}: "
            f"median {median:.2e}, mean {errors.mean():.2e}, 99th percentile {high:.2e}, largest {errors.max():.2e}"
        )


if __name__ == "__main__":
    main()

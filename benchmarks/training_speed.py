# ruff: noqa: E402  torch reads the environment when it is imported
"""How close training comes to the limit of the machine: python benchmarks/training_speed.py

The limit is what a large matrix product reaches, over the model's floating-point operations per spectrum. Every rate is
measured in turn, several times, in one process; the first table gives medians, so that only ratios count. The second
one says what a step of the default consists of, the third what keeps a step of its discriminators from the limit.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from spectangle.threads import let_threads_sleep, use_threads

let_threads_sleep()  # before torch is imported, as the commands do
import hydra
import lightning as L
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.table import Table

from spectangle.configs.resolvers import register_resolvers
from spectangle.console import console
from spectangle.data.stars import Batches
from spectangle.model.autoencoder import DisentanglingAutoencoder, frozen
from spectangle.model.networks import DiscriminatorBank

PIXELS, LABELS, PAIR = (
    800,
    ["teff", "logg", "m_h", "alpha_fe"],
    {"teff": -1e-3, "logg": -1e-3, "m_h": 1e-3, "alpha_fe": 1e-3},
)
CONF = Path(__file__).resolve().parents[1] / "conf"


class RandomStars(L.LightningDataModule):
    """Stars of noise: speed does not depend on what they show."""

    def __init__(self, n: int, batch_size: int):
        super().__init__()
        self.seed, self.batch_size = 0, batch_size
        self.flux, self.labels = torch.rand(n, PIXELS), torch.randn(n, len(LABELS))
        self.noise = torch.full((n,), 0.01)
        self.classes = torch.zeros(n, len(LABELS), dtype=torch.int64)
        self.weights = torch.ones(n, len(LABELS))

    def train_dataloader(self) -> Batches:
        tensors = [self.flux, self.noise, self.labels, self.classes, self.weights]
        return Batches(tensors, self.batch_size, lambda: torch.randperm(len(self.flux)))

    val_dataloader = None


def gemm_rate(n: int = 2048, device: str = "cpu") -> float:
    """Floating-point operations per second of a large matrix product."""
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    (a @ b).sum().item()
    start = time.perf_counter()
    for _ in range(4):
        product = a @ b
    product.sum().item()  # a GPU has to be waited for
    return 4 * 2 * n**3 / (time.perf_counter() - start)


def operations(model: DisentanglingAutoencoder) -> float:
    """Floating-point operations per spectrum: forward 2 per weight, backward 4, less the first layer's input gradient;
    a projection has no backward.
    """
    encoder = [layer.weight for layer in model.encoder.layers if isinstance(layer, torch.nn.Linear)]
    projection = 0 if model.encoder.projection is None else 2 * model.encoder.projection.weight.numel()
    decoder = [layer.weight for layer in model.decoder.layers if hasattr(layer, "weight")]
    bank = list(model.adversary.bank.weights)
    passes = 2 if model.input_noise else 1  # noisy spectra and clean ones
    encoding = projection + sum(6 * w.numel() for w in encoder) - 2 * encoder[0].numel()
    autoencoder = passes * encoding + sum(6 * w.numel() for w in decoder)
    discriminators = model.adversary.steps * (sum(6 * w.numel() for w in bank) - 2 * bank[0].numel())
    through = 4 * sum(w.numel() for w in bank)
    return autoencoder + discriminators + through


def paper(steps: int) -> DisentanglingAutoencoder:
    """The paper's adversary: ten bins, plain labels, a deterministic latent."""
    options = {"discriminator_steps": steps, "hidden": [64, 32], "lambda_unit": "flux"}
    return DisentanglingAutoencoder(PIXELS, LABELS, lambdas=PAIR, bins={"count": 10}, adversary=options)


def config_of(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of ``train.py lambdas=first_pair`` with other overrides."""
    register_resolvers()
    with initialize_config_dir(str(CONF)):
        return compose("config", overrides=["lambdas=first_pair", *overrides])


def default(overrides: Sequence[str] = ()) -> DisentanglingAutoencoder:
    """What ``train.py lambdas=first_pair`` trains, with other overrides."""
    model = config_of(overrides).model
    return hydra.utils.instantiate(model, n_pixels=PIXELS, labels=LABELS, _execution_whitelist_=["spectangle.*"])


def ready(model: DisentanglingAutoencoder, data: RandomStars) -> DisentanglingAutoencoder:
    model.calibrate(data.flux, data.labels)
    data.classes = model.adversary.classify(data.labels)
    return model


def lightning_loop(model: DisentanglingAutoencoder, data: RandomStars, precision: str = "32-true") -> float:
    """Spectra per second of ``Trainer.fit``, logging included."""
    clock = Clock()
    trainer = L.Trainer(
        max_epochs=2,
        precision=precision,  # pyright: ignore
        callbacks=[clock],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    return len(data.flux) / clock.seconds


class Clock(L.Callback):
    """Time the second epoch: the first one warms up."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def plain_loop(model: DisentanglingAutoencoder, data: RandomStars) -> float:
    """Spectra per second of a bare torch loop that does the same arithmetic."""
    autoencoder, discriminators = model.configure_optimizers()
    adversary, seconds = model.adversary, 0.0
    for _ in range(2):
        start = time.perf_counter()
        for batch in data.train_dataloader():
            step = model.look(batch, model.draw(len(batch[0])))
            for _ in range(adversary.steps):
                loss = adversary.cross_entropy(step["seen"].detach(), step["questions"]).sum()
                discriminators.zero_grad()
                loss.backward()
                discriminators.step()
            with frozen(adversary):
                loss, _ = model.autoencoder_loss(step, 0.5)
            autoencoder.zero_grad()
            loss.backward()
            autoencoder.step()
        seconds = time.perf_counter() - start
    return len(data.flux) / seconds


def parts(model: DisentanglingAutoencoder, data: RandomStars) -> dict[str, float]:
    """Seconds of the parts of an epoch of the plain loop, the second of two."""
    autoencoder, discriminators = model.configure_optimizers()
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    for _ in range(2):
        seconds.clear()
        for batch in data.train_dataloader():
            with timed("encoder, noise"):
                step = model.look(batch, model.draw(len(batch[0])))
            for _ in range(model.adversary.steps):
                with timed("discriminators"):
                    seen = step["seen"].detach()
                    loss = model.adversary.cross_entropy(seen, step["questions"]).sum()
                    discriminators.zero_grad()
                    loss.backward()
                with timed("their optimiser"):
                    discriminators.step()
            with timed("decoder, penalty"), frozen(model.adversary):
                loss, _ = model.autoencoder_loss(step, 0.5)
            with timed("backward through all"):
                autoencoder.zero_grad()
                loss.backward()
            with timed("optimiser of the autoencoder"):
                autoencoder.step()
    return seconds


class BareStep:
    """A step of discriminators without autograd: forward and backward into memory that is there.

    Arguments:
        bank: The discriminators.
        inputs: What they see [D, B, n_inputs].
    """

    def __init__(self, bank: DiscriminatorBank, inputs: torch.Tensor):
        self.weights, self.biases = ([p.detach() for p in own] for own in (bank.weights, bank.biases))
        self.hidden = [torch.empty(*inputs.shape[:2], weight.shape[2]) for weight in self.weights]
        self.slopes = [torch.rand_like(h) for h in self.hidden]  # of the loss, in each layer; the last one is given
        self.of_weights, self.of_biases = ([torch.empty_like(p) for p in own] for own in (self.weights, self.biases))
        self.below = [inputs, *self.hidden[:-1]]
        size = sum(weight[0].numel() for weight in self.weights)
        self.operations = 2.0 * inputs.shape[:2].numel() * (3 * size - self.weights[0][0].numel())

    def products(self) -> None:
        """The matrix products alone."""
        self._take(by_hand=False)

    def by_hand(self) -> None:
        """With the biases and ReLUs that lie between them."""
        self._take(by_hand=True)

    def _take(self, by_hand: bool) -> None:
        last = len(self.weights) - 1
        for i, weight in enumerate(self.weights):
            torch.bmm(self.below[i], weight, out=self.hidden[i])
            if by_hand:
                self.hidden[i].add_(self.biases[i])
                if i < last:
                    self.hidden[i].relu_()
        for i in range(last, -1, -1):
            torch.bmm(self.below[i].transpose(1, 2), self.slopes[i], out=self.of_weights[i])
            if by_hand:
                torch.sum(self.slopes[i], 1, keepdim=True, out=self.of_biases[i])
            if i:
                torch.bmm(self.slopes[i], self.weights[i].transpose(1, 2), out=self.slopes[i - 1])
                if by_hand:
                    slope = self.slopes[i - 1]
                    torch.ops.aten.threshold_backward.grad_input(slope, self.hidden[i - 1], 0, grad_input=slope)


def layers_of_a_step(model: DisentanglingAutoencoder, data: RandomStars) -> tuple[dict[str, float], float]:
    """Seconds of a step of the discriminators, from its bare matrix products to all of it, medians of 40; and its
    floating-point operations.
    """
    optimizer, adversary = model.configure_optimizers()[1], model.adversary
    batch = next(iter(data.train_dataloader()))
    step = model.look(batch, model.draw(len(batch[0])))
    seen, questions = step["seen"].detach(), step["questions"]
    inputs = adversary._inputs(seen, questions)
    bare = BareStep(adversary.bank, inputs)

    def networks() -> None:
        optimizer.zero_grad()
        adversary.bank(inputs).backward(bare.slopes[-1])

    def losses() -> None:
        optimizer.zero_grad()
        adversary.cross_entropy(seen, questions).sum().backward()

    def everything() -> None:
        losses()
        optimizer.step()

    layers: dict[str, Callable[[], None]] = {
        "its matrix products alone": bare.products,
        "... biases and ReLUs, by hand": bare.by_hand,
        "the networks by autograd": networks,
        "... and their losses": losses,
        "... and their optimiser": everything,
    }
    return {name: median_of(layer) for name, layer in layers.items()}, bare.operations


def median_of(call: Callable[[], None], times: int = 40) -> float:
    """Seconds of a call, median after five that warm up."""
    seconds = []
    for _ in range(times + 5):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[5:])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--stars", type=int, default=16384)
    arguments.add_argument("--batch-size", type=int, help="of the default; the paper's is 256")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    use_threads()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    paper_stars = RandomStars(options.stars, 256)
    stars = RandomStars(options.stars, options.batch_size or config_of().data.batch_size)

    def bf16(model: DisentanglingAutoencoder, data: RandomStars) -> float:
        return lightning_loop(model, data, "bf16-mixed")

    cases: dict[str, tuple[Callable[[], DisentanglingAutoencoder], Callable[..., float]]] = {
        "Lightning, 1 step": (partial(paper, 1), lightning_loop),
        "plain loop, 1 step": (partial(paper, 1), plain_loop),
        "bf16-mixed, 1 step": (partial(paper, 1), bf16),
        "Lightning, 5 steps": (partial(paper, 5), lightning_loop),
        "Lightning, default": (default, lightning_loop),
        "plain loop, default": (default, plain_loop),
        "bf16-mixed, default": (default, bf16),
    }

    rates: dict[str, list[float]] = {name: [] for name in cases}
    gemm = []
    for _ in range(options.rounds):
        gemm.append(gemm_rate())
        for name, (build, loop) in cases.items():
            own = stars if build is default else paper_stars
            rates[name].append(loop(ready(build(), own), own))
    work = {name: operations(build()) for name, (build, _) in cases.items()}
    report(statistics.median(gemm), rates, work, options.rounds, stars.batch_size)
    cost = parts(ready(default(), stars), stars)
    whole = sum(cost.values())
    table = Table("part of a step, default", "ms", "share", title_justify="left")
    for name, spent in cost.items():
        table.add_row(name, f"{1e3 * spent / len(stars.train_dataloader()):.1f}", f"{spent / whole:.0%}")
    console.print(table)
    found, step = layers_of_a_step(ready(default(), stars), stars)
    table = Table("a step of the discriminators, default", "ms", "of the GEMM limit", title_justify="left")
    for name, spent in found.items():
        table.add_row(name, f"{1e3 * spent:.2f}", f"{step / spent / statistics.median(gemm):.2f}")
    console.print(table)


def report(gemm: float, rates: dict[str, list[float]], work: dict[str, float], rounds: int, batch_size: int) -> None:
    threads = torch.get_num_threads()
    table = Table(
        title=f"batch {batch_size} (the paper's steps: 256), {threads} threads, GEMM {gemm / 1e9:.0f} GFLOP/s, medians "
        f"of {rounds}",
        title_justify="left",
    )
    for name in ("loop", "MFLOP/spectrum", "spectra/s", "of the GEMM limit", "of its plain loop"):
        table.add_column(name, justify="left" if name == "loop" else "right")
    plain = {"paper": "plain loop, 1 step", "default": "plain loop, default"}
    for name, values in rates.items():
        rate = statistics.median(values)
        other = plain["default"] if name.endswith("default") else plain["paper"] if name.endswith("1 step") else None
        ratio = f"{rate / statistics.median(rates[other]):.2f}" if other else ""
        table.add_row(name, f"{work[name] / 1e6:.1f}", f"{rate:,.0f}", f"{rate * work[name] / gemm:.2f}", ratio)
    console.print(table)


if __name__ == "__main__":
    main()

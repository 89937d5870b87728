"""Train one model and read labels from its latent space: spectangle train model.latent=25 lambdas=first_pair"""

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app()
def main(cfg: DictConfig) -> float | tuple[float, ...]:
    from spectangle.training.experiment import objectives, train

    return objectives(cfg, train(cfg))

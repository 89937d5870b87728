"""Train one model and read labels from its latent space: python train.py model.latent=25 lambdas=first_pair"""

from omegaconf import DictConfig

from spectangle.cli import hydra_app


@hydra_app()  # @hydra.main: by these words Hydra's tab completion knows a command
def main(cfg: DictConfig) -> float | tuple[float, ...]:
    from spectangle.experiment import objectives, train

    return objectives(cfg, train(cfg))


if __name__ == "__main__":
    main()

"""Train one model and read labels from its latent space: python train.py model.latent=25 lambdas=first_pair"""

from spectangle.commands.train import main  # @hydra.main: by these words Hydra's tab completion knows a command

if __name__ == "__main__":
    main()

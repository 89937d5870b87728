"""The model: ``autoencoder`` and its two steps, ``adversary``, the ``networks`` of both, the ``projection`` that the
encoder reads, the ``label_estimator`` of missing labels, ``losses``, ``optimizers``, the ``training_setup`` of a model,
``epoch_means`` of metrics, ``scaling`` of flux and labels, ``priors`` of bins, ``plain_layers`` for those who read
fast, ``build`` from a config, ``load`` from a run.
"""

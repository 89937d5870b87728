"""A run as files for others: ``package`` writes weights, configuration, ``model_card`` and ``onnx``."""

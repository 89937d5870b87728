"""Read stars with a trained model: ``load`` it (``trained``, ``trained_networks``), take ``spectra_input`` to the
``model_grid``, ``read`` it through ``fast_networks`` and ``readout`` (``python_readout`` where the regressor is no
network), compare with a ``calibration``, judge ``quality``, write the ``star_table``; ``predict`` is all of it.
"""

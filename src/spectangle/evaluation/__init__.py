"""What a latent knows: ``downstream`` fits ``regressors``, ``probes`` measure ``leakage`` by ``cross_fit`` on stars
never seen, ``averaged_networks`` are the strongest of either; ``results_table``, ``probe_table`` and ``run_figures``
show it.
"""

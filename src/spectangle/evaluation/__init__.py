"""What a latent knows: ``downstream`` fits ``regressors``, ``probes`` measure by ``leakage`` on stars never seen,
``averaged_networks`` are the strongest of either; ``results_table``, ``probe_table`` and ``run_figures`` show it.
"""

"""The survey file: ``file`` reads it, ``writer`` writes it, ``format`` says what it holds, ``disk_file`` survives a
full disk. What numbers in it mean: ``wavelengths``, ``source_ids``, ``label_units``, and what a program has ``given``;
``star_draws`` random numbers that belong to a star, ``spectral_lines`` that pictures mark.
"""

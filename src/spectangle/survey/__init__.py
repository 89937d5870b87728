"""The survey file: ``file`` reads it, ``writer`` writes it, ``format`` says what it holds; ``star_draws`` random
numbers that belong to a star, ``spectral_lines`` that pictures mark.
"""

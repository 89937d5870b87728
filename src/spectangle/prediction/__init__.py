"""Parameters of stars from a trained run: spectra in (``spectra_input``, ``grids``), labels read (``reading``), how sure (``calibration``,
``quality``), a table of stars out (``star_table``); ``predict`` does it all, piece by piece."""

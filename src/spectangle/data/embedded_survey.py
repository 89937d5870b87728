"""The embedded survey as a data module."""

from pathlib import Path

from spectangle.caching import cache_folder
from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.files import made_once
from spectangle.synthetic import fingerprint, write_survey

__all__ = ["EmbeddedSurveyDataModule"]


class EmbeddedSurveyDataModule(SpectraDataModule):
    """Serve the embedded survey: synthetic Gaia RVS spectra of a realistic population, made once and kept in the cache.

    Arguments:
        n_stars: Number of stars (paper: 64,305).
        survey_seed: Seed of the population and of the noise.
        **options: Options of :class:`SpectraDataModule`.
    """

    def __init__(self, n_stars: int = 64305, survey_seed: int = 0, **options):
        super().__init__(path=None, **options)
        if n_stars < 20:
            raise SpectangleError(f"data.n_stars is {n_stars}; training needs at least 20 stars.")
        self._size, self._survey_seed = n_stars, survey_seed

    def setup(self, stage: str | None = None) -> None:
        if not self._ready:
            self.path = str(cache_folder() / f"embedded-{self._size}-{self._survey_seed}-{fingerprint()}.h5")
            with made_once(Path(self.path)) as missing:
                if missing:
                    write_survey(self.path, n_stars=self._size, seed=self._survey_seed)
        super().setup(stage)

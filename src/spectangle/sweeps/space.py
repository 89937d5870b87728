"""The search space of a sweep: what is varied, the points of a grid, and the identity of a configuration."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, Transformer
from hydra.errors import HydraException, OverrideParseException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from spectangle.configs.arguments import label_key
from spectangle.errors import SpectangleError

__all__ = ["Space", "identity", "override", "parse_space", "written"]


@dataclass
class Space:
    """What a sweep varies.

    Arguments:
        swept: Optuna distribution by override key.
        fixed: Overrides that every run gets.
        extend: ``f(cfg, trial)`` that suggests more keys (``custom_search_space``), or None.
    """

    swept: dict[str, BaseDistribution]
    fixed: list[str] = field(default_factory=list)
    extend: Callable[[Any, Any], None] | None = None

    def define(self, cfg: Any, trial: Any) -> dict[str, Any]:
        """Suggest a value for each key; return the parameters of the trial."""
        for name, distribution in self.swept.items():
            trial._suggest(name, distribution)
        if self.extend is not None:
            self.extend(cfg, trial)
        return dict(trial.params)

    def points(self, cfg: Any) -> Iterator[dict[str, Any]]:
        """Yield every point of the grid once, the last key varying fastest; conditional keys included.

        A ``custom_search_space`` that raises :class:`optuna.TrialPruned` leaves a point out.
        """
        seen: set[str] = set()
        path: list[tuple[int, int]] = []
        while True:
            explorer = _Explorer(path)
            try:
                params = self.define(cfg, explorer)
                if (name := identity(params)) not in seen:
                    seen.add(name)
                    yield params
            except optuna.TrialPruned:
                pass
            path = explorer.taken
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])

    def describe(self) -> dict[str, Any]:
        """The space as plain containers, to compare with that of an earlier start."""
        swept = {
            name: json.loads(optuna.distributions.distribution_to_json(value))
            for name, value in sorted(self.swept.items())
        }
        extend = None if self.extend is None else f"{self.extend.__module__}.{self.extend.__qualname__}"
        return {"swept": swept, "fixed": sorted(self.fixed), "custom_search_space": extend}

    @property
    def size(self) -> int | None:
        """Number of points without conditional keys; None if it is not countable."""
        total = 1
        for distribution in self.swept.values():
            values = _values(distribution)
            if values is None:
                return None
            total *= len(values)
        return None if self.extend is not None else total


class _Explorer:
    """Stand in for a trial: follow a path of choices, then take the first of each new one."""

    def __init__(self, path: Sequence[tuple[int, int]]):
        self.path, self.taken, self._params, self.number = list(path), [], {}, 0

    @property
    def params(self) -> dict[str, Any]:
        return self._params

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._params:
            return self._params[name]
        values = _values(distribution)
        if values is None:
            raise SpectangleError(
                f"A grid cannot list the values of {name}; give choice(...) or range(...), or another "
                "hydra/sweeper/sampler."
            )
        index = self.path[len(self.taken)][0] if len(self.taken) < len(self.path) else 0
        self.taken.append((index, len(values)))
        self._params[name] = values[index]
        return values[index]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._suggest(name, IntDistribution(low, high, log=log, step=step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._suggest(name, FloatDistribution(low, high, log=log, step=step))

    def set_user_attr(self, key: str, value: Any) -> None: ...


def parse_space(
    overrides: Sequence[str], extend: Callable[[Any, Any], None] | None = None, grid: bool = False
) -> Space:
    """Read hydra-optuna-sweeper's syntax; where a key comes twice, the last one counts.

    Arguments:
        overrides: ``key=choice(...)``, ``key=range(...)``, ``key=tag(log, interval(...))``, ``key=1,2`` or fixed
            values.
        extend: See :class:`Space`.
        grid: Keep every value in the order given.

    Raises:
        SpectangleError: An override does not parse, or a grid is asked for an interval.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise SpectangleError(
            f"The search space does not parse: {error.override}: {str(error).splitlines()[0]}."
        ) from error
    swept: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for item in parsed:
        key = _key(item)
        swept.pop(key, None)
        fixed.pop(key, None)
        if item.is_sweep_override():
            swept[key] = _distribution(item, grid)
        else:
            value = "" if item.is_delete() and item._value is None else f"={item.get_value_element_as_str()}"
            fixed[key] = label_key(key) + value
    return Space(swept, list(fixed.values()), extend)


def override(key: str, value: Any) -> str:
    """Write a parameter as an override; text that Hydra would not read as one value is quoted."""
    key = label_key(key)
    if isinstance(value, bool) or value is None:
        return f"{key}={json.dumps(value)}"
    if not isinstance(value, str):
        return f"{key}={value!r}"
    try:
        if not OverridesParser.create().parse_override(f"{key}={value}").is_sweep_override():
            return f"{key}={value}"
    except HydraException:
        pass
    return f"{key}={QuotedString(text=value, quote=Quote.single).with_quotes()}"


def written(value: Any) -> str:
    """A value of ``hydra.sweeper.params`` as an override has it: text is a search space, all else one value."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(written(item) for item in value) + "]"
    return json.dumps(value) if isinstance(value, bool) or value is None else str(value)


def identity(params: Mapping[str, Any]) -> str:
    """The name of a configuration: a hash of its swept overrides, whatever their order or spelling."""
    pairs = sorted((key.lstrip("+"), _plain(key, value)) for key, value in params.items())
    # the letter in front: 27209144e7 is a float to Hydra, YAML and every spreadsheet
    return "c" + hashlib.sha256(json.dumps(pairs, sort_keys=True).encode()).hexdigest()[:9]


def _plain(key: str, value: Any) -> Any:
    """The value that Hydra will read, so that ``1e-3`` and ``0.001``, ``[1,2]`` and ``[1, 2]`` are one."""
    value = OverridesParser.create().parse_override(override(key, value)).value()
    return json.loads(
        json.dumps(value, default=lambda item: item.text if isinstance(item, QuotedString) else str(item))
    )


def _key(item: Override) -> str:
    """The key of an override; that of a label without the plus signs that say no more than that it is one."""
    key = item.get_key_element()
    plain = key.lstrip("+")
    return plain if label_key(plain) != plain else key


def _distribution(item: Override, grid: bool) -> BaseDistribution:
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    if grid and item.is_interval_sweep():
        raise SpectangleError(
            f"A grid cannot list the values of {item.input_line}; give choice(...) or range(...), or another "
            "hydra/sweeper/sampler."
        )
    if not grid and not item.is_choice_sweep():
        try:
            return create_optuna_distribution_from_override(item)
        except ValueError as error:
            raise SpectangleError(f"{item.input_line} is no search space: {error}") from error
    values = list({_text(value): _choice(value) for value in item.sweep_iterator()}.items())
    if not values:
        raise SpectangleError(f"{item.input_line} has no values; give at least one.")
    equal = len({value for _, value in values}) < len(values)  # 1, 1.0 and true: to Optuna one value, to Hydra three
    return CategoricalDistribution([text if equal else value for text, value in values])


def _text(value: Any) -> str:
    """The text of an override's value: what tells values apart that Python thinks equal."""
    return override("", _choice(value))[1:]


def _choice(value: Any) -> Any:
    """Numbers stay numbers, everything else becomes the text of an override, quoted as it must be."""
    return value if isinstance(value, (int, float, bool)) or value is None else Transformer.str(value)


def _values(distribution: BaseDistribution) -> list[Any] | None:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    if isinstance(distribution, FloatDistribution) and distribution.step:
        count = round((distribution.high - distribution.low) / distribution.step)
        return [distribution.low + i * distribution.step for i in range(count + 1)]
    return None

"""Records of one run folder, and their scores as one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

from sparseguard.core.errors import StoreError
from sparseguard.record.schema import Record

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


@final
class Records(list[Record]):
    """The records of a run folder, in the order of their file names."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a case, attack, split and metric, as `to_pandas` does, without pandas."""
        return [row for record in self for row in _rows(record)]

    def to_pandas(self) -> pd.DataFrame:
        """Return the scores as a table: one row a case, attack, split and metric.

        The columns name the case (``recipe``, ``dataset``, ``backbone``, ``threat``, ``tap``, ``defense``, ``seed``),
        the target's ``accuracy``, the attack (``attack``, ``component``, ``knowledge``, ``queries``, ``floor``,
        ``control``), the ``split``, the ``metric``, and its score: ``mean`` over ``n`` images, ``std``, and the 95 %
        interval from ``ci_low`` to ``ci_high``. Scores of class inversion have no ``std`` and the split ``private``.
        Failed cases have no rows.

        Raises:
            StoreError: when pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise StoreError("to_pandas needs pandas: pip install 'sparseguard[pandas]'.") from error
        return pd.DataFrame(self.rows(), columns=list(COLUMNS))


COLUMNS = (
    "recipe", "dataset", "backbone", "threat", "tap", "defense", "seed", "accuracy",
    "attack", "component", "knowledge", "queries", "floor", "control",
    "split", "metric", "mean", "std", "ci_low", "ci_high", "n",
)  # fmt: skip


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    case = {
        "recipe": record.recipe,
        **record.case.model_dump(),
        "accuracy": None if record.target is None else record.target.accuracy,
    }
    for attack in record.attacks:
        named = {
            "attack": attack.name,
            "component": attack.attack,
            "knowledge": attack.knowledge,
            "queries": attack.queries,
            "floor": attack.floor,
            "control": attack.control,
        }
        for split, scores in attack.scores.items():
            for metric, score in scores.items():
                low, high = score.ci95
                yield {
                    **case, **named, "split": split, "metric": metric,
                    "mean": score.mean, "std": score.std, "ci_low": low, "ci_high": high, "n": score.n,
                }  # fmt: skip
    for class_attack in record.class_attacks:
        named = {
            "attack": class_attack.name,
            "component": class_attack.attack,
            "knowledge": class_attack.knowledge,
            "queries": 1,
            "floor": False,
            "control": class_attack.control,
        }
        for metric, class_score in class_attack.scores.items():
            ends = class_score.ci95 or (None, None)
            yield {
                **case, **named, "split": "private", "metric": metric,
                "mean": class_score.value, "std": None, "ci_low": ends[0], "ci_high": ends[1], "n": class_score.n,
            }  # fmt: skip

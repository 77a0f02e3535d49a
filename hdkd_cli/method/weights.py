"""Harmonized weights: positive factors of the training terms, learned or fixed.

K exits, T terms, P distillation terms.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor, nn

from hdkd_cli.choices import Parametrisation, WeightInit
from hdkd_cli.method.terms import Distillation, Supervision, Terms

SMALL = 0.01
"""What ``last`` gives the other teachers, as a fraction of the last one's weight. [ours]"""


def initial_weights(
    terms: Terms,
    *,
    init: WeightInit,
    supervision_sum: float | None,
    distillation_sum: float | None,
    tilt: float,
    dbt_share: float,
    seed: int,
) -> list[float]:
    """The T weights training starts from.

    Source: Wang & Li, AAAI 2021, compare initialisations like deep supervision, like
    distillation-based training, and random; the exact proportions are [ours]. ``dbt``: Phuong &
    Lampert, ICCV 2019.

        balanced     supervision equal; γ_ij ∝ 1 / (number of teachers of student i)
        halved       as balanced, with half of the distillation sum
        last         supervision equal; the last exit teaches, the other teachers are small
        supervision  as balanced, with a tenth of the distillation sum
        random       uniform proportions in each group, the same for a seed on every machine
        uniform      every weight 1
        dbt          γ_k = 10/K · (1 − C), γ_iK = 10/K · C; needs teachers "last". The factor is
                     that of the authors' code: with C = 0.5 and 5 exits every weight is 1

    The first five sum to Z over supervision, Z = ``supervision_sum`` or K, and to S over
    distillation, S = ``distillation_sum`` or, where that is absent, K − 1 (``halved``: half of it;
    ``supervision``: a tenth). Without pairs S does not apply. ``tilt`` makes the labels of late
    exits count more (above 0) or less, γ_k ∝ exp(tilt · x_k) with x_k from −1 to 1, under the same
    sum. Terms of groups from outside start at 1.

    Raises:
        ValueError: ``dbt`` without the last exit as only teacher, or a sum or tilt for ``dbt`` or
            ``uniform``, which leave nothing to scale.
    """
    scales = {"supervision_sum": supervision_sum, "distillation_sum": distillation_sum}
    given = [name for name, value in scales.items() if value is not None] + ["tilt"] * (tilt != 0)
    if init in ("uniform", "dbt") and given:
        raise ValueError(f"{given[0]} does not apply to init {init!r}: leave it out")
    if init == "dbt" and terms.teachers != "last":
        raise ValueError(f"init 'dbt' needs teachers 'last', not {terms.teachers!r}")
    K = terms.num_exits
    draw = random.Random(seed)  # its stream is the same on every platform and version
    weights: list[float] = []
    for group in terms.groups:
        if init == "uniform" or not isinstance(group, Supervision | Distillation):
            weights += [1.0] * len(group.terms)
        elif init == "dbt":
            share = dbt_share if isinstance(group, Distillation) else 1 - dbt_share
            weights += [10 / K * share] * len(group.terms)
        elif isinstance(group, Supervision):
            supervision_K = [1 - draw.random() if init == "random" else 1.0 for _ in group.terms]
            places = [2 * k / max(1, K - 1) - 1 for k in range(K)]
            tilted_K = [w * math.exp(tilt * x) for w, x in zip(supervision_K, places, strict=True)]
            weights += _summing_to(supervision_sum or K, tilted_K)  # drawn in (0, 1]
        else:
            total = distillation_sum
            if total is None:
                total = {"halved": 0.5, "supervision": 0.1}.get(init, 1.0) * (K - 1)
            weights += _summing_to(total, _distillation_proportions(group, init, K, draw))
    return weights


def _distillation_proportions(
    group: Distillation, init: WeightInit, last: int, draw: random.Random
) -> list[float]:
    """How the distillation weights relate to each other; ``last`` is the last exit."""
    if init == "random":
        return [1 - draw.random() for _ in group.terms]
    if init == "last":
        return [1.0 if term.teacher == last else SMALL for term in group.terms]
    students = [term.student for term in group.terms]
    return [1 / students.count(student) for student in students]


def _summing_to(total: float, proportions: list[float]) -> list[float]:
    whole = sum(proportions)
    return [total * proportion / whole for proportion in proportions]


class HarmonizedWeights(nn.Module):
    """γ, one positive weight per term: γ_init times a function of the learned vector.

    Source: Wang & Li, AAAI 2021 (one set of learned weights over both kinds of terms); the three
    parametrisations are [ours]:

        exp      γ = γ_init · exp(raw)
        grouped  the same, scaled so that the weights of each group of terms (supervision,
                 distillation) keep their initial sum
        softmax  the same, scaled so that all weights keep their initial sum

    ``raw_T`` is the learned vector counted from its start: raw = a − a_init with γ = exp(a), or
    softmax(a) in a group. So weights start exactly at γ_init, a pull towards a_init is a pull
    towards zero, and a fixed weight may be 0.

    Both vectors are float32 buffers: they move with ``.to(device)`` and make up ``state_dict()``.

    Args:
        terms: What is weighted.
        init, supervision_sum, distillation_sum, tilt, dbt_share, seed: See ``initial_weights``.
        parametrisation: See above.
        learned: Whether a ``Harmonizer`` may change ``raw_T``.

    Raises:
        ValueError: An impossible initialisation, or weights to be learned that start at 0, where
            every parametrisation would keep them.
    """

    raw_T: Tensor
    initial_T: Tensor

    def __init__(
        self,
        terms: Terms,
        *,
        init: WeightInit,
        parametrisation: Parametrisation,
        supervision_sum: float | None = None,
        distillation_sum: float | None,
        tilt: float = 0.0,
        dbt_share: float,
        learned: bool,
        seed: int,
    ) -> None:
        super().__init__()
        initial = initial_weights(
            terms,
            init=init,
            supervision_sum=supervision_sum,
            distillation_sum=distillation_sum,
            tilt=tilt,
            dbt_share=dbt_share,
            seed=seed,
        )
        if learned and min(initial) <= 0:
            cause = (
                f"dbt_share must lie strictly between 0 and 1, not {dbt_share:g}"
                if init == "dbt"
                else "distillation_sum must be positive"
            )
            raise ValueError(f"weights that start at 0 cannot be learned: {cause}")
        self.learned = learned
        # lengths of the stretches of γ whose sums are kept
        if parametrisation == "exp" or not learned:
            self._stretches: list[int] = []
        elif parametrisation == "grouped":
            self._stretches = [len(group.terms) for group in terms.groups]
        else:
            self._stretches = [len(initial)]
        self.register_buffer("initial_T", torch.tensor(initial, dtype=torch.float32))
        self.register_buffer("raw_T", torch.zeros(len(initial), dtype=torch.float32))

    def __call__(self) -> Tensor:
        """The weights now: (T,) float32, on the device of ``raw_T``, outside any graph."""
        return self.at(self.raw_T)

    def at(self, raw_T: Tensor) -> Tensor:
        """The weights that belong to another learned vector; differentiable in ``raw_T``."""
        if not self._stretches:
            return self.initial_T * raw_T.exp()
        parts = []
        for initial, raw in zip(
            torch.split(self.initial_T, self._stretches),
            torch.split(raw_T, self._stretches),
            strict=True,
        ):
            free = initial * (raw - raw.detach().max()).exp()  # the shift cancels below
            parts.append(free * (initial.sum() / free.sum()))
        return torch.cat(parts)

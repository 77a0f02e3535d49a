"""Harmonized weights: positive factors of the training terms, learned or fixed.

K exits, T terms, P distillation pairs.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from hdkd_cli.choices import Parametrisation, WeightInit
from hdkd_cli.method.terms import Terms

SMALL = 0.01
"""What ``last`` gives the other teachers, as a fraction of the last one's weight. [ours]"""


def initial_weights(
    terms: Terms, *, init: WeightInit, distillation_sum: float | None, dbt_share: float, seed: int
) -> list[float]:
    """The T weights training starts from.

    Source: Wang & Li, AAAI 2021, compare initialisations like deep supervision, like
    distillation-based training, and random; the exact proportions are [ours]. ``dbt``: Phuong &
    Lampert, ICCV 2019.

        balanced     supervision equal; γ_ij ∝ 1 / (number of teachers of student i)
        last         supervision equal; the last exit teaches, the other teachers are small
        supervision  as balanced, with a tenth of the distillation sum
        random       uniform proportions in each group, the same for a seed on every machine
        uniform      every weight 1
        dbt          γ_k = 1 − C for k < K, γ_K = 1, γ_iK = C; needs teachers "last"

    The first four sum to K over supervision and to S over distillation, S = ``distillation_sum``
    or, where that is absent, K − 1 (``supervision``: 0.1·(K − 1)). Without pairs S does not apply.

    Raises:
        ValueError: ``dbt`` without the last exit as only teacher, or a distillation sum for
            ``dbt`` or ``uniform``, which leave nothing to scale.
    """
    K = terms.num_exits
    if init in ("uniform", "dbt") and distillation_sum is not None:
        raise ValueError(f"distillation_sum does not apply to init {init!r}: leave it out")
    if init == "uniform":
        return [1.0] * len(terms.names)
    if init == "dbt":
        if terms.teachers != "last":
            raise ValueError(f"init 'dbt' needs teachers 'last', not {terms.teachers!r}")
        return [1 - dbt_share] * (K - 1) + [1.0] + [dbt_share] * len(terms.pairs)

    supervision_K = [1.0] * K
    students_P = [student for student, _ in terms.pairs]
    if init == "random":
        draw = random.Random(seed)  # its stream is the same on every platform and version
        supervision_K = [1 - draw.random() for _ in range(K)]  # in (0, 1]
        distillation_P = [1 - draw.random() for _ in terms.pairs]
    elif init == "last":
        distillation_P = [1.0 if teacher == K - 1 else SMALL for _, teacher in terms.pairs]
    else:
        distillation_P = [1 / students_P.count(student) for student in students_P]
    if distillation_sum is None:
        distillation_sum = (0.1 if init == "supervision" else 1.0) * (K - 1)
    return _summing_to(K, supervision_K) + _summing_to(distillation_sum, distillation_P)


def _summing_to(total: float, proportions: list[float]) -> list[float]:
    whole = sum(proportions)
    return [total * proportion / whole for proportion in proportions]


class HarmonizedWeights(nn.Module):
    """γ, one positive weight a term: γ_init times a function of the learned vector.

    Source: Wang & Li, AAAI 2021 (one set of learned weights over both kinds of terms); the three
    parametrisations are [ours]:

        exp      γ = γ_init · exp(raw)
        grouped  the same, scaled so that the supervision and the distillation weights each keep
                 their initial sum
        softmax  the same, scaled so that all weights keep their initial sum

    ``raw_T`` is the learned vector counted from its start: raw = a − a_init with γ = exp(a), or
    softmax(a) in a group. So weights start exactly at γ_init, a pull towards a_init is a pull
    towards zero, and a fixed weight may be 0.

    Both vectors are float32 buffers: they move with ``.to(device)`` and make up ``state_dict()``.

    Args:
        terms: What is weighted.
        init, distillation_sum, dbt_share, seed: See ``initial_weights``.
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
        distillation_sum: float | None,
        dbt_share: float,
        learned: bool,
        seed: int,
    ) -> None:
        super().__init__()
        initial = initial_weights(
            terms, init=init, distillation_sum=distillation_sum, dbt_share=dbt_share, seed=seed
        )
        if learned and min(initial) <= 0:
            cause = (
                f"dbt_share must lie strictly between 0 and 1, not {dbt_share:g}"
                if init == "dbt"
                else "distillation_sum must be positive"
            )
            raise ValueError(f"weights that start at 0 cannot be learned: {cause}")
        self.learned = learned
        K, P = terms.num_exits, len(terms.pairs)
        # lengths of the stretches of γ whose sums are kept
        if parametrisation == "exp" or not learned:
            self._stretches: list[int] = []
        elif parametrisation == "grouped":
            self._stretches = [K, P] if P else [K]
        else:
            self._stretches = [K + P]
        self.register_buffer("initial_T", torch.tensor(initial, dtype=torch.float32))
        self.register_buffer("raw_T", torch.zeros(K + P, dtype=torch.float32))

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

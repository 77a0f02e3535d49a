"""A few shared parameters of all weights, learned from short continuations of training.

The derivative of one step says what helps the next step, not the trained network: it is noisy, and
for the weights of losses it points the wrong way (short-horizon bias; Wu, Ren, Liao & Grosse,
"Understanding Short-Horizon Bias in Stochastic Meta-Optimization", ICLR 2018). So the question is
put to a longer horizon: training goes on for a while with a parameter moved up, with it moved down
and with all as they are, on the same images in the same order, and validation images judge them
[ours]. That costs two continuations per parameter and one more, so there are few parameters:

    raw_t = Σ_m B_tm · φ_m,   γ_t = γ_init,t · exp(raw_t)

How labels' weights lie over the exits is not among them: whole runs are best where all are about
alike, and what is still early in training always asks for lighter late ones (docs/log.md).
T terms, M parameters, K exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdkd_cli.method.terms import Term


@dataclass(frozen=True)
class Tried:
    """What a round of continuations found.

    Attributes:
        here: The objective with φ as it is.
        up_M: With each parameter moved up, on the CPU; infinite where training diverged.
        down_M: With each moved down.
    """

    here: float
    up_M: Tensor
    down_M: Tensor


class Tradeoffs(nn.Module):
    """φ: what all weights are traded off by. The common scale of all terms is not among it, which
    would be a second learning rate.

        share of KIND   all terms of a kind, against supervision; distillation's first of all
        reach           near teachers (below 0) against far ones (above 0), where distances differ

    ``state_dict()`` is flat; both buffers are float32 and move with ``.to(device)``.

    Args:
        terms: What is weighted, supervision of every exit among it.

    Raises:
        ValueError: there is nothing but labels.

    Attributes:
        names: What each parameter trades off, (M,).
        phi_M: The parameters.
        rounds: How often they were moved.
    """

    phi_M: Tensor
    rounds: Tensor
    basis_TM: Tensor

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        columns: dict[str, list[float]] = {}
        kinds = dict.fromkeys(term.kind for term in terms)
        for kind in (kind for kind in kinds if kind != "supervision"):
            columns[f"share of {kind}"] = [float(term.kind == kind) for term in terms]
        columns["reach"] = _spread([_distance(term) for term in terms])
        columns = {name: column for name, column in columns.items() if any(column)}
        if not columns:
            raise ValueError(
                "learner = continuations has nothing to learn: all losses are on labels"
            )
        self.names = tuple(columns)
        self.register_buffer("basis_TM", torch.tensor(list(columns.values())).T, persistent=False)
        self.register_buffer("phi_M", torch.zeros(len(columns)))
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def raw(self, phi_M: Tensor) -> Tensor:
        """The log-ratio of every weight to its start, (T,)."""
        return self.basis_TM @ phi_M

    def probes(self, reach: float) -> list[Tensor]:
        """φ as it is, with each parameter moved up by ``reach``, and with each moved down."""
        steps_MM = reach * torch.eye(len(self.names), device=self.phi_M.device)
        return [self.phi_M.clone(), *(self.phi_M + steps_MM), *(self.phi_M - steps_MM)]

    @torch.no_grad()
    def move(self, found: Tried, reach: float, noise: float) -> None:
        """Move φ to where the parabolas through what a round found are lowest.

            φ_m ← φ_m − reach · clip(s / (max(c, 0) + noise), −1, 1)
            s = (up_m − down_m) / 2,   c = up_m + down_m − 2 here

        A parameter goes no further than was tried; differences far below ``noise`` hardly move it
        [ours].

        Args:
            found: The round, at ``reach``.
            reach: How far up and down.
            noise: What a difference of no meaning amounts to, in units of the objective.
        """
        up_M, down_M = found.up_M.to(self.phi_M), found.down_M.to(self.phi_M)
        bend_M = (up_M + down_M - 2 * found.here).clamp(min=0)
        step_M = (0.5 * (up_M - down_M) / (bend_M + noise)).clamp(-1, 1)
        step_M = torch.where(up_M.isinf() ^ down_M.isinf(), up_M.isinf() * 2.0 - 1, step_M)
        self.phi_M -= reach * torch.nan_to_num(step_M, nan=0.0)
        self.rounds += 1


def relative_loss(ce_K: Tensor) -> Tensor:
    """Σ_k log CE_k / K, a scalar; of refined losses: what continuations are judged by.

    Its derivative is the mean of relative changes, so no exit counts more because its loss is
    larger: what the balanced validation module of Wang & Li (AAAI 2021) is for. [ours]
    """
    return ce_K.log().mean()


def _distance(term: Term) -> int | None:
    if term.student is None or term.teacher is None:
        return None
    return term.teacher - term.student


def _spread(places: Sequence[int | None]) -> list[float]:
    """Places from −1 (the smallest) to 1; 0 where there is none, or all are alike."""
    known = [place for place in places if place is not None]
    if not known or min(known) == max(known):
        return [0.0] * len(places)
    low, high = min(known), max(known)
    return [0.0 if p is None else 2 * (p - low) / (high - low) - 1 for p in places]

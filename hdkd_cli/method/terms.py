"""The training objectives ("terms") of a network with several exits.

K exits, B batch, C classes, T terms, P pairs of a student and a teacher. Terms come in groups, each
computed at once: K times supervision, P times distillation, and groups of one's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hdkd_cli.choices import Teachers


def _widened(logits: Tensor) -> Tensor:
    """``logits`` in float32, or in float64 where they are: losses never run in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def cross_entropies(logits_KBC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Supervision: CE_k = mean_b −log softmax(z_k)[b, y_b].

    Args:
        logits_KBC: Logits of all exits, any floating type.
        labels_B: Class indices, int64; or probabilities (B, C), as mixed images have.
        smoothing: Share of each label that is spread over all classes (Szegedy et al., CVPR 2016).

    Returns:
        (K,) float32, or float64 for float64 logits.
    """
    num_exits, batch, _ = logits_KBC.shape
    rows = _widened(logits_KBC).flatten(0, 1)
    labels = labels_B.repeat(num_exits, *[1] * (labels_B.ndim - 1))
    losses = F.cross_entropy(rows, labels, reduction="none", label_smoothing=smoothing)
    return losses.view(num_exits, batch).mean(1)


@dataclass(frozen=True)
class Term:
    """What one loss is.

    Attributes:
        name: Unique among the terms of a run, such as ``kd[3->1]``.
        kind: ``supervision``, ``distillation``, or what a group from outside calls it.
        student: The exit that learns, from 1; None: it concerns several.
        teacher: The exit that it learns from, from 1; None: there is none.
    """

    name: str
    kind: str
    student: int | None = None
    teacher: int | None = None


class TermGroup(ABC):
    """Losses of one kind, computed together.

    Attributes:
        terms: What they are, in the order of the values.
    """

    terms: tuple[Term, ...]

    @abstractmethod
    def __call__(self, logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        """The unweighted losses of one batch, differentiable in reverse and in forward mode.

        Called outside autocast. It must not wait for the device.

        Args:
            logits_KBC: Logits of all exits, any floating type; may be dual tensors.
            labels_B: Class indices, int64.

        Returns:
            One value for each of ``terms``, in float32 at least.
        """


class Supervision(TermGroup):
    """``ce[k]``: CE_k = mean_b −log p_k[b, y_b], every exit learns from the labels.

    Args:
        num_exits: K.
        smoothing: Share of each label that is spread over all classes.
    """

    def __init__(self, num_exits: int, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing
        self.terms = tuple(Term(f"ce[{k}]", "supervision", k) for k in range(1, num_exits + 1))

    def __call__(self, logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        """CE_k, (K,)."""
        return cross_entropies(logits_KBC, labels_B, self.smoothing)


class Distillation(TermGroup):
    """``kd[j->i]``: KD_ij = T² · mean_b KL(q_j ‖ q_i), q = softmax(z / T), q_j detached.

    Args:
        num_exits: K.
        pairs: (student, teacher) of every term, from 0.
        temperature: T > 0, or a scalar tensor that changes while training.
    """

    def __init__(
        self, num_exits: int, pairs: Sequence[tuple[int, int]], temperature: float | Tensor
    ) -> None:
        self.temperature = temperature
        self.terms = tuple(
            Term(f"kd[{teacher + 1}->{student + 1}]", "distillation", student + 1, teacher + 1)
            for student, teacher in pairs
        )
        # where each pair stands in a flattened (student, teacher) matrix
        self._cell_P = torch.tensor(
            [student * num_exits + teacher for student, teacher in pairs], dtype=torch.int64
        )

    def __call__(self, logits_KBC: Tensor, _labels_B: Tensor) -> Tensor:
        """All KD_ij at once, by one matrix product; (P,).

        KL(q_j ‖ q_i) = Σ q_j·r_j − Σ q_j·r_i with r = log q − log q_K. Any common reference drops
        out of the difference; the last exit's makes both sums small where exits agree, so that
        float32 keeps small divergences.
        """
        logits_KBC = _widened(logits_KBC)
        log_q = torch.log_softmax(logits_KBC / self.temperature, dim=2).flatten(1)  # (K, B·C)
        q = log_q.detach().exp()  # a teacher passes on neither gradients nor tangents
        cross_KK = (log_q - log_q[-1].detach()) @ q.T  # [i, j] = Σ q_j·r_i: students in rows
        divergence_KK = cross_KK.detach().diagonal() - cross_KK
        if self._cell_P.device != logits_KBC.device:
            self._cell_P = self._cell_P.to(logits_KBC.device)
        scale = self.temperature**2 / logits_KBC.shape[1]
        return scale * divergence_KK.flatten().index_select(0, self._cell_P)


class EnsembleDistillation(TermGroup):
    """``kd[all->i]``: T² · mean_b KL(q̄ ‖ q_i), q̄ the mean of all exits' softmax(z / T), detached.

    Source: the ensemble of exits as teacher, as in Lan, Zhu & Gong, "Knowledge Distillation by
    On-the-Fly Native Ensemble", NeurIPS 2018, without its learned gate [ours].

    Args:
        num_exits: K.
        temperature: T > 0, or a scalar tensor that changes while training.
    """

    def __init__(self, num_exits: int, temperature: float | Tensor) -> None:
        self.temperature = temperature
        self.terms = tuple(
            Term(f"kd[all->{k}]", "distillation", k) for k in range(1, num_exits + 1)
        )

    def __call__(self, logits_KBC: Tensor, _labels_B: Tensor) -> Tensor:
        """KD of every exit from the mean of all; (K,)."""
        log_q_KBC = torch.log_softmax(_widened(logits_KBC) / self.temperature, dim=2)
        teacher_BC = log_q_KBC.detach().exp().mean(0)
        divergence_KB = (teacher_BC * (teacher_BC.log() - log_q_KBC)).sum(2)
        return self.temperature**2 * divergence_KB.mean(1)


@dataclass(frozen=True)
class Annealing:
    """A temperature that rises while the last exit is confident.

    Source: Phuong & Lampert, ICCV 2019, section 3.2 and the authors' code: T grows by a factor
    after every step in which the teacher's largest probability at T, averaged over the batch,
    exceeds a bound.

    Attributes:
        temperature: T, a scalar; changed in place. A checkpoint keeps it.
        growth: The factor, above 1.
        until: The bound.
    """

    temperature: Tensor
    growth: float
    until: float

    def sureness(self, logits_KBC: Tensor) -> Tensor:
        """Mean of the last exit's largest probability at T, a scalar."""
        with torch.autocast(logits_KBC.device.type, enabled=False):
            return torch.softmax(_widened(logits_KBC[-1]) / self.temperature, 1).amax(1).mean()

    def step(self, sureness: Tensor) -> None:
        """Let T grow if ``sureness`` of the whole batch exceeds the bound; never waits."""
        grown = torch.where(sureness > self.until, self.growth, 1.0)
        self.temperature.mul_(grown.to(self.temperature))


def taught_pairs(num_exits: int, teachers: Teachers) -> tuple[tuple[int, int], ...]:
    """(student, teacher) of every distillation term, from 0, by student then teacher."""
    last = num_exits - 1
    return tuple(
        (student, teacher)
        for student in range(last)
        for teacher in range(student + 1, num_exits)
        if teachers == "later" or (teachers == "last" and teacher == last)
    )


class Terms:
    """All unweighted losses of a batch: supervision, then distillation, then groups from outside.

    Source: Wang & Li, AAAI 2021: every exit learns from the labels and from all later exits.
    The factor T², the batch mean and the detached teacher are [ours] (as Phuong & Lampert 2019).

    Args:
        num_exits: K.
        teachers: Which exits teach exit i: none, the last, or all later ones.
        temperature: T > 0.
        extra: Further groups.
        label_smoothing: Share of each label that is spread over all classes.
        annealing: What moves the temperature; its own is then used.

    Attributes:
        groups: Where the terms come from, in order; none of them is empty.
        terms: What the T terms are: ``ce[1]`` .. ``ce[K]``, ``kd[2->1]``, ``kd[3->1]`` ..

    Raises:
        ValueError: two terms have one name.
    """

    def __init__(
        self,
        num_exits: int,
        teachers: Teachers,
        temperature: float,
        extra: Sequence[TermGroup] = (),
        label_smoothing: float = 0.0,
        annealing: Annealing | None = None,
    ) -> None:
        self.num_exits = num_exits
        self.teachers = teachers
        self.annealing = annealing
        at = temperature if annealing is None else annealing.temperature
        pairs = taught_pairs(num_exits, teachers)
        taught: list[TermGroup] = [Distillation(num_exits, pairs, at)] if pairs else []
        if teachers == "ensemble":
            taught = [EnsembleDistillation(num_exits, at)]
        self.groups: tuple[TermGroup, ...] = (
            Supervision(num_exits, label_smoothing),
            *taught,
            *extra,
        )
        self.terms: tuple[Term, ...] = tuple(term for group in self.groups for term in group.terms)
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"more than one loss term is called {', '.join(twice)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The T names."""
        return tuple(term.name for term in self.terms)

    def __call__(self, logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        """All terms of one batch, differentiable in reverse and in forward mode.

        Args:
            logits_KBC: Logits of all exits, any floating type; may be dual tensors.
            labels_B: Class indices, int64.

        Returns:
            (T,) float32, or float64 for float64 logits, whatever autocast is active.
        """
        with torch.autocast(logits_KBC.device.type, enabled=False):
            parts = [group(logits_KBC, labels_B) for group in self.groups]
            return torch.cat(parts) if len(parts) > 1 else parts[0]

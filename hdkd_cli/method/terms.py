"""The training objectives ("terms") of a network with several exits.

K exits, B batch, C classes, T terms, P pairs of a student and a teacher (T = K + P).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hdkd_cli.choices import Teachers


def _widened(logits: Tensor) -> Tensor:
    """``logits`` in float32, or in float64 where they are: losses never run in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def cross_entropies(logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
    """Supervision: CE_k = mean_b −log softmax(z_k)[b, y_b].

    Args:
        logits_KBC: Logits of all exits, any floating type.
        labels_B: Class indices, int64.

    Returns:
        (K,) float32, or float64 for float64 logits.
    """
    num_exits, batch, _ = logits_KBC.shape
    rows = _widened(logits_KBC).flatten(0, 1)
    losses = F.cross_entropy(rows, labels_B.repeat(num_exits), reduction="none")
    return losses.view(num_exits, batch).mean(1)


class Terms:
    """All unweighted losses of a batch: K times supervision, then P times distillation.

    Source: Wang & Li, AAAI 2021: every exit learns from the labels and from all later exits.
    The factor T², the batch mean and the detached teacher are [ours] (as Phuong & Lampert 2019).

        ce[k]     CE_k  = mean_b −log p_k[b, y_b]
        kd[j->i]  KD_ij = T² · mean_b KL(q_j ‖ q_i),  q = softmax(z / T),  q_j detached

    Args:
        num_exits: K.
        teachers: Who teaches exit i: nobody, the last exit, or all later exits.
        temperature: T > 0.

    Attributes:
        pairs: (student, teacher) of every distillation term, 0-based, by student then teacher.
        names: T names, exits counted from 1: ``ce[1]`` .. ``ce[K]``, ``kd[2->1]``, ``kd[3->1]`` ..
    """

    def __init__(self, num_exits: int, teachers: Teachers, temperature: float) -> None:
        self.num_exits = num_exits
        self.teachers = teachers
        self.temperature = temperature
        last = num_exits - 1
        self.pairs: tuple[tuple[int, int], ...] = tuple(
            (student, teacher)
            for student in range(last)
            for teacher in range(student + 1, num_exits)
            if teachers == "later" or (teachers == "last" and teacher == last)
        )
        self.names: tuple[str, ...] = (
            *(f"ce[{exit_ + 1}]" for exit_ in range(num_exits)),
            *(f"kd[{teacher + 1}->{student + 1}]" for student, teacher in self.pairs),
        )
        # where each pair stands in a flattened (student, teacher) matrix
        self._cell_P = torch.tensor(
            [student * num_exits + teacher for student, teacher in self.pairs], dtype=torch.int64
        )

    def __call__(self, logits_KBC: Tensor, labels_B: Tensor) -> Tensor:
        """All terms of one batch, differentiable in reverse and in forward mode.

        Args:
            logits_KBC: Logits of all exits, any floating type; may be dual tensors.
            labels_B: Class indices, int64.

        Returns:
            (T,) float32, or float64 for float64 logits, whatever autocast is active.
        """
        with torch.autocast(logits_KBC.device.type, enabled=False):
            ce_K = cross_entropies(logits_KBC, labels_B)
            if not self.pairs:
                return ce_K
            return torch.cat([ce_K, self._distillation(_widened(logits_KBC))])

    def _distillation(self, logits_KBC: Tensor) -> Tensor:
        """All KD_ij at once, by one matrix product.

        KL(q_j ‖ q_i) = Σ q_j·r_j − Σ q_j·r_i with r = log q − log q_K. Any common reference drops
        out of the difference; the last exit's makes both sums small where exits agree, so that
        float32 keeps small divergences.
        """
        log_q = torch.log_softmax(logits_KBC / self.temperature, dim=2).flatten(1)  # (K, B·C)
        q = log_q.detach().exp()  # a teacher passes on neither gradients nor tangents
        cross_KK = (log_q - log_q[-1].detach()) @ q.T  # [i, j] = Σ q_j·r_i: students in rows
        divergence_KK = cross_KK.detach().diagonal() - cross_KK
        if self._cell_P.device != logits_KBC.device:
            self._cell_P = self._cell_P.to(logits_KBC.device)
        scale = self.temperature**2 / logits_KBC.shape[1]
        return scale * divergence_KK.flatten().index_select(0, self._cell_P)

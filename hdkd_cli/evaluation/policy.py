"""Exit policies: when to leave, what it costs, what it was fitted on. One reader, one writer.

Imports no torch and computes nothing: the command line may know the choices before it starts.
K exits; row k of ``weights`` and entry k of ``temperatures`` belong to exit k.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hdkd_cli.choices import CombinationKind, GuaranteeKind, RiskKind
from hdkd_cli.errors import BudgetError, PolicyError, UsageError
from hdkd_cli.evaluation.names import CONFIDENCE_NAMES, POLICY_NAMES
from hdkd_cli.evaluation.times import SLACK, ExitTimes
from hdkd_cli.files import write_json
from hdkd_cli.reading import parse_record, read_text
from hdkd_cli.records.base import Part, Record

# A confidence lies in [0, 1]: numbers outside are sentinels of other programs, and are refused.
Threshold = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1)]
# Beyond these, float32 holds no quotient of logits; those that are fitted lie far inside.
Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]


_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class Combination(Part):
    """How the logits of the exits reached so far are averaged at each exit."""

    model_config = _STRICT

    kind: CombinationKind
    """Where the weights come from."""
    weights: tuple[tuple[Weight, ...], ...]
    """(K, K), lower triangular: row k weighs the logits of exits 0..k and sums to 1."""

    @model_validator(mode="after")
    def _rows_average_the_exits_reached(self) -> Self:
        for k, row in enumerate(self.weights):
            if len(row) != len(self.weights):
                raise ValueError(
                    f"row {k + 1} has {len(row)} weights, {len(self.weights)} are needed"
                )
            if any(row[k + 1 :]):
                raise ValueError(f"row {k + 1} weighs an exit that comes later")
            if abs(sum(row) - 1) > 1e-6:
                raise ValueError(f"row {k + 1} sums to {sum(row):g}, not 1")
        return self


class OperatingPoint(Part):
    """One set of thresholds, and what it does on the split it was fitted on."""

    model_config = _STRICT

    target_macs: PositiveFloat | None
    """The budget it was made for, if it was made for one."""
    thresholds: tuple[Threshold | None, ...]
    """(K−1,): leave at exit k if its confidence is at least this; None: exit k is not used.
    The last exit takes all samples that are left."""
    val_macs: PositiveFloat
    """Mean cost."""
    target_seconds: PositiveFloat | None = None
    """The budget it was made for, if that was one of time."""
    val_seconds: PositiveFloat | None = None
    """Mean time per image that the policy's times promise; None: it has none."""
    val_top1_pct: Annotated[float, Field(ge=0, le=100)]
    """Accuracy."""


class FittedOn(Part):
    """The scores a policy comes from. None where those scores did not say."""

    model_config = _STRICT

    checkpoint_sha256: str | None
    """The weights."""
    split: str | None
    """The role of the samples."""
    split_sha256: str | None = None
    """The samples themselves."""
    samples: PositiveInt
    """How many there were."""
    classes: PositiveInt | None = None
    """C."""


class Guarantee(Part):
    """What holds for the images that calibration samples were drawn like, whatever the network."""

    model_config = _STRICT

    kind: GuaranteeKind
    """``ltt``: with a probability over calibration sets; ``crc``: on average over them."""
    loss: RiskKind
    """What is bounded: answers that differ from the last exit's, or accuracy lost against it."""
    epsilon: Annotated[float, Field(gt=0, lt=1)]
    """The bound on its mean, the risk."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None
    """Probability that the bound fails; None for ``crc``."""
    n: PositiveInt
    """Calibration samples, used for nothing else."""
    statement: str
    """The guarantee in a sentence."""


class ExitPolicy(Record):
    """A family of operating points for one network."""

    model_config = _STRICT
    schema_id: ClassVar[str] = "hdkd/policy/1"
    rows: ClassVar[str | None] = "points"

    kind: Annotated[str, AfterValidator(POLICY_NAMES.check)]
    """How the thresholds were found."""
    confidence: Annotated[str, AfterValidator(CONFIDENCE_NAMES.check)]
    """What is compared with the thresholds."""
    combination: Combination
    """Which logits the confidence and the prediction are read from."""
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1)]
    """(K,): the combined logits of exit k are divided by entry k."""
    points: Annotated[tuple[OperatingPoint, ...], Field(min_length=1)]
    """The family."""
    fitted_on: FittedOn
    """Where it comes from."""
    val_auroc: tuple[Annotated[float, Field(ge=0, le=1)] | None, ...] | None = None
    """(K,): AUROC of each exit's confidence for being right; None where all answers are alike."""
    val_auroc_settled: tuple[Annotated[float, Field(ge=0, le=1)] | None, ...] | None = None
    """(K,): the same for "right here, or the last exit is wrong too": no loss to leave."""
    guarantee: Guarantee | None = None
    """What a ``risk`` policy promises."""
    times: ExitTimes | None = None
    """What its thresholds are made to save; None: multiply-accumulates."""

    @model_validator(mode="after")
    def _a_promise_with_risk_only(self) -> Self:
        if (self.kind == "risk") != (self.guarantee is not None):
            raise ValueError("a policy of kind risk has a guarantee, and no other has one")
        return self

    @model_validator(mode="after")
    def _same_number_of_exits(self) -> Self:
        if len(self.combination.weights) != self.num_exits:
            raise ValueError(
                f"{self.num_exits} temperatures but {len(self.combination.weights)} rows of weights"
            )
        for auroc_K in (self.val_auroc, self.val_auroc_settled):
            if auroc_K is not None and len(auroc_K) != self.num_exits:
                raise ValueError(
                    f"{len(auroc_K)} values of AUROC, {self.num_exits} exits need {self.num_exits}"
                )
        for number, point in enumerate(self.points, 1):
            if len(point.thresholds) != self.num_exits - 1:
                raise ValueError(
                    f"point {number} has {len(point.thresholds)} thresholds, "
                    f"{self.num_exits} exits need {self.num_exits - 1}"
                )
        return self

    @model_validator(mode="after")
    def _times_of_all_exits(self) -> Self:
        if self.times is not None and len(self.times.seconds) != self.num_exits:
            raise ValueError(
                f"times of {len(self.times.seconds)} exits, {self.num_exits} are needed"
            )
        timed = {point.val_seconds is not None for point in self.points}
        if timed != {self.times is not None}:
            raise ValueError("val_seconds belong to a policy with times, and to all its points")
        return self

    @property
    def num_exits(self) -> int:
        """K."""
        return len(self.temperatures)

    def select(self, budget_macs: float | None = None) -> OperatingPoint:
        """The point of highest validation accuracy that fits the budget; the cheaper on ties.

        Args:
            budget_macs: Mean cost that must not be exceeded on the validation split; None: any.

        Raises:
            BudgetError: no point is that cheap.
        """
        affordable = [p for p in self.points if budget_macs is None or p.val_macs <= budget_macs]
        if not affordable:
            cheapest = min(point.val_macs for point in self.points)
            raise BudgetError(
                f"a budget of {budget_macs:,.0f} MACs: the cheapest point of this policy needs "
                f"{cheapest:,.0f}",
                hint="raise the budget, or calibrate a policy for it",
            )
        return max(affordable, key=lambda point: (point.val_top1_pct, -point.val_macs))

    def within(self, seconds: float) -> OperatingPoint:
        """The point of highest validation accuracy that fits a budget of time per image.

        Raises:
            UsageError: the policy knows no times.
            BudgetError: no point is that fast.
        """
        if self.times is None:
            raise UsageError(
                "a budget of time: this policy was calibrated for multiply-accumulates",
                hint="calibrate one for times: hdkd calibrate RUN --budget 3ms",
            )
        timed = [(point.val_seconds or 0.0, point) for point in self.points]
        affordable = [(taken, point) for taken, point in timed if taken <= seconds + SLACK]
        if not affordable:
            fastest = min(taken for taken, _ in timed)
            raise BudgetError(
                f"a budget of {1e3 * seconds:g} ms: the fastest point of this policy takes "
                f"{1e3 * fastest:.4g}",
                hint="raise the budget, or calibrate a policy for it",
            )
        return max(affordable, key=lambda pair: (pair[1].val_top1_pct, -pair[0]))[1]

    def only(self, point: OperatingPoint) -> ExitPolicy:
        """The policy with one operating point."""
        return self.model_copy(update={"points": (point,)})

    def cheapest(self, top1_pct: float) -> OperatingPoint:
        """The cheapest point with at least this validation accuracy; the more accurate on ties.

        Raises:
            BudgetError: no point is that accurate.
        """
        good = [point for point in self.points if point.val_top1_pct >= top1_pct]
        if not good:
            best = self.select()
            raise BudgetError(
                f"an accuracy of {top1_pct:g} %: the best point of this policy has "
                f"{best.val_top1_pct:.2f} % on {self.fitted_on.split or 'its split'}, at "
                f"{best.val_macs:,.0f} MACs",
                hint="ask for less",
            )
        return min(
            good, key=lambda point: (point.val_seconds or point.val_macs, -point.val_top1_pct)
        )


def write_policy(path: Path, policy: ExitPolicy) -> None:
    """Write ``policy`` as JSON, atomically."""
    write_json(path, policy.as_record())


def read_policy(path: Path) -> ExitPolicy:
    """Read what `write_policy` wrote.

    Raises:
        PolicyError: the file is missing, or is not such a policy.
    """
    return parse_policy(read_text(path, PolicyError), str(path))


def parse_policy(text: str, source: str) -> ExitPolicy:
    """Read a policy from JSON text. Unknown fields are ignored.

    Args:
        text: The JSON.
        source: Where it came from, for messages.

    Raises:
        PolicyError: it is not JSON, of another schema, or inconsistent.
    """
    return parse_record(ExitPolicy, ExitPolicy.schema_id, text, source, PolicyError)

"""A policy that watches itself: is its promise kept on the images that really come?

A random share of them goes to the last exit besides, and how often the two answers differ is held
against the promised risk; where all of them leave is held against the promised cost. No labels are
needed. The bounds hold at all times at once, so that one may look after every image.

Testing by betting: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 86(1), 2024 (arXiv:2010.09686), their diversified Kelly betting. Against "the mean
of X in [0, 1] is at most m", a fixed bet λ in [0, 1/m) turns every X into 1 + λ(X − m): whoever
bets so gains nothing on average if that is true. The mean of several such capitals is one again,
and by Ville's inequality it ever reaches 1/α with probability at most α. Our own choice are the 16
bets λ = c/m, constant in time: the capital is then a function of how often each value was seen,
and that is all that has to be remembered.

V values that an image can have, D bets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.choices import Alarm
from hdkd_cli.errors import PolicyError, UsageError
from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.files import sha256_bytes, write_json
from hdkd_cli.reading import parse_record, read_text
from hdkd_cli.records import Audit, Interval

Floats = NDArray[np.float64]

_BETS_D = np.geomspace(0.004, 0.95, 16)  # c: from hardly above m to nearly 1
_BISECTIONS = 50


def log_capital(values_V: Floats, counts_V: NDArray[np.int64], mean: float) -> Floats:
    """Log of the capital won against "the mean is at most ``mean``", (...).

    Args:
        values_V: What an image can have, in [0, 1].
        counts_V: (..., V): how often each was seen.
        mean: Above 0.
    """
    log_gain_DV = np.log(1 - _BETS_D[:, None] + _BETS_D[:, None] * values_V / mean)
    log_won_D = np.asarray(counts_V) @ log_gain_DV.T
    most = log_won_D.max(axis=-1, keepdims=True)
    mean_won: Floats = np.log(np.exp(log_won_D - most).mean(axis=-1)) + most[..., 0]
    return mean_won


def lower_bound(values_V: Floats, counts_V: NDArray[np.int64], alpha: float) -> float:
    """The mean is above this at all times, with probability 1 − ``alpha``.

    The capital falls as the mean that is bet against grows; where it is below 1/α begin the means
    that are not refuted.
    """
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        refuted = log_capital(values_V, counts_V, middle) >= -math.log(alpha)
        low, high = (middle, high) if refuted else (low, middle)
    return low


def interval(values_V: Floats, counts_V: NDArray[np.int64], alpha: float) -> Interval:
    """A confidence sequence for the mean: right at all times, with probability 1 − 2 ``alpha``."""
    return Interval(
        mean=float(counts_V @ values_V / counts_V.sum()),
        low=lower_bound(values_V, counts_V, alpha),
        high=1 - lower_bound(1 - values_V, counts_V, alpha),
    )


@dataclass(frozen=True)
class Auditing:
    """What is asked of an audit.

    Attributes:
        share: Share of the images that go to the last exit besides.
        max_risk: The promise about answers; None: what the policy guarantees.
        delta: Probability of a false alarm; None: that with which the guarantee may fail, or 0.1.
        state: Where counts are kept between calls.

    Raises:
        UsageError: one is out of range.
    """

    share: float
    max_risk: float | None = None
    delta: float | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"--audit {self.share:g}: a share above 0, and at most 1, is needed")
        for name, value in (("--max-risk", self.max_risk), ("--delta", self.delta)):
            if value is not None and not 0 < value < 1:
                raise UsageError(f"{name} {value:g}: a number between 0 and 1 is needed")


@dataclass(frozen=True)
class Promise:
    """What a policy is held to.

    Attributes:
        max_risk: Share of images that get another answer than the last exit's.
        max_cost: Mean cost, of the full network's.
        delta: Probability that there is ever an alarm although both are kept.
    """

    max_risk: float
    max_cost: float
    delta: float

    @classmethod
    def of(
        cls,
        policy: ExitPolicy,
        point: OperatingPoint,
        macs_K: Sequence[int],
        *,
        max_risk: float,
        delta: float,
    ) -> Promise:
        """The promise of an operating point.

        Its cost is a mean over the images it was fitted on, and that of all images like them may
        be higher, by Hoeffding's inequality with probability δ/4 by more than √(log(4/δ)/2n) of
        the range. (That thresholds were chosen on these images is left out of account.)
        """
        spread = math.sqrt(math.log(4 / delta) / (2 * policy.fitted_on.samples))
        cost = (point.val_macs + spread * (macs_K[-1] - macs_K[0])) / macs_K[-1]
        return cls(max_risk, min(1.0, cost), delta)


@dataclass
class Watch:
    """Counts what comes, and says when it is not what was promised.

    An alarm for the risk has half of δ, one for the cost a quarter; the last quarter is spent on
    the promise itself. Once sounded, an alarm stays.

    Attributes:
        promise: What is held against.
        cost_K: Cost of each exit, of the full network's.
        identity: Fingerprint of what is watched.
        share: Share of the images that are audited.
        told: Hears of an alarm, once.
        state: Where counts are kept between calls.
    """

    promise: Promise
    cost_K: Floats
    identity: str
    share: float
    told: Callable[[str], object]
    state: Path | None = None
    exits_K: NDArray[np.int64] = field(init=False)
    agreed_2: NDArray[np.int64] = field(init=False)  # audited: the same answer, another answer
    alarms: tuple[Alarm, ...] = ()

    def __post_init__(self) -> None:
        self.exits_K = np.zeros(len(self.cost_K), np.int64)
        self.agreed_2 = np.zeros(2, np.int64)
        self._random = np.random.default_rng()
        if self.state is not None and self.state.exists():
            self._resume(self.state)

    def draw(self, images: int) -> NDArray[np.int64]:
        """Which of the next images are audited."""
        return np.flatnonzero(self._random.random(images) < self.share)

    def observe(self, exits: Sequence[int], agreed: Sequence[bool]) -> None:
        """Take in images.

        Args:
            exits: Where each left, 0-based.
            agreed: Of those audited, whether the last exit says the same.
        """
        np.add.at(self.exits_K, np.asarray(exits, np.int64), 1)
        np.add.at(self.agreed_2, 1 - np.asarray(agreed, np.int64), 1)
        known = self.alarms
        broken: dict[Alarm, bool] = {"risk": self._risk_broken(), "cost": self._cost_broken()}
        self.alarms += tuple(alarm for alarm in broken if broken[alarm] and alarm not in known)
        if new := [alarm for alarm in self.alarms if alarm not in known]:
            for alarm in new:
                self.told(self.sentence(alarm))
            self.keep()

    def _risk_broken(self) -> bool:
        values = np.array([0.0, 1.0])
        won = log_capital(values, self.agreed_2, self.promise.max_risk)
        return bool(won >= math.log(2 / self.promise.delta))

    def _cost_broken(self) -> bool:
        won = log_capital(self.cost_K, self.exits_K, self.promise.max_cost)
        return bool(won >= math.log(4 / self.promise.delta))

    @property
    def risk(self) -> Interval | None:
        """Share of images with another answer than the last exit's; None: none was audited."""
        if not self.agreed_2.any():
            return None
        return interval(np.array([0.0, 1.0]), self.agreed_2, self.promise.delta / 2)

    @property
    def cost(self) -> Interval | None:
        """Mean cost, of the full network's; None: no images."""
        if not self.exits_K.any():
            return None
        return interval(self.cost_K, self.exits_K, self.promise.delta / 4)

    def sentence(self, alarm: Alarm) -> str:
        """What an alarm means."""
        found, promised = {
            "risk": (self.risk, self.promise.max_risk),
            "cost": (self.cost, self.promise.max_cost),
        }[alarm]
        assert found is not None
        what = {
            "risk": "of answers differ from the last exit's",
            "cost": "of the full network is what an image costs",
        }[alarm]
        mean, low, most = (100 * share for share in (found.mean, found.low, promised))
        return (
            f"drift ({alarm}): {mean:.1f} % {what}, at least {low:.1f} % in the long run, and "
            f"{most:.1f} % is promised: images are not what the policy was calibrated on"
        )

    def summary(self) -> str:
        """What was seen so far, in a sentence."""
        audited, seen, risk = int(self.agreed_2.sum()), int(self.exits_K.sum()), self.risk
        if risk is None:
            return "no image was audited yet"
        mean, low, high = (100 * share for share in (risk.mean, risk.low, risk.high))
        return (
            f"{audited:,} of {seen:,} images audited: {mean:.1f} % of answers differ from the last "
            f"exit's ({low:.1f} to {high:.1f} %), {100 * self.promise.max_risk:.1f} % is promised"
        )

    def record(self) -> Audit:
        """What was seen so far."""
        return Audit(
            watched_sha256=self.identity,
            max_risk=self.promise.max_risk,
            max_cost=self.promise.max_cost,
            delta=self.promise.delta,
            exits=tuple(self.exits_K.tolist()),
            audited=int(self.agreed_2.sum()),
            disagreed=int(self.agreed_2[1]),
            alarms=self.alarms,
            risk=self.risk,
            cost=self.cost,
        )

    def keep(self) -> None:
        """Write the state, if there is a place for it.

        Raises:
            OSError: it cannot be written.
        """
        if self.state is not None:
            write_json(self.state, self.record().as_record())

    def _resume(self, path: Path) -> None:
        text = read_text(path, PolicyError)
        kept = parse_record(Audit, Audit.schema_id, text, str(path), PolicyError)
        now = (self.identity, len(self.cost_K), *_terms(self.promise))
        then = (kept.watched_sha256, len(kept.exits), kept.max_risk, kept.max_cost, kept.delta)
        if now != then:
            raise PolicyError(
                f"{path}: was kept for another policy, checkpoint or promise",
                hint="name another file, or remove this one to begin anew",
                subject=path,
            )
        if kept.disagreed > kept.audited or kept.audited > sum(kept.exits):
            raise PolicyError(f"{path}: counts more than there can be", subject=path)
        self.exits_K[:] = kept.exits
        self.agreed_2[:] = (kept.audited - kept.disagreed, kept.disagreed)
        self.alarms = kept.alarms
        for alarm in self.alarms:
            self.told(f"since an earlier call, {self.sentence(alarm)}")


def _terms(promise: Promise) -> tuple[float, float, float]:
    return promise.max_risk, promise.max_cost, promise.delta


def fingerprint(policy: ExitPolicy, point: OperatingPoint, checkpoint_sha256: str) -> str:
    """Of the network and of all that decides when images leave it."""
    watched = policy.only(point).model_dump_json(
        include={"confidence", "combination", "temperatures", "points"}
    )
    return sha256_bytes(watched.encode(), checkpoint_sha256.encode())

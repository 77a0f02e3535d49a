"""A policy that watches itself: is its promise kept on the images that really come?

A random share of them goes to the last exit besides, and how often the two answers differ is held
against the promised risk; where all of them leave is held against the promised cost. No labels are
needed. The bounds (``betting``) hold at all times at once, so that one may look after every image.

Nothing but numpy is needed: an exported network carries this along in its ``run.py``.

V values that an image can have.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.evaluation.betting import Interval, interval, log_capital

DELTA = 0.1
"""Probability that a guarantee fails, or of a false alarm, unless another is asked for. [ours]"""
STATE_SCHEMA = "hdkd/audit/1"


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
        macs_K: Sequence[int],
        val_macs: float,
        samples: int,
        *,
        max_risk: float,
        delta: float,
    ) -> Promise:
        """The promise of an operating point.

        Its cost is a mean over the images it was fitted on, and that of all images like them may
        be higher, by Hoeffding's inequality with probability δ/4 by more than √(log(4/δ)/2n) of
        the range. (That thresholds were chosen on these images is left out of account.)

        Args:
            macs_K: Cost of each exit.
            val_macs: Mean cost on the images that the point was fitted on.
            samples: n, how many these were.
            max_risk: The promise about answers.
            delta: Probability of a false alarm.
        """
        spread = math.sqrt(math.log(4 / delta) / (2 * samples))
        cost = (val_macs + spread * (macs_K[-1] - macs_K[0])) / macs_K[-1]
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
        write: Is given what was seen, JSON-ready, to keep it between calls; None: it is not kept.
    """

    promise: Promise
    cost_K: NDArray[np.float64]
    identity: str
    share: float
    told: Callable[[str], object]
    write: Callable[[Mapping[str, Any]], object] | None = None
    exits_K: NDArray[np.int64] = field(init=False)
    agreed_2: NDArray[np.int64] = field(init=False)  # audited: the same answer, another answer
    alarms: tuple[Any, ...] = ()  # "risk", "cost"

    def __post_init__(self) -> None:
        self.exits_K = np.zeros(len(self.cost_K), np.int64)
        self.agreed_2 = np.zeros(2, np.int64)
        self._random = np.random.default_rng()

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
        broken = {"risk": self._risk_broken(), "cost": self._cost_broken()}
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

    def sentence(self, alarm: str) -> str:
        """What an alarm means."""
        found, most = {
            "risk": (self.risk, self.promise.max_risk),
            "cost": (self.cost, self.promise.max_cost),
        }[alarm]
        assert found is not None
        what = {
            "risk": "of answers differ from the last exit's",
            "cost": "of the full network is what an image costs",
        }[alarm]
        mean, low, bound = (100 * share for share in (found.mean, found.low, most))
        return (
            f"drift ({alarm}): {mean:.1f} % {what}, at least {low:.1f} % in the long run, and "
            f"{bound:.1f} % is promised: images are not what the policy was calibrated on"
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

    def seen(self) -> dict[str, Any]:
        """What was seen so far, JSON-ready."""
        return {
            "schema": STATE_SCHEMA,
            "watched_sha256": self.identity,
            "max_risk": self.promise.max_risk,
            "max_cost": self.promise.max_cost,
            "delta": self.promise.delta,
            "exits": self.exits_K.tolist(),
            "audited": int(self.agreed_2.sum()),
            "disagreed": int(self.agreed_2[1]),
            "alarms": list(self.alarms),
            "risk": self.risk and self.risk._asdict(),
            "cost": self.cost and self.cost._asdict(),
        }

    def keep(self) -> None:
        """Have what was seen written, if there is a place for it.

        Raises:
            OSError: it cannot be written.
        """
        if self.write is not None:
            self.write(self.seen())

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Go on with what an earlier call has `seen`; its alarms are told.

        Raises:
            ValueError: that was another policy, checkpoint or promise, or cannot be.
        """
        ours = self.seen()
        same = ("watched_sha256", "max_risk", "max_cost", "delta")
        if any(kept[name] != ours[name] for name in same) or len(kept["exits"]) != len(self.cost_K):
            raise ValueError("was kept for another policy, checkpoint or promise")
        if not kept["disagreed"] <= kept["audited"] <= sum(kept["exits"]):
            raise ValueError("counts more than there can be")
        self.exits_K[:] = kept["exits"]
        self.agreed_2[:] = (kept["audited"] - kept["disagreed"], kept["disagreed"])
        self.alarms = tuple(kept["alarms"])
        for alarm in self.alarms:
            self.told(f"since an earlier call, {self.sentence(alarm)}")


def promised(
    guarantee: Mapping[str, Any] | None, max_risk: float | None, delta: float | None
) -> tuple[float | None, float]:
    """The risk and the δ that a policy is held to: those asked for, else those it guarantees.

    Args:
        guarantee: Of the policy, as its file has it.
        max_risk: Asked for; None: what is guaranteed.
        delta: Asked for; None: that with which the guarantee may fail, else `DELTA`.

    Returns:
        The risk (None: nobody said) and δ.
    """
    given = guarantee or {}
    if max_risk is None and given.get("loss") == "disagreement":
        max_risk = given["epsilon"]
    return max_risk, delta or given.get("delta") or DELTA


def fingerprint(
    confidence: str,
    weights_KK: Sequence[Sequence[float]],
    temperature_K: Sequence[float],
    thresholds: Sequence[float | None],
    checkpoint_sha256: str,
) -> str:
    """Of the network and of all that decides when images leave it."""
    decides = (
        confidence,
        [[float(weight) for weight in row] for row in weights_KK],
        [float(temperature) for temperature in temperature_K],
        [None if threshold is None else float(threshold) for threshold in thresholds],
        checkpoint_sha256,
    )
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()

"""What an image takes in exported programs: arms in turn, the same batches, a mean per image."""

from types import SimpleNamespace

import pytest

from hdkd_cli.inference import exported_latency, timing


def test_arms_take_turns_on_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    calls: list[tuple[str, list[int]]] = []
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))

    def slow(batch: list[int]) -> None:
        nonlocal now
        now += 0.1 * len(batch)
        calls.append(("slow", batch))

    batches = [[1, 2, 3], [4]]
    found = exported_latency._per_image_ms(
        {"slow": (slow, batches), "fast": (lambda b: calls.append(("fast", b)), batches)}
    )
    assert len(calls) >= 2 * (1 + timing.LEAST_ROUNDS)
    assert [name for name, _ in calls] == ["slow", "fast"] * (len(calls) // 2)
    assert [batch for name, batch in calls if name == "slow"][:4] == batches * 2
    assert found == {"slow": pytest.approx(100), "fast": 0}

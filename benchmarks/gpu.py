"""All that needs a GPU, in one command of under 8 minutes.

    python benchmarks/gpu.py [--device cuda --minutes 7.5 --trials 5]

What is most asked for comes first; what does not fit into the time is left out and named. Random
pictures of CIFAR's size, the presets' networks and batches:

``waits``      a step with an update of the weights never waits for the device;
``agreement``  one step from the same start in bf16 and fp16 against float32: losses, hypergradient;
``recipe``     a stretch of the paper's CIFAR-100 training, extrapolated to its 300 epochs;
``steps``      images/s by precision, compiled (CUDA graphs) and not, in turn;
``overhead``   ``hdkd`` over ``joint`` at the default interval and at every step, in turn;
``memory``     peak of a step without and with an update.

Writes benchmarks/results/gpu.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import torch
from fixtures import NETS, hdkd_loop, settings_for
from harness import in_turn, options, ratios, show, spread, write_record

from hdkd_cli.inference.timing import seconds_of
from hdkd_cli.settings.schema import Settings, WeightSettings

WIDE = {**NETS["cifar100-msdnet7"][0], "growth": 16}
RECIPES = {
    "cifar100-msdnet7": (*NETS["cifar100-msdnet7"], 10.0),
    "cifar100-msdnet7-wide": (WIDE, 64, 25.0),
}
"""Model section, batch size, and at most how many minutes 300 epochs may take on one H100."""
TRAINING_IMAGES, EPOCHS = 45_000, 300
INTERVAL = WeightSettings().interval
STEPS = 2 * INTERVAL
"""Steps a trial: two updates of the weights."""

Row = dict[str, object]


class Clock:
    """The time there is."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes
        self.left_out: list[str] = []

    def allows(self, what: str, seconds: float) -> bool:
        """Whether there is time for something; remembers what there is none for."""
        if time.perf_counter() + seconds <= self.end:
            return True
        self.left_out.append(what)
        print(f"{what}: left out, no time", flush=True)
        return False


def stretch(step: Callable[[], None], steps: int = STEPS) -> Callable[[], None]:
    """A function that takes some steps."""

    def run() -> None:
        for _ in range(steps):
            step()

    return run


def stretches_in_turn(
    arms: Mapping[str, Settings], trials: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of stretches of steps under several settings."""
    loops = {name: stretch(hdkd_loop(each, device=device)[1]) for name, each in arms.items()}
    return in_turn(loops, trials=trials, warmup=2, device=device)


def waits(device: torch.device) -> Row:
    """Whether a step with an update waits for the device: torch raises where it would."""
    settings = settings_for(*NETS["cifar100-small"], "hdkd", precision="bf16", interval=1)
    _, step = hdkd_loop(settings, device=device)
    stretch(step, 3)()
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as problem:
        return {"waits": str(problem).splitlines()[0]}
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return {"waits": False}


def agreement(device: torch.device, precisions: Iterable[str]) -> list[Row]:
    """Relative differences to float32 after one step from the same start on the same images."""
    exact = gradients(device, "fp32")
    rows: list[Row] = []
    for precision in precisions:
        ours = gradients(device, precision)
        off = {key: float((ours[key] - exact[key]).norm() / exact[key].norm()) for key in exact}
        rows.append({"precision": precision, **off})
    return rows


def gradients(device: torch.device, precision: str) -> dict[str, torch.Tensor]:
    """What the first step and its update of the weights find."""
    settings = settings_for(*NETS["cifar100-small"], "hdkd", precision=precision, interval=1)
    state, step = hdkd_loop(settings, device=device)
    harmonizer, seen = state.harmonizer, []
    assert harmonizer is not None

    def update(*arguments: object) -> None:
        seen.append(harmonizer.after_step(state.net, *arguments).hypergradient_T)

    state.update_weights = update
    step()
    scaled = torch.cat([p.grad.flatten() for p in state.net.parameters() if p.grad is not None])
    return {"gradient": scaled / state.loss_scale.scale, "hypergradient": seen[0]}


def recipe(name: str, device: torch.device, steps: int, *, compiled: bool) -> Row:
    """Seconds per step of a preset in bf16 with the default interval, and what 300 epochs take."""
    model, batch, target = RECIPES[name]
    settings = settings_for(model, batch, "hdkd", precision="bf16", compile=compiled)
    began = time.perf_counter()
    _, step = hdkd_loop(settings, device=device)
    warm = stretch(step, 4 * settings.weights.interval)  # graphs are recorded in here
    seconds_of(warm, device)
    warmup = time.perf_counter() - began
    seconds = in_turn({name: stretch(step, steps)}, trials=3, warmup=0, device=device)[name]
    per_step = spread([s / steps for s in seconds])
    minutes = per_step["median"] * (TRAINING_IMAGES // batch) * EPOCHS / 60
    print(
        f"{name:22} {'compiled' if compiled else 'eager':8} {show(per_step, 5)} s per step, "
        f"{EPOCHS} epochs in {minutes:.1f} min (target {target:g}), warm-up {warmup:.0f} s",
        flush=True,
    )
    return {
        "net": name,
        "compiled": compiled,
        "batch": batch,
        "warmup_seconds": warmup,
        "seconds_a_step": per_step,
        "minutes_300_epochs": minutes,
        "target_minutes": target,
    }


def steps(device: torch.device, precisions: Iterable[str], trials: int, *, compiled: bool) -> Row:
    """Images/s of the narrow network by precision."""
    model, batch = NETS["cifar100-msdnet7"]
    arms = {
        precision: settings_for(model, batch, "hdkd", precision=precision, compile=compiled)
        for precision in precisions
    }
    seconds = stretches_in_turn(arms, trials, device)
    rates = {arm: spread([STEPS * batch / s for s in times]) for arm, times in seconds.items()}
    for arm, rate in rates.items():
        print(f"{arm} {'compiled' if compiled else 'eager':8} {show(rate, 0)} images/s", flush=True)
    return {"compiled": compiled, "batch": batch, "images_per_s": rates}


def overhead(device: torch.device, interval: int, trials: int, *, compiled: bool) -> Row:
    """``hdkd`` over ``joint``."""
    model, batch = NETS["cifar100-msdnet7"]
    common = {"precision": "bf16", "compile": compiled}
    arms = {
        "joint": settings_for(model, batch, "joint", **common),
        "hdkd": settings_for(model, batch, "hdkd", interval=interval, **common),
    }
    seconds = stretches_in_turn(arms, trials, device)
    ratio = ratios(seconds["hdkd"], seconds["joint"])
    print(f"hdkd over joint, every {interval} steps: {show(ratio)}", flush=True)
    return {"interval": interval, "compiled": compiled, "ratio": ratio}


def memory(device: torch.device) -> Row:
    """Peak bytes of a step without and with an update."""
    model, batch = NETS["cifar100-msdnet7"]
    peaks = {}
    for name, interval in (("step", 10**9), ("step with update", 1)):
        settings = settings_for(model, batch, "hdkd", precision="bf16", interval=interval)
        state, step = hdkd_loop(settings, device=device)
        stretch(step, 2)()
        torch.cuda.reset_peak_memory_stats(device)
        stretch(step, 2)()
        peaks[name] = torch.cuda.max_memory_allocated(device)
        parameters = sum(p.numel() * p.element_size() for p in state.net.parameters())
        del state, step
    print(f"peak MB: { ({k: round(v / 1e6) for k, v in peaks.items()}) }", flush=True)
    return {"parameter_bytes": parameters, "peak_bytes": peaks}


def main() -> None:
    """Measure in the order of importance until the time is over; write the record."""
    given = options(__doc__, device="cuda", minutes=7.5, trials=5)
    device = torch.device(given.device, 0 if given.device == "cuda" else None)
    clock, facts = Clock(given.minutes), dict[str, object]()
    halves = ("bf16", "fp16")

    def measure(key: str, seconds: float, run: Callable[[], object]) -> None:
        """Add what ``run`` finds, if it fits; a failure is written down and ends nothing else."""
        if not clock.allows(key, seconds):
            return
        try:
            facts[key] = run()
        except Exception as problem:
            facts[key] = {"failed": f"{type(problem).__name__}: {problem}".splitlines()[0]}
            print(f"{key}: {facts[key]}", flush=True)

    measure("waits", 20, lambda: waits(device))
    print(f"waits: {facts.get('waits')}", flush=True)
    measure("agreement", 20, lambda: agreement(device, halves))
    print(f"agreement: {facts.get('agreement')}", flush=True)
    for name in RECIPES:
        for compiled in (False, True):
            measure(
                f"recipe {name} {'compiled' if compiled else 'eager'}",
                120 if compiled else 30,
                lambda n=name, c=compiled: recipe(n, device, 100, compiled=c),
            )
    for compiled, how in ((False, "eager"), (True, "compiled")):
        for interval in (INTERVAL,) if compiled else (INTERVAL, 1):
            measure(
                f"overhead {interval} {how}",
                100 if compiled else 40,
                lambda i=interval, c=compiled: overhead(device, i, given.trials, compiled=c),
            )
        measure(
            f"steps {how}",
            150 if compiled else 40,
            lambda c=compiled: steps(device, ("fp32", *halves), given.trials, compiled=c),
        )
    measure("memory", 20, lambda: memory(device))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    write_record(
        "gpu",
        "everything that needs a GPU",
        device=name,
        trials=given.trials,
        left_out=clock.left_out,
        **facts,
    )


if __name__ == "__main__":
    main()

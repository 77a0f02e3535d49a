"""Which classifiers of torchvision and timm work, and how far: makes docs/reference/backbones.md.

Each model is cut into three stages with random weights, on images as small as it allows, in a
process of its own. What is asked of it, in this order:

    cut          the last exit gives the logits of the uncut model, bit for bit
    trains       three SGD steps on eight images lower the loss of all exits
    forward mode the derivatives of a step's terms, in training, agree with reverse mode
    early exit   images that leave early get the answers of the exits that all images went through
    ONNX         three programs, which onnxruntime runs with the network's numbers

    python benchmarks/backbones.py                  what results/backbones.json does not say yet
    python benchmarks/backbones.py --without-onnx   but for the last check, which takes the longest
    python benchmarks/backbones.py MODEL@SIZE ...   some of them, and write nothing
"""

from __future__ import annotations

import json
import multiprocessing
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdkd_cli.evaluation.policy import Combination, ExitPolicy, FittedOn, OperatingPoint
from hdkd_cli.files import write_json, write_text
from hdkd_cli.inference.early_exit import EarlyExit
from hdkd_cli.inference.export import export
from hdkd_cli.method.hypergradient import StepInputs, hypergradient
from hdkd_cli.method.terms import Terms
from hdkd_cli.models import MultiExitNet, build_model, measure_costs
from hdkd_cli.models.backbone.zoo import make_classifier
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.networks import BackboneSettings

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reference" / "backbones.md"
RESULTS = HERE / "results" / "backbones.json"
LIMIT_S = 240
FORK = multiprocessing.get_context("fork")  # what is imported here need not be imported again
EXITS, CLASSES = 3, 10
CHECKS = ("cut", "trains", "forward mode", "early exit", "ONNX")
UNFINISHED = "unfinished"
"""Key of a record: which check was not done in time, and how it ended."""

MODELS = {
    "torchvision": (
        "alexnet@64 convnext_tiny@32 densenet121@32 efficientnet_b0@32 googlenet@32 "
        "mnasnet0_5@32 mobilenet_v2@32 mobilenet_v3_large@32 mobilenet_v3_small@32 "
        "regnet_x_400mf@32 regnet_y_400mf@32 resnet18@32 resnet34@32 resnet50@32 "
        "resnext50_32x4d@32 shufflenet_v2_x0_5@32 squeezenet1_1@64 swin_t@32 swin_v2_t@32 "
        "vgg11_bn@32 vit_b_32@32"
    ),
    "timm": (
        "cait_xxs24_224@64 coat_lite_tiny@64 convmixer_768_32@32 convnext_atto@32 "
        "convnextv2_atto@32 cspresnet50@64 davit_tiny@64 deit3_small_patch16_224@32 "
        "deit_tiny_patch16_224@32 dla34@64 dpn68@64 edgenext_xx_small@64 "
        "efficientnet_lite0@32 efficientvit_b0@64 eva02_tiny_patch14_224@28 fastvit_t8@64 "
        "focalnet_tiny_srf@64 ghostnet_100@32 hrnet_w18_small@64 inception_next_tiny@64 "
        "levit_128s@224 mixer_s32_224@64 mobilenetv3_small_100@32 mobilenetv4_conv_small@32 "
        "mobilevit_xxs@64 mobilevitv2_050@64 nf_resnet50@32 pit_xs_224@224 poolformer_s12@64 "
        "pvt_v2_b0@64 regnety_002@32 repvgg_a0@32 res2net50_26w_4s@32 resmlp_12_224@64 "
        "resnest14d@64 resnetv2_50@32 rexnet_100@32 seresnet18@32 skresnet18@32 tinynet_e@32 "
        "vit_small_patch14_dinov2@28 vit_tiny_patch16_224@32 xcit_nano_12_p16_224@224 "
        "hiera_tiny_224@224 efficientformer_l1@224 swin_tiny_patch4_window7_224@224 "
        "coatnet_pico_rw_224@224 tiny_vit_5m_224@224 gcvit_xxtiny@224 "
        "maxvit_rmlp_pico_rw_256@256"
    ),
}


class Case:
    """A model that was cut, and a batch."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        torch.manual_seed(0)
        self.net: MultiExitNet = build_model(
            BackboneSettings(name=name, exits=EXITS), num_classes=CLASSES, image_size=size
        ).eval()
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(8, 3, size, size, generator=generator)
        self.labels = torch.arange(8) % CLASSES

    def logits(self) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.net(self.images)
        return logits


def policy(thresholds: list[float]) -> ExitPolicy:
    """Leave at these confidences, each exit by its own answer."""
    alone = tuple(map(tuple, torch.eye(EXITS).tolist()))
    point = OperatingPoint(
        target_macs=None, thresholds=tuple(thresholds), val_macs=1, val_top1_pct=0
    )
    return ExitPolicy(
        kind="geometric",
        confidence="max-prob",
        combination=Combination(kind="single", weights=alone),
        temperatures=(1.0,) * EXITS,
        points=(point,),
        fitted_on=FittedOn(checkpoint_sha256=None, split=None, samples=1),
    )


def cut(case: Case) -> str | None:
    torch.manual_seed(0)
    whole = make_classifier(
        case.name, num_classes=CLASSES, image_size=case.size, drop_path=None
    ).eval()
    with torch.no_grad():
        gap = float((whole(case.images) - case.logits()[-1]).abs().max())
    return None if gap == 0 else f"logits differ by {gap:.2g}"


def trains(case: Case) -> str | None:
    net = case.net.train()
    terms = Terms(EXITS, "none", 3.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        torch.manual_seed(0)  # the same dropout each time: only the parameters differ
        loss = terms(net(case.images), case.labels).sum()
        losses.append(float(loss))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return None if losses[-1] < losses[0] else f"loss {losses[0]:.3g} → {losses[-1]:.3g}"


def forward_mode(case: Case) -> str | None:
    net, terms = case.net.train(), Terms(EXITS, "later", 3.0)
    parameters = {n: p for n, p in net.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(2)
    direction = {n: torch.randn(p.shape, generator=generator) for n, p in parameters.items()}
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    inputs = StepInputs.of(net)
    state = torch.get_rng_state()
    batch = (case.images, case.labels)
    found_T = -hypergradient(net, terms, inputs, direction, [batch], nesterov_momentum=0.0)
    torch.set_rng_state(state)
    terms_T = terms(net(case.images), case.labels)
    for name, buffer in net.named_buffers():
        buffer.data.copy_(buffers[name])
    gradients = torch.autograd.grad(terms_T.sum(), list(parameters.values()), allow_unused=True)
    products = [
        (direction[n] * g).sum()
        for n, g in zip(parameters, gradients, strict=True)
        if g is not None
    ]
    wanted = float(torch.stack(products).double().sum())
    gap = abs(float(found_T.sum()) - wanted) / max(1.0, abs(wanted))
    return None if gap < 1e-2 else f"differs by {gap:.2g}"


def early_exit(case: Case) -> str | None:
    probabilities_KBC = case.logits().softmax(-1)
    confidence_KB, prediction_KB = probabilities_KBC.max(-1)
    middle = confidence_KB.sort().values[: EXITS - 1, 3:5].mean(1)
    exited = EarlyExit(case.net, policy(middle.tolist()))(case.images)
    stays = confidence_KB[:-1] < middle[:, None]
    exit_B = stays.cumprod(0).sum(0)
    left_B = torch.from_numpy(exited.exit_B)
    same = torch.from_numpy(exited.prediction_B).equal(prediction_KB.gather(0, left_B[None])[0])
    return None if same and left_B.equal(exit_B) else "other answers"


def onnx(case: Case) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        export(
            case.net,
            policy([0.5] * (EXITS - 1)),
            [str(c) for c in range(CLASSES)],
            DataSettings(image_size=case.size),
            to="onnx",
            folder=Path(folder) / "exported",
            checkpoint_sha256="",
        )
    return None


RUNS: dict[str, Callable[[Case], str | None]] = dict(
    zip(CHECKS, (cut, trains, forward_mode, early_exit, onnx), strict=True)
)


def examine(model: str, checks: Sequence[str] = CHECKS) -> Iterator[tuple[str, Any]]:
    """What works with MODEL@SIZE, as it is found: check → None, or the reason why not.

    Every check has a network of its own, as it was built: they can be made one at a time.
    """
    name, _, size = model.partition("@")
    try:
        case = Case(name, int(size))
    except Exception as problem:
        yield "cut", _first(problem)
        return
    macs_K = measure_costs(case.net).macs_K
    yield "exits_after", case.net.arguments["after"]
    yield "macs_frac", [round(macs / macs_K[-1], 3) for macs in macs_K]
    for check in checks:
        try:
            yield check, RUNS[check](Case(name, int(size)))
        except Exception as problem:
            yield check, _first(problem)


def _first(problem: Exception) -> str:
    first = (str(problem).strip() or "").splitlines() or [""]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", first[0])  # torch's exporter colours what it says
    return f"{type(problem).__name__}: {plain}"[:200]


def examine_all(versions: dict[str, str], checks: Sequence[str]) -> list[dict[str, Any]]:
    """One record per model, each from a process of its own; what was found before is kept."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    records = kept["records"] if kept.get("versions") == versions else []
    known = {record["model"]: record for record in records}
    for library, models in MODELS.items():
        for model in models.split():
            name, _, size = model.partition("@")
            record = known.get(f"{library}:{name}")
            if record is None:
                record = {"model": f"{library}:{name}", "image_size": int(size)}
                records.append(record)
            missing = [check for check in checks if check not in record]
            if not missing or record.get("cut") is not None or UNFINISHED in record:
                continue
            began = time.perf_counter()
            _in_own_process(f"{library}:{model}", missing, record)
            write_json(RESULTS, {"versions": versions, "records": records})
            works = [check for check in CHECKS if check in record and record[check] is None]
            print(record["model"], works, f"{time.perf_counter() - began:.0f} s", flush=True)
    return records


def _in_own_process(model: str, checks: Sequence[str], record: dict[str, Any]) -> None:
    """Put what ``examine`` finds into ``record``, and what it did not come to the end of."""
    here, there = FORK.Pipe(duplex=False)

    def tell() -> None:
        for found in examine(model, checks):
            there.send(found)

    process = FORK.Process(target=tell)
    process.start()
    there.close()
    until = time.monotonic() + LIMIT_S
    try:
        while here.poll(max(0.0, until - time.monotonic())):
            name, found = here.recv()
            record[name] = found
        if missing := [check for check in checks if check not in record]:
            record[UNFINISHED] = f"{missing[0]}: not done after {LIMIT_S} s"
    except EOFError:
        process.join()
        missing = [check for check in checks if check not in record]
        if missing and record.get("cut") is None:
            record[UNFINISHED] = f"{missing[0]}: its process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()


def page(records: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """The table in Markdown, and below it the reasons."""
    lines = [
        "# Backbones",
        "",
        "Made by `benchmarks/backbones.py`: random weights, three exits at equal shares of the",
        f"multiply-accumulates, {', '.join(f'{k} {v}' for k, v in versions.items())}, on a CPU.",
        "The script's first lines say what each column asks. An empty cell was not tried to the",
        "end, and counts neither way. Reasons are below the table.",
        "",
        f"| model | pixels | {' | '.join(CHECKS)} |",
        f"|---|---|{'---|' * len(CHECKS)}",
    ]
    for record in records:
        marks = [
            "" if check not in record else "yes" if record[check] is None else "no"
            for check in CHECKS
        ]
        lines.append(f"| `{record['model']}` | {record['image_size']} | {' | '.join(marks)} |")
    tried = [[record for record in records if check in record] for check in CHECKS]
    works = [sum(r[c] is None for r in those) for c, those in zip(CHECKS, tried, strict=True)]
    totals = [f"{yes} of {len(those)}" for yes, those in zip(works, tried, strict=True)]
    lines.append(f"| works, of those tried | | {' | '.join(totals)} |")
    for title, reasons in (
        ("What does not work", {r["model"]: _reasons(r) for r in records}),
        ("What was not tried to the end", {r["model"]: r.get(UNFINISHED) for r in records}),
    ):
        lines += ["", f"{title}:", ""]
        lines += [f"- `{model}`: {reason}" for model, reason in reasons.items() if reason] or ["–"]
    return "\n".join(lines) + "\n"


def _reasons(record: dict[str, Any]) -> str:
    return "; ".join(f"{c}: {record[c]}" for c in CHECKS if record.get(c) is not None)


def main() -> None:
    warnings.simplefilter("ignore")
    fast = sys.argv[1:] == ["--without-onnx"]
    if len(sys.argv) > 1 and not fast:
        for model in sys.argv[1:]:
            print(json.dumps({"model": model, **dict(examine(model))}))
        return
    versions = {name: version(name) for name in ("torch", "torchvision", "timm", "onnxruntime")}
    records = examine_all(versions, CHECKS[:-1] if fast else CHECKS)
    write_text(PAGE, page(records, versions))


if __name__ == "__main__":
    main()

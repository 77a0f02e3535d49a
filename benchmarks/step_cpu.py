"""How fast a training step is on a CPU, beside the loop one would write by hand.

    python benchmarks/step_cpu.py [--threads 1 --trials 10 --net cifar100-msdnet7 ... --compiled]

Both train the same network with the same dense distillation and fixed weights on random pictures
of CIFAR's size, and take steps in turn: in one process, and each in a process of its own, where
``hdkd`` may also set the memory allocator as ``hdkd train`` does.

``plain`` is ordinary PyTorch: modules run layer by layer, a list of losses over pairs of exits, the
default SGD, a DataLoader that transforms image by image (without workers, which would be further
cores), ``.item()`` for the logs. ``hdkd`` is what ``hdkd train`` runs. Writes
benchmarks/results/step_cpu.json; with ``--compiled`` (``training.compile``, in processes of their
own) results/step_compiled.json.

K exits, B batch.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from claims import finish
from fixtures import NETS, cifar_like, hdkd_loop, settings_for
from harness import CPU, in_own_process, in_turn, options, ratios, spread
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from hdkd_cli.data import ImageData
from hdkd_cli.devices import keep_freed_memory
from hdkd_cli.models import MSDNet, build_model
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.state import TrainState

TARGET = 1.5


class PlainMSDNet(nn.Module):
    """The network as it is usually run: layer by layer, all scales of a layer, one big cat each.

    It has copies of the layers of ``net``, so cells that no exit needs are left out here too.
    """

    def __init__(self, net: MSDNet) -> None:
        super().__init__()
        self.stem = net.stages[0].stem
        self.classifiers = nn.ModuleList(stage.classifier for stage in net.stages)
        cells = sorted(
            (cell for stage in net.stages for cell in stage.cells),
            key=lambda cell: (cell.layer.number, cell.scale),
        )
        self.cells = nn.ModuleList(cells)
        self.depths = [max(cell.layer.number for cell in stage.cells) for stage in net.stages]

    def forward(self, x: Tensor) -> list[Tensor]:
        scales = []
        for layer in self.stem:
            x = layer(x)
            scales.append(x)
        logits = []
        for number in range(1, self.depths[-1] + 1):
            new = list(scales)
            for cell in self.cells:
                if cell.layer.number == number:
                    parts = [scales[cell.scale]]
                    if cell.down is not None:
                        parts.append(cell.down(scales[cell.scale - 1]))
                    parts.append(cell.same(scales[cell.scale]))
                    out = torch.cat(parts, dim=1)
                    if cell.transition is not None:
                        out = cell.transition(out)
                    new[cell.scale] = out
            scales = new
            if number in self.depths:
                logits.append(self.classifiers[len(logits)](scales[-1]))
        return logits


class Pictures(Dataset):
    """The training images as PIL pictures, transformed one by one."""

    def __init__(self, data: ImageData) -> None:
        self.source = data.images.source
        self.indices = data.splits["train"].indices_N.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.settings.mean, data.settings.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.source.image(self.indices[index])
        return self.transform(picture), int(self.source.labels_N[self.indices[index]])


def dense_loss(logits: list[Tensor], labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropies, and every exit taught by the later ones in equal shares."""
    losses = [F.cross_entropy(z, labels) for z in logits]
    pairs = [(i, j) for i in range(len(logits)) for j in range(i + 1, len(logits))]
    for student, teacher in pairs:
        divergence = F.kl_div(
            F.log_softmax(logits[student] / temperature, dim=1),
            F.softmax(logits[teacher].detach() / temperature, dim=1),
            reduction="batchmean",
        )
        losses.append(temperature**2 * divergence / (len(logits) - 1 - student))
    return sum(losses)


def plain_loop(settings: Settings, data: ImageData, net: MSDNet) -> Callable[[], float]:
    """Returns a function that takes one step and returns the loss."""
    model = PlainMSDNet(net).train()
    s = settings.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay
    )
    size = settings.training.batch_size
    loader = DataLoader(Pictures(data), batch_size=size, shuffle=True, drop_last=True)
    bf16 = settings.training.precision == "bf16"

    def endless() -> Iterator[list[Tensor]]:
        while True:
            yield from loader

    batches = endless()
    log = []

    def step() -> float:
        images, labels = next(batches)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images)
        loss = dense_loss([z.float() for z in logits], labels, settings.objective.temperature)
        loss.backward()
        optimizer.step()
        correct = [(z.argmax(1) == labels).float().mean().item() for z in logits]
        log.append((loss.item(), correct))
        return log[-1][0]

    return step


def check_same(settings: Settings, data: ImageData, net: MSDNet, state: TrainState) -> None:
    """Both arms have the same loss on the same batch."""
    images, labels = next(data.train_stream(batch_size=8, seed=1, device=CPU).batches())
    with torch.no_grad():
        plain = dense_loss(PlainMSDNet(net)(images), labels, settings.objective.temperature)
        ours = (state.weights() * state.terms(state.net(images), labels)).sum()
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-4)


# measuring


def plain_process(settings: Settings, threads: int) -> Callable[[], float]:
    """A process as it would be without hdkd."""
    torch.set_num_threads(threads)
    return plain_loop(settings, cifar_like(settings), fresh_net(settings))


def hdkd_process(settings: Settings, threads: int) -> Callable[[], None]:
    """A process as ``hdkd train`` makes it; what it compiles, it compiles for the first time."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        return hdkd_loop(settings)[1]


def fresh_net(settings: Settings) -> MSDNet:
    """The network with new weights."""
    return build_model(settings.model, num_classes=100, image_size=32)


def arms_in_one_process(settings: Settings) -> dict[str, Callable[[], object]]:
    """Both arms here, from the same weights."""
    data = cifar_like(settings)
    state, ours = hdkd_loop(settings, data)
    net = fresh_net(settings)
    net.load_state_dict(state.net.state_dict())
    check_same(settings, data, net, state)
    return {"plain": plain_loop(settings, data, net), "hdkd": ours}


def measure(settings: Settings, processes: int, threads: int, trials: int) -> dict[str, object]:
    """Speeds of both arms, in this process or each in its own."""
    build_seconds = None
    if processes == 1:
        arms = arms_in_one_process(settings)
    else:
        plain, _ = in_own_process(plain_process, settings, threads)
        ours, build_seconds = in_own_process(hdkd_process, settings, threads)
        arms = {"plain": plain, "hdkd": ours}
    seconds = in_turn(arms, trials=trials)
    batch = settings.training.batch_size
    return {
        "precision": settings.training.precision,
        "processes": processes,
        "batch": batch,
        "build_seconds": build_seconds,
        "images_per_s": {arm: spread([batch / t for t in s]) for arm, s in seconds.items()},
        "speedup": ratios(seconds["plain"], seconds["hdkd"]),
        "seconds": seconds,
    }


def main() -> None:
    """Measure, write the record, print what it says."""
    given = options(__doc__, threads=1, trials=10, net=NETS, compiled=False)
    # emulated bf16 would say nothing
    native_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    rows = []
    for net in given.net:
        for precision in ["fp32", "bf16"] if native_bf16 else ["fp32"]:
            for processes in (2,) if given.compiled else (1, 2):
                settings = settings_for(
                    *NETS[net], "naive-dkd", precision=precision, compile=given.compiled
                )
                row = measure(settings, processes, given.threads, given.trials)
                rows.append({"net": net, **row})
    finish(
        "step_compiled" if given.compiled else "step_cpu",
        "images/s of a training step: a loop by hand and hdkd in turn",
        trials=given.trials,
        target_speedup=TARGET,
        rows=rows,
    )


if __name__ == "__main__":
    main()

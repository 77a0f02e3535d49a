"""The page's folder: the network as one file, its budgets, some images, and what runs them.

K exits.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from hdkd_cli.data.transform import frame
from hdkd_cli.evaluation.policy import ExitPolicy, read_policy
from hdkd_cli.files import atomic_folder, write_bytes, write_json, write_text
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.web.runtime import VERSION
from hdkd_cli.records.export import ExportedTransform, Page, PageExample, PageStop
from hdkd_cli.settings.data import DataSettings

PAGE = Path(__file__).parent / "page"
README = f"""\
A page that shows a network leave early. It runs in the browser, needs no network connection, and
sends nothing anywhere. Browsers open it from a web server only, such as Python's:

    python -m http.server --bind 127.0.0.1 --directory .      then http://127.0.0.1:8000

network.onnx is the network with its policy in it; network.json holds the budgets of the slider.
runtime/ is onnxruntime-web {VERSION}, copyright Microsoft Corporation, MIT licence.
"""


class Example(NamedTuple):
    """An image that comes with the page."""

    image: Image.Image
    label: int


def stops_of(policy: ExitPolicy, full_macs: int, full_top1_pct: float) -> tuple[PageStop, ...]:
    """The points of ``policy`` as stops, the cheapest first, and the full network as the last.

    Args:
        policy: Points to choose from.
        full_macs: Cost of the last exit.
        full_top1_pct: Its accuracy on the val split.
    """
    nowhere = (None,) * (policy.num_exits - 1)
    stops = {
        point.thresholds: PageStop(
            thresholds=point.thresholds, val_macs=point.val_macs, val_top1_pct=point.val_top1_pct
        )
        for point in sorted(policy.points, key=lambda point: (point.val_macs, point.val_top1_pct))
        if point.thresholds != nowhere
    }
    full = PageStop(thresholds=nowhere, val_macs=full_macs, val_top1_pct=full_top1_pct)
    return (*stops.values(), full)


def write_page(
    program: Path,
    stops: Sequence[PageStop],
    examples: Sequence[Example],
    data: DataSettings,
    runtime: Mapping[str, bytes],
    folder: Path,
) -> None:
    """Write the page; all of ``folder`` or nothing.

    Args:
        program: What `export` wrote as a single file; its policy is where the page begins.
        stops: The slider's, with that policy's point among them.
        examples: Images, as large as they are.
        data: The evaluation transform.
        runtime: What `read_runtime` read.
        folder: Where to; absent or empty.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind then.
    """
    network = Network(program, threads=1)
    policy = read_policy(program / "policy.json")
    manifest = network.manifest
    with atomic_folder(folder) as target:
        write_bytes(target / "network.onnx", (program / "network.onnx").read_bytes())
        for source in sorted(PAGE.iterdir()):
            write_bytes(target / _place(source.name), source.read_bytes())
        for name, content in runtime.items():
            write_bytes(target / "runtime" / name, content)
        shown = tuple(
            PageExample(file=f"examples/{number:02}.png", label=example.label)
            for number, example in enumerate(examples, 1)
        )
        for one, example in zip(shown, examples, strict=True):
            write_bytes(target / one.file, _png(example.image, data))
        page = Page(
            network=manifest["network"],
            checkpoint_sha256=manifest["checkpoint_sha256"],
            runtime=f"onnxruntime-web {VERSION}",
            labels=tuple(network.classes),
            transform=ExportedTransform.model_validate(manifest["transform"]),
            macs=tuple(manifest["macs"]),
            confidence=policy.confidence,
            stops=tuple(stops),
            start=[stop.thresholds for stop in stops].index(policy.points[0].thresholds),
            examples=shown,
        )
        write_json(target / "network.json", page.as_record())
        write_text(target / "README.txt", README)


def _place(name: str) -> str:
    """Where a file of the page lies."""
    return name if name == "index.html" else f"page/{name}"


def _png(image: Image.Image, data: DataSettings) -> bytes:
    """An image as a PNG file, no larger than evaluation needs it: a square that is as high as
    evaluation resizes to, so that it is not resized again."""
    square = frame(image, data.model_copy(update={"image_size": data.shorter_side}))
    content = io.BytesIO()
    square.save(content, "png", optimize=True)
    return content.getvalue()

"""Serve an exported network over HTTP, with LitServe: batches that form by themselves, and shrink.

    pip install 'hdkd[serve]'                         # litserve, python-multipart, onnxruntime
    hdkd export RUN --to onnx --budget 0.5 -o exported
    python serve.py exported
    curl -F image=@photo.png http://127.0.0.1:8000/predict

Requests that arrive together become one batch, which enters the first stage as a whole and is
smaller before each further one, as images leave. Where more requests are inside than
``--most-inside``, the next one is told so at once (503, Retry-After) instead of waiting. An image
that cannot be read is answered by 400 and does its batch no harm.

Needs no hdkd and no torch: the programs and run.py of the exported folder do the work.
"""

# No annotations from __future__: LitServe reads that of decode_request.
import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import litserve
import numpy as np
from fastapi import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PREDICT = "/predict"


class Upload(NamedTuple):
    """One request: an image (3, H, W), prepared, or what is wrong with it."""

    name: str
    image: Any = None
    problem: str = ""


class Classifier(litserve.LitAPI):
    """The exported network; each worker process opens its own.

    Args:
        folder: What ``hdkd export --to onnx`` wrote, as stages.
        threads: Of the processor, per worker.
        batching: ``max_batch_size``, and ``batch_timeout``: seconds that a batch waits to fill.
    """

    def __init__(self, folder: Path, threads: int, **batching: Any) -> None:
        super().__init__(api_path=PREDICT, **batching)
        self.folder, self.threads = folder, threads

    def setup(self, device: str) -> None:  # noqa: ARG002
        sys.path.insert(0, str(self.folder))  # run.py is there
        self.runner = importlib.import_module("run")
        self.network = self.runner.Network(self.folder, self.threads)

    def decode_request(self, request: Request) -> Upload:
        # What is raised here would fail the whole batch: it is put down instead.
        file = request.get("image") if isinstance(request, Mapping) else None
        if not hasattr(file, "file"):
            return Upload("", problem="send an image as the form's field `image`")
        try:
            return Upload(file.filename, self.network.prepare(file.file))
        except self.runner.Unusable:
            return Upload(file.filename, problem="not a readable image")

    def predict(self, uploads: list[Upload]) -> list[dict[str, Any]]:
        images = [upload.image for upload in uploads if not upload.problem]
        way = iter(())
        if images:
            exited = self.network.classify(np.stack(images))
            way = zip(*(values.tolist() for values in exited), strict=True)
        return [
            {"image": upload.name, "error": upload.problem}
            if upload.problem
            else self.network.record(upload.name, *next(way))
            for upload in uploads
        ]

    def encode_response(self, answer: dict[str, Any]) -> Any:
        return JSONResponse(answer, 400) if "error" in answer else answer


class Admission:
    """Refuses a request at once where as many as can be served soon are inside already."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most, self.inside = app, most, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PREDICT:
            await self.app(scope, receive, send)
            return
        if self.inside >= self.most:
            busy = JSONResponse({"error": "busy"}, 503, headers={"Retry-After": "1"})
            await busy(scope, receive, send)
            return
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Serve an exported network.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--wait", type=float, default=0.005, help="seconds for a batch to fill")
    parser.add_argument("--most-inside", type=int, default=128, help="requests inside at a time")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    server = litserve.LitServer(
        Classifier(
            asked.folder, asked.threads, max_batch_size=asked.batch_size, batch_timeout=asked.wait
        ),
        accelerator="cpu",
        middlewares=[(Admission, {"most": asked.most_inside})],
    )
    parent = os.getpid()

    def stop(*_: object) -> None:  # its processes then end with it
        if os.getpid() == parent:
            raise KeyboardInterrupt
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    server.run(
        host="127.0.0.1",
        port=asked.port,
        num_api_servers=1,  # each would count for itself who is inside
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()

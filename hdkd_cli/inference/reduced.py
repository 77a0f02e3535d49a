"""Smaller programs: weights stored in half precision, or everything computed in eight bits.

B images of a batch, C classes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array, to_array
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from hdkd_cli.errors import ExportError
from hdkd_cli.inference.programs import Program, inexpressible
from hdkd_cli.models.contract import MultiExitNet, Stage, State

_LEAST = 16  # numbers of a tensor: below, a cast costs more than it saves
_BATCH = 32  # images that run together while ranges are looked for

Array = NDArray[np.float32]


def halved(stage: bytes) -> bytes:
    """A program that stores its weights in fp16 and computes in fp32.

    Runtimes widen the weights once, when they open it. (Computing in fp16 as well, converted by
    onnxruntime.transformers.float16, gave the same answers and took 1.01 to 1.13 times as long on
    a CPU: docs/log.md.)

    Raises:
        ExportError: a weight is too large for fp16.
    """
    model = onnx.load_from_string(stage)
    for tensor in model.graph.initializer:
        values = to_array(tensor)
        if values.dtype != np.float32 or values.size < _LEAST:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise ExportError(
                f"weights reach {np.abs(values).max():.3g}, fp16 ends at 65504",
                hint="export in fp32",
            )
        name = tensor.name
        tensor.CopyFrom(from_array(half, f"{name}.half"))
        widen = helper.make_node(
            "Cast", [f"{name}.half"], [name], name=f"{name}.widen", to=TensorProto.FLOAT
        )
        model.graph.node.insert(0, widen)
    content: bytes = model.SerializeToString()
    return content


def quantised(
    stages: Sequence[bytes], programs: Sequence[Program], images_BCHW: Tensor
) -> list[bytes]:
    """Programs that compute in int8, with ranges from some images: static, weights per channel.

    A stage's ranges come from what the quantised stages before it hand on. Weights keep to 7 bits,
    so that processors without VNNI, whose 16-bit sums would saturate, give the same answers.

    Args:
        stages: K programs in fp32, as ONNX.
        programs: What they read and write.
        images_BCHW: Prepared images, no labels needed.

    Raises:
        ExportError: onnxruntime cannot quantise a stage.
    """
    state = [images_BCHW.contiguous().numpy()]
    smaller: list[bytes] = []
    for number, (stage, program) in enumerate(zip(stages, programs, strict=True), 1):
        try:
            smaller.append(_quantised(stage, _Ranges(program.inputs, state)))
        except Exception as problem:  # it raises whatever it stumbles over
            raise inexpressible(number, problem) from problem
        run = _opened(smaller[-1])
        parts = [run.run(None, feed) for feed in _batches(program.inputs, state)]
        state = [np.concatenate(parts) for parts in zip(*parts, strict=True)][1:]
    return smaller


def _quantised(stage: bytes, ranges: CalibrationDataReader) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, done = (Path(folder) / f"{n}.onnx" for n in ("given", "prepared", "done"))
        given.write_bytes(stage)
        with _quiet():
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                done,
                ranges,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        return done.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime tells the root logger of every vector that has one scale only."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _batches(names: Sequence[str], state: Sequence[Array]) -> Iterator[dict[str, Array]]:
    for first in range(0, len(state[0]), _BATCH):
        yield {name: x[first : first + _BATCH] for name, x in zip(names, state, strict=True)}


class _Ranges(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """A state in batches, as onnxruntime asks for them."""

    def __init__(self, names: Sequence[str], state: Sequence[Array]) -> None:
        self.batches = _batches(names, state)

    def get_next(self) -> dict[str, Array] | None:
        return next(self.batches, None)


def _opened(stage: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(stage, options, providers=["CPUExecutionProvider"])


def as_network(
    stages: Sequence[bytes], programs: Sequence[Program], of: MultiExitNet
) -> MultiExitNet:
    """ONNX programs in the place of the stages of ``of``: what a network can do, they can do."""
    return MultiExitNet(
        map(_ProgramStage, stages, programs),
        name=of.name,
        num_classes=of.num_classes,
        input_shape=of.input_shape,
        arguments=of.arguments,
    )


class _ProgramStage(Stage):
    """A stage that is an ONNX program, on the CPU."""

    head_keys = ("logits",)

    def __init__(self, stage: bytes, program: Program) -> None:
        super().__init__()
        self.session, self.program = _opened(stage), program

    def body(self, state: State) -> State:
        tensors = (state[name].contiguous().numpy() for name in self.program.reads)
        feed = dict(zip(self.program.inputs, tensors, strict=True))
        found = map(torch.from_numpy, self.session.run(list(self.program.outputs), feed))
        return dict(zip(("logits", *self.program.writes), found, strict=True))

    def head(self, state: State) -> Tensor:
        return state["logits"]

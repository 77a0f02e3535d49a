"""One ONNX file that stops by itself: stages nested in ``If`` operators, the policy in the graph.

Exit k's branch computes nothing if all samples have left, and holds stage k+1 and all that follows
if not. Weights lie in the branch that needs them: in the outer graph they make it slower.

    image (B, 3, H, W), thresholds (K−1,) or (0,)  →
    prediction (B,), exit (B,) from 1, confidence (B,), logits (B, C)

Every sample gets the answer of the first exit that is sure enough of it, in a batch of any size;
computing ends when all samples of the batch have left. Empty thresholds stand for the policy's. (An
initializer that is also an input could be left out altogether, but from JavaScript, onnxruntime
1.30 ignores what is given for it, and says nothing.) A threshold above 1 is never reached. If
logits are not finite, the confidence is NaN.

K exits, B samples of a batch, C classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array

from hdkd_cli.errors import ExportError
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.evaluation.simulate import threshold_array
from hdkd_cli.inference.programs import Program

INPUTS = ("image", "thresholds")
OUTPUTS = ("prediction", "exit", "confidence", "logits")
_TYPES = (TensorProto.INT64, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT)


def joined(
    stages: Sequence[bytes],
    programs: Sequence[Program],
    policy: ExitPolicy,
    input_shape: Sequence[int],
    classes: Sequence[str],
    about: Mapping[str, object],
) -> bytes:
    """The programs of K stages and a policy of one point as one ONNX model.

    Args:
        stages: Each program as ONNX.
        programs: What they read and write.
        policy: Combination, temperatures, confidence, and the thresholds that are the default.
        input_shape: (3, H, W)
        classes: Class names.
        about: What the file says of itself: key → what JSON can hold.

    Raises:
        ExportError: what came out is no valid ONNX.
    """
    models = [onnx.load_from_string(stage) for stage in stages]
    nest = _Nest([model.graph for model in models], programs, policy, len(classes))
    main = nest.from_stage(0)
    graph = helper.make_graph(
        main.nodes,
        "network",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *input_shape]),
            helper.make_tensor_value_info("thresholds", TensorProto.FLOAT, ["given"]),
        ],
        _declared(OUTPUTS, len(classes)),
        main.constants,
    )
    for name, output in zip(OUTPUTS, main.outputs, strict=True):
        graph.node.append(helper.make_node("Identity", [output], [name]))
    model = helper.make_model(
        graph, producer_name="hdkd", ir_version=max(model.ir_version for model in models)
    )
    del model.opset_import[:]
    model.opset_import.extend(models[0].opset_import)
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    if any(one.opset_import != models[0].opset_import or one.functions for one in models):
        raise ExportError("the stages use different sets of ONNX operators")
    return _checked(model)


def _checked(model: ModelProto) -> bytes:
    try:
        onnx.checker.check_model(model, full_check=True)  # with strict shape inference
        content: bytes = model.SerializeToString()
    except Exception as problem:  # checkers raise whatever they stumble over
        raise ExportError(f"the single file is no valid ONNX: {problem}") from problem
    return content


def _declared(names: Sequence[str], classes: int) -> list[onnx.ValueInfoProto]:
    """The four outputs, under these names."""
    shapes: list[list[str | int]] = [["batch"], ["batch"], ["batch"], ["batch", classes]]
    return [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in zip(names, _TYPES, shapes, strict=True)
    ]


@dataclass
class _Part:
    """A graph in the making: what one branch computes. Its names begin with its own prefix."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    outputs: tuple[str, ...] = ()

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """One more operator with one output; returns the output's name."""
        name = f"{self.prefix}{operator.lower()}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: float | Sequence[int], kind: type = np.float32) -> str:
        """A number, or a list of them."""
        name = f"{self.prefix}constant.{len(self.constants)}"
        self.constants.append(from_array(np.array(value, kind), name))
        return name


class _Nest:
    """Graphs within graphs: a branch sees what the graphs around it computed."""

    def __init__(
        self,
        stages: Sequence[GraphProto],
        programs: Sequence[Program],
        policy: ExitPolicy,
        classes: int,
    ) -> None:
        self.stages, self.programs, self.policy = stages, programs, policy
        self.classes = classes
        self.last = len(stages) - 1
        self.thresholds = ""
        self.states: dict[str, str] = {"image": "image"}  # entry of the state → its name here
        self.logits: list[str] = []
        self.combined: list[str] = []  # what each exit so far says, (B, C)
        self.sure: list[str] = []  # and how sure it is, (B,)
        self.left: list[str] = []  # which samples have left there or before, (B,)

    def from_stage(self, k: int) -> _Part:
        """Stage ``k`` and everything behind it."""
        part = _Part(f"stage{k + 1}/")
        if k == 0 and self.last > 0:
            self.thresholds = self._thresholds(part)
        self._run_stage(k, part)
        self.combined.append(self._combined(k, part))
        self.sure.append(self._confidence(self.combined[k], part))
        if k == self.last:
            part.outputs = self._answers(k, part)
            return part
        threshold = part.add("Gather", [self.thresholds, part.constant(k, np.int64)], axis=0)
        leaves = part.add("GreaterOrEqual", [self.sure[k], threshold])
        self.left.append(part.add("Or", [self.left[-1], leaves]) if k > 0 else leaves)
        as_numbers = part.add("Cast", [self.left[k]], to=TensorProto.INT32)
        everybody = part.add("ReduceMin", [as_numbers], keepdims=0)
        over = part.add("Cast", [everybody], to=TensorProto.BOOL)
        part.outputs = self._if(k, over, part)
        return part

    def _answers(self, k: int, part: _Part) -> tuple[str, ...]:
        """``OUTPUTS``, put together where it is over: of each sample what the exit said at which it
        left, of those that have not left, exit ``k``."""
        logits = part.add("Identity", [self.combined[k]])
        sure = part.add("Identity", [self.sure[k]])
        size = part.add("Shape", [sure])
        number = part.add("Expand", [part.constant(k + 1, np.int64), size])
        for j in reversed(range(k)):
            column = part.add("Unsqueeze", [self.left[j], part.constant([1], np.int64)])
            logits = part.add("Where", [column, self.combined[j], logits])
            sure = part.add("Where", [self.left[j], self.sure[j], sure])
            number = part.add("Where", [self.left[j], part.constant(j + 1, np.int64), number])
        prediction = part.add("ArgMax", [logits], axis=-1, keepdims=0)
        return prediction, number, sure, logits

    def _if(self, k: int, over: str, part: _Part) -> tuple[str, ...]:
        """The answers that there are if it is over, and otherwise those of the stages to come."""
        done = _Part(f"{part.prefix}over/")
        done.outputs = self._answers(k, done)
        further = self.from_stage(k + 1)
        names = tuple(f"{part.prefix}answer.{name}" for name in OUTPUTS)
        branches = {
            branch: helper.make_graph(
                inner.nodes,
                f"{part.prefix}{name}",
                [],
                _declared(inner.outputs, self.classes),
                inner.constants,
            )
            for branch, name, inner in (
                ("then_branch", "over", done),
                ("else_branch", "further", further),
            )
        }
        part.nodes.append(helper.make_node("If", [over], names, **branches))
        return names

    def _thresholds(self, part: _Part) -> str:
        """Those given, (K−1,); if none are, the policy's. Any other number of them is an error."""
        size = part.add("Size", ["thresholds"])
        none = part.add("Equal", [size, part.constant(0, np.int64)])
        shape = [self.last]
        default = threshold_array(self.policy.points)[0]

        def branch(name: str, node: NodeProto, constant: TensorProto) -> GraphProto:
            output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape)
            return helper.make_graph([node], name, [], [output], [constant])

        own = helper.make_node("Identity", ["policy/thresholds"], ["policy/used"])
        given = helper.make_node("Reshape", ["thresholds", "given/shape"], ["given/used"])
        return part.add(
            "If",
            [none],
            then_branch=branch("policy", own, from_array(default, "policy/thresholds")),
            else_branch=branch("given", given, from_array(np.array(shape), "given/shape")),
        )

    def _run_stage(self, k: int, part: _Part) -> None:
        graph, program = self.stages[k], self.programs[k]
        own = {tensor.name for tensor in graph.initializer}
        names = {name: part.prefix + name for name in own}
        entries = [self.states[entry] for entry in program.reads]
        names |= dict(zip((value.name for value in graph.input), entries, strict=True))
        for tensor in graph.initializer:
            renamed = TensorProto()
            renamed.CopyFrom(tensor)
            renamed.name = names[tensor.name]
            part.constants.append(renamed)
        part.nodes.extend(_renamed(node, names, part.prefix) for node in graph.node)
        found = [names[value.name] for value in graph.output]
        self.logits.append(found[0])
        self.states = dict(zip(program.writes, found[1:], strict=True))

    def _combined(self, k: int, part: _Part) -> str:
        """Σ_{j≤k} w_kj z_j / τ_k, term by term as `combine` adds them."""
        total = ""
        row, temperature = self.policy.combination.weights[k], self.policy.temperatures[k]
        for weight, logits in zip(row, self.logits, strict=False):
            if weight == 0:
                continue
            scale = weight / temperature
            scaled = logits if scale == 1 else part.add("Mul", [logits, part.constant(scale)])
            total = part.add("Add", [total, scaled]) if total else scaled
        return total

    def _confidence(self, logits: str, part: _Part) -> str:
        """`confidence` of (B, C), (B,)."""
        kind = self.policy.confidence
        if kind == "entropy":
            axis = part.constant([1], np.int64)
            low = part.constant(-200)
            log_p = part.add("Max", [part.add("LogSoftmax", [logits], axis=-1), low])
            terms = part.add("Mul", [part.add("Exp", [log_p]), log_p])
            negentropy = part.add("ReduceSum", [terms, axis], keepdims=0)
            scaled = part.add("Div", [negentropy, part.constant(math.log(self.classes))])
            certainty = part.add("Add", [scaled, part.constant(1)])
            return part.add("Clip", [certainty, part.constant(0), part.constant(1)])
        p = part.add("Softmax", [logits], axis=-1)
        if kind == "max-prob":
            return part.add("ReduceMax", [p, part.constant([1], np.int64)], keepdims=0)
        assert kind == "margin"
        first_two = f"{part.prefix}two"
        two = part.constant([2], np.int64)
        part.nodes.append(
            helper.make_node("TopK", [p, two], [first_two, f"{first_two}.places"], axis=-1)
        )
        first, second = (
            part.add("Gather", [first_two, part.constant(i, np.int64)], axis=1) for i in (0, 1)
        )
        return part.add("Sub", [first, second])


def _renamed(node: NodeProto, names: dict[str, str], prefix: str) -> NodeProto:
    """A copy under new names, inner graphs included; what it computes is entered into ``names``."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = prefix + node.name
    copy.input[:] = [names[name] if name else "" for name in node.input]
    for name in node.output:
        names[name] = prefix + name if name else ""
    copy.output[:] = [names[name] for name in node.output]
    for attribute in copy.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise ExportError(
                f"the network branches by itself ({node.op_type}): no single file holds that",
                hint="export it as stages, without --single-file",
            )
    return copy

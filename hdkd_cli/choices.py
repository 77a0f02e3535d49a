"""Every choice that a user names, once: settings, options, policies and the code read it here.

What a choice does is in a table beside the code that does it. This module imports typing only, so
that the command line knows all choices before it loads anything else. The exported runner
needs no hdkd and has the tables; a test compares their names with these.
"""

from __future__ import annotations

from typing import Literal

# data
Part = Literal["train", "val", "test"]
"""The parts that a source of images is delivered in."""
HeldOut = Literal["val", "calibration", "reserve", "test"]
"""Splits that no optimiser step trains the network on: all that can be scored."""
Role = Literal["train", HeldOut]
"""What a split is for."""
Augment = Literal["none", "pad-crop", "resized-crop"]
"""What is done to training images at random."""
Interpolation = Literal["bilinear", "bicubic"]
"""How images are resized; always with antialiasing."""
Layout = Literal["train-test", "train-val", "tiny-imagenet"]
"""Which folders of a data set hold what."""
ImageCheck = Literal["headers", "decode"]
"""How image files are checked before training: by their headers, or by decoding all of them."""
InMemory = Literal["auto", "always", "never"]
"""When all images are decoded into memory once."""

# models
EquilibriumMode = Literal["off", "state", "head"]
"""Which tensors gradient equilibrium acts on: none, all of the state, those the head reads."""
GradientSurgery = Literal["off", "pcgrad"]
"""What is done about exits whose gradients point against each other."""
StemKind = Literal["cifar", "imagenet"]
"""How an MSDNet or RANet begins: for small images or for large ones."""
BackboneStem = Literal["own", "small"]
"""Whether a backbone shrinks images before its first block."""
StepMode = Literal["even", "linear"]
"""Layers between the exits of an MSDNet or RANet: the same number everywhere, or growing."""
Prune = Literal["max", "min"]
"""When an MSDNet drops its fine scales: early or late."""
ParameterInit = Literal["he", "torch"]
"""Where the parameters of an MSDNet or RANet start."""

# method
Teachers = Literal["none", "last", "later", "ensemble"]
"""What teaches an exit: nothing, the last exit, all later exits, the mean of all exits."""
WeightInit = Literal["balanced", "halved", "last", "supervision", "random", "uniform", "dbt"]
"""Where the weights of the losses start."""
Parametrisation = Literal["exp", "grouped", "softmax"]
"""From the learned vector to positive weights."""
Learner = Literal["hypergradient", "continuations"]
"""What weights are learned from: the derivative of single steps, or short trial continuations."""
Replay = Literal["exact", "group-means", "permuted", "final"]
"""What of another run's learned weights is followed."""

# training
ScheduleKind = Literal["multi-step", "cosine"]
"""How the learning rate falls."""
Regime = Literal["joint", "disjoint", "mixed"]
"""What is trained when: everything at once, the heads alone, the backbone first."""
Phase = Literal["all", "heads", "backbone"]
"""What is trained at a time: everything, the heads alone, all but the earlier heads."""
OptimizerName = Literal["sgd", "adamw"]
"""How the network's parameters move."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Arithmetic of forward passes."""

# evaluation
PolicyKind = Literal["geometric", "optimal", "risk"]
"""How thresholds are found."""
FixedCombinationKind = Literal["single", "mean", "cost-weighted"]
"""Combinations of exits that follow from the costs alone."""
CombinationKind = Literal[FixedCombinationKind, "fitted"]
"""How an exit's answer is made of its own and the earlier exits' logits."""
ConfidenceKind = Literal["max-prob", "entropy", "margin"]
"""What is compared with the thresholds."""
GuaranteeKind = Literal["ltt", "crc"]
"""Whether a risk is bounded with a probability (Learn then Test) or on average (conformal risk
control)."""
RiskKind = Literal["disagreement", "accuracy-gap"]
"""What a guarantee bounds."""
Alarm = Literal["risk", "cost"]
"""What a policy that watches itself finds broken: its promise about answers, or about cost."""
CompareBy = Literal["run", "method"]
"""What is compared: each run for itself, or methods, whose runs are their seeds."""
Verdict = Literal["higher", "lower", "within noise"]
"""Where a difference lies, if its interval excludes 0."""

# what runs a network
RuntimeName = Literal["torch", "onnx"]
"""What runs a network's stages."""
RuntimeKind = Literal["auto", "torch", "onnx"]
"""The same, or whichever a short trial finds to be faster."""

# what is written
ExportTarget = Literal["onnx", "pt2", "web"]
"""What an export is: programs in a format, or a page that runs one."""
ExportPrecision = Literal["fp32", "fp16", "int8"]
"""How exported weights are stored; int8 computes in 8 bits too."""
OutputFormat = Literal["table", "json", "jsonl", "csv"]
"""How records are printed."""
SettingsFormat = Literal["toml", "json"]
"""How settings are printed."""
PresetStatus = Literal["starter", "reproduced"]
"""A sensible start, or a run whose expected numbers were measured."""

"""What can go wrong, and the exit code the shell sees.

    HdkdError                      1   a bug: nothing more specific applies
    ├── UsageError                 2   what was asked for cannot be done
    │   ├── SettingsError              settings: unknown names, wrong types, impossible combinations
    │   ├── NetworkError               a network of one's own breaks the contract
    │   ├── PresetError                a preset that is not there or cannot be read
    │   └── BudgetError                a budget no policy can meet
    ├── ArtifactError              3   something on disk is missing or unusable
    │   ├── DataError                  images, folders, splits
    │   ├── RunError                   a run folder
    │   ├── CheckpointError            a checkpoint: truncated, altered, of another network
    │   ├── ScoresError                a score file
    │   ├── PolicyError                a policy file
    │   └── ExportError                an exported program that is not what the network is
    ├── DivergedError              4   a loss or gradient was not finite
    ├── GateError                  5   --fail-under or --fail-on-drift said no
    ├── OtherRankFailed      as there   another process of this run failed, and says why
    └── InterruptedRun        130/143   SIGINT or SIGTERM; the run was saved first

Every message says what is wrong and where, in one line where one is enough; the hint says what to
do about it. A full disk or a read-only folder stays an OSError; the command line reports it with
exit code 3.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass


class HdkdError(Exception):
    """Base of everything this package raises on purpose.

    Args:
        message: What is wrong, and where.
        hint: What to do about it.
        subject: What it is about: a path, a setting's key, a name.

    Attributes:
        exit_code: What the command line ends with.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, subject: object | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.subject = subject
        if hint is not None:
            self.add_note(f"hint: {hint}")  # a traceback shows it too


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with settings.

    Attributes:
        message: The whole of it in a line: the key, the value, its layer, what is wrong.
        key: The setting, such as ``data.flip``, or a section; None: it is about no single one.
        value: What it was set to, if it was.
        origin: The layer that set it, such as ``--set`` or ``file x.toml``.
        closest: What was probably meant, best first.
        hint: What to do about it.
    """

    message: str
    key: str | None = None
    value: object = None
    origin: str | None = None
    closest: tuple[str, ...] = ()
    hint: str | None = None

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


class UsageError(HdkdError):
    """What was asked for cannot be done."""

    exit_code = 2


MAX_LISTED = 50
"""Problems that the message of a SettingsError lists; its ``problems`` are all of them."""


class SettingsError(UsageError):
    """One or more settings are wrong; the message lists all of them.

    Attributes:
        problems: Each of them, at least one.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        subject: object | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message, hint=hint, subject=subject)
        self.problems = tuple(problems) or (Problem(message, hint=hint),)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> SettingsError:
        """The error that lists ``problems``; a single one keeps its hint apart."""
        if len(problems) == 1:
            (only,) = problems
            return cls(only.message, hint=only.hint, subject=only.key, problems=problems)
        lines = [f"  {problem}" for problem in problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            lines.append(f"  and {len(problems) - MAX_LISTED} more")
        heading = f"{len(problems)} settings are wrong:"
        return cls("\n".join([heading, *lines]), problems=problems)


class NetworkError(UsageError):
    """A network of one's own does not keep the contract."""


class PresetError(UsageError):
    """A preset is not there or cannot be read."""


class BudgetError(UsageError):
    """No policy can meet the budget."""


class ArtifactError(HdkdError):
    """Something on disk is missing or unusable."""

    exit_code = 3


class DataError(ArtifactError):
    """Images, folders or splits are missing or unusable."""


class RunError(ArtifactError):
    """A run folder is missing or unusable."""


class CheckpointError(ArtifactError):
    """A checkpoint is missing, damaged or belongs to another architecture."""


class ScoresError(ArtifactError):
    """A score file is missing or unusable."""


class PolicyError(ArtifactError):
    """A policy file is missing or unusable."""


class ExportError(ArtifactError):
    """A network cannot be exported, or what was written computes something else."""


class DivergedError(HdkdError):
    """A loss or a gradient stopped being finite."""

    exit_code = 4


class GateError(HdkdError):
    """An accuracy fell short of what was demanded, or a policy's promise is broken."""

    exit_code = 5


class OtherRankFailed(HdkdError):
    """Another process of a data-parallel run failed; it reports why, and this one is silent.

    Args:
        exit_code: That of the other process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("another rank failed")
        self.exit_code = exit_code


class InterruptedRun(HdkdError):
    """A signal ended the run after its state was saved.

    Args:
        message: What was saved and how to go on.
        signum: The signal that arrived; the exit code is 128 + signum.
    """

    def __init__(self, message: str, signum: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum

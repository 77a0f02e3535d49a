"""The command line: its verbs, and how whatever went wrong ends.

A verb is one function of ``commands/``, registered at the end of this file. Those modules import
what they need inside their functions, so that ``hdkd --help`` loads neither torch nor the settings.

Exit codes: those of ``errors.py``; an OSError (a full disk, a read-only folder) is 3; 141 if the
reader of stdout went away; 130 on Ctrl-C; 1 is a bug.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from hdkd_cli.commands import (
    calibrate,
    compare,
    doctor,
    evaluate,
    export,
    import_,
    options,
    predict,
    presets,
    profile,
    report,
    settings,
    study,
    train,
)
from hdkd_cli.commands.advice import on_option
from hdkd_cli.devices import wait_briefly
from hdkd_cli.errors import ArtifactError, HdkdError, OtherRankFailed
from hdkd_cli.settings.trust import own_trust, trust_all
from hdkd_cli.ui.console import talk

PIPE_CLOSED = 141  # what a shell reports for SIGPIPE
INTERRUPTED = 130  # and for SIGINT

_interrupts: list[int] = []  # Ctrl-C, as often as it came


class Verbs(TyperGroup):
    """All verbs; turns their exceptions into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            raise typer.Exit(PIPE_CLOSED) from None
        except (HdkdError, OSError) as problem:
            if ctx.params["debug"]:
                traceback.print_exc()
            raise typer.Exit(_told(problem)) from None
        except Exception as problem:
            option, verb = (getattr(problem, name, None) for name in ("option_name", "ctx"))
            if isinstance(option, str) and verb is not None:  # misspelt: click says so
                advice = on_option(option, verb.info_name)
                problem.message += f". {advice}" if advice else ""  # type: ignore[attr-defined]
            raise


def _told(problem: HdkdError | OSError) -> int:
    """Say why it ended; return the exit code."""
    if isinstance(problem, OSError):
        where = f"{problem.filename}: " if problem.filename is not None else ""
        talk.error(f"{where}{problem.strerror or problem}")
        return ArtifactError.exit_code
    if not isinstance(problem, OtherRankFailed):
        talk.error(problem.message, problem.hint)
    return problem.exit_code


def run(arguments: Sequence[str]) -> int:
    """Run one command line in this process; return its exit code.

    Args:
        arguments: What follows ``hdkd``.
    """
    try:
        with own_trust():
            _command().main(args=list(arguments), prog_name="hdkd")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # the reader of a help page went away
            return PIPE_CLOSED
        return end.code if isinstance(end.code, int) else 0
    except OSError as problem:  # stdout does not take a help page
        return _told(problem)
    except Exception:
        if _interrupts:  # a library that catches Ctrl-C while it is imported breaks in some way
            return INTERRUPTED
        traceback.print_exc()
        talk.error(f"this is a bug in hdkd {version()}; please report it with the lines above")
        return HdkdError.exit_code
    return 0


@cache
def _command() -> Any:
    """All verbs, made into a command once per process."""
    return typer.main.get_command(app)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _interrupts.append(signum)
    signal.default_int_handler(signum, frame)


def _terminate(signum: int, _frame: FrameType | None) -> None:
    """End as from an error, so that what was half-written is removed."""
    raise SystemExit(128 + signum)


class _Closed(io.TextIOBase):
    """Stands for a stdout that was closed before the program began."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EBADF, "standard output is closed")


def _open_standard_streams() -> None:
    """Give a meaning to standard streams that the caller closed (``hdkd … >&-``)."""
    missing = [n for n, s in enumerate((sys.stdin, sys.stdout, sys.stderr)) if s is None]
    for number in missing:  # so that no file of ours gets their numbers
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
    if 0 in missing:
        sys.stdin = os.fdopen(0, closefd=False)
    if 1 in missing:
        sys.stdout = _Closed()
    if 2 in missing:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def main() -> NoReturn:
    """The ``hdkd`` program."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:  # not under nohup, say
            signal.signal(signum, _terminate)
    wait_briefly()
    _open_standard_streams()
    for stream, errors in (  # file names need not be text
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    if not _folder_exists():  # torch could not even be loaded
        talk.error("the current folder was removed", "change to another one")
        code = ArtifactError.exit_code
    else:
        code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # reported already; the interpreter shall not fail on it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _folder_exists() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def version() -> str:
    """The installed version of hdkd."""
    from importlib import metadata  # a tenth of what `hdkd --help` may take

    try:
        return metadata.version("hdkd")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"hdkd {version()}\n")
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _everywhere(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress on stderr.")
    ] = False,
    debug: Annotated[  # noqa: ARG001 - `Verbs` reads it
        bool, typer.Option("--debug", help="Show the traceback of every error.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback reads it
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Train image classifiers with several exits, calibrate when to leave, and leave early."""
    talk.quiet = quiet


def _reads_runs(verb: Callable[..., None]) -> Callable[..., None]:
    """``verb`` with the option --trust-code."""
    signature = inspect.signature(verb, eval_str=True)
    trust_code = inspect.Parameter(
        "trust_code",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=options.TrustOption,
    )

    @wraps(verb)
    def trusting(*args: Any, trust_code: bool, **given: Any) -> None:
        if trust_code:
            trust_all()
        verb(*args, **given)

    parameters = [*signature.parameters.values(), trust_code]
    trusting.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    trusting.__annotations__ = {p.name: p.annotation for p in parameters}
    return trusting


def _group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True)


app.command("train")(_reads_runs(train.train))
app.command("eval-anytime")(_reads_runs(evaluate.eval_anytime))
app.command("calibrate-thresholds")(_reads_runs(calibrate.calibrate_thresholds))
app.command("calibrate", hidden=True)(_reads_runs(calibrate.calibrate_thresholds))
app.command("eval-budget")(_reads_runs(evaluate.eval_budget))
app.command("scores")(_reads_runs(evaluate.scores))
app.command("predict")(_reads_runs(predict.predict))
app.command("profile")(_reads_runs(profile.profile))
app.command("export")(_reads_runs(export.export))
app.command("import")(import_.import_)
app.command("compare")(_reads_runs(compare.compare))
app.command("report")(_reads_runs(report.report))
app.command("study")(_reads_runs(study.study))

_presets = _group("Complete named runs to start from.")
_presets.command("list")(presets.list_presets)
_presets.command("show")(presets.show_preset)
_presets.command("copy")(presets.copy_preset)
app.add_typer(_presets, name="presets")

_settings = _group("What a run would use, and all settings there are.")
_settings.command("show")(settings.show_settings)
_settings.command("schema")(settings.show_schema)
app.add_typer(_settings, name="settings")

app.command("doctor")(doctor.doctor)

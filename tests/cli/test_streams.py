"""What is written where: devices, pipes, links, closed and full streams, signals, lost folders."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hdkd_cli import app

ANY = pytest.CaptureFixture[str]

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which ``hdkd`` is the program."""
    quoted = f'{sys.executable} -c "from hdkd_cli.app import main; main()"'
    return subprocess.run(
        ["bash", "-c", f"hdkd() {{ {quoted} \"$@\"; }}; {command}"],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        ("hdkd presets list >&-", 3, "error: standard output is closed\n"),
        ("hdkd eval-anytime - <&-", 3, "error: no run folder on stdin\n"
         "hint: did the command before it fail?\n"),
        ("hdkd eval-anytime nowhere 2>&-", 3, ""),
        ("hdkd --help | true; exit ${PIPESTATUS[0]}", 141, ""),
        pytest.param("hdkd --help >/dev/full", 3, "error: No space left on device\n",
                     marks=needs_full),
        pytest.param("hdkd --version >/dev/full", 3, "error: No space left on device\n",
                     marks=needs_full),
        pytest.param("hdkd eval-anytime nowhere 2>/dev/full", 3, "", marks=needs_full),
        ("mkdir d && cd d && rmdir ../d && hdkd presets list", 3,
         "error: the current folder was removed\nhint: change to another one\n"),
    ],
)  # fmt: skip
def test_every_end_is_one_clean_line(tmp_path: Path, command: str, code: int, error: str) -> None:
    done = shell(command, tmp_path)
    assert (done.returncode, done.stderr) == (code, error)


def test_output_goes_through_a_link(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    target, link = tmp_path / "kept" / "policy.json", tmp_path / "link.json"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    assert app.run(["calibrate", str(trained), "-o", str(link)]) == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["schema"] == "hdkd/policy/1"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_device_stays_a_device(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    if os.geteuid() == 0:  # a device of our own, should it be replaced after all
        device = tmp_path / "null"
        try:
            os.mknod(device, 0o20666, os.makedev(1, 3))
            device.write_bytes(b"")
        except OSError:
            pytest.skip("no devices may be made or opened here")
    else:
        device = Path("/dev/null")
    for verb in (["scores", str(trained)], ["calibrate", str(trained)]):
        assert app.run([*verb, "-o", str(device)]) == 0
        assert device.is_char_device()


def test_output_to_a_pipe(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert app.run(["calibrate", str(trained), "-o", str(pipe)]) == 0
    reader.join(10)
    assert json.loads(read[0])["schema"] == "hdkd/policy/1"
    assert pipe.is_fifo()


WAITING = """
import sys, time
from pathlib import Path
from hdkd_cli import app, files
def verb():
    with files.atomic_path(Path("out")) as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(30)
app.app.command("verb")(verb)
sys.argv = ["hdkd", "verb"]
app.main()
"""


def _as_in_a_terminal() -> None:
    """A process that a shell put into the background, or nohup began, ignores some signals."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_half_written_file(tmp_path: Path, signum: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=tmp_path, stdout=subprocess.PIPE,
        preexec_fn=_as_in_a_terminal,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert any(path.name.endswith(".tmp") for path in tmp_path.iterdir())
    process.send_signal(signum)
    assert process.wait(20) == 128 + signum
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_names_from_files_do_not_reach_the_terminal_raw(trained: Path, capsys: ANY) -> None:
    bad = "a\x1b]0;title\x07\nerror: forged\u202e\x9b"
    assert app.run(["eval-budget", str(trained), "--policy", bad]) == 3
    error = capsys.readouterr().err
    assert "a\\x1b]0;title\\x07\\nerror: forged\\u202e\\x9b" in error
    assert not set("\x1b\x07\u202e\x9b") & set(error)

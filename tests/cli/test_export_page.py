"""``hdkd export --to web``: what it refuses; in a browser, the answers of ``hdkd predict``."""

import contextlib
import http.server
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdkd_cli import app, load
from hdkd_cli.evaluation.policy import ExitPolicy, write_policy
from hdkd_cli.inference.web.runtime import VERSION

ANY = pytest.CaptureFixture[str]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def test_a_page_needs_its_runtime(trained: Path, tmp_path: Path, capsys: ANY) -> None:
    pytest.importorskip("onnxruntime")
    assert app.run(["export", str(trained), "--to", "web", f"-o{tmp_path / 'out'}"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == (
        f"error: --to web needs onnxruntime-web {VERSION}, and nothing is downloaded unasked"
    )
    assert hint.startswith(f"hint: run `npm pack onnxruntime-web@{VERSION}`")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("to", "option", "message"),
    [
        ("pt2", "--runtime=.", "--runtime: --to pt2 brings none"),
        ("web", "--measure", "--measure: a page measures itself"),
    ],
)
def test_options_that_do_not_go_together(
    trained: Path, tmp_path: Path, capsys: ANY, to: str, option: str, message: str
) -> None:
    pytest.importorskip("onnxruntime")
    assert app.run(["export", str(trained), "--to", to, option, f"-o{tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}\n")


# -- in a browser -----------------------------------------------------------------------------

# Does what a user does: removes the examples, chooses files, moves the slider, reads the cards.
DRIVE = """\
<!DOCTYPE html><meta charset="utf-8"><iframe src="index.html" width="1100" height="900"></iframe>
<script type="module">
const names = %s, stops = %s;
const frame = document.querySelector('iframe');
const until = async (what) => {
  while (!what()) await new Promise((resolve) => setTimeout(resolve, 20));
};
const send = (data) => fetch('/said', { method: 'POST', body: JSON.stringify(data) });
try {
  await new Promise((resolve) => { frame.onload = resolve; });
  const page = frame.contentDocument, at = (id) => page.getElementById(id);
  const cards = () => [...page.querySelectorAll('.card')];
  const settled = () => at('status').textContent === '' && cards().length > 0
    && cards().every((card) => card.getAttribute('aria-busy') === 'false');
  await until(() => settled() || at('problems').textContent);
  const examples = cards().length;
  at('clear').click();
  const given = new DataTransfer();
  for (const name of names) {
    given.items.add(new File([await (await fetch('images/' + name)).blob()], name));
  }
  at('files').files = given.files;
  at('files').dispatchEvent(new Event('change'));
  await until(() => cards().length + at('problems').children.length === names.length && settled());
  const problems = [...at('problems').children].map((line) => line.textContent);
  const answers = [];
  for (const stop of stops) {
    at('budget').value = stop;
    at('budget').dispatchEvent(new Event('input'));
    await until(settled);
    answers.push(cards().map((card) => ({
      image: card.querySelector('.file').textContent,
      class: card.querySelector('h3').textContent,
      exit: card.querySelectorAll('tbody tr').length
        && 1 + [...card.querySelectorAll('tbody tr')].findIndex((row) => row.className === 'here'),
      confidence: Number(card.querySelector('tr.here td:nth-child(3)').textContent),
      told: card.querySelector('.where').textContent,
    })));
  }
  await send({ examples, problems, answers, saved: at('saved').textContent });
} catch (problem) {
  await send({ broken: String(problem) });
}
</script>
"""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, "queue.Queue[Any]"]]:
    """Serve a folder on this machine alone; what a page posts comes out of the queue."""
    said: queue.Queue[Any] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, directory=str(folder))

        def do_POST(self) -> None:
            said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", said
        finally:
            server.shutdown()
            thread.join()


def said_in_browser(browser: str, folder: Path, profile: Path) -> Any:
    with served(folder) as (address, said):
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            f"--user-data-dir={profile}", f"{address}/drive.html",
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
            try:
                return said.get(timeout=300)
            finally:
                process.terminate()


def draw_images(folder: Path) -> list[str]:
    """Images of many sizes and kinds, and three files that are none."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    names = []
    for number in range(40):
        width, height = (32, 32) if number < 10 else (int(x) for x in dice.integers(9, 300, 2))
        image = Image.effect_noise((width, height), 5 + 6 * number).convert("RGB")
        ending = ("png", "bmp", "webp", "gif")[number % 4]
        names.append(f"{number:02}.{ending}")
        lossless = {"lossless": True} if ending == "webp" else {}
        image.save(folder / names[-1], **lossless)
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways
    image.save(folder / "turned.jpg", quality=100, subsampling=0, exif=exif)
    (folder / "text.png").write_text("this is no image")
    (folder / "short.png").write_bytes((folder / "00.png").read_bytes()[:60])
    Image.new("RGB", (2001, 2)).save(folder / "strip.png")
    return [*names, "turned.jpg", "text.png", "short.png", "strip.png"]


@pytest.mark.slow
def test_in_a_browser_answers_are_those_of_predict(
    trained: Path, tmp_path: Path, capsys: ANY
) -> None:
    pytest.importorskip("onnxruntime")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None or not shutil.which("npm"):
        pytest.skip("needs npm, and Chromium or Chrome")
    npm = ["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}"]
    subprocess.run(npm, cwd=tmp_path, check=True, capture_output=True)
    out, runtime = tmp_path / "out", tmp_path / f"onnxruntime-web-{VERSION}.tgz"
    command = ["export", str(trained), "--to", "web", f"-o{out}", f"--runtime={runtime}"]
    assert app.run(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert {"index.html", "network.onnx", "runtime/ort-wasm-simd-threaded.wasm"} < {
        file["name"] for file in record["files"]
    }
    names = draw_images(out / "images")
    stops = json.loads((out / "network.json").read_text())["stops"]
    asked = [0, len(stops) // 2, len(stops) - 1]
    (out / "drive.html").write_text(DRIVE % (json.dumps(names), json.dumps(asked)))
    said = said_in_browser(browser, out, tmp_path / "profile")
    assert "broken" not in said, said
    assert said["examples"] == 12
    assert said["saved"] == "0 %"  # the last stop is the full network
    assert said["problems"] == [
        "text.png is not an image that this browser can read",
        "short.png is not an image that this browser can read",
        "strip.png is 2001×2 pixels: too long a strip",
    ]
    policy = load(trained).policy
    assert policy is not None
    images, exits = [str(out / "images" / name) for name in names[:-3]], set()
    for stop, found in zip(asked, said["answers"], strict=True):
        thresholds = tuple(stops[stop]["thresholds"])
        write_policy(tmp_path / "one.json", at_thresholds(policy, thresholds))
        assert app.run(["predict", str(trained), *images, f"--policy={tmp_path / 'one.json'}"]) == 0
        wanted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [Path(one["image"]).name for one in wanted] == [one["image"] for one in found]
        assert [one["class"] for one in wanted] == [one["class"] for one in found]
        assert [one["exit"] for one in wanted] == [one["exit"] for one in found]
        for ours, theirs in zip(wanted, found, strict=True):
            assert theirs["confidence"] == pytest.approx(ours["confidence"], abs=1e-3)
            assert f"Left at exit {ours['exit']} of 3" in theirs["told"]
        exits |= {one["exit"] for one in found}
    assert len(exits) > 1


def at_thresholds(policy: ExitPolicy, thresholds: tuple[float | None, ...]) -> ExitPolicy:
    return policy.only(policy.points[0].model_copy(update={"thresholds": thresholds}))

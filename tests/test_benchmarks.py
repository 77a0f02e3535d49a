"""Each benchmark measures what it says, at toy size. No time is asserted."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SMALL

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import bench
import claims
import fixtures
import gpu
import growth
import harness
import memory
import overhead
import performance
import pipeline
import startup
import step_cpu
import step_public
import thresholds
import verbs

from hdkd_cli.data import open_data

CPU = torch.device("cpu")
TOY_NET = ("model.exits=3", "model.channels=8", "model.growth=4")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def assert_spread(values):
    assert 0 < values["min"] <= values["median"] <= values["max"] < math.inf


# harness


def test_arms_take_turns_and_warm_up_does_not_count():
    calls = []
    arms = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = harness.in_turn(arms, trials=3, warmup=1)
    assert calls == list("abababab")
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3}


def test_ratios_are_those_of_pairs():
    assert harness.ratios([2, 9, 4], [1, 3, 8]) == {"median": 2, "min": 0.5, "max": 3}


def test_a_record_tells_where_it_comes_from(results):
    path = harness.write_record("x", "nothing", rows=[1])
    record = json.loads(path.read_text())
    assert path == results / "x.json"
    assert record["schema"] == "hdkd/benchmark/1"
    assert record["rows"] == [1]
    assert record["machine"]["torch"] == torch.__version__
    assert {"processor", "cores", "threads", "load", "python"} <= record["machine"].keys()


# growth


@given(
    st.floats(0.1, 10),
    st.floats(0.5, 4),
    st.lists(st.integers(1, 1000), min_size=2, max_size=5, unique=True),
)
def test_per_doubling_finds_the_exponent(scale, factor, values):
    seconds = [scale * factor ** math.log2(v) for v in values]
    assert growth.per_doubling(values, seconds) == pytest.approx(factor, rel=1e-6)


def test_growth_measures_both_kinds_of_step_at_every_point():
    row = growth.measure("batch", (2, 4), {"exits": 2, "classes": 3, "batch": 2}, trials=1)
    assert row["fixed"] == {"exits": 2, "classes": 3}
    assert [point["value"] for point in row["points"]] == [2, 4]
    assert row["points"][1]["work_macs"] == 2 * row["points"][0]["work_macs"]
    for kind in growth.KINDS:
        first, last = (p[f"{kind}_seconds"]["median"] for p in row["points"])
        measured = row["growth"][kind]
        # two points, one round: the line goes through both
        assert measured["per_doubling"]["median"] == pytest.approx(last / first)
        assert measured["over_work"]["median"] == pytest.approx(last / first / 2)


def test_a_step_with_an_update_moves_the_weights_and_one_without_does_not():
    settings = fixtures.settings_for({"name": "msdnet", "exits": 2}, 4, "hdkd")
    state, batch = fixtures.fresh_state(settings, 3)
    before = state.weights().detach().clone()
    growth.one_step(state, batch, update=False)()
    assert torch.equal(state.weights(), before)
    growth.one_step(state, batch, update=True)()
    assert not torch.equal(state.weights(), before)


# memory


def test_bytes_are_counted_exactly():
    kept = []

    def call():
        kept.append(torch.empty(1000, dtype=torch.uint8))
        del kept[:]
        kept.append(torch.empty(300, dtype=torch.uint8))

    assert memory.counted(CPU, call) == (300, 1000)
    assert memory.counted(CPU, kept.clear) == (-300, 0)


def test_an_update_keeps_one_copy_and_stores_no_graph_of_the_step():
    row = memory.measure("cifar100-small", 10, 16, CPU, TOY_NET)
    size = row["bytes"]
    generator_state = torch.default_generator.get_state().nbytes
    assert size["kept_for_updates"] == size["parameters"] + size["buffers"] + generator_state
    assert size["kept_by_an_update"] == 0
    assert row["peak_over_step"] < 1.3  # a stored graph would make it 2


def test_a_stored_graph_would_be_noticed():
    net = torch.nn.Sequential(*[torch.nn.Linear(8, 8), torch.nn.ReLU()] * 3)
    x = torch.randn(512, 8)
    once = memory.counted(CPU, lambda: net(x).sum())
    twice = memory.counted(CPU, lambda: (net(x) + net(x)).sum())
    assert twice.peak > 1.7 * once.peak


# startup and pipeline


@pytest.mark.slow
def test_startup_waits_for_the_first_step():
    assert startup.seconds_to_first_step(SMALL) > 0


def test_startup_tells_why_no_step_was_taken():
    with pytest.raises(SystemExit, match="nonsense"):
        startup.seconds_to_first_step(["nonsense"])


def test_a_verb_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(
        verbs, "VERBS", {"calibrate-thresholds": verbs.VERBS["calibrate-thresholds"]}
    )
    (row,) = verbs.measure(tmp_path, 100, trials=1)
    assert row["seconds"]["median"] > 0
    assert 20 < row["megabytes"]["median"] < 200  # this process, which knows torch, is larger
    assert (tmp_path / "policy.json").exists()


def test_random_pictures_are_a_data_set(tmp_path):
    root = startup.random_pictures(tmp_path, classes=3, train=4, test=2)
    settings = pipeline.settings_of(root, 0)
    assert {r: len(s) for r, s in open_data(settings).splits.items() if len(s)} == {
        "train": 9,
        "val": 3,
        "test": 6,
    }


@pytest.fixture
def jpegs(tmp_path):
    made = pipeline.make_jpegs(tmp_path, 30, sides=(24, 40))
    assert 24**2 <= made["mean_pixels"] <= 40**2
    return tmp_path


@pytest.mark.parametrize("transform", pipeline.TRANSFORMS)
def test_both_loaders_read_all_images(jpegs, transform):
    row = pipeline.measure_reading(jpegs, 0, transform, batch_size=10, trials=1)
    assert row["images"]["hdkd"] == 20  # 10 are val
    assert row["images"]["usual"] == 30
    assert_spread(row["speed"])
    assert_spread(row["images_per_s"]["hdkd"])


def test_smooth_noise_compresses_like_a_photograph(tmp_path):
    made = pipeline.make_jpegs(tmp_path, 5, sides=(300, 400))
    bits = 8000 * made["mean_kB"] / made["mean_pixels"]
    assert 2 < bits < 6  # ImageNet: about 110 kB for 400 × 350 to 500 × 375 pixels


def test_waiting_is_a_share_of_a_step(tmp_path):
    root = startup.random_pictures(tmp_path, classes=2, train=5, test=1)
    settings = pipeline.imagenet_like(root, 0, 2)
    small = {"growth": 4, "channels": 8, "base": 1, "step": 1, "exits": 2}
    small |= {"growth_factors": (1, 2), "bottleneck_factors": (1, 2)}
    settings = settings.model_copy(
        update={
            "model": settings.model.model_copy(update=small),
            "data": settings.data.model_copy(update={"image_size": 64, "resize": 64}),
        }
    )
    record = pipeline.waiting(settings, open_data(settings.data), steps=2)
    assert_spread(record["waiting_share"])
    assert record["waiting_share"]["max"] < 1


# the older ones


def test_overhead_rows():
    row = overhead.measure(2, 1, batch=4, trials=1)
    assert (row["exits"], row["interval"], row["target"]) == (2, 1, 3.0)
    assert_spread(row["ratio"])
    assert_spread(overhead.measure_terms(2, 3, batch=4, trials=1)["share"])


def test_step_cpu_compares_the_same_mathematics():
    settings = fixtures.settings_for({"name": "msdnet", "exits": 2}, 4, "naive-dkd")
    arms = step_cpu.arms_in_one_process(settings)  # checks both losses on the same batch
    assert math.isfinite(arms["plain"]())


def test_step_public_has_a_row_for_every_arithmetic(monkeypatch):
    toy = {"name": "msdnet", "exits": 2, "base": 1, "step": 1}
    monkeypatch.setitem(step_public.NETS, "toy", (toy, 4))
    monkeypatch.setattr(step_public, "BATCH", 4)
    rows = step_public.measure("toy", trials=1)
    assert len({row["arm"] for row in rows}) == len(rows) >= 4
    assert [row["target"] for row in rows].count(1.3) == 1  # the fastest form of fp32
    for row in rows:
        assert_spread(row["speedup"])


def test_thresholds_row():
    assert_spread(thresholds.measure(3, 50, 4, trials=2)["fit_seconds"])


# the table


def finding(median, target, **more):
    spread = {"median": median, "min": median, "max": median}
    return claims.Finding("it is so", spread, target, reason="why", **more)


def test_verdicts():
    assert finding(1.4, 1.5).cells() == ("it is so", "1.40", "at most 1.5", "met")
    assert finding(1.4, 1.5, at_least=True).cells()[2:] == ("at least 1.5", "missed: why")
    assert finding(1.5, 1.5, at_least=True).met
    assert finding(1.5, 1.5).met
    assert finding(1.5, None).cells()[2:] == ("", "")


def test_the_record_of_every_script_of_the_bench_is_read():
    assert bench.BOUNDED.keys() <= claims.CLAIMS.keys()
    for name in bench.BOUNDED:
        source = (Path(bench.__file__).parent / f"{name}.py").read_text()
        options = [word for word in bench.BOUNDED[name] if word.startswith("--")]
        assert all(re.search(rf"\b{option[2:]}=", source) for option in options)
        assert f'"{name}"' in re.sub(r"\s", "", source).partition("main()->None")[2]


def test_the_table_has_a_row_a_finding():
    rows = claims.findings(claims.records())
    assert len(rows) >= 15
    lines = claims.table(rows).splitlines()
    assert len(lines) == 1 + len(rows)
    assert all(f.reason for f in rows if f.target is not None and not f.met)


def test_claims_agree_with_what_the_scripts_measure(results):
    """Fresh records of the new scripts, at toy size, make rows."""
    row = growth.measure("exits", (2, 3), {"exits": 2, "classes": 3, "batch": 2}, trials=1)
    net = memory.measure("cifar100-small", 10, 4, CPU, TOY_NET)
    made = {
        "growth": {"rows": [row], "target_over_work": 1.1},
        "memory": {"rows": [net], "target_keeps": 1.01, "target_peak": 1.1},
    }
    assert [len(claims.findings({name: record})) for name, record in made.items()] == [2, 2]


def test_the_sections_are_replaced_and_nothing_else():
    begin, end = performance.BEGIN, performance.END
    text = f"above\n{begin}\nold\n{end}\nbetween\n{begin}{end}\nbelow\n"
    once = performance.replaced(text, ["new", "newer"])
    assert "old" not in once
    assert once.startswith("above\n")
    assert once.endswith("\nbelow\n")
    assert once.index("new\n") < once.index("between") < once.index("newer")
    assert performance.replaced(once, ["new", "newer"]) == once
    with pytest.raises(ValueError, match="argument 2 is longer"):
        performance.replaced(text, ["new"])


# gpu: everything but the GPU itself


@pytest.mark.slow  # bf16 is emulated
def test_gpu_rows_are_well_formed_where_there_is_none(monkeypatch):
    toy = ({"name": "msdnet", "exits": 2, "channels": 4, "growth": 2}, 8)
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "NETS", {"cifar100-small": toy, "cifar100-msdnet7": toy})
    monkeypatch.setattr(gpu, "RECIPES", {"toy": (*toy, 10.0)})
    assert gpu.waits(CPU) == {"waits": False}
    (row,) = gpu.agreement(CPU, ["fp32"])
    assert row == {"precision": "fp32", "gradient": 0.0, "hypergradient": 0.0}
    row = gpu.recipe("toy", CPU, 1, compiled=False)
    seconds = row["seconds_a_step"]["median"]
    assert row["minutes_300_epochs"] == pytest.approx(seconds * (45_000 // 8) * 300 / 60)
    assert_spread(gpu.overhead(CPU, 1, 1, compiled=False)["ratio"])
    assert_spread(gpu.steps(CPU, ["fp32"], 1, compiled=False)["images_per_s"]["fp32"])


def test_gpu_leaves_out_what_there_is_no_time_for():
    clock = gpu.Clock(1)
    assert clock.allows("short", 1)
    assert not clock.allows("long", 3600)
    assert clock.left_out == ["long"]


# backbones


@pytest.fixture(scope="module")
def table_of_backbones():
    """The script; by its path, as a helper of other tests has its name."""
    path = Path(bench.__file__).with_name("backbones.py")
    spec = importlib.util.spec_from_file_location("table_of_backbones", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_check_that_was_not_done_counts_neither_way(table_of_backbones):
    checks = table_of_backbones.CHECKS
    works = {"model": "a:works", "image_size": 32} | dict.fromkeys(checks)
    fails = works | {"model": "a:fails", "ONNX": "cannot be exported"}
    waits = {"model": "a:waits", "image_size": 32, "cut": None, "unfinished": "trains: not done"}
    text = table_of_backbones.page([works, fails, waits], {"torch": "1"})
    assert "| `a:waits` | 32 | yes |  |  |  |  |" in text
    assert "3 of 3 | 2 of 2 | 2 of 2 | 2 of 2 | 1 of 2 |" in text
    reasons, _, open_ends = text.partition("What was not tried to the end:")
    assert "- `a:fails`: ONNX: cannot be exported" in reasons
    assert open_ends.split() == ["-", "`a:waits`:", "trains:", "not", "done"]


def test_what_the_table_says_already_is_not_tried_again(table_of_backbones, monkeypatch, tmp_path):
    first, *others = table_of_backbones.CHECKS
    records = [
        {"model": "a:one", "image_size": 32} | dict.fromkeys([first, *others[:-1]]),
        {"model": "a:two", "image_size": 32, first: "cannot be cut"},
        {"model": "a:three", "image_size": 32, first: None, "unfinished": "trains: not done"},
    ]
    kept = tmp_path / "backbones.json"
    kept.write_text(json.dumps({"versions": {}, "records": records}))
    asked = []
    monkeypatch.setattr(table_of_backbones, "RESULTS", kept)
    monkeypatch.setattr(table_of_backbones, "MODELS", {"a": "one@32 two@32 three@32 four@64"})
    monkeypatch.setattr(
        table_of_backbones,
        "_in_own_process",
        lambda model, checks, _: asked.append((model, checks)),
    )
    found = table_of_backbones.examine_all({}, table_of_backbones.CHECKS)
    assert asked == [("a:one@32", others[-1:]), ("a:four@64", [first, *others])]
    assert [record["model"] for record in found] == ["a:one", "a:two", "a:three", "a:four"]

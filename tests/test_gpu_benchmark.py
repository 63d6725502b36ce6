"""The benchmark for GPUs runs in small on a CPU."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

FILE = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_arms_that_a_cpu_has_make_the_same_steps(benchmark, tmp_path, capsys):
    words = "--small --cases sd1:64:1,sdxl:64:2 --arms eager,channels_last,graph,diffusers,tensorrt --steps 2 --of 3"
    out = tmp_path / "figures" / "gpu.json"
    benchmark.main([*words.split(), "--rounds", "1", "--seconds", "900", "--out", str(out), "--device", "cpu"])
    said = capsys.readouterr().out
    assert "sdxl:64:2       graph               left out: CUDA graphs need CUDA" in said
    assert "tensorrt            left out: torch_tensorrt is not installed" in said
    rows = json.loads(out.read_text())["rows"]
    arms = ("eager", "channels_last", "diffusers")
    assert sorted((row["case"], row["arm"]) for row in rows) == sorted(
        (case, arm) for case in ("sd1:64:1", "sdxl:64:2") for arm in arms
    )
    for row in rows:
        assert 0 < row["share"] < 1
        assert row["pictures_a_second"] < 1000 * int(row["case"][-1]) / (3 * row["ms_a_step"]), "decoding costs, too"
    whole = [row["whole"] for row in rows if row["whole"]]
    assert whole, "a whole batch was measured"


def test_it_is_the_whole_architecture_in_the_number_type_asked_for(benchmark):
    for kind, count in (("sd1", 859_520_964), ("sdxl", 2_567_463_684)):
        with benchmark.made_on(torch.device("meta"), torch.bfloat16):
            unet = UNet2DConditionModel.from_config(benchmark.config_of(kind, "unet", small=False))
        assert sum(p.numel() for p in unet.parameters()) == count
        assert next(unet.parameters()).dtype == torch.bfloat16


def test_seconds_that_are_over_leave_cases_out(benchmark, capsys):
    assert benchmark.main(["--small", "--cases", "sd1:64:1", "--seconds", "0", "--device", "cpu"]) == []
    assert "sd1:64:1        left out: the 0 seconds are over" in capsys.readouterr().out


def test_an_arm_that_there_is_not(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--arms", "fastest"])
    assert "there is no arm 'fastest'; choose from eager" in capsys.readouterr().err

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from conftest import open_pipeline
from diffusers import AutoencoderKL, UNet2DConditionModel
from original_layout import original
from safetensors.torch import load_file, save_file

from embedlab import Cell, Sampler, Source, load, models, render
from embedlab.errors import ModelError
from embedlab.validate import validate


def same_weights(a, b) -> bool:
    pairs = [
        (a.unet, b.unet),
        (a.vae, b.vae),
        *((x.encoder, y.encoder) for x, y in zip(a.towers, b.towers, strict=True)),
    ]
    return all(
        x.state_dict().keys() == y.state_dict().keys()
        and all(torch.equal(v, y.state_dict()[k]) for k, v in x.state_dict().items())
        for x, y in pairs
    )


def test_a_folder_gives_the_kind_it_holds(model, kind):
    assert len(model.towers) == (2 if kind == "sdxl" else 1)
    assert model.size_conditioned == (kind == "sdxl") == model.zero_negative
    assert model.scheduler.get("prediction_type", "epsilon") == ("v_prediction" if kind == "sd2" else "epsilon")
    made = render(model, [Cell("a puppy", sampler=Sampler("ddim", 2))], [0])[0]
    assert made.pictures.shape == (1, 3, 16, 16)
    assert torch.isfinite(made.pictures).all()


@pytest.mark.turns
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_in_the_original_layout_is_the_same_model(folders, kind, model, tmp_path, suffix):
    state = {k: v.contiguous() for k, v in original(open_pipeline(folders[kind]), kind).items()}
    path = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": state}, path)
    else:
        save_file({k: v.clone() for k, v in state.items()}, path)
    loaded = load(str(path), config=str(folders[kind]), device="cpu")
    assert same_weights(loaded, model)


@pytest.mark.parametrize(("kind", "width"), [("sd1", 768), ("sd2", 1024)])
def test_known_layouts_need_no_config(tmp_path, kind, width):
    path = tmp_path / "m.safetensors"
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({key: torch.zeros(320, width)}, path)
    source = Source(str(path), prediction_type="v_prediction" if kind == "sd2" else None)
    assert source.folder.name == kind
    assert source.widths == (width,)
    assert source.factor == 8
    assert source.size == {"sd1": 512, "sd2": 768}[kind]
    assert source.tokenizers[0].pad_token == {"sd1": "<|endoftext|>", "sd2": "!"}[kind]


def test_the_shipped_layouts_build_the_true_architectures():
    """Parameter counts that the papers and cards state: 860 M and 866 M and 2.57 B for the UNets, 84 M for the VAE."""
    millions = {}
    for kind in ("sd1", "sd2", "sdxl"):
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(
                json.loads((models.LAYOUTS / kind / "unet/config.json").read_text())
            )
            vae = AutoencoderKL.from_config(json.loads((models.LAYOUTS / kind / "vae/config.json").read_text()))
        millions[kind] = round(sum(p.numel() for p in unet.parameters()) / 1e6)
        assert round(sum(p.numel() for p in vae.parameters()) / 1e6) == 84
    assert millions == {"sd1": 860, "sd2": 866, "sdxl": 2567}


def test_a_checkpoint_that_is_not_plain_tensors_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Marked:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path = tmp_path / "evil.ckpt"
    with path.open("wb") as file:
        pickle.dump({"state_dict": Marked()}, file)
    with pytest.raises(ModelError, match="is not plain tensors and is not opened"):
        load(str(path))
    torch.save({"state_dict": Marked()}, path)
    with pytest.raises(ModelError, match="is not plain tensors and is not opened"):
        load(str(path))
    assert not marker.exists()


def test_a_folder_lacking_a_part_names_the_part(folders, tmp_path):
    for part, message in {
        "unet": "lacks its part 'unet'",
        "tokenizer": "lacks its part 'tokenizer'",
        "scheduler": "lacks its part 'scheduler'",
        "text_encoder": "lacks its part 'text_encoder'",
    }.items():
        copy = tmp_path / part
        shutil.copytree(folders["sd1"], copy)
        shutil.rmtree(copy / part)
        with pytest.raises(ModelError, match=message):
            load(str(copy))


def test_weights_that_are_broken_or_pickled_are_refused(folders, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folders["sd1"], broken)
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="the part 'unet' of the model .* cannot be read"):
        load(str(broken))
    file.unlink()
    torch.save({}, file.with_suffix(".bin"))
    with pytest.raises(ModelError, match="the part 'unet' of the model .* cannot be read"):
        load(str(broken))


def test_weights_that_are_missing_are_not_made_up(folders, tmp_path):
    """The libraries fill them at random and say so in a log."""
    for part in ("text_encoder", "unet", "vae"):
        copy = tmp_path / part
        shutil.copytree(folders["sd1"], copy)
        (file,) = (copy / part).glob("*.safetensors")
        weights = load_file(file)
        gone = sorted(weights)[0]
        save_file({key: value for key, value in weights.items() if key != gone}, file, {"format": "pt"})
        with pytest.raises(ModelError, match=f"the part '{part}' of the model .* lacks 1 weights: {gone}"):
            load(str(copy))


def test_configs_that_are_broken_name_the_file_or_the_key(folders, tmp_path):
    for path, text, message in (
        ("unet/config.json", "{bad", "config.json' cannot be read as JSON"),
        ("model_index.json", "[]", "model_index.json' holds a list, not a dict"),
        ("unet/config.json", "{}", "the configuration of the part 'unet' of .* has no in_channels"),
    ):
        copy = tmp_path / str(abs(hash((path, text))))
        shutil.copytree(folders["sd1"], copy)
        (copy / path).write_text(text)
        with pytest.raises(ModelError, match=message):
            validate(Cell("a cat"), Source(str(copy)))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("emogi", {}, r"there is no model 'emogi': not emoji, no folder, no file, and no hub id"),
        ("/nowhere/model.safetensors", {}, "there is no model"),
        (__file__, {}, "is no model file; a single file ends in .safetensors or .ckpt"),
        ("emoji", {"dtype": "float8"}, "dtype 'float8' is unknown; choose one of float32, float16, bfloat16"),
        ("emoji", {"device": "gpu"}, "'gpu' is no device that embedlab runs on; try cpu, cuda"),
        ("emoji", {"device": "cpu:3"}, "'cpu:3' is no device"),
        ("emoji", {"device": 0}, "0 is no device"),
        ("emoji", {"config": "emoji"}, "model.config describes a single file"),
        ("emoji", {"scorer": "nowhere"}, "there is no scorer 'nowhere'"),
        ("emoji", {"allow_pickle": "false"}, "model.allow_pickle is 'false'; it has to be true or false"),
        (None, {}, "model.name is None; it has to be a text"),
        ("x" * 5000, {}, "the name of a model has 5000 letters"),
        ("emoji", {"device": "cuda:99"}, "device 'cuda:99' was asked for, but this torch sees"),
    ],
)
def test_wrong_names_are_one_clear_line(name, settings, message):
    with pytest.raises(ModelError, match=message) as caught:
        Source(name, **settings)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path):
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        Source(str(tmp_path))


def test_a_hub_model_that_is_not_cached_says_so_offline():
    with pytest.raises(ModelError, match="the hub cannot be reached and 'nobody/nothing' is not in its cache"):
        Source("nobody/nothing").tokenizers  # noqa: B018


def test_the_same_source_is_loaded_once(folders):
    assert load(str(folders["sd1"]), device="cpu") is load(str(folders["sd1"]), device="cpu")


def test_threads_that_ask_at_once_have_one_model_and_others_their_own(folders, tmp_path):
    fresh = [shutil.copytree(folders["sd1"], tmp_path / name) for name in ("a", "b")]
    asked = [fresh[n % 2] for n in range(6)]
    together = Barrier(len(asked))

    def load(folder):
        together.wait()
        return models.load(str(folder), device="cpu")

    with ThreadPoolExecutor(len(asked)) as pool:
        loaded = list(pool.map(load, asked))
    assert len({id(model) for model in loaded}) == 2
    assert all(model is loaded[n % 2] for n, model in enumerate(loaded))
    assert not any(weight.is_meta for model in loaded for weight in model.unet.parameters())


def test_towers_of_a_pipeline(pipeline, model):
    towers = models.text_encoders_of(pipeline)
    assert [t.layer for t in towers] == [t.layer for t in model.towers]
    assert all(torch.equal(a.token_table, b.token_table) for a, b in zip(towers, model.towers, strict=True))


def test_the_old_spelling_of_a_location_names_the_new_one():
    with pytest.warns(DeprecationWarning, match="Source.where is now Source.location"):
        assert Source("emoji").where == Source("emoji").location

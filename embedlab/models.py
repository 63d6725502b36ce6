"""name | hub id | folder | single file → Model.

A `Source` knows a model by its small files alone: tokenizers, configs, sizes. Everything that a user may have typed
wrong is checked against it; `Source.load` then reads the weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from embedlab import clip
from embedlab.clip import Tower
from embedlab.errors import ModelError, listed

HERE = Path(__file__).parent
SHIPPED = {"emoji": HERE / "weights" / "emoji"}
LAYOUTS = HERE / "weights" / "layouts"  # configs of the models that single files hold
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Scorer:
    """A pair of CLIP towers for scores: any image encoder with the text encoder it was trained with."""

    text: Tower
    image: CLIPVisionModelWithProjection
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's; each model's preprocessor says its own
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Model:
    """All parts of a text-to-image model that embedlab works with."""

    name: str
    towers: tuple[Tower, ...]
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: dict[str, Any] = field(repr=False)
    zero_negative: bool = False
    scorer: Scorer | None = None
    concepts: tuple[str, ...] = ()  # the things that a small model draws
    words: tuple[str, ...] = ()  # all the words that it was trained on

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    @property
    def size_conditioned(self) -> bool:
        """Whether the UNet is told picture sizes and a pooled text, as SDXL's is."""
        return self.unet.config.addition_embed_type == "text_time"


@lru_cache(maxsize=1)
def tokenizer() -> CLIPTokenizer:
    """The true CLIP tokenizer (49,408 entries), which is shipped with the default model."""
    return CLIPTokenizer.from_pretrained(SHIPPED["emoji"] / "tokenizer")


@dataclass(frozen=True)
class Source:
    """Where a model is and how it is to be loaded; nothing heavy is read before `load`.

    name: `emoji`, a hub id (`owner/name`), a diffusers folder, or a single `.safetensors` or `.ckpt` file in the
        original layout.
    device, dtype: chosen sensibly when left out (CUDA with bfloat16 or float16, else the CPU with float32).
    config: for a single file, a diffusers folder or hub id whose configs describe it; known layouts need none.
    scorer: a folder or hub id of a CLIP model to score pictures with; the default model brings its own.
    """

    name: str = "emoji"
    device: str | None = None
    dtype: str | None = None
    config: str | None = None
    scorer: str | None = None
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        for setting in ("name", "dtype", "config", "scorer"):
            value = getattr(self, setting)
            if not isinstance(value, str) and (value is not None or setting == "name"):
                raise ModelError(f"model.{setting} is {value!r}; it has to be a text.")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ModelError(f"dtype '{self.dtype}' is unknown; choose one of {listed(DTYPES)}.")
        if not isinstance(self.allow_pickle, bool):
            raise ModelError(f"model.allow_pickle is {self.allow_pickle!r}; it has to be true or false.")
        self.where  # noqa: B018  (a wrong name is refused here)
        if self.config is not None and not self.single_file:
            raise ModelError("model.config describes a single file; a folder or hub id brings its own configs.")
        if self.scorer is not None and not Path(self.scorer).is_dir() and not HUB_ID.fullmatch(self.scorer):
            raise ModelError(f"there is no scorer '{self.scorer}': no folder, and no hub id (owner/name).")
        pick_device(self.device)

    def elsewhere(self, gpus: float) -> Source:
        """The same for a worker with so many GPUs: this machine's do not tell what an unnamed device is there."""
        other = copy.copy(self)
        device = self.device or ("cuda" if gpus else "cpu")
        dtype = self.dtype or str(pick_dtype(None, torch.device(device))).removeprefix("torch.")
        object.__setattr__(other, "device", device)  # not looked for here
        object.__setattr__(other, "dtype", dtype)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the settings, and not what was read by them."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self)}

    @property
    def single_file(self) -> bool:
        """Whether the model is one file in the original layout."""
        return isinstance(self.where, Path) and self.where.is_file()

    @cached_property
    def where(self) -> Path | str:
        """The folder, the file or the hub id."""
        if self.name in SHIPPED:
            return SHIPPED[self.name]
        if len(self.name) > 1000:
            raise ModelError(f"the name of a model has {len(self.name)} letters; give a name, a folder or a file.")
        path = Path(self.name).expanduser()
        if path.is_dir() and self.name:
            if not (path / "model_index.json").exists():
                raise ModelError(f"the folder '{self.name}' has no model_index.json; a diffusers model folder has one.")
            return path
        if path.is_file():
            if path.suffix not in (".safetensors", ".ckpt"):
                raise ModelError(f"'{self.name}' is no model file; a single file ends in .safetensors or .ckpt.")
            return path
        if HUB_ID.fullmatch(self.name) and not path.suffix.endswith(("safetensors", "ckpt")):
            return self.name
        known = listed(SHIPPED)
        raise ModelError(
            f"there is no model '{self.name}': not {known}, no folder, no file, and no hub id (owner/name)."
        )

    @property
    def folder(self) -> Path | str:
        """Where the small files are: the model itself, or what describes a single file."""
        if not self.single_file:
            return self.where
        if self.config:
            return Source(self.config).where
        return LAYOUTS / layout_of(Path(self.where))

    def part(self, name: str) -> dict[str, Any]:
        """The configuration of a part, such as `unet` or `scheduler`."""
        file = {"scheduler": "scheduler_config.json", "": "model_index.json"}.get(name, "config.json")
        path = f"{name}/{file}".lstrip("/")
        if isinstance(self.folder, Path):
            if not (self.folder / path).exists():
                raise ModelError(
                    f"the model '{self.name}' lacks its part '{name}': there is no {path} in {self.folder}."
                )
            return read_json(self.folder / path)
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

        try:
            return read_json(Path(hf_hub_download(self.folder, path)))
        except LocalEntryNotFoundError:
            raise ModelError(
                f"the hub cannot be reached and '{self.name}' is not in its cache; name a folder."
            ) from None
        except EntryNotFoundError:
            raise ModelError(f"the model '{self.name}' lacks its part '{name}' on the hub ({path}).") from None
        except (HfHubHTTPError, OSError) as error:
            raise ModelError(f"the hub does not give '{self.name}': {str(error).splitlines()[0]}") from None

    @cached_property
    def index(self) -> dict[str, Any]:
        """`model_index.json`: which parts there are."""
        return self.part("")

    @property
    def encoders(self) -> tuple[str, ...]:
        """The folders of the text encoders: one for SD 1 and 2, two for SDXL."""
        names = [n for n in ("text_encoder", "text_encoder_2") if (self.index.get(n) or [None])[0]]
        if not names:
            raise ModelError(f"the model '{self.name}' lacks its part 'text_encoder'.")
        return tuple(names)

    @cached_property
    def tokenizers(self) -> tuple[CLIPTokenizer, ...]:
        """One tokenizer a text encoder."""
        return tuple(self._tokenizer(name.replace("text_encoder", "tokenizer")) for name in self.encoders)

    def _tokenizer(self, name: str) -> CLIPTokenizer:
        if (
            LAYOUTS in Path(self.folder).parents
        ):  # SD 1 and the first encoder of SDXL pad with the end of text, the others with "!"
            pads = "!" if name == "tokenizer_2" or Path(self.folder).name == "sd2" else "<|endoftext|>"
            return CLIPTokenizer.from_pretrained(SHIPPED["emoji"] / "tokenizer", pad_token=pads)
        if isinstance(self.folder, Path) and not (self.folder / name).is_dir():
            raise ModelError(
                f"the model '{self.name}' lacks its part '{name}': there is no such folder in {self.folder}."
            )
        try:
            return CLIPTokenizer.from_pretrained(self.folder, subfolder=name)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"the part '{name}' of the model '{self.name}' cannot be read: {reason}") from None

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the rows of each text encoder."""
        return tuple(self.told(name, "hidden_size") for name in self.encoders)

    def told(self, part: str, key: str) -> Any:
        """What the configuration of a part says; ModelError where it does not."""
        config = self.part(part)
        if key not in config:
            raise ModelError(f"the configuration of the part '{part}' of '{self.name}' has no {key}.")
        return config[key]

    @property
    def factor(self) -> int:
        """How many pixels a latent spans, a side."""
        return 2 ** (len(self.told("vae", "block_out_channels")) - 1)

    @property
    def size(self) -> int:
        """The side of the pictures that the model was trained on, in pixels."""
        return self.told("unet", "sample_size") * self.factor

    @property
    def sees(self) -> bool:
        """Whether pictures are scored by an image encoder: the one that was asked for, or the model's own."""
        own = self.index.get("image_encoder", [None])[0] == "transformers" and not self.single_file
        return bool(self.scorer) or own

    @cached_property
    def identity(self) -> list[str]:
        """What its weights and configs are: the commit on the hub, or each file's name, size and a sample of it."""
        if not isinstance(self.where, Path):
            from huggingface_hub import hf_hub_download

            self.index  # noqa: B018  (whatever is wrong is said there)
            return [self.name, Path(hf_hub_download(self.name, "model_index.json")).parent.name]
        if self.where.is_file():
            return [sampled(self.where), *(Source(self.config).identity if self.config else ())]
        kinds = (".safetensors", ".bin", ".json", ".txt")
        files = sorted(p for p in self.where.rglob("*") if p.suffix in kinds and p.is_file())
        return [f"{path.relative_to(self.where)} {sampled(path)}" for path in files]

    def load(self) -> Model:
        """Read the weights. The same source gives the same model again within a process."""
        return _load(self)

    def towers(self) -> tuple[Tower, ...]:
        """The text encoders alone, where the model's parts can be read apart; as `load` gives them."""
        if self.single_file:
            return self.load().towers
        device = pick_device(self.device)
        encoders = self._encoders(pick_dtype(self.dtype, device))
        return _towers(self.tokenizers, [encoder.to(device).eval().requires_grad_(False) for encoder in encoders])

    def names(self, what: str) -> tuple[str, ...]:
        """A list of words that a small model keeps beside its weights: `concepts` that it draws, `words` it saw."""
        path = Path(self.where) / f"{what}.json" if isinstance(self.where, Path) else Path()
        return tuple(read_json(path, list)) if path.is_file() else ()

    def _read(self, kind: Any, name: str, dtype: torch.dtype) -> Any:
        if isinstance(self.where, Path) and not (self.where / name).is_dir():
            raise ModelError(
                f"the model '{self.name}' lacks its part '{name}': there is no such folder in {self.where}."
            )
        try:
            part, info = kind.from_pretrained(
                self.where,
                subfolder=name,
                torch_dtype=dtype,
                use_safetensors=None if self.allow_pickle else True,
                output_loading_info=True,
            )
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ModelError(f"the part '{name}' of the model '{self.name}' cannot be read: {reason}") from None
        if lacking := sorted(info["missing_keys"]):  # they would be filled at random
            raise ModelError(
                f"the part '{name}' of the model '{self.name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
            )
        return part

    def _parts(self, dtype: torch.dtype) -> tuple[list[nn.Module], UNet2DConditionModel, AutoencoderKL]:
        if self.single_file:
            return _from_single_file(self, dtype)
        encoders = self._encoders(dtype)
        unet = self._read(UNet2DConditionModel, "unet", dtype)
        # half precision overflows in SDXL's decoder, and the autoencoder runs once a picture only
        return encoders, unet, self._read(AutoencoderKL, "vae", torch.float32)

    def _encoders(self, dtype: torch.dtype) -> list[nn.Module]:
        kinds = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
        named = [(name, self.index[name][1]) for name in self.encoders]
        for name, kind in named:
            if kind not in kinds:
                raise ModelError(f"the part '{name}' of '{self.name}' is a {kind}; embedlab edits {listed(kinds)}.")
        return [self._read(kinds[kind], name, dtype) for name, kind in named]


def sampled(path: Path, places: int = 16, each: int = 1 << 16) -> str:
    """Size and a hash of samples all over a file: other weights differ everywhere, gigabytes are slow to read."""
    size = path.stat().st_size
    seen = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for n in range(places if size > places * each else 1):
            file.seek(n * (size - each) // (places - 1) if n else 0)
            seen.update(file.read(each if size > places * each else size))
    return f"{size} {seen.hexdigest()[:16]}"


def find(name: str = "emoji", **settings: Any) -> Source:
    """Where a model is, checked by its small files; `Source.load` reads the weights."""
    return Source(name, **settings)


def load(name: str = "emoji", **settings: Any) -> Model:
    """Load a model by name, hub id, folder or single file; see `Source` for the settings.

    Raises ModelError when it is not there, lacks a part or cannot be read.
    """
    return find(name, **settings).load()


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(name, str) or not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ModelError(f"{name!r} is no device that embedlab runs on; try cpu, cuda, cuda:0 or mps.")
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' was asked for, but this torch has none; try cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device '{name}' was asked for, but this torch sees {torch.cuda.device_count()} CUDA devices; try cpu."
        )
    return device


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The number type asked for, or half precision on CUDA and float32 elsewhere."""
    if name:
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    if not torch.cuda.is_available():  # another machine's, which is not asked
        return torch.bfloat16
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def towers_of(pipeline: Any) -> tuple[Tower, ...]:
    """The text encoders of a diffusers pipeline (SD 1, 2, XL and what is built on them), ready for operators."""
    pairs = [
        (getattr(pipeline, f"tokenizer{n}", None), getattr(pipeline, f"text_encoder{n}", None)) for n in ("", "_2")
    ]
    found = [(t, e) for t, e in pairs if t is not None and e is not None]
    if not found:
        raise ModelError(f"a {type(pipeline).__name__} has no text_encoder with a tokenizer.")
    return _towers([t for t, _ in found], [e for _, e in found])


def _towers(tokenizers: Any, encoders: Any) -> tuple[Tower, ...]:
    joint = any(isinstance(e, CLIPTextModelWithProjection) for e in encoders)
    settings: dict[str, Any] = {"layer": 1, "final_norm": False} if joint else {}
    return tuple(Tower(t, e, **settings) for t, e in zip(tokenizers, encoders, strict=True))


@lru_cache(maxsize=2)
def _load(source: Source) -> Model:
    device = pick_device(source.device)
    dtype = pick_dtype(source.dtype, device)
    encoders, unet, vae = source._parts(dtype)
    for part in (*encoders, unet, vae):
        part.to(device).eval().requires_grad_(False)
    if device.type == "cpu":  # a fifth faster there: oneDNN convolves channels last without reordering
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    towers = _towers(source.tokenizers, encoders)
    for tower in towers:
        clip.check(tower)
    return Model(
        name=source.name,
        towers=towers,
        unet=unet,
        vae=vae,
        scheduler={k: v for k, v in source.part("scheduler").items() if not k.startswith("_")},
        zero_negative=bool(source.index.get("force_zeros_for_empty_prompt", len(towers) > 1)),
        scorer=_scorer(source, towers, device),
        concepts=source.names("concepts"),
        words=source.names("words"),
    )


def _scorer(source: Source, towers: tuple[Tower, ...], device: torch.device) -> Scorer | None:
    """The scorer asked for, or the model's own image encoder."""
    if source.scorer:
        from transformers import CLIPModel

        try:
            model = (
                CLIPModel.from_pretrained(source.scorer, use_safetensors=True).to(device).eval().requires_grad_(False)
            )
            words = CLIPTokenizer.from_pretrained(source.scorer)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ModelError(f"the scorer '{source.scorer}' cannot be read: {reason}") from None
        text = CLIPTextModelWithProjection._from_config(model.config.text_config)
        text.text_model, text.text_projection = model.text_model, model.text_projection
        image = CLIPVisionModelWithProjection._from_config(model.config.vision_config)
        image.vision_model, image.visual_projection = model.vision_model, model.visual_projection
        return Scorer(Tower(words, text.to(device).eval()), image.to(device).eval(), **_colours(Path(source.scorer)))
    if not source.sees:
        return None
    image = source._read(CLIPVisionModelWithProjection, "image_encoder", torch.float32).to(device).eval()
    return Scorer(towers[0], image.requires_grad_(False), **_colours(Path(source.where) / "feature_extractor"))


def _colours(folder: Path) -> dict[str, tuple[float, ...]]:
    """The colour normalisation that an image encoder was trained with, where its folder tells."""
    file = folder / "preprocessor_config.json"
    told = read_json(file) if file.is_file() else {}
    return {k: tuple(told[f"image_{k}"]) for k in ("mean", "std") if f"image_{k}" in told}


def read_json(path: Path, kind: type = dict) -> Any:
    """A JSON file that has to hold a `kind`."""
    try:
        value = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ModelError(f"'{path}' cannot be read as JSON: {error}") from None
    if not isinstance(value, kind):
        raise ModelError(f"'{path}' holds a {type(value).__name__}, not a {kind.__name__}.")
    return value


def layout_of(path: Path) -> str:
    """Which of the known models a single file in the original layout holds, by the shapes of its weights."""
    shapes = _shapes(path)
    if "conditioner.embedders.1.model.ln_final.weight" in shapes:
        return "sdxl"
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    if key in shapes:
        if shapes[key][1] == 1024:
            return "sd2"
        if shapes[key][1] == 768:
            return "sd1"
    raise ModelError(
        f"'{path}' is not in the original layout of Stable Diffusion 1, 2 or XL; give model.config=FOLDER."
    )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"'{path}' cannot be read as safetensors: {error}") from None
    state = read_pickle(path)
    return {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}


def read_pickle(path: Path) -> dict[str, Any]:
    """The tensors of a `.ckpt`; anything in it that is not plain tensors is refused and never run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it asks to run {named[1]}" if named else "it holds something else, or was cut short"
        raise ModelError(f"'{path}' is not plain tensors and is not opened: {found}.") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise ModelError(f"'{path}' holds a {type(state).__name__}, not a dictionary of tensors.")
    return state


def _from_single_file(
    source: Source, dtype: torch.dtype
) -> tuple[list[nn.Module], UNet2DConditionModel, AutoencoderKL]:
    """Read a file in the original layout; diffusers does the renaming, our configs save it a visit to the hub."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    path = Path(source.where)
    if path.suffix == ".ckpt":
        read_pickle(path)
    two = len(source.encoders) > 1
    pipeline = StableDiffusionXLPipeline if two else StableDiffusionPipeline
    extra: dict[str, Any] = {} if two else {"safety_checker": None}
    extra |= dict(zip(("tokenizer", "tokenizer_2"), source.tokenizers, strict=False))
    try:
        loaded = pipeline.from_single_file(
            str(path), config=str(source.folder), torch_dtype=dtype, local_files_only=True, **extra
        )
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"'{path}' does not fit the layout of {Path(source.folder).name}: {reason[:200]}") from None
    return [getattr(loaded, name) for name in source.encoders], loaded.unet, loaded.vae.float()

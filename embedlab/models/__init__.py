"""name | hub id | folder | single file → Model.

A `Source` knows a model by its small files alone: tokenizers, configs, sizes. Everything that a user may have typed
wrong is checked against it; `Source.load` then reads the weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import warnings
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from embedlab import clip
from embedlab.clip import Tower
from embedlab.errors import ModelError, listed
from embedlab.models import fits
from embedlab.models import single_file as checkpoint
from embedlab.prompt import WINDOW

HERE = Path(__file__).parent.parent
SHIPPED = {"emoji": HERE / "weights" / "emoji"}
LAYOUTS = HERE / "weights" / "layouts"  # configs of the models that single files hold
NAMES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}
WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # of the hidden states that a UNet reads
OTHERS = {  # in the names of weights of models that embedlab does not run
    "double_blocks.": "a Flux",
    "joint_blocks.": "a Stable Diffusion 3",
    "lora_up.weight": "a LoRA",
    "lora_A.weight": "a LoRA",
    "control_model.": "a ControlNet",
    "motion_modules.": "a motion module",
}
PARTS = ("unet", "vae", "scheduler", "image_encoder", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt")
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
    """All parts of a text-to-image model that embedlab works with; `load` gives one.

    `scheduler` is the config of the scheduler that the model was trained with, `scorer` the CLIP model that looks at
    pictures. `zero_negative`: without a negative prompt, the unconditional half is zeros and not the empty prompt.

    >>> model = load("emoji")
    >>> model.name, model.scheduler["prediction_type"], model.zero_negative
    ('emoji', 'v_prediction', False)
    """

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
    def factor(self) -> int:
        """How many pixels a latent spans, a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size(self) -> int:
        """The side of the pictures that it was trained on, in pixels."""
        return self.unet.config.sample_size * self.factor

    @property
    def levels(self) -> int:
        """How often the UNet halves a picture, and once more."""
        return len(self.unet.config.block_out_channels)

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
    variant: which weights of a folder or hub id are read where there are several, such as `fp16`.
    vae: a folder, hub id or single file whose VAE is taken in place of the model's own, or where it has none.
    text_encoder: a model folder or hub id whose text encoders are taken, or the folder of one.
    prediction_type: what the UNet predicts (epsilon, v_prediction or sample), where it is told wrong or not at all.
    zero_snr: whether it was trained down to no signal at all (Lin et al. 2024), where that is told wrong or not at all.
    """

    name: str = "emoji"
    device: str | None = None
    dtype: str | None = None
    config: str | None = None
    scorer: str | None = None
    allow_pickle: bool = False
    variant: str | None = None
    vae: str | None = None
    text_encoder: str | None = None
    prediction_type: str | None = None
    zero_snr: bool | None = None

    def __post_init__(self) -> None:
        texts = ("name", "dtype", "config", "scorer", "variant", "vae", "text_encoder", "prediction_type")
        for setting in texts:
            value = getattr(self, setting)
            if not isinstance(value, str) and (value is not None or setting == "name"):
                raise ModelError(f"model.{setting} is {value!r}; it has to be a text.")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ModelError(f"dtype '{self.dtype}' is unknown; choose one of {listed(DTYPES)}.")
        if not isinstance(self.allow_pickle, bool):
            raise ModelError(f"model.allow_pickle is {self.allow_pickle!r}; it has to be true or false.")
        if self.prediction_type not in (None, *checkpoint.PREDICTIONS):
            raise ModelError(
                f"model.prediction_type is '{str(self.prediction_type)[:80]}'; "
                f"choose one of {listed(checkpoint.PREDICTIONS)}."
            )
        if self.zero_snr not in (None, True, False) or type(self.zero_snr) is int:
            raise ModelError(f"model.zero_snr is {self.zero_snr!r}; it has to be true or false.")
        if self.variant is not None and not re.fullmatch(r"[\w-]{1,40}", self.variant):
            raise ModelError(
                f"model.variant is {self.variant[:80]!r}; it is a word in the names of files, such as fp16."
            )
        self.location  # noqa: B018  (a wrong name is refused here)
        if self.config is not None:
            if not self.single_file:
                raise ModelError("model.config describes a single file; a folder or hub id brings its own configs.")
            if Source(self.config).single_file:
                raise ModelError(f"model.config is the file '{self.config}'; it has to be a folder or hub id.")
        if self.variant is not None and self.single_file:
            raise ModelError("model.variant chooses among the weights of a folder or hub id; a single file is one.")
        for setting in ("vae", "text_encoder"):
            if (value := getattr(self, setting)) is not None:
                place_of(value, setting)
        folder = path_of(self.scorer) if self.scorer is not None else None
        if self.scorer is not None and not (folder and folder.is_dir()) and not HUB_ID.fullmatch(self.scorer):
            raise ModelError(f"there is no scorer '{self.scorer}': no folder, and no hub id (owner/name).")
        pick_device(self.device)

    def for_worker(self, gpus: float) -> Source:
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
        return isinstance(self.location, Path) and self.location.is_file()

    @cached_property
    def location(self) -> Path | str:
        """The folder, the file or the hub id."""
        if self.name in SHIPPED:
            return SHIPPED[self.name]
        if len(self.name) > 1000:
            raise ModelError(f"the name of a model has {len(self.name)} letters; give a name, a folder or a file.")
        path = path_of(self.name)
        if path is not None and path.is_dir() and self.name:
            if not (path / "model_index.json").exists():
                raise ModelError(f"the folder '{self.name}' has no model_index.json; a diffusers model folder has one.")
            return path
        if path is not None and path.is_file():
            if checkpoint.ending_of(path) not in checkpoint.ENDINGS:
                raise ModelError(f"'{self.name}' is no model file; a single file ends in .safetensors or .ckpt.")
            return path
        if HUB_ID.fullmatch(self.name) and not self.name.lower().endswith(checkpoint.ENDINGS):
            return self.name
        known = listed(SHIPPED)
        raise ModelError(
            f"there is no model '{self.name}': not {known}, no folder, no file, and no hub id (owner/name)."
        )

    @property
    def where(self) -> Path | str:
        """The spelling of 0.1 of `location`."""
        warnings.warn("Source.where is now Source.location.", DeprecationWarning, stacklevel=2)
        return self.location

    @cached_property
    def header(self) -> checkpoint.Header:
        """What a single file says of itself."""
        return checkpoint.header_of(Path(self.location))

    @cached_property
    def layout(self) -> str | None:
        """Which of the shipped layouts describes a single file; None for anything that has its own configs."""
        return layout_of(Path(self.location)) if self.single_file and not self.config else None

    @cached_property
    def folder(self) -> Path | str:
        """Where the small files are: the model itself, or what describes a single file."""
        if not self.single_file:
            return self.location
        if self.config:
            return Source(self.config).location
        return LAYOUTS / str(self.layout)

    def home(self, name: str) -> tuple[Path | str, str]:
        """Where the small files of a part are: a folder or hub id, and the folder in it ('' for the top)."""
        if name == "vae" and self.vae is not None:
            place = place_of(self.vae, "vae")
            if not (isinstance(place, Path) and place.is_file()):
                found = first_of(place, "config.json", "vae/config.json")
                return place, "" if found == "config.json" else "vae"
        if name.startswith(("text_encoder", "tokenizer")) and self.text_encoder is not None:
            place = place_of(self.text_encoder, "text_encoder")
            file = "config.json" if name.startswith("text_encoder") else "tokenizer_config.json"
            first = name in ("text_encoder", "tokenizer")  # a second encoder is in no folder of one
            found = first_of(place, f"{name}/{file}", *([file] if first else []))
            if found is not None or name == "text_encoder":
                return place, name if found == f"{name}/{file}" else ""
        return self.folder, name

    def part(self, name: str) -> dict[str, Any]:
        """The configuration of a part, such as `unet` or `scheduler`."""
        file = {"scheduler": "scheduler_config.json", "": "model_index.json"}.get(name, "config.json")
        place, inner = self.home(name)
        path = f"{inner}/{file}".lstrip("/")
        found = small_file(place, path)
        if found is None:
            where = f"in {place}" if isinstance(place, Path) else "on the hub"
            hint = {"vae": "; name one: model.vae=PATH", "text_encoder": "; name one: model.text_encoder=PATH"}
            raise ModelError(
                f"the model '{self.name}' lacks its part '{name}': there is no {path} {where}{hint.get(name, '')}."
            )
        return checkpoint.read_json(found)

    @cached_property
    def index(self) -> dict[str, Any]:
        """`model_index.json`: which parts there are."""
        index = self.part("")
        for key, value in index.items():
            if key in PARTS and not (
                isinstance(value, list) and len(value) == 2 and all(isinstance(v, str | None) for v in value)
            ):
                raise ModelError(
                    f"model_index.json of '{self.name}' says {key} {repr(value)[:60]}; it has to be [library, class]."
                )
        return index

    @property
    def encoders(self) -> tuple[str, ...]:
        """The folders of the text encoders: one for SD 1 and 2, two for SDXL."""
        names = [n for n in ("text_encoder", "text_encoder_2") if (self.index.get(n) or [None])[0]]
        if not names and self.text_encoder is not None:
            names = ["text_encoder"]
        if not names:
            raise ModelError(
                f"the model '{self.name}' lacks its part 'text_encoder'; name one: model.text_encoder=PATH."
            )
        return tuple(names)

    @cached_property
    def tokenizers(self) -> tuple[CLIPTokenizer, ...]:
        """One tokenizer a text encoder."""
        return tuple(self._tokenizer(name.replace("text_encoder", "tokenizer")) for name in self.encoders)

    def _tokenizer(self, name: str) -> CLIPTokenizer:
        place, inner = self.home(name)
        if (
            LAYOUTS in Path(place).parents
        ):  # SD 1 and the first encoder of SDXL pad with the end of text, the others with "!"
            pads = "!" if name == "tokenizer_2" or Path(place).name == "sd2" else "<|endoftext|>"
            return CLIPTokenizer.from_pretrained(SHIPPED["emoji"] / "tokenizer", pad_token=pads)
        if isinstance(place, Path):
            if not (place / inner).is_dir():
                raise ModelError(
                    f"the model '{self.name}' lacks its part '{name}': there is no such folder in {place}."
                )
            checkpoint.check_regular(place / inner)
            files = [name for name in TOKENIZER if (place / inner / name).is_file()]
            if TOKENIZER[0] not in files and len(files) < 2:  # the library would make one that knows no words
                raise ModelError(
                    f"the part '{name}' of the model '{self.name}' cannot be read: it has neither {TOKENIZER[0]} nor "
                    f"{TOKENIZER[1]} with {TOKENIZER[2]}."
                )
        try:
            return CLIPTokenizer.from_pretrained(place, subfolder=inner)
        except Exception as error:
            raise ModelError(
                f"the part '{name}' of the model '{self.name}' cannot be read: {first_line(error)}"
            ) from None

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the rows of each text encoder."""
        return tuple(self.config_value(name, "hidden_size") for name in self.encoders)

    def config_value(self, part: str, key: str) -> Any:
        """What the configuration of a part says; ModelError where it does not."""
        config = self.part(part)
        if key not in config:
            raise ModelError(f"the configuration of the part '{part}' of '{self.name}' has no {key}.")
        return config[key]

    @property
    def factor(self) -> int:
        """How many pixels a latent spans, a side."""
        vae = self.part("vae")
        blocks = vae.get("decoder_block_out_channels") if vae.get("_class_name") == "AutoencoderTiny" else None
        return 2 ** (len(blocks or self.config_value("vae", "block_out_channels")) - 1)

    @property
    def size(self) -> int:
        """The side of the pictures that the model was trained on, in pixels."""
        return self.sample_size * self.factor

    @property
    def levels(self) -> int:
        """How often the UNet halves a picture, and once more."""
        return len(self.config_value("unet", "block_out_channels"))

    @cached_property
    def sample_size(self) -> int:
        """The same in latents; of a file of a known layout, what its metadata says or what goes with its prediction."""
        told = self.config_value("unet", "sample_size")
        told = told[0] if isinstance(told, list) else told
        if self.layout is None:
            return told
        side = checkpoint.side_of(self.header)
        if side and side % self.factor == 0:
            return side // self.factor
        return 64 if self.layout == "sd2" and self.scheduler["prediction_type"] == "epsilon" else told

    @cached_property
    def scheduler(self) -> dict[str, Any]:
        """The scheduler's configuration, with what was concluded of the prediction and of the noise."""
        config = self.part("scheduler")
        prediction, zero = self._prediction[0], self._zero_snr[0]
        told: dict[str, Any] = {"prediction_type": prediction}
        if zero != bool(config.get("rescale_betas_zero_snr")):
            told["rescale_betas_zero_snr"] = zero
            if zero:  # without the last timestep, sampling would begin at a signal that the noise does not have
                told["timestep_spacing"] = "trailing"
        return config | told

    @cached_property
    def _prediction(self) -> tuple[str, str]:
        """What the UNet predicts, and where that is said; ModelError where nothing says it, or two say otherwise."""
        if self.prediction_type is not None:
            return self.prediction_type, "model.prediction_type"
        config = self.part("scheduler")
        said: dict[str, str] = {}
        if self.single_file:
            said = checkpoint.predictions(Path(self.location), self.header, self.layout)
        if self.layout is None and (spelled := config.get("prediction_type")) is not None:
            if spelled not in checkpoint.PREDICTIONS:
                raise ModelError(
                    f"the scheduler of '{self.name}' says prediction_type {repr(spelled)[:60]}; embedlab samples "
                    f"{listed(checkpoint.PREDICTIONS)}."
                )
            said["the scheduler's config"] = spelled
        if len(set(said.values())) > 1:
            both = " and ".join(f"{what} ({why})" for why, what in said.items())
            raise ModelError(f"'{self.name}' is told to predict {both}; say which it is: model.prediction_type=….")
        if said:
            return next(iter(said.values())), " and ".join(said)
        if self.layout == "sd2":
            raise ModelError(
                f"'{self.name}' does not tell what it predicts, and files of this layout are of both kinds; say it: "
                "model.prediction_type=epsilon (2.0-base and 2.1-base, 512 px) or v_prediction (2.0 and 2.1, 768 px)."
            )
        if self.layout is not None:
            return "epsilon", f"nothing says otherwise, as in {NAMES[self.layout]}"
        return "epsilon", "the scheduler's default, because its config does not say it"

    @cached_property
    def _zero_snr(self) -> tuple[bool, str]:
        """Whether the noise that it was trained on ends without any signal, and where that is said."""
        if self.zero_snr is not None:
            return self.zero_snr, "model.zero_snr"
        if self.single_file and "ztsnr" in self.header.shapes:
            return True, "the file's key ztsnr"
        if self.part("scheduler").get("rescale_betas_zero_snr"):
            return True, "the scheduler's config"
        return False, ""

    @cached_property
    def concluded(self) -> dict[str, str]:
        """What was concluded about the model, and from what, for people: setting → value and reason."""
        said = {"prediction_type": "{} (by {})".format(*self._prediction)}
        zero, why = self._zero_snr
        if why:
            said["zero_snr"] = f"{'true' if zero else 'false'} (by {why})"
        if self.layout is not None:
            said["layout"] = f"{NAMES[self.layout]} (by the names and shapes of its weights)"
            said["size"] = f"{self.size} pixels (by {self._size_by})"
        for setting in ("variant", "vae", "text_encoder"):
            if (value := getattr(self, setting)) is not None:
                said[setting] = f"{value} (by model.{setting})"
        return said

    @cached_property
    def checked(self) -> bool:
        """That embedlab can run the model, by its configurations; ModelError says in one line why it cannot."""
        name = self.name
        if "transformer" in self.index or "text_encoder_3" in self.index:
            kind = str(self.index.get("_class_name", "pipeline"))[:80]
            raise ModelError(
                f"'{name}' is a {kind}: it has no UNet told by CLIP alone; embedlab runs Stable Diffusion 1, 2 and XL."
            )
        unet, vae = self.part("unet"), self.part("vae")
        fits.check_kinds(unet, "unet", fits.kinds_of(UNet2DConditionModel), name)
        tiny = vae.get("_class_name") == "AutoencoderTiny"
        fits.check_kinds(vae, "vae", fits.kinds_of(AutoencoderTiny if tiny else AutoencoderKL), name)
        for part, keys in (
            ("unet", ("in_channels", "block_out_channels", "sample_size")),
            ("vae", ("latent_channels",)),
        ):
            for key in keys:
                self.config_value(part, key)
        unet = fits.defaults_of(UNet2DConditionModel) | unet
        if self.single_file:
            self._check_file(unet)
        fits.check_channels(unet, vae, name)
        fits.check_unet(unet, name)
        fits.check_vae(vae, len(self.encoders), name)
        fits.check_scheduler(self.part("scheduler"), name)
        encoders = {part: self.part(part) for part in self.encoders}
        whole = ("hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings", "projection_dim")
        for part, config in encoders.items():
            kind = self.encoder_kind(part)
            if kind not in fits.TEXT_ENCODERS:
                raise ModelError(
                    f"the part '{part}' of '{name}' is a {kind[:80]}; embedlab edits {listed(fits.TEXT_ENCODERS)}."
                )
            fits.check_kinds(config, part, dict.fromkeys(whole, int), name)
            self.config_value(part, "hidden_size"), self.config_value(part, "num_hidden_layers")
        refiner = bool(self.index.get("requires_aesthetics_score"))
        fits.check_text(unet, encoders, [len(words) for words in self.tokenizers], name, refiner)
        if not 0 < self.size <= 8192:
            raise ModelError(
                f"the model '{name}' says that its pictures have {self.size} pixels a side; no model's have."
            )
        for part in ("unet", "vae", *self.encoders):
            variant_of(self, part)
        self.scheduler  # noqa: B018  (what nothing tells is refused there)
        return True

    @property
    def _size_by(self) -> str:
        own = self.layout is not None and checkpoint.side_of(self.header) == self.size
        return "its metadata modelspec.resolution" if own else "its layout and prediction"

    def encoder_kind(self, part: str) -> str:
        """The class of a text encoder: as the index says it, or the configuration of one that was named apart."""
        own = self.text_encoder is None or self.home(part)[1] == part
        if own and part in self.index and self.index[part][1]:
            return str(self.index[part][1])
        kinds = self.part(part).get("architectures")
        return str(kinds[0]) if isinstance(kinds, list) and kinds else "CLIPTextModel"

    def _check_file(self, unet: dict[str, Any]) -> None:
        """Refuse a single file whose UNet is of another kind than its layout, or that lacks a part."""
        header, name = self.header, self.name
        if marks := [key for key in ("edm_mean", "edm_vpred.sigma_max") if key in header.shapes]:
            raise ModelError(
                f"'{name}' was trained on noise of another form (EDM, by its key {marks[0]}), for which embedlab has "
                "no sampler; take a model that was trained with betas."
            )
        first = header.shapes.get("model.diffusion_model.input_blocks.0.0.weight")
        if first is not None and len(first) == 4:
            unet["in_channels"] = first[1]
        holds = header.holds
        needed = {"unet": "", "vae": "model.vae=PATH", "text encoder": "model.text_encoder=PATH"}
        if self.vae is not None:
            needed.pop("vae")
        if self.text_encoder is not None:
            needed.pop("text encoder")
        for part, setting in needed.items():
            if part not in holds and holds:
                hint = f"; name one: {setting}" if setting else ""
                raise ModelError(f"the file '{name}' has no {part}; it holds {listed(holds)}{hint}.")

    @property
    def has_scorer(self) -> bool:
        """Whether pictures are scored by an image encoder: the one that was asked for, or the model's own."""
        own = self.index.get("image_encoder", [None])[0] == "transformers" and not self.single_file
        return bool(self.scorer) or own

    @cached_property
    def identity(self) -> list[str]:
        """What its weights and configs are: the commit on the hub, or a hash of each whole file; and its scheduler."""
        config = json.dumps(self.scheduler, sort_keys=True, default=str)
        names = [place_of(value, "vae") for value in (self.vae, self.text_encoder) if value is not None]
        if self.config:
            names.append(Source(self.config).location)
        files = [line for place in (self.location, *names) for line in identity_of(place)]
        made = {"size": self.sample_size, "variant": self.variant, "scheduler": json.loads(config)}
        return [*files, hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]]

    @cached_property
    def scorer_identity(self) -> list[str]:
        """What the weights of the scorer that was asked for are; nothing for the model's own: it is in `identity`."""
        if self.scorer is None:
            return []
        path = path_of(self.scorer)
        return identity_of(path if path is not None and path.is_dir() else self.scorer)

    def load(self) -> Model:
        """Read the weights. The same source gives the same model again within a process."""
        return read_model(self)

    def towers(self) -> tuple[Tower, ...]:
        """The text encoders alone, where the model's parts can be read apart; as `load` gives them."""
        return read_towers(self)

    def names(self, what: str) -> tuple[str, ...]:
        """A list of words that a small model keeps beside its weights: `concepts` that it draws, `words` it saw."""
        path = Path(self.location) / f"{what}.json" if isinstance(self.location, Path) else Path()
        if self.single_file or not path.is_file():
            return ()
        words = checkpoint.read_json(path, list)
        if wrong := [word for word in words if not isinstance(word, str)]:
            raise ModelError(f"'{path}' holds {repr(wrong[0])[:60]}, which is no word.")
        return tuple(words)


def path_of(name: str) -> Path | None:
    """A path as it was typed, with `~` for a home; None where there can be no such path."""
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home, NUL, not in this machine's alphabet
        return None
    return path


def place_of(name: str, setting: str) -> Path | str:
    """The folder, file or hub id that a part is taken from."""
    path = path_of(name)
    if path is not None and path.is_dir() and name:
        return path
    if path is not None and path.is_file():
        if setting == "vae" and checkpoint.ending_of(path) in checkpoint.ENDINGS:
            return path
        what = (
            "a folder, a hub id, or a file that ends in .safetensors or .ckpt"
            if setting == "vae"
            else "a folder or hub id"
        )
        raise ModelError(f"model.{setting} is the file '{name}'; it has to be {what}.")
    if HUB_ID.fullmatch(name):
        return name
    raise ModelError(f"there is no model.{setting} '{name[:200]}': no folder, no file, and no hub id (owner/name).")


def small_file(place: Path | str, path: str) -> Path | None:
    """A small file of a folder or hub id, where it is; None where it has none."""
    if isinstance(place, Path):
        return place / path if (place / path).exists() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(place, path))
    except LocalEntryNotFoundError:
        raise ModelError(f"the hub cannot be reached and '{place}' is not in its cache; name a folder.") from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"the hub does not give '{place}': {first_line(error)}") from None


def first_of(place: Path | str, *paths: str) -> str | None:
    """The first of these small files that a folder or hub id has; of a hub id, those in its cache come first."""
    if not isinstance(place, Path):
        from huggingface_hub import try_to_load_from_cache

        for path in paths:
            if isinstance(try_to_load_from_cache(place, path), str):
                return path
    return next((path for path in paths if small_file(place, path) is not None), None)


def first_line(error: Exception) -> str:
    """The first line of what a library says, or the kind of its error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def identity_of(place: Path | str) -> list[str]:
    """What a model's files are: the commit on the hub, or the name and hash of every file that may be read."""
    if not isinstance(place, Path):
        name = first_of(place, "model_index.json", "config.json")
        found = small_file(place, name) if name else None
        if found is not None:
            return [place, found.parent.name]
        raise ModelError(f"the hub's '{place}' is no model: it has neither model_index.json nor config.json.")
    if place.is_file():
        return [checkpoint.hash_of(place)]
    kinds = (".safetensors", ".bin", ".json", ".txt")
    left = {"safety_checker", "onnx", "openvino", ".git", ".cache"}
    files = sorted(p for p in place.rglob("*") if p.suffix in kinds and p.is_file())
    files = [p for p in files if not left.intersection(p.relative_to(place).parts[:-1])]
    return [f"{path.relative_to(place).as_posix()} {checkpoint.hash_of(path)}" for path in files]


def find(name: str = "emoji", **settings: Any) -> Source:
    """Where a model is, checked by its small files; `Source.load` reads the weights."""
    return Source(name, **settings)


def load(name: str = "emoji", **settings: Any) -> Model:
    """Load a model by name, hub id, folder or single file; see `Source` for the settings.

    Raises ModelError when it is not there, lacks a part or cannot be read.

    >>> model = load("emoji")
    >>> len(model.towers), model.unet.config.sample_size, model.concepts[:2]
    (1, 16, ('puppy', 'cat'))
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


def text_encoders_of(pipeline: Any) -> tuple[Tower, ...]:
    """The text encoders of a diffusers pipeline (SD 1, 2, XL and what is built on them), ready for operators.

    Raises ModelError at once for encoders that are not CLIP's, or that do not belong to their tokenizers.

    >>> from diffusers import DiffusionPipeline
    >>> pipeline = DiffusionPipeline.from_pretrained(SHIPPED["emoji"], safety_checker=None)
    >>> [tower.width for tower in text_encoders_of(pipeline)] == [tower.width for tower in load("emoji").towers]
    True
    """
    named = ("", "_2")
    pairs = [(getattr(pipeline, f"tokenizer{n}", None), getattr(pipeline, f"text_encoder{n}", None)) for n in named]
    found = [(t, e) for t, e in pairs if t is not None and e is not None]
    kind = type(pipeline).__name__
    if not found:
        raise ModelError(f"a {kind} has no text_encoder with a tokenizer; take a pipeline of SD 1, 2 or XL.")
    third = [name for name in ("transformer", "text_encoder_3", "tokenizer_3") if hasattr(pipeline, name)]
    if third:
        raise ModelError(
            f"a {kind} has a {third[0]}, which is told in another way than a UNet is; take a pipeline of SD 1, 2 or XL."
        )
    for words, encoder in found:
        check_pair(words, encoder)
    towers = towers_of([t for t, _ in found], [e for _, e in found])
    for tower in towers:
        clip.check(tower)
    return towers


def check_pair(words: Any, encoder: Any) -> None:
    """Refuse a text encoder that is not CLIP's, or a tokenizer of another one."""
    if not isinstance(encoder, CLIPTextModel | CLIPTextModelWithProjection):
        kind = type(encoder).__name__
        raise ModelError(f"the text encoder is a {kind}; embedlab edits {listed(fits.TEXT_ENCODERS)}.")
    if not isinstance(words, CLIPTokenizer):
        raise ModelError(f"the tokenizer is a {type(words).__name__}; CLIP's text encoders take a CLIPTokenizer.")
    tower = Tower(words, encoder)
    rows, places = len(tower.token_table), len(tower.position_table)
    if len(words) > rows:
        raise ModelError(
            f"the tokenizer knows {len(words)} tokens, and the encoder has rows for {rows}: of two models."
        )
    if words.bos_token_id is None or words.eos_token_id is None or words.pad_token_id is None:
        raise ModelError("the tokenizer has no start, end or padding token; CLIP's has all three.")
    if places < WINDOW:
        raise ModelError(f"the text encoder has {places} places; a window has {WINDOW}.")


def towers_of(tokenizers: Any, encoders: Any) -> tuple[Tower, ...]:
    """Tokenizers with their text encoders; those of SDXL are read at the last but one layer, without the final norm."""
    joint = any(isinstance(e, CLIPTextModelWithProjection) for e in encoders)
    settings: dict[str, Any] = {"layer": 1, "final_norm": False} if joint else {}
    return tuple(Tower(t, e, **settings) for t, e in zip(tokenizers, encoders, strict=True))


def models_read() -> int:
    """How many times this process has read the weights of a model."""
    return read_model.cache_info().misses


@lru_cache(maxsize=2)
def read_model(source: Source) -> Model:
    """The whole model, checked by its small files first; the last two that were read are kept."""
    source.checked  # noqa: B018  (a model that cannot be run is refused there)
    device = pick_device(source.device)
    dtype = pick_dtype(source.dtype, device)
    encoders, unet, vae = read_parts(source, dtype)
    for part in (*encoders, unet, vae):
        part.to(device).eval().requires_grad_(False)
    unet.register_to_config(sample_size=source.sample_size)
    if device.type == "cpu":  # a fifth faster there: oneDNN convolves channels last without reordering
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    towers = towers_of(source.tokenizers, encoders)
    for tower in towers:
        clip.check(tower)
    return Model(
        name=source.name,
        towers=towers,
        unet=unet,
        vae=vae,
        scheduler=source.scheduler,
        zero_negative=bool(source.index.get("force_zeros_for_empty_prompt", len(towers) > 1)),
        scorer=_scorer(source, towers, device),
        concepts=source.names("concepts"),
        words=source.names("words"),
    )


def read_towers(source: Source) -> tuple[Tower, ...]:
    """The text encoders of a model, without the rest of it where its parts can be read apart."""
    if source.single_file and source.text_encoder is None:
        return source.load().towers
    device = pick_device(source.device)
    encoders = _encoders(source, pick_dtype(source.dtype, device))
    return towers_of(source.tokenizers, [encoder.to(device).eval().requires_grad_(False) for encoder in encoders])


def read_parts(source: Source, dtype: torch.dtype) -> tuple[list[nn.Module], UNet2DConditionModel, Any]:
    """The text encoders, the UNet and the VAE, as their files have them."""
    state = checkpoint.weights_in(Path(source.location)) if source.single_file else {}
    if source.single_file and source.text_encoder is None:
        encoders = [_file_encoder(source, state, name, dtype) for name in source.encoders]
    else:
        encoders = _encoders(source, dtype)
    if source.single_file:
        unet = _file_part(source, state, UNet2DConditionModel, "unet", dtype)
    else:
        unet = _read(source, UNet2DConditionModel, "unet", dtype)
    return encoders, unet, _vae(source, state)


def _vae(source: Source, state: dict[str, Tensor]) -> Any:
    """The autoencoder, in float32: half precision overflows in SDXL's decoder, and it runs once a picture only."""
    kind = AutoencoderTiny if source.part("vae").get("_class_name") == "AutoencoderTiny" else AutoencoderKL
    place, _ = weights_home(source, "vae")
    if isinstance(place, Path) and place.is_file():
        if place != source.location:
            state = checkpoint.weights_in(place)
        return _file_part(source, state, kind, "vae", torch.float32)
    return _read(source, kind, "vae", torch.float32)


def _encoders(source: Source, dtype: torch.dtype) -> list[nn.Module]:
    kinds = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
    named = [(name, source.encoder_kind(name)) for name in source.encoders]
    for name, kind in named:
        if kind not in kinds:
            raise ModelError(f"the part '{name}' of '{source.name}' is a {kind}; embedlab edits {listed(kinds)}.")
    return [_read(source, kinds[kind], name, dtype) for name, kind in named]


def _read(source: Source, kind: Any, name: str, dtype: torch.dtype) -> Any:
    place, inner = weights_home(source, name)
    if isinstance(place, Path):
        if not (place / inner).is_dir():
            raise ModelError(f"the model '{source.name}' lacks its part '{name}': there is no such folder in {place}.")
        checkpoint.check_regular(place / inner)
    variant = None if name == "image_encoder" else variant_of(source, name)
    tries = [variant] if isinstance(place, Path) or variant is None else [variant, None]
    for n, one in enumerate(tries):
        try:
            part, info = kind.from_pretrained(
                place,
                subfolder=inner,
                torch_dtype=dtype,
                variant=one,
                use_safetensors=None if source.allow_pickle else True,
                output_loading_info=True,
            )
            break
        except Exception as error:
            if n + 1 < len(tries) and isinstance(error, OSError):
                continue
            reason = first_line(error)
            raise ModelError(f"the part '{name}' of the model '{source.name}' cannot be read: {reason}") from None
    if lacking := sorted(info["missing_keys"]):  # they would be filled at random
        raise ModelError(
            f"the part '{name}' of the model '{source.name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
        )
    return part


def variant_of(source: Source, part: str) -> str | None:
    """Which variant of a part's weights is read; ModelError in one line where there are none of them."""
    place, inner = weights_home(source, part)
    if not isinstance(place, Path) or place.is_file():
        return source.variant
    folder = place / inner
    if not folder.is_dir():
        raise ModelError(f"the model '{source.name}' lacks its part '{part}': there is no such folder in {place}.")
    checkpoint.check_regular(folder)
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    endings = r"safetensors|bin" if source.allow_pickle else "safetensors"
    found: dict[str | None, str] = {}
    files = {p.name for p in folder.iterdir()}
    for file in sorted(files):
        named = re.fullmatch(rf"(?:{stem}|pytorch_model)(-\d+-of-\d+)?(?:\.([\w-]+))?(-\d+-of-\d+)?\.({endings})", file)
        if named:
            found.setdefault(named[2], file)
    for index in folder.glob("*.index*.json"):
        shards = checkpoint.read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not {str(name) for name in shards.values()} <= files:
            raise ModelError(f"'{index}' names files that are not beside it; its weights are not all there.")
    if source.variant in found:
        return source.variant
    if None in found:  # as diffusers does: a part that has no such variant is read as it is
        return None
    there = [str(variant) for variant in found]
    pickled = [p.name for p in folder.glob("*.bin")]
    if there:
        wanted = f"no weights of variant {source.variant}" if source.variant else "weights only as a variant"
        raise ModelError(
            f"the part '{part}' of the model '{source.name}' has {wanted}: {listed(found.values())}; "
            f"set model.variant={there[0]}."
        )
    hint = f"; {listed(pickled, 3)} is a pickle, which model.allow_pickle=true reads" if pickled else ""
    hint = hint or "; there is " + (listed(sorted(p.name for p in folder.iterdir()), 5) or "nothing")
    raise ModelError(f"the part '{part}' of the model '{source.name}' cannot be read: it has no weights{hint}.")


def weights_home(source: Source, part: str) -> tuple[Path | str, str]:
    """Where the weights of a part are: as `home`, or a single file."""
    if part == "vae" and source.vae is not None:
        place = place_of(source.vae, "vae")
        if isinstance(place, Path) and place.is_file():
            return place, ""
    replaced = source.vae if part == "vae" else source.text_encoder if part.startswith("text_encoder") else None
    return (source.location, part) if replaced is None else source.home(part)


def _scorer(source: Source, towers: tuple[Tower, ...], device: torch.device) -> Scorer | None:
    """The scorer asked for, or the model's own image encoder."""
    if source.scorer:
        from transformers import CLIPModel  # noqa: PLC0415  a scorer of its own is rare

        place = source.scorer if (path := path_of(source.scorer)) is None or not path.is_dir() else path
        if isinstance(place, Path):
            checkpoint.check_regular(place)
        try:
            model, info = CLIPModel.from_pretrained(place, use_safetensors=True, output_loading_info=True)
            words = CLIPTokenizer.from_pretrained(place)
        except Exception as error:
            raise ModelError(f"the scorer '{source.scorer}' cannot be read: {first_line(error)}") from None
        if lacking := sorted(info["missing_keys"]):  # they would be filled at random
            few = listed(lacking, 3)
            raise ModelError(f"the scorer '{source.scorer}' lacks {len(lacking)} weights of a CLIP model: {few}.")
        model = model.to(device).eval().requires_grad_(False)
        text = CLIPTextModelWithProjection._from_config(model.config.text_config)
        text.text_model, text.text_projection = model.text_model, model.text_projection
        image = CLIPVisionModelWithProjection._from_config(model.config.vision_config)
        image.vision_model, image.visual_projection = model.vision_model, model.visual_projection
        return Scorer(
            Tower(words, text.to(device).eval()), image.to(device).eval(), **_normalisation(Path(source.scorer))
        )
    if not source.has_scorer:
        return None
    image = _read(source, CLIPVisionModelWithProjection, "image_encoder", torch.float32).to(device).eval()
    return Scorer(towers[0], image.requires_grad_(False), **_normalisation(Path(source.location) / "feature_extractor"))


def _normalisation(folder: Path) -> dict[str, tuple[float, ...]]:
    """The colour normalisation that an image encoder was trained with, where its folder tells."""
    file = folder / "preprocessor_config.json"
    told = checkpoint.read_json(file) if file.is_file() else {}
    colours = {k: told[f"image_{k}"] for k in ("mean", "std") if f"image_{k}" in told}
    for name, three in colours.items():
        if not (isinstance(three, list) and len(three) == 3 and fits.is_a(three, tuple[float, ...])):
            raise ModelError(f"'{file}' says image_{name} {repr(three)[:60]}; it has to be three numbers.")
    return {name: tuple(three) for name, three in colours.items()}


def layout_of(path: Path) -> str:
    """Which of the known models a single file in the original layout holds, by the shapes of its weights."""
    shapes = checkpoint.header_of(path).shapes
    if "conditioner.embedders.1.model.ln_final.weight" in shapes:
        return "sdxl"
    if "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight" in shapes and (
        "conditioner.embedders.0.model.ln_final.weight" in shapes
    ):
        raise ModelError(f"'{path}' is the refiner of SDXL, which finishes pictures of the base model; name that.")
    block = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
    for key in (block.format(1), block.format(4)):
        if key in shapes and len(shapes[key]) == 2 and (kind := WIDTHS.get(shapes[key][1])):
            return kind
    other = next((what for mark, what in OTHERS.items() if any(mark in key for key in shapes)), None)
    what = f"holds {other}" if other else "is not in the original layout of Stable Diffusion 1, 2 or XL"
    hint = "embedlab runs Stable Diffusion 1, 2 and XL" if other else "give model.config=FOLDER"
    raise ModelError(f"'{path}' {what}; {hint}.")


def _file_part(source: Source, state: dict[str, Tensor], kind: Any, name: str, dtype: torch.dtype) -> Any:
    """A UNet or VAE from a file in the original layout; diffusers renames the weights, and each has to be there."""
    from diffusers.loaders import single_file_utils as renaming  # noqa: PLC0415  for single files alone

    config = source.part(name)
    rename = renaming.convert_ldm_unet_checkpoint if name == "unet" else renaming.convert_ldm_vae_checkpoint
    with torch.device("meta"):
        try:
            part = kind.from_config(config)
        except Exception as error:
            raise ModelError(f"the config of the part '{name}' makes no {kind.__name__}: {first_line(error)}") from None
    own = part.state_dict()
    try:
        weights = state if own.keys() <= state.keys() else rename(dict(state), part.config)
    except KeyError as error:
        raise ModelError(f"the part '{name}' of '{source.name}' lacks the weight {error}.") from None
    except Exception as error:
        raise ModelError(f"the part '{name}' of '{source.name}' does not fit its layout: {first_line(error)}") from None
    _check_weights(source, name, own, weights)
    part.load_state_dict({key: weights[key].to(dtype) for key in own}, assign=True)
    return part


def _check_weights(source: Source, name: str, own: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Name the weights of a part that a file lacks, or that have another shape there."""
    if not weights:
        holds = listed(source.header.holds) or "none of a known part"
        raise ModelError(f"the file '{source.name}' has no {name}; it holds {holds}.")
    if lacking := sorted(own.keys() - weights.keys()):
        raise ModelError(
            f"the part '{name}' of the file '{source.name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
        )
    other = [key for key in own if own[key].shape != weights[key].shape]
    if other:
        here, there = tuple(weights[other[0]].shape), tuple(own[other[0]].shape)
        raise ModelError(
            f"the part '{name}' of the file '{source.name}' does not fit the layout of {Path(source.folder).name}: "
            f"{other[0]} is {here} where {there} belongs."
        )


def _file_encoder(source: Source, state: dict[str, Tensor], name: str, dtype: torch.dtype) -> nn.Module:
    """A text encoder from a file in the original layout."""
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm  # noqa: PLC0415  for single files alone

    kind = CLIPTextModelWithProjection if source.encoder_kind(name) == "CLIPTextModelWithProjection" else CLIPTextModel
    place, inner = source.home(name)
    try:
        made = create_diffusers_clip_model_from_ldm(
            kind, state, subfolder=inner, config=str(place), local_files_only=True
        )
    except Exception as error:
        raise ModelError(f"the part '{name}' of '{source.name}' does not fit its layout: {first_line(error)}") from None
    lacking = sorted(key for key, value in made.state_dict().items() if value.is_meta)
    if lacking:
        raise ModelError(
            f"the part '{name}' of the file '{source.name}' lacks {len(lacking)} weights: {listed(lacking, 3)}."
        )
    return made.to(dtype)

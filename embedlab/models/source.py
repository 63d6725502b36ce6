"""name | hub id | folder | single file → Model.

A `Source` knows a model by its small files alone: tokenizers, configs, sizes. Everything that a user may have typed
wrong is checked against it; `Source.load` then reads the weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from transformers import CLIPTokenizer

from embedlab.clip import Tower
from embedlab.display import Shown
from embedlab.errors import ModelError, brief, counted, first_line, listed
from embedlab.limits import PREDICTIONS, check_part
from embedlab.models import fits, loading
from embedlab.models import single_file as checkpoint
from embedlab.models.concept_files import Concept, file_of
from embedlab.models.concepts import content_of_entry, entries_of, identity_lines, parted, read_concepts, with_words
from embedlab.models.device import pick_device, pick_dtype
from embedlab.models.model import Model
from embedlab.models.pipeline import Pipeline, model_of
from embedlab.models.places import HUB_ID, first_of, identity_of, path_of, place_of, small_file
from embedlab.models.silence import silence_libraries

HERE = Path(__file__).parent.parent  # embedlab itself, which holds the shipped weights
SHIPPED = {"emoji": HERE / "weights" / "emoji"}
LAYOUTS = HERE / "weights" / "layouts"  # configs of the models that single files hold
NAMES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL"}
PARTS = ("unet", "vae", "scheduler", "image_encoder", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt")
_one_at_a_time = RLock()  # transformers reads weights by settings of the whole process


def tokenizer() -> CLIPTokenizer:
    """The true CLIP tokenizer (49,408 entries), which is shipped with the default model."""
    return read_tokenizer(SHIPPED["emoji"] / "tokenizer")


def read_tokenizer(folder: Path, **settings: str) -> CLIPTokenizer:
    """The tokenizer of a folder, the same as before where its files hold the same, wherever they lie."""
    content = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt") and path.is_file():
            content.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return _read_tokenizer(_Words(content.digest(), tuple(settings.items()), folder))


@dataclass(frozen=True)
class _Words:
    """What a tokenizer is made of; where it lies makes no other one."""

    content: bytes
    settings: tuple[tuple[str, str], ...]
    folder: Path = field(compare=False)


@lru_cache(maxsize=8)
def _read_tokenizer(words: _Words) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(words.folder, **dict(words.settings))


@dataclass(frozen=True)
class Source(Shown):
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
    concepts: files of textual inversion whose concepts prompts may name: `[PATH, "NAME=PATH"]`, or `{NAME: PATH}`.
    zero_snr: whether it was trained down to no signal at all (Lin et al. 2024), where that is told wrong or not at all.
    ema: of a single file that holds both, the averaged copy of the UNet is taken and not the plain one, as CompVis'
        scripts do (`ema_scope`).
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
    concepts: tuple[str, ...] = ()
    ema: bool = False

    def __post_init__(self) -> None:
        check_part(self)
        object.__setattr__(self, "concepts", entries_of(self.concepts))
        self.location  # noqa: B018  (a wrong name is refused here)
        if self.config is not None:
            if not self.single_file:
                raise ModelError("model.config describes a single file; a folder or hub id brings its own configs.")
            if Source(self.config).single_file:
                raise ModelError(f"model.config is the file '{self.config}'; it has to be a folder or hub id.")
        if self.ema and not self.single_file:
            raise ModelError("model.ema chooses among the weights of a single file; a folder or hub id has one UNet.")
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
        return checkpoint.layout_of(Path(self.location)) if self.single_file and not self.config else None

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
        config: dict[str, Any] = checkpoint.read_json(found)
        if name == "unet" and self.single_file and (channels := checkpoint.channels_of(self.header)) is not None:
            config = {**config, "in_channels": channels}  # of inpainting and depth models 9 and 5, where a layout has 4
        return config

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
    def loaded_concepts(self) -> tuple[Concept, ...]:
        """What `concepts` names, fitted to the text encoders; ModelError where one cannot be used."""
        return read_concepts(self.concepts, self.widths, self.own_tokenizers, self.name) if self.concepts else ()

    @cached_property
    def tokenizers(self) -> tuple[CLIPTokenizer, ...]:
        """One tokenizer a text encoder, which knows the names of the concepts."""
        return tuple(with_words(words, self.loaded_concepts) for words in self.own_tokenizers)

    @cached_property
    def own_tokenizers(self) -> tuple[CLIPTokenizer, ...]:
        """The same as the model brings them."""
        return tuple(self._tokenizer(name.replace("text_encoder", "tokenizer")) for name in self.encoders)

    def _tokenizer(self, name: str) -> CLIPTokenizer:
        place, inner = self.home(name)
        if (
            LAYOUTS in Path(place).parents
        ):  # SD 1 and the first encoder of SDXL pad with the end of text, the others with "!"
            pads = "!" if name == "tokenizer_2" or Path(place).name == "sd2" else "<|endoftext|>"
            return read_tokenizer(SHIPPED["emoji"] / "tokenizer", pad_token=pads)
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
            if isinstance(place, Path):
                return read_tokenizer(place / inner)
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
        return 1 << (len(blocks or self.config_value("vae", "block_out_channels")) - 1)

    @property
    def beside(self) -> str | None:
        """What the UNet takes beside latents: `mask` with the masked picture, a map of `depth`, or nothing."""
        return fits.beside_latents(self.part("unet"), self.part("vae"))

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
        configured = self.config_value("unet", "sample_size")
        size: int = configured[0] if isinstance(configured, list) else configured
        if self.layout is None:
            return size
        side = checkpoint.side_of(self.header)
        if side and side % self.factor == 0:
            return side // self.factor
        return 64 if self.layout == "sd2" and self.scheduler["prediction_type"] == "epsilon" else size

    @cached_property
    def scheduler(self) -> dict[str, Any]:
        """The scheduler's configuration, with what was concluded of the prediction and of the noise."""
        config = self.part("scheduler")
        prediction, zero = self._prediction[0], self._zero_snr[0]
        concluded: dict[str, Any] = {"prediction_type": prediction}
        if zero != bool(config.get("rescale_betas_zero_snr")):
            concluded["rescale_betas_zero_snr"] = zero
            if zero:  # without the last timestep, sampling would begin at a signal that the noise does not have
                concluded["timestep_spacing"] = "trailing"
        return config | concluded

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
            if spelled not in PREDICTIONS:
                raise ModelError(
                    f"the scheduler of '{self.name}' says prediction_type {repr(spelled)[:60]}; embedlab samples "
                    f"{listed(PREDICTIONS)}."
                )
            said["the scheduler's config"] = spelled
        if len(set(said.values())) > 1:
            both = " and ".join(f"{what} ({why})" for why, what in said.items())
            raise ModelError(f"'{self.name}' says that it predicts {both}; set which: model.prediction_type=….")
        if said:
            return next(iter(said.values())), " and ".join(said)
        if self.layout == "sd2":
            raise ModelError(
                f"'{self.name}' does not say what it predicts, and files of this layout are of both kinds; say it: "
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
        for concept in self.loaded_concepts:
            how = counted(len(concept.names), "vector")
            said[f"concept {concept.name}"] = f"{how} (by {concept.path})"
        for setting in ("variant", "vae", "text_encoder"):
            if (value := getattr(self, setting)) is not None:
                said[setting] = f"{value} (by model.{setting})"
        return said

    @cached_property
    def checked(self) -> bool:
        """That embedlab can run the model, by its configurations; ModelError says in one line why it cannot."""
        fits.check_source(self)
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

    @property
    def has_scorer(self) -> bool:
        """Whether pictures are scored by an image encoder: the one that was asked for, or the model's own."""
        own = self.index.get("image_encoder", [None])[0] == "transformers" and not self.single_file
        return bool(self.scorer) or own

    @property
    def eye_folder(self) -> Path | None:
        """The folder of the detector that a model folder brings; None where there is none."""
        folder = Path(self.location) / "eye" if isinstance(self.location, Path) and not self.single_file else None
        return folder if folder is not None and folder.is_dir() else None

    @cached_property
    def identity(self) -> list[str]:
        """What its weights and configs are: the commit on the hub, or a hash of each whole file; and its scheduler."""
        config = json.dumps(self.scheduler, sort_keys=True, default=str)
        names = [place_of(value, "vae") for value in (self.vae, self.text_encoder) if value is not None]
        if self.config:
            names.append(Source(self.config).location)
        files = [line for place in (self.location, *names) for line in identity_of(place)]
        settings = {"size": self.sample_size, "variant": self.variant, "scheduler": json.loads(config)}
        settings |= {"ema": True} if self.ema else {}
        own = [*files, hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]]
        return [*own, *identity_lines(self.loaded_concepts)]

    def about_concepts(self, folder: Path) -> list[dict[str, str]]:
        """What is kept in a file in `folder` so that each entry of `concepts` is found from there and known again."""
        files = [file_of(parted(entry)[1]).absolute() for entry in self.concepts]
        return [
            {"path": os.path.relpath(file, folder.absolute()), "content": content_of_entry(entry)}
            for file, entry in zip(files, self.concepts, strict=True)
        ]

    @cached_property
    def scorer_identity(self) -> list[str]:
        """What the weights of the scorer that was asked for are; nothing for the model's own: it is in `identity`."""
        if self.scorer is None:
            return []
        path = path_of(self.scorer)
        return identity_of(path if path is not None and path.is_dir() else self.scorer)

    def load(self) -> Model:
        """Read the weights, and print nothing. The same source gives the same model again within a process.

        Concepts cost no weights: with others it is the same model with other words. Threads that ask at once wait for
        each other, and have one model.
        """
        with _one_at_a_time, silence_libraries():
            if not self.concepts:
                return loading.read_model(self)
            return loading.with_concepts(self, self.loaded_concepts)

    def towers(self) -> tuple[Tower, ...]:
        """The text encoders alone, where the model's parts can be read apart; as `load` gives them."""
        with _one_at_a_time, silence_libraries():
            return loading.read_towers(self)

    def names(self, what: str) -> tuple[str, ...]:
        """A list of words that a small model keeps beside its weights: `concepts` that it draws, `words` it saw."""
        path = Path(self.location) / f"{what}.json" if isinstance(self.location, Path) else Path()
        if self.single_file or not path.is_file():
            return ()
        words = checkpoint.read_json(path, list)
        if wrong := [word for word in words if not isinstance(word, str)]:
            raise ModelError(f"'{path}' holds {repr(wrong[0])[:60]}, which is no word.")
        return tuple(words)


def find(name: str = "emoji", **settings: Any) -> Source:
    """Where a model is, checked by its small files; `Source.load` reads the weights."""
    return Source(name, **settings)


def load(name: str | Source | Pipeline | Model = "emoji", **settings: Any) -> Model:
    """Load a model by name, hub id, folder or single file; see `Source` for the settings.

    A diffusers pipeline that is there already is taken as it is (`text_encoders_of` reads concepts beside it).

    Raises ModelError when it is not there, lacks a part or cannot be read.

    >>> model = load("emoji")
    >>> len(model.towers), model.unet.config.sample_size, model.concepts[:2]
    (1, 16, ('puppy', 'cat'))
    """
    if isinstance(name, Source) and not settings:
        return name.load()
    if isinstance(name, str | Path):
        return find(str(name), **settings).load()
    if isinstance(name, type) or not hasattr(name, "unet"):
        raise ModelError(
            f"name is {brief(name)}; it has to name a model: emoji, a hub id, a folder or a single file; "
            "or be a diffusers pipeline of SD 1, 2 or XL."
        )
    model = model_of(name, "name")  # type: ignore[arg-type]
    if settings:
        raise ModelError(f"{listed(settings)}: settings are for what is loaded, and a {type(name).__name__} is there.")
    return model

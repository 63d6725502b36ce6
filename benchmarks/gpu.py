"""Guided sampling on a GPU: SD 1.5's and SDXL's whole architecture, random weights, ours beside diffusers' pipeline.

    python benchmarks/gpu.py [--seconds 150] [--cases sd1:512:1,sdxl:1024:16] [--arms eager,graph] [--out FILE]

A case is model:side:batch. Its arms run a few guided steps each, interleaved; what is told of each is the median: ms a
step of the loop, the share of the device's measured matrix-product rate, peak memory, and pictures a second for
pictures of `--of` steps (encoding, the steps, decoding: ours in float32, diffusers' in the UNet's number type). `whole`
is a batch of that many steps from the prompt to the picture, measured. Cases that the seconds do not suffice for are
left out, which is said. Weights are made on the device. Needs torch, transformers, diffusers, safetensors, numpy,
pillow, and what embedlab imports: jaxtyping. `--small` has the same architecture in small, for a CPU.
"""

import argparse
import copy
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import embedlab
from embedlab import Interpolate, Model, Sampler, embed_all, encode, generators, guided, images, noise, sample
from embedlab.encoder import Conditioning
from embedlab.guidance import Denoiser
from embedlab.models.loading import towers_of
from embedlab.operators import edit

WEIGHTS = Path(embedlab.__file__).parent / "weights"
CASES = "sd1:512:1,sd1:512:16,sdxl:1024:1,sdxl:1024:16,sdxl:1024:4,sd1:512:4"  # what matters most comes first
ARMS = ("eager", "channels_last", "compiled", "graph", "compiled_graph", "diffusers", "diffusers_compiled", "tensorrt")
PROMPT, SCALE = "A picture of a puppy", 4.0
ABOUT = 0.8  # seconds that one run of an arm may take


@dataclass
class Figures:
    """What was measured of one arm in one case; times in seconds where the name says nothing else."""

    case: str
    arm: str
    ms_a_step: float
    pictures_a_second: float
    share: float
    peak_gib: float
    ready: float
    runs: list[float] = field(default_factory=list)
    whole: float | None = None


@dataclass
class Arm:
    """A way to run the loop: so many steps → latents."""

    name: str
    loop: Callable[[int], Tensor]
    ready: float
    held: int  # bytes that it keeps beside the weights
    decode_in_float32: bool
    took: list[float] = field(default_factory=list)
    peak: int = 0


class Device:
    """Where it runs: waiting for it, its memory, its rate of matrix products."""

    def __init__(self, name: str, dtype: torch.dtype, small: bool):
        self.device, self.dtype, self.small = torch.device(name), dtype, small
        self.cuda = self.device.type == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def memory(self) -> int:
        return torch.cuda.memory_reserved() if self.cuda else 0

    def peak(self, work: Callable[[], object]) -> tuple[float, int]:
        """Seconds, and the most bytes beyond those that were taken before."""
        if not self.cuda:
            return self.seconds(work), 0
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return self.seconds(work), torch.cuda.max_memory_allocated() - before

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name() if self.cuda else f"CPU, {torch.get_num_threads()} threads"

    def rate(self) -> float:
        """FLOP a second of a large matrix product in the UNet's number type: the median of ten."""
        side = 8192 if self.cuda else 512
        a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        return 2 * side**3 / statistics.median(self.seconds(lambda: a @ b) for _ in range(10))


def config_of(kind: str, part: str, small: bool) -> dict[str, Any]:
    config = json.loads((WEIGHTS / "layouts" / kind / part / "config.json").read_text())
    if not small:
        return config
    if "block_out_channels" in config and "cross_attention_dim" in config:
        levels = len(config["block_out_channels"])
        config |= {"block_out_channels": [32 * (1 + (n > 0)) for n in range(levels)], "layers_per_block": 1}
        config |= {"cross_attention_dim": 32 if kind == "sd1" else 64, "attention_head_dim": 4}
        if kind == "sdxl":
            config |= {"transformer_layers_per_block": [1] * levels, "addition_time_embed_dim": 8}
            config |= {"projection_class_embeddings_input_dim": 32 + 6 * 8}
    elif "block_out_channels" in config:
        config |= {"block_out_channels": [32] * len(config["block_out_channels"]), "layers_per_block": 1}
    else:
        config |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        config |= {"projection_dim": 32}
    return config


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Let new parameters be made on a device, in a number type, with the random numbers of their own constructors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def build(kind: str, on: Device) -> Model:
    """A model of a whole architecture with random weights; none is read or written."""
    torch.manual_seed(0)
    encoders = []
    with made_on(on.device, on.dtype):
        unet = UNet2DConditionModel.from_config(config_of(kind, "unet", on.small))
        for part in ("text_encoder", "text_encoder_2")[: 1 + (kind == "sdxl")]:
            made = CLIPTextModelWithProjection if part.endswith("2") else CLIPTextModel
            encoders.append(made(CLIPTextConfig.from_dict(config_of(kind, part, on.small))))
    with made_on(on.device, torch.float32):
        vae = AutoencoderKL.from_config(config_of(kind, "vae", on.small))
    for part in (*encoders, unet, vae):
        part.to(on.device).eval().requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "emoji" / "tokenizer")
    towers = towers_of([tokenizer] * len(encoders), encoders)
    schedule = json.loads((WEIGHTS / "layouts" / kind / "scheduler" / "scheduler_config.json").read_text())
    return Model(kind, towers, unet, vae, schedule)


def twin(module: Any, fast: bool = False) -> Any:
    """Another module with the same weights; with `fast` a copy of them, channels last."""
    if fast:
        return copy.deepcopy(module).to(memory_format=torch.channels_last)
    return copy.deepcopy(module, {id(value): value for value in (*module.parameters(), *module.buffers())})


class Unets:
    """The UNets of a model by how they are laid out and run, made when they are asked for."""

    def __init__(self, model: Model):
        self.plain = model.unet
        self.made: dict[str, Any] = {}

    def get(self, fast: bool, compiled: bool = False, backend: str | None = None) -> Any:
        name = f"{fast} {compiled} {backend}"
        if name in self.made:
            return self.made[name]
        with torch.inference_mode(False):
            if not (compiled or backend):
                self.made[name] = twin(self.plain, fast=True) if fast else self.plain
            else:
                self.made[name] = unet = twin(self.get(fast))
                if backend:
                    options = {"use_explicit_typing": True, "min_block_size": 1}
                    unet.compile(backend=backend, dynamic=False, options=options)
                else:
                    unet.compile_repeated_blocks(fullgraph=True)
        return self.made[name]


def captured(denoise: Denoiser, x: Tensor, t: Tensor) -> Denoiser:
    """A whole guided step (both halves, the UNet, their combination) recorded as a CUDA graph."""
    held_x, held_t = x.clone(), t.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            denoise(held_x, held_t)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = denoise(held_x, held_t)

    def replay(x: Tensor, t: Tensor) -> Tensor:
        held_x.copy_(x)
        held_t.copy_(t)
        graph.replay()
        return out

    return replay


class Case:
    """Pictures of one model, size and batch, with everything that the arms share."""

    def __init__(self, text: str, model: Model, unets: Unets, on: Device):
        kind, side, batch = text.split(":")
        self.text, self.model, self.unets, self.on = text, model, unets, on
        self.side, self.batch = int(side), int(batch)
        self.size = (self.side, self.side) if kind == "sdxl" else None
        self.cond, self.uncond = self.read()
        self.shape = (model.unet.config.in_channels, self.side // model.factor, self.side // model.factor)

    def read(self) -> tuple[Conditioning, Conditioning]:
        """The edited prompt and the empty one, encoded."""
        towers = self.model.towers
        edited = edit(embed_all(PROMPT, towers), [Interpolate("puppy", toward="skunk", weight=0.5)], towers)
        cond, uncond = encode([edited, embed_all("", towers)], towers)
        return cond, uncond

    def denoiser(self, unet: Any) -> Denoiser:
        many = self.batch
        return guided(unet, [self.cond] * many, [self.uncond] * many, [SCALE] * many, self.size)

    def start(self) -> Tensor:
        return noise(self.shape, generators(range(self.batch))).to(self.on.device)

    def ours(self, denoise: Denoiser, steps: int) -> Tensor:
        return sample(denoise, self.start(), Sampler("ddim", steps).make(self.model.scheduler)).latents

    def theirs(self, unet: Any) -> Callable[[int], Tensor]:
        """The pipeline of diffusers, given the hidden states."""
        parts: dict[str, Any] = {"unet": unet, "vae": self.model.vae}
        for n, tower in enumerate(self.model.towers):
            more = f"_{n + 1}" if n else ""
            parts |= {f"text_encoder{more}": tower.encoder, f"tokenizer{more}": tower.tokenizer}
        parts["scheduler"] = DDIMScheduler.from_config(self.model.scheduler)
        inputs = {"prompt_embeds": self.cond.hidden[None], "negative_prompt_embeds": self.uncond.hidden[None]}
        if self.size:
            pipe = StableDiffusionXLPipeline(**parts, add_watermarker=False)
            inputs |= {"pooled_prompt_embeds": self.cond.pooled[None]}
            inputs |= {"negative_pooled_prompt_embeds": self.uncond.pooled[None]}
        else:
            more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            pipe = StableDiffusionPipeline(**parts, **more)
        pipe.set_progress_bar_config(disable=True)
        settings = {"guidance_scale": SCALE, "num_images_per_prompt": self.batch, "output_type": "latent"}
        settings |= {"height": self.side, "width": self.side, **inputs}
        return lambda steps: pipe(num_inference_steps=steps, **settings).images

    def loop(self, arm: str) -> Callable[[int], Tensor]:
        """The loop of an arm; ValueError says in a line why it does not run here."""
        if arm.startswith("diffusers"):
            return self.theirs(self.unets.get(fast=False, compiled=arm.endswith("compiled")))
        if arm == "tensorrt":
            if not importlib.util.find_spec("torch_tensorrt"):
                raise ValueError("torch_tensorrt is not installed")
            importlib.import_module("torch_tensorrt")
            unet = self.unets.get(fast=False, backend="torch_tensorrt")
        else:
            unet = self.unets.get(fast=arm != "eager", compiled=arm.startswith("compiled"))
        denoise = self.denoiser(unet)
        if arm.endswith("graph"):
            if not self.on.cuda:
                raise ValueError("CUDA graphs need CUDA")
            denoise = captured(denoise, self.start(), torch.tensor(500, device=self.on.device))
        return partial(self.ours, denoise)

    def flops(self) -> int:
        """FLOPs of a guided step of the whole batch, counted by torch on the meta device."""
        with made_on(torch.device("meta"), torch.float32):
            unet = UNet2DConditionModel.from_config(config_of(self.model.name, "unet", self.on.small))
            more = {}
            if self.size:
                more = {"text_embeds": torch.empty(2, len(self.cond.pooled)), "time_ids": torch.empty(2, 6)}
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                text = torch.empty(2, *self.cond.hidden.shape)
                unet(torch.empty(2, *self.shape), torch.tensor(1.0), text, added_cond_kwargs=more)
        return counter.get_total_flops() * self.batch

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        return images.decode(latents, vae)


def prepared(case: Case, names: list[str], deadline: float) -> list[Arm]:
    """The arms that run here, each after two steps; what does not run is said in a line."""
    arms = []
    for name in names:
        if time.perf_counter() > deadline:
            print(f"{case.text:16s}{name:20s}left out: the seconds are over", flush=True)
            continue
        held, began = case.on.memory(), time.perf_counter()
        try:
            loop = case.loop(name)
            case.on.wait()
            held = case.on.memory() - held if name.endswith("graph") else 0
            for _ in range(2):
                took = case.on.seconds(lambda loop=loop: loop(2))
        except Exception as error:
            print(f"{case.text:16s}{name:20s}left out: {' '.join(str(error).split())[:160]}", flush=True)
            torch.cuda.empty_cache()
            continue
        arm = Arm(name, loop, time.perf_counter() - began - took, held, not name.startswith("diffusers"), [took / 2])
        arms.append(arm)
    return arms


def measure(
    case: Case, names: list[str], options: argparse.Namespace, rate: float, seconds: float, deadline: float
) -> list[Figures]:
    """All arms of a case, interleaved, for so many seconds and what compiling takes (one round at the least)."""
    arms = prepared(case, names, deadline)
    end = min(time.perf_counter() + seconds, deadline)
    if not arms:
        return []
    steps = {a.name: max(2, min(options.steps, int(ABOUT / a.took[0]))) for a in arms}
    lossy = copy.deepcopy(case.model.vae).to(case.on.dtype)
    decoders = {True: case.model.vae, False: lossy}
    latents = torch.randn(case.batch, *case.shape, device=case.on.device)
    for vae in decoders.values():
        case.decode(vae, latents)
    decoding: dict[bool, list[float]] = {True: [], False: []}
    encoding = []
    for n in range(options.rounds):
        for arm in arms if n % 2 else arms[::-1]:
            took, peak = case.on.peak(lambda arm=arm: arm.loop(steps[arm.name]))
            arm.took = [*(arm.took if n else []), took / steps[arm.name]]
            arm.peak = max(arm.peak, peak)
        encoding.append(case.on.seconds(case.read))
        for exact, vae in decoders.items():
            decoding[exact].append(case.on.seconds(lambda vae=vae: case.decode(vae, latents)))
        if time.perf_counter() > end:
            break
    coding = statistics.median(encoding)
    flops = case.flops()
    weights = sum(p.nbytes for p in case.model.unet.parameters())
    rows = []
    for arm in arms:
        a_step, decode = statistics.median(arm.took), statistics.median(decoding[arm.decode_in_float32])
        rows.append(
            Figures(
                case.text,
                arm.name,
                1000 * a_step,
                case.batch / (coding + options.of * a_step + decode),
                flops / a_step / rate,
                (weights + arm.peak + arm.held) / 2**30,
                arm.ready,
                arm.took,
            )
        )
    best = max((row for row in rows if not row.arm.startswith("diffusers")), key=lambda r: r.pictures_a_second)
    expected = case.batch / best.pictures_a_second
    if expected < max(ABOUT, end - time.perf_counter(), seconds / 5):
        loop = next(arm.loop for arm in arms if arm.name == best.arm)

        def whole() -> None:
            case.read()
            case.decode(case.model.vae, loop(options.of))

        best.whole = case.on.seconds(whole)
    milliseconds = {"float32": decoding[True], str(case.on.dtype).removeprefix("torch."): decoding[False]}
    table(rows, case, coding, milliseconds, flops)
    return rows


def table(rows: list[Figures], case: Case, coding: float, decoding: dict[str, list[float]], flops: int) -> None:
    each = ", ".join(
        f"{1000 * statistics.median(took) / case.batch:.1f} ms in {name}" for name, took in decoding.items()
    )
    tera = flops / 1e12
    print(f"{case.text}: a guided step {tera:.3g} TFLOP; encoding {1000 * coding:.1f} ms; decoding a picture {each}")
    for row in rows:
        spread = f"({1000 * min(row.runs):.2f} to {1000 * max(row.runs):.2f}, {len(row.runs)} runs)"
        speed = f"{row.ms_a_step:9.2f} ms/step {spread:28s}{row.pictures_a_second:8.3f} pictures/s"
        cost = f"{100 * row.share:6.1f} % of the rate {row.peak_gib:6.2f} GiB, ready in {row.ready:.0f} s"
        whole = "" if row.whole is None else f", the whole batch measured: {row.whole:.2f} s"
        print(f"{row.case:16s}{row.arm:20s}{speed}{cost}{whole}", flush=True)


def options_of(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=CASES, help="model:side:batch, …; models: sd1, sdxl")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--steps", type=int, default=20, help="steps of one run, at the most")
    parser.add_argument("--of", type=int, default=50, help="steps of the pictures that pictures a second are told for")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=300, help="of all cases together, about")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--out", type=Path, help="a JSON file of all figures, written after each case")
    parser.add_argument("--small", action="store_true", help="the same architecture in small")
    options = parser.parse_args(words)
    options.dtype = options.dtype or ("bfloat16" if options.device.startswith("cuda") else "float32")
    options.arms = options.arms.split(",")
    if unknown := [arm for arm in options.arms if arm not in ARMS]:
        parser.error(f"there is no arm '{unknown[0]}'; choose from {', '.join(ARMS)}")
    return options


@torch.inference_mode()
def main(words: list[str] | None = None) -> list[Figures]:
    options = options_of(words)
    began = time.perf_counter()
    diffusers.logging.set_verbosity_error()
    on = Device(options.device, getattr(torch, options.dtype), options.small)
    torch._dynamo.config.recompile_limit = 64  # a graph for each width of block, model and batch
    rate = on.rate()
    versions = f"torch {torch.__version__}, {options.dtype}"
    print(f"{on.name}; {versions}; matrix products {rate / 1e12:.4g} TFLOP/s; {options.of} steps", flush=True)

    @cache
    def parts(kind: str) -> tuple[Model, Unets]:
        with torch.inference_mode(False):
            model = build(kind, on)
        return model, Unets(model)

    cases, rows = options.cases.split(","), []
    for n, text in enumerate(cases):
        left = options.seconds - (time.perf_counter() - began)
        if left <= 0:
            print(f"{text:16s}left out: the {options.seconds:g} seconds are over", flush=True)
            continue
        case = Case(text, *parts(text.split(":")[0]), on)
        rows += measure(case, options.arms, options, rate, left / (len(cases) - n) / 2, began + options.seconds)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            about = {"device": on.name, "versions": versions, "flop_a_second": rate, "of": options.of}
            options.out.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])

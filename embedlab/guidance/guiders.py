"""The guiders of diffusers, for many pictures at once: what each needs of the UNet, and what it makes of that.

A guider is given predictions with the prompt, without it, and, of four, those of a worse UNet: one with blocks left out
(auto: Karras et al. 2024; slg), whose self-attention looks at nothing but itself (pag: Ahn et al. 2024), or whose
queries are blurred (seg: Hong 2024). The others are formulas of two predictions: cfg_zero_star (Fan et al. 2025), apg
and its mix with plain guidance (Sadat et al. 2024), fdg (Sadat et al. 2025), mambo_g (2025), tcfg (Kwon et al. 2025).

Where diffusers 0.42.1 does otherwise than the papers, ours does as they say:
fdg: a band at scale 1 is the prompt's own, not the band before it; sides need not be powers of two; no kornia.
seg: its guider never blurs, because it does not count its calls; and its blur takes the two cases for each other.
mambo_g: its norms are over all of a picture; torch takes them of two axes at the most, so that it fails there.
apg: momentum begins with the first call, also of a schedule that is entered late.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedlab.attention.layers import Layer, chosen, layers_of
from embedlab.encoder import Conditioning
from embedlab.errors import ModelError
from embedlab.guidance.beside import Beside
from embedlab.guidance.combining import combine, masks_of, ways_of
from embedlab.guidance.denoiser import Denoiser, predictor
from embedlab.guidance.halves import Halves
from embedlab.guidance.settings import Guidance
from embedlab.guidance.shared import Shared
from embedlab.limits import GUIDERS, LAYERS
from embedlab.models.silence import silence_libraries
from embedlab.schedule import Moment, value_of
from embedlab.timing import Timer
from embedlab.transfer import send

WORSE = {"auto": "pred_uncond", "pag": "pred_cond_skip", "slg": "pred_cond_skip", "seg": "pred_cond_seg"}
Predicted = Float[Tensor, "image c h w"]


# ── one guider ────────────────────────────────────────────────────────────────────────────────────────────────────


def guider_of(guidance: Guidance) -> Any:
    """Diffusers' guider with these settings, without what it remembers of calls before.

    >>> guider_of(Guidance(5.0, guider="mambo_g")).guidance_scale
    5.0
    """
    from diffusers import guiders  # noqa: PLC0415

    name, scale, rescale = str(guidance.guider), float(value_of(guidance.scale)), float(value_of(guidance.rescale))
    settings = guidance.of_guider()
    if name == "fdg":
        return FrequencyDecoupled(scale, rescale, **settings)
    if name == "sega":
        return Concepts(scale, rescale, settings)
    if name in WORSE:  # a config that none reads: the blocks of a UNet are in several stacks, and `worse` finds them
        own = "skip_layer_config" if name == "slg" else LAYERS[name].replace("layers", "config")
        unread = {"skip_attention": False, "skip_attention_scores": True, "skip_ff": False} if name == "pag" else {}
        settings |= {LAYERS[name]: None, own: {"indices": [0], **unread}}
    with silence_libraries():
        return getattr(guiders, GUIDERS[name][0])(guidance_scale=scale, guidance_rescale=rescale, **settings)


@dataclass
class FrequencyDecoupled:
    """Frequency-decoupled guidance (Sadat et al. 2025, algorithm 2): a scale for each band of a Laplacian pyramid.

    As diffusers' FrequencyDecoupledGuidance with its defaults, without kornia.
    """

    scale: float
    guidance_rescale: float = 0.0
    guidance_scales: Sequence[float] | None = None
    parallel_weights: Sequence[float] | None = None
    use_original_formulation: bool = False

    @property
    def num_conditions(self) -> int:
        """Two predictions, but where every band is the prompt's own."""
        return 1 if all(math.isclose(scale, 1 - self.use_original_formulation) for scale in self.scales) else 2

    @property
    def scales(self) -> Sequence[float]:
        """Of each band, the finest first."""
        return self.guidance_scales or (self.scale, self.scale)

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        """Every call is the same."""

    def forward(self, pred_cond: Predicted, pred_uncond: Predicted | None = None) -> Any:
        """As the guiders of diffusers."""
        if pred_uncond is None:
            return pred_cond
        weights = self.parallel_weights or [1.0] * len(self.scales)
        bands = []
        halves = zip(pyramid(pred_cond, len(weights)), pyramid(pred_uncond, len(weights)), strict=True)
        for scale, weight, (cond, uncond) in zip(self.scales, weights, halves, strict=True):
            shift = cond - uncond
            if weight != 1:
                parallel = along(shift, cond)
                shift = weight * parallel + (shift - parallel)
            bands.append((cond if self.use_original_formulation else uncond) + scale * shift)
        whole = bands[-1]
        for band in reversed(bands[:-1]):
            whole = band + enlarged(whole, band.shape[-2:])
        return rescaled(whole, pred_cond, self.guidance_rescale)


@dataclass
class Concepts:
    """Semantic guidance (Brack et al. 2023, eq. 3 to 8): toward concepts in the entries where they change most.

    As diffusers' SemanticStableDiffusionPipeline; the weight of a concept is its `edit_weights`, with the sign as its
    direction. It is added to plain guidance, whose scale does not touch it.
    """

    guidance_scale: float
    guidance_rescale: float
    settings: Mapping[str, Any]
    momentum: Tensor | None = None
    step: int = 0
    num_conditions: int = 2
    use_original_formulation: bool = False

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        """Which step comes."""
        self.step = step

    def forward(
        self,
        pred_cond: Predicted,
        pred_uncond: Predicted,
        changes: Float[Tensor, "image concept c h w"],
        weights: Float[Tensor, "image concept"],
    ) -> Predicted:
        """Plain guidance by the prompt, and what the concepts change."""
        own, ends = self.settings, self.settings["edit_cooldown_steps"]
        edit = torch.zeros_like(pred_cond)
        if ends is None or self.step < ends:
            moved = own["edit_guidance_scale"] * changes
            least = torch.stack([one.abs().flatten(2).float().quantile(own["edit_threshold"], dim=2) for one in moved])
            least = least[..., None, None].to(moved)
            edit = (weights[..., None, None, None] * moved * (moved.abs() >= least)).sum(1)
        before = torch.zeros_like(edit) if self.momentum is None else self.momentum
        edit = edit + own["edit_momentum_scale"] * before
        self.momentum = own["edit_mom_beta"] * before + (1 - own["edit_mom_beta"]) * edit
        guided = self.guidance_scale * (pred_cond - pred_uncond)
        if self.step >= own["edit_warmup_steps"]:
            guided = guided + edit
        return rescaled(pred_uncond + guided, pred_cond, self.guidance_rescale)


def along(vector: Predicted, axis: Predicted) -> Predicted:
    """The part of each picture's vector that lies along another one; in double, as diffusers' `project` has it."""
    unit = nn.functional.normalize(axis.double().flatten(1), dim=1).view(axis.shape)
    return ((vector.double() * unit).sum(dim=(1, 2, 3), keepdim=True) * unit).to(vector.dtype)


def blurred(x: Predicted) -> Predicted:
    """By the binomial of five, as pyramids of pictures are (Burt & Adelson 1983)."""
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 5, 5)
    way = "reflect" if min(x.shape[-2:]) > 2 else "replicate"  # there is nothing to be reflected in a side of two
    return nn.functional.conv2d(nn.functional.pad(x, (2, 2, 2, 2), mode=way), kernel, groups=x.shape[1])


def enlarged(x: Predicted, size: Sequence[int]) -> Predicted:
    """To another size, and then blurred."""
    return blurred(nn.functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False))


def pyramid(x: Predicted, bands: int) -> list[Predicted]:
    """What a picture loses each time that it is halved, and what is left: the bands of a Laplacian pyramid.

    >>> fine, coarse = pyramid(torch.ones(1, 1, 8, 8), 2)
    >>> float(fine.abs().max()), coarse.shape
    (0.0, torch.Size([1, 1, 4, 4]))
    """
    found = []
    for _ in range(bands - 1):
        half = [max(side // 2, 1) for side in x.shape[-2:]]
        smaller = nn.functional.interpolate(blurred(x), size=half, mode="bilinear", align_corners=False)
        found.append(x - enlarged(smaller, x.shape[-2:]))
        x = smaller
    return [*found, x]


def rescaled(guided: Predicted, cond: Predicted, share: float) -> Predicted:
    """A prediction with some of the spread of the one with the prompt (Lin et al. 2024, eq. 15 and 16).

    >>> rescaled(torch.tensor([-4.0, 4.0]).view(1, 1, 1, 2), torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2), 0.5).tolist()
    [[[[-2.5, 2.5]]]]
    """
    if share == 0:
        return guided
    own, wanted = (one.std(dim=(1, 2, 3), keepdim=True) for one in (guided, cond))
    answer: Tensor = share * (guided * (wanted / own)) + (1 - share) * guided
    return answer


# ── a worse UNet ──────────────────────────────────────────────────────────────────────────────────────────────────


def left_out(guidance: Guidance, config: Mapping[str, Any]) -> list[Layer]:
    """The layers of a UNet, by its config, that a guider takes something from; none of one that leaves it alone.

    ConfigError for a name or a number that is not there.

    >>> from embedlab import Source
    >>> settings = {"skip_layer_guidance_layers": ["mid", 0]}
    >>> [layer.name for layer in left_out(Guidance(guider="slg", settings=settings), Source("emoji").part("unet"))]
    ['down.1.0.0', 'mid.0.0']
    """
    if (setting := LAYERS.get(str(guidance.guider))) is None:
        return []
    there, wanted = layers_of(config), guidance.of_guider()[setting]
    names = wanted if isinstance(wanted, list | tuple) else [wanted]
    numbered = [there[name].name if isinstance(name, int) and name < len(there) else str(name) for name in names]
    return chosen(numbered, there, f"guidance.settings.{setting}")


@contextmanager
def worse(unet: Any, guidance: Guidance) -> Iterator[Any]:
    """The UNet without what a guider takes from it, for the length of a `with` block, and always run by torch."""
    from diffusers.hooks import HookRegistry, LayerSkipConfig, apply_layer_skip  # noqa: PLC0415

    if isinstance(unet, Beside):
        with worse(unet.unet, guidance) as eager:
            yield unet.over(eager)
        return
    name, unet = str(guidance.guider), getattr(unet, "unet", unet)  # what watches attention looks on, and not at this
    eager = getattr(unet, "module", unet)
    if eager is not unet:
        unet.notice(f"the UNet runs eager for what guidance={name} leaves out of it")
    settings = guidance.of_guider()
    layers = left_out(guidance, eager.config)
    with ExitStack() as back:
        if name == "seg":
            for layer in layers:
                query = eager.get_submodule(f"{layer.path}.attn1.to_q")
                blur = Blur(settings["seg_blur_sigma"], settings["seg_blur_threshold_inf"])
                back.callback(query.register_forward_hook(blur).remove)
        else:
            pag = name == "pag"
            registry = HookRegistry.check_if_exists_or_initialize(eager)
            back.callback(registry.remove_hook, "layer_skip_hook", recurse=True)
            for layer in layers:
                stack, _, place = layer.path.rpartition(".")
                config = LayerSkipConfig([int(place)], stack, not pag, skip_attention_scores=pag, skip_ff=not pag)
                try:
                    apply_layer_skip(eager, config)
                except (KeyError, ValueError) as error:
                    raise ModelError(f"guidance={name} cannot edit the attention of this UNet: {error}") from error
        yield eager


@dataclass
class Blur:
    """A hook that blurs queries (row, place, width) over a square picture: by a Gaussian, or to their mean (Hong 2024).

    The formula is that of the paper's own code (SEG-SDXL).
    """

    sigma: float
    infinite: float

    def __call__(self, module: nn.Module, given: Any, query: Tensor) -> Tensor:
        rows, places, width = query.shape
        if self.sigma > self.infinite:
            return query.mean(dim=1, keepdim=True).expand_as(query)
        side = math.isqrt(places)
        size = math.ceil(6 * self.sigma) + 1 - math.ceil(6 * self.sigma) % 2
        size = min(size, side - (side % 2 - 1) if side > 1 else 1)
        half = (size - 1) / 2
        line = torch.exp(-0.5 * (torch.linspace(-half, half, size) / self.sigma) ** 2)
        line = send((line / line.sum()).to(query.dtype), query.device)
        kernel = torch.outer(line, line).expand(width, 1, size, size)
        square = query[:, : side * side].transpose(1, 2).reshape(rows, width, side, side)
        padded = nn.functional.pad(square, (size // 2,) * 4, mode="reflect" if size // 2 < side else "replicate")
        smooth = nn.functional.conv2d(padded, kernel, groups=width).flatten(2).transpose(1, 2)
        return torch.cat([smooth, query[:, side * side :]], dim=1)


# ── many pictures ─────────────────────────────────────────────────────────────────────────────────────────────────


class Told:
    """What the UNet is told of the pictures of a batch, and its calls for some of them; each is laid out once.

    cond, uncond: the conditioning with and without the prompt of each picture. size, timer, shared: as of `predictor`.
    halves: is given what was predicted with and without the prompt.
    """

    def __init__(
        self,
        unet: Any,
        cond: Sequence[Conditioning],
        uncond: Sequence[Conditioning],
        size: tuple[int, int] | None = None,
        timer: Timer | None = None,
        shared: Shared | None = None,
        halves: Halves | None = None,
    ):
        self.unet, self.uncond, self.size, self.timer, self.shared = unet, uncond, size, timer, shared
        self.halves = halves
        self.streams = [(n, weight, one) for n, mine in enumerate(cond) for weight, one in mine.streams]
        self.laid: dict[Any, tuple[Denoiser, Tensor | None]] = {}

    def __call__(
        self, x: Predicted, t: Tensor, without: Sequence[int], prompted: Sequence[int], unet: Any = None
    ) -> tuple[Predicted, Predicted]:
        """One call: predictions without the prompt for some pictures, and those of all prompts of others."""
        unet = self.unet if unet is None else unet
        key = (unet is self.unet, tuple(without), tuple(prompted))
        streams = [one for one in self.streams if one[0] in prompted]
        if key not in self.laid:
            conditionings = [*(self.uncond[n] for n in without), *(one for _, _, one in streams)]
            rows = [*without, *(n for n, _, _ in streams)]
            index = None if rows == list(range(len(x))) else send(torch.tensor(rows), x.device)
            own = unet is self.unet
            self.laid[key] = predictor(unet, conditionings, self.size, self.timer, (), rows, self.shared, own), index
        predict, index = self.laid[key]
        many = len(without)
        predicted = predict(x if index is None else x[index], t)
        if self.halves is not None and unet is self.unet:
            self.halves.put(without, predicted[:many], [(n, weight) for n, weight, _ in streams], predicted[many:])
        return predicted[:many], predicted[many:]

    def weights(self, place: int) -> list[float]:
        """Those of a picture's prompts."""
        return [weight for n, weight, _ in self.streams if n == place]


@dataclass
class Steered:
    """Pictures of a batch that are guided alike in every call: their places, and the guider that remembers for them."""

    places: list[int]
    guidances: Sequence[Guidance]  # of each call
    guider: Any = None
    now: Guidance | None = None

    def at(self, call: int, moment: Moment, t: Tensor) -> Any:
        """The guider of a call; made anew where its settings have changed, it remembers what the last one did."""
        guidance = self.guidances[call]
        if self.now is None or self.now.way != guidance.way:
            new, old = guider_of(guidance), getattr(self.guider, "momentum_buffer", None)
            if isinstance(new, Concepts) and isinstance(self.guider, Concepts):
                new.momentum = self.guider.momentum
            momentum = getattr(new, "adaptive_projected_guidance_momentum", None)
            if momentum is not None:
                from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer  # noqa: PLC0415

                new.momentum_buffer = MomentumBuffer(momentum)
                new.momentum_buffer.running_average = old.running_average if old else 0
            self.guider = new
        self.now = guidance
        self.guider.set_state(moment.step, moment.steps, t)
        return self.guider


class Steering:
    """What guides the pictures of a batch over all calls of the UNet; its memory is that of one run.

    guidances: for each call, that of each picture, in which nothing changes over time. moments: those of the calls.

    >>> from embedlab import embed_all, encode, models
    >>> model = models.load("emoji")
    >>> cond, uncond = encode([embed_all(text, model.towers) for text in ("a puppy", "")], model.towers)
    >>> told = Told(model.unet, [cond, cond], [uncond, uncond])
    >>> moment = Moment(call=0, step=0, steps=1, timestep=500, sigma=1)
    >>> steering = Steering([[Guidance(4.0, guider="mambo_g"), Guidance(4.0, rescale=0.7)]], [moment])
    >>> with torch.inference_mode():
    ...     steering.denoiser(0, told)(torch.zeros(2, 8, 16, 16), torch.tensor(500)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, guidances: Sequence[Sequence[Guidance]], moments: Sequence[Moment]):
        self.moments, self.many = moments, len(guidances[0])
        self.groups: list[Steered] = []
        known: dict[tuple[int, ...], Steered] = {}
        for place, mine in enumerate(zip(*guidances, strict=True)):
            key = tuple(map(id, mine))
            if key not in known:
                alike = (g for g in self.groups if [one.way for one in g.guidances] == [one.way for one in mine])
                known[key] = next(alike, None) or Steered([], mine)
            if not known[key].places:
                self.groups.append(known[key])
            known[key].places.append(place)

    def denoiser(self, call: int, told: Told) -> Denoiser:
        """That of one call of the UNet."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self._denoise(call, told, x, t)

        return denoise

    def _denoise(self, call: int, told: Told, x: Tensor, t: Tensor) -> Tensor:
        moment, everyone = self.moments[call], list(range(self.many))
        guiders = {
            n: group.at(call, moment, t) for n, group in enumerate(self.groups) if group.guidances[call].guides(moment)
        }
        now = {place: group.guidances[call] for group in self.groups for place in group.places}
        without = [n for n in everyone if told.weights(n) != [1] or now[n].regions is not None]
        for n, guider in guiders.items():
            if needs(guider)[0] and self.groups[n].guidances[call].guider != "auto":
                without += self.groups[n].places
        without = sorted(set(without))
        first, prompted = told(x, t, without, everyone)
        uncond = spread(first, without, self.many)
        cond = joined(told, now, prompted, uncond)
        answers = []
        for n, group in enumerate(self.groups):
            mine = None if group.places == everyone else send(torch.tensor(group.places), x.device)
            with_it = cond if mine is None else cond[mine]
            if n not in guiders:
                answers.append(with_it)
                continue
            guider, given = guiders[n], {"pred_cond": with_it}
            halves, bad = needs(guider)
            name = str(group.guidances[call].guider)
            if halves and name != "auto":
                given["pred_uncond"] = uncond if mine is None else uncond[mine]
            if bad or (halves and name == "auto"):
                places = group.places
                with worse(told.unet, group.guidances[call]) as unet:
                    if name == "auto":
                        given["pred_uncond"], _ = told(x, t, places, [], unet)
                    else:
                        _, streams = told(x, t, [], places, unet)
                        given[WORSE[name]] = joined(told, {n: now[n] for n in places}, streams, uncond)[places]
            if name == "sega":
                given |= self._concepts(told, group.places, prompted, uncond)
            answers.append(combined(guider, name, given))
        if len(answers) == 1:
            return answers[0]
        order = [place for group in self.groups for place in group.places]
        back = send(torch.tensor(order).argsort(), x.device)
        return torch.cat(answers)[back]

    def _concepts(self, told: Told, places: Sequence[int], prompted: Predicted, uncond: Predicted) -> dict[str, Tensor]:
        """What the prompts after the first change, with their weights; of pictures with fewer the rest is nothing."""
        rows = {place: [k for k, (n, _, _) in enumerate(told.streams) if n == place][1:] for place in places}
        most = max(1, *map(len, rows.values()))
        changes = prompted.new_zeros(len(places), most, *prompted.shape[1:])
        weights = prompted.new_zeros(len(places), most)
        for k, (place, mine) in enumerate(rows.items()):
            for n, row in enumerate(mine):
                changes[k, n] = prompted[row] - uncond[place]
                weights[k, n] = told.streams[row][1]
        return {"changes": changes, "weights": weights}


def needs(guider: Any) -> tuple[bool, bool]:
    """Whether a guider needs the prediction without the prompt in this call, and whether that of a worse UNet."""
    worse = any(getattr(guider, name, bool)() for name in ("_is_slg_enabled", "_is_seg_enabled"))
    return guider.num_conditions - worse > 1, worse


def combined(guider: Any, name: str, given: Mapping[str, Predicted]) -> Predicted:
    """What a guider makes of its predictions; plain guidance is ours, so that it is the same in any company."""
    if name == "cfg":
        cond, uncond = given["pred_cond"], given.get("pred_uncond")
        if uncond is None:
            return cond
        start = cond if guider.use_original_formulation else uncond
        return rescaled(start + guider.guidance_scale * (cond - uncond), cond, guider.guidance_rescale)
    shape = given["pred_cond"].shape
    if name == "mambo_g":
        given = {key: one.flatten(1) for key, one in given.items()}
    out = guider.forward(**given)
    answer: Tensor = getattr(out, "pred", out)
    return answer.view(shape)


def spread(rows: Predicted, places: Sequence[int], many: int) -> Predicted:
    """Rows at their places among all pictures; nothing stands at the others."""
    if len(places) == many:
        return rows
    whole = rows.new_zeros(many, *rows.shape[1:])
    whole[send(torch.tensor(list(places), dtype=torch.long), rows.device)] = rows
    return whole


def joined(told: Told, now: Mapping[int, Guidance], prompted: Predicted, uncond: Predicted) -> Predicted:
    """One prediction with the prompt for each picture of `now`, of several prompts in the way of its guidance.

    To the bit what was predicted for a picture that has one prompt.
    """
    streams = [(k, n, weight) for k, (n, weight, _) in enumerate(s for s in told.streams if s[0] in now)]
    if len(now) == len(uncond) == len(streams) and all(
        weight == 1 and now[n].regions is None for _, n, weight in streams
    ):
        return prompted
    answer = torch.zeros_like(uncond)
    for place, guidance in now.items():
        rows = [k for k, n, _ in streams if n == place]
        weights = told.weights(place)
        if guidance.guider == "sega":
            rows, weights = rows[:1], weights[:1]
        masks = masks_of(guidance.regions, len(rows), (uncond.shape[-2], uncond.shape[-1]))
        ways = ways_of(value_of(guidance.combine), len(rows)) if len(rows) > 1 else ["sum"]
        if weights == [1] and masks == (None,):
            answer[place] = prompted[rows[0]]
            continue
        there = [None if mask is None else send(mask.to(uncond.dtype), uncond.device) for mask in masks]
        changes = torch.stack([prompted[k] for k in rows]) - uncond[place]
        answer[place] = uncond[place] + combine(changes, weights, ways, there)
    return answer

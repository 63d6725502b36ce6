import pytest
import torch
from conftest import open_pipeline
from PIL import Image

from embedlab import Cell, Guidance, Sampler, Start, embed_all, encode, render
from embedlab.errors import PictureError, SamplerError
from embedlab.guidance import guided, stack
from embedlab.sampler import SCHEDULERS, check_seeds, check_size, generators, noise

LIBRARY = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "heun": ("HeunDiscreteScheduler", {}),
}


def library_latents(pipeline, cell: Cell, towers, seeds, **more):
    """Final latents of diffusers' own pipeline, given our conditionings."""
    import diffusers

    name, settings = LIBRARY[cell.sampler.scheduler]
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **settings)
    told, plain = encode([embed_all(cell.prompt, towers), embed_all(cell.guidance.negative or "", towers)], towers)
    n = len(seeds)
    inputs = {"prompt_embeds": told.hidden.expand(n, -1, -1), "negative_prompt_embeds": plain.hidden.expand(n, -1, -1)}
    if len(towers) > 1:
        inputs |= {
            "pooled_prompt_embeds": told.pooled.expand(n, -1),
            "negative_pooled_prompt_embeds": plain.pooled.expand(n, -1),
        }
    return pipeline(
        **inputs,
        num_inference_steps=cell.sampler.steps,
        guidance_scale=cell.guidance.scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="latent",
        **more,
    ).images


@pytest.mark.parametrize("scale", [1.0, 5.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("scheduler", LIBRARY)
def test_final_latents_are_those_of_the_pipeline(model, pipeline, scheduler, scale):
    cell = Cell("a puppy", sampler=Sampler(scheduler, 7), guidance=Guidance(scale, negative="a cat"))
    seeds = (3, 4)
    ours = render(model, [cell], seeds)[0].latents
    own = library_latents(pipeline, cell, model.towers, seeds)
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "lms", "euler", "dpmpp_2m"])
def test_image_to_image_is_that_of_the_pipeline(folders, sd1, tmp_path, scheduler):
    from diffusers import StableDiffusionImg2ImgPipeline

    own = StableDiffusionImg2ImgPipeline(**open_pipeline(folders["sd1"]).components, requires_safety_checker=False)
    own.set_progress_bar_config(disable=True)
    file = tmp_path / "in.png"
    Image.effect_noise((16, 16), 90).convert("RGB").save(file)
    cell = Cell(
        "a puppy", sampler=Sampler(scheduler, 10), start=Start(str(file), strength=0.6), guidance=Guidance(5.0, "")
    )
    ours = render(sd1, [cell], (7, 8))[0].latents
    theirs = library_latents(own, cell, sd1.towers, (7, 8), image=Image.open(file), strength=0.6)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_strength_and_step_name_the_same_start(tmp_path):
    file = tmp_path / "in.png"
    Image.new("RGB", (16, 16)).save(file)
    assert Start(str(file), strength=0.6).first(10) == Start(str(file), step=4).first(10) == 4
    assert Start(str(file), strength=1.0).first(10) == 0


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_picture_depends_on_its_seed_not_on_its_batch(sd1, scheduler):
    cells = [
        Cell("a puppy", sampler=Sampler(scheduler, 6), guidance=Guidance(scale, negative))
        for scale in (1.5, 4.0)
        for negative in (None, "cat " * 90)
    ]
    together = render(sd1, cells, (0, 1, 2), at_once=5)
    for cell, many in zip(cells, together, strict=True):
        alone = render(sd1, [cell], (1,))[0]
        torch.testing.assert_close(many.latents[1], alone.latents[0], atol=1e-4, rtol=0)


def test_noise_is_the_pipelines():
    ours = noise((4, 8, 8), generators([5, 6]))
    assert torch.equal(ours[1], torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6))[0])


def test_a_negative_of_another_length_is_masked_not_padded(sd1):
    told, plain = encode([embed_all("a cat", sd1.towers), embed_all("puppy " * 100, sd1.towers)], sd1.towers)
    x, t = torch.randn(1, 4, 8, 8), torch.tensor(500)
    ours = guided(sd1.unet, [told], [plain], [3.0])(x, t)
    apart = [sd1.unet(x, t, c.hidden[None]).sample for c in (plain, told)]
    torch.testing.assert_close(ours, apart[0] + 3.0 * (apart[1] - apart[0]), atol=1e-5, rtol=1e-5)
    hidden, mask = stack([told, plain])
    assert hidden.shape == (2, 154, 16)
    assert mask.sum(dim=1).tolist() == [77, 154]


def test_both_halves_share_a_call_and_scale_one_needs_only_one(sd1):
    calls = []
    handle = sd1.unet.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    try:
        render(sd1, [Cell("a puppy", sampler=Sampler("ddim", 3))], (0, 1))
        assert calls == [4, 4, 4]
        calls.clear()
        render(sd1, [Cell("a puppy", sampler=Sampler("ddim", 3), guidance=Guidance(1.0))], (0, 1))
        assert calls == [2, 2, 2]
    finally:
        handle.remove()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_kept_steps_end_at_the_final_latents(sd1, scheduler):
    made = render(sd1, [Cell("a cat", sampler=Sampler(scheduler, 5, keep=(0, 2, 4)))], (0,))[0]
    assert [step.step for step in made.steps] == [0, 2, 4]
    assert not torch.equal(made.steps[0].x0, made.steps[1].x0)
    if scheduler != "pndm":  # its first step is run twice, so that its calls are one more than its steps
        torch.testing.assert_close(made.steps[-1].latents, made.pictures, atol=1e-5, rtol=1e-5)


def test_predicted_x0_at_no_noise_is_the_picture(sd1):
    """Where the library does not tell x0, ours is its own formula: DDIM's, here asked of both."""
    from embedlab.sampler import predicted_x0

    scheduler = Sampler("ddim", 5).make(sd1.scheduler | {"clip_sample": False})
    x, seen, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), scheduler.timesteps[2]
    torch.testing.assert_close(predicted_x0(scheduler, seen, x, t), scheduler.step(seen, t, x).pred_original_sample)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampler("dimm"), r"there is no scheduler 'dimm'; choose one of ddim, .*lms"),
        (lambda: Sampler(steps=0), r"sampler.steps is 0; it has to be a whole number from 1"),
        (lambda: Sampler(steps=-3), "steps is -3"),
        (lambda: Sampler(steps=2.5), "steps is 2.5"),
        (lambda: Sampler(steps=5, keep=[5]), "keep names step 5; there are steps 0 to 4"),
        (lambda: Guidance(float("nan")), "guidance.scale is nan; it has to be a finite number"),
        (lambda: Guidance("four"), "guidance.scale is 'four'"),
        (lambda: Guidance(0.5), "guidance.scale is 0.5; 1 is the prompt alone"),
        (lambda: Start(step=3), "need a picture"),
        (lambda: Start("/nowhere.png", step=3), "there is no picture '/nowhere.png'"),
        (lambda: Start(__file__, step=3), "is not a picture that can be read"),
        (lambda: check_size(100, 128, 8, 3), "a size of 100 is no multiple of the VAE factor 8; try 96"),
        (lambda: check_size(0, 128, 8, 3), "a size of 0 is not between 1 and 8192 pixels"),
        (lambda: check_size(8, 128, 8, 3), "has to be 32 or more"),
        (lambda: check_seeds([]), r"seeds is \[\]"),
        (lambda: check_seeds([-1]), "seed -1 is no whole number from 0"),
        (lambda: check_seeds(["a"]), "seed 'a' is no whole number"),
    ],
)
def test_bad_settings_are_one_clear_line(make, message):
    with pytest.raises((SamplerError, PictureError), match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_start_past_the_end_is_refused(tmp_path):
    file = tmp_path / "in.png"
    Image.new("RGB", (16, 16)).save(file)
    with pytest.raises(SamplerError, match="start.step is 10, past the end: with 10 steps it is 9 at the most"):
        Start(str(file), step=10).first(10)


def test_latents_with_nan_are_reported_and_spoil_no_neighbour(sd1, monkeypatch):
    from embedlab import Cell, experiment

    own = experiment.noise
    cell, at_once = Cell("a puppy", sampler=Sampler("ddim", 2)), 4
    (good,) = experiment.render(sd1, [cell], [0, 1, 2], at_once)
    spoilt = torch.tensor([1.0, float("nan"), 1.0]).view(3, 1, 1, 1)
    monkeypatch.setattr(experiment, "noise", lambda *given: own(*given) * spoilt)
    with pytest.raises(SamplerError, match="the latents of seed 1 hold NaN"):
        experiment.render(sd1, [cell], [0, 1, 2], at_once)
    told = experiment.tell(sd1, [experiment.calls_of(cell, sd1.scheduler)])[0]
    drawn = experiment.draw(sd1, [(told, seed) for seed in (0, 1, 2)])
    assert [one.whole for one in drawn] == [True, False, True]
    assert torch.equal(drawn[2].latents, good.latents[2])

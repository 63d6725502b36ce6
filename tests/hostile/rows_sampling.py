"""Settings of sampling: schedulers, starts, guiders, losses, attention, layers of encoders, schedules in their place."""

from trials import refused, works

SCHEDULE = "{_target_:embedlab.schedule."
LOSS = "embedlab.guidance."
TWO = ("language=a1111", "prompt=a puppy AND a hat")
PICTURE = ("start=picture", "start.picture=puppy.png", "start.strength=0.5")


def score(text: str, *more: str) -> tuple[str, ...]:
    """The words of a loss with a score."""
    return "guidance=loss", f"guidance.loss.score={{_target_:{LOSS}{text}}}", *more


SAMPLING = [
    # names as other tools write them, and names that are not there
    *refused("samplers", "try: embedlab", "sampler=Euler a", "sampler=DPM++ 2M", "sampler=eulera", "start=img2img", "guidance=cfg", "attention=DAAM"),
    *refused("samplers", "sampler=euler_ancestral", "sampler=k_euler_a"),
    *refused("samplers", "clip_sample", "sampler.options.clip_sampel=true", "+sampler.options.clip_sampel=true"),
    *refused("samplers", "names with values", "sampler.options=[a]", "guidance.settings=[1]", "start.variation=[7,0.2]", "attention.edits=[1]"),
    *refused("samplers", "has to be a list", "seeds={b:1}", "sampler.keep={a:1}"),
    *refused("samplers", "sampler.eta", "sampler.eta=nan", "sampler.eta=2", "sampler.eta=[1]", ("sampler=euler", "sampler.eta=0.5")),
    *refused("samplers", "sampler.sigmas", "sampler.sigmas=karras", ("sampler=euler", "sampler.sigmas=Karras"), ("sampler=euler", "sampler.sigmas=[14,0]")),
    *refused("samplers", "sampler.spacing", "sampler.spacing=foo", "sampler.spacing=[1,999]", "sampler.spacing=[]", ("sampler=lcm", "sampler.spacing=trailing")),
    *refused("samplers", "beta_start", ("sampler.options.beta_start=0.5", "sampler.options.beta_end=0.1"), "sampler.options.beta_start=nan"),
    *refused("samplers", "sampler.keep", "sampler.keep=[99]", "sampler.keep='every 0'", "sampler.keep=[1.5]", "sampler.watch=[latents]"),
    *refused("samplers", "cannot change over time", *(f"{key}={SCHEDULE}Ramp,values:[0,1],at:[0,1]}}" for key in ("sampler.eta", "sampler.steps")), (*PICTURE[:2], f"start.strength={SCHEDULE}Ramp,values:[0,1],at:[0,1]}}")),
    # starts
    *refused("starts", "strength", "start.variation={seed:7,strenght:0.2}", "start.variation={strength:0.2}", "start.variation={seed:7,strength:nan}"),
    *refused("starts", "start.variation.seed", "start.variation.sed=7", "start.variation={seed:-1,strength:0.2}"),
    *refused("starts", "cannot be run backwards", ("start=inversion", "start.picture=puppy.png", "sampler=euler")),
    *refused("starts", "past the end", ("start=inversion", "start.picture=puppy.png", "start.step=5")),
    *refused("starts", "or the word picture", (*PICTURE, "size=[picture]")),
    *refused("starts", "there is none", "size=picture"),
    # guiders
    *refused("guiders", "did you mean", ("guidance=apg", "guidance.settings.etta=1"), ("guidance=apg", "guidance.settings={etta:1}"), ("guidance=apg", "guidance.settings.momentum=1"), ("guidance=pag", "guidance.settings.scale=3")),
    *refused("guiders", "guidance.settings.eta=1", ("guidance=apg", "guidance.setings.eta=1")),
    *refused("guiders", "never works", ("guidance=pag", "guidance.settings.perturbed_guidance_start=0.9", "guidance.settings.perturbed_guidance_stop=0.1")),
    *refused("guiders", "has no cross-attention", *(("guidance=pag", f"guidance.settings.perturbed_guidance_layers={layers}") for layers in ("[foo]", "[99]", "[down.7]"))),
    *refused("guiders", "after an AND", "guidance=sega"),
    *refused("guiders", "leave guidance.combine and", ("guidance=sega", *TWO, "guidance.combine=mean")),
    *refused("guiders", "guidance.combine", ("guidance.combine=[perp,perp]", *TWO), "guidance.combine=[perp]", "guidance.combine=AND_PERP", "guidance.combine=[]"),
    *refused("guiders", "guidance.regions", "guidance.regions=[[0,0,2,1]]", "guidance.regions=[nope.png]", ("guidance.regions=[[0,0,1,1]]", *TWO), "guidance.regions=[[0,0,0.0001,1]]"),
    *refused("guiders", "guidance.settings.eta: a ramp", ("guidance=apg", f"guidance.settings.eta={SCHEDULE}Ramp,values:[0,nan],at:[0,1]}}")),
    *refused("guiders", "nothing would be predicted", ("guidance=cfg_zero_star", "guidance.settings.zero_init_steps=2")),
    *works("guiders", ("guidance=sega", *TWO), shows=("notice: guidance=sega begins after 10 steps, and there are 2",)),
    *works("attention", "attention.words=[puppy]", shows=("none are kept: attention=maps",)),
    *works("guiders", ("guidance=apg", "guidance.settings={}"), (*TWO, "guidance.combine=perp")),
    # losses
    *refused("losses", "guidance.loss.score.blue", "guidance.loss.blue=1", ("guidance=loss", "guidance.loss.score.bleu=0.5")),
    *refused("losses", "did you mean embedlab.guidance.Colour", score("Color,blue:0.9"), ("guidance=loss", "guidance.loss.score._target_=embedlab.guidance.Color")),
    *refused("losses", "Likeness has no setting 'blue'", ("guidance=loss", "guidance.loss.score._target_=embedlab.guidance.Likeness")),
    *refused("losses", "in this run; guidance=loss has it", ("guidance=pag", "guidance.loss.score.blue=0.1")),
    *refused("losses", "it can run commands", ("guidance=loss", "guidance.loss.score={_target_:os.system}")),
    *refused("losses", "guidance.loss.form=unet", score("Mass,word:puppy")),
    *refused("losses", "'zebra' is not in the prompt", score("Mass,word:zebra", "guidance.loss.form=unet")),
    *refused("losses", "guidance.loss.score.box is [0, 0, 2, 1]", score("Mass,word:puppy,box:[0,0,2,1]", "guidance.loss.form=unet")),
    *refused("losses", "not a picture that can be read", score("Distance,picture:sweep/sweep.json")),
    *refused("losses", "is the function rgb_to_hsv; it has to be a callable of a picture", ("guidance=loss", "guidance.loss.score={_target_:colorsys.rgb_to_hsv,_partial_:true}")),
    *refused("losses", "_partial_: true", ("guidance=loss", "guidance.loss.score={_target_:colorsys.rgb_to_hsv}")),
    *works("losses", score("Colour,red:1", "guidance.loss.scale=1")),
    # attention
    *refused("attention", "attention.words", ("attention=maps", "attention.words=[zebra]"), ("attention=maps", "attention.words=[]")),
    *refused("attention", "attention.edits.cross", ("attention=p2p", "attention.edits.crosss.end=0.5"), ("attention=p2p", "attention.edits.cross.endd=0.5"), ("attention=p2p", "attention.edits.cross.amount=0.5"), ("attention=p2p", "attention.edits.cross.operator.amount=nan"), ("attention=p2p", "attention.edits.cross.operator.how=foo")),
    *refused("attention", "attention.edits.reweight has rows, by, layers", ("attention=reweight", "attention.edits.reweight.head=3")),
    *refused("attention", "attention.edits.reweight.by", ("attention=reweight", "attention.edits.reweight.by=nan"), ("attention=reweight", f"attention.edits.reweight.by={SCHEDULE}Ramp,values:[1,nan],at:[0,1]}}")),
    *refused("attention", "attention.edits.box.box", ("attention=box", "attention.edits.box.box=[0,0,2,1]"), ("attention=box", "attention.edits.box.box=abc")),
    *refused("attention", "has no attention maps", ("attention=maps", "engine=openvino")),
    *refused("attention", "operators.replace.blocks", ("operators=[replace]", "operators.replace.by=cat", "operators.replace.blocks=[foo]")),
    *works("attention", ("attention=p2p", "attention.edits={}")),
    *works("attention", ("language=compel", "prompt=\"a cat.swap(dog, foo=1)\""), shows=("notice: .swap() has no option foo",)),
    *works("attention", ("language=compel", "prompt=\"a cat.swap(dog, s_start=2)\""), shows=("s_start is a share, from 0 to 1",)),
    *refused("attention", "attention.edits: fraction 2 is past the end", ("attention=p2p", "attention.edits.cross.end=2")),
    *refused("schedules", "guidance.scale: step 99 is past the end", f"guidance.scale={SCHEDULE}Ramp,values:[1,4],at:[0,99],clock:step}}"),
    # layers of text encoders
    *refused("layers", "operators.scale.stage is {layer: ", *(("operators=[scale]", f"operators.scale.stage={{layer:{n}}}") for n in ("-1", "1.5", "a"))),
    *refused("layers", "operators.scale.stage is {", ("operators=[scale]", "operators.scale.stage={layers:1}"), ("operators=[scale]", "operators.scale.stage={}")),
    *refused("layers", "is at layer 99", ("operators=[scale]", "operators.scale.stage={layer:99}")),
]  # fmt: skip

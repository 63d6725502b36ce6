"""Settings of the command line: numbers, texts, lists, YAML forms, operators, schedules, paths, Hydra's own."""

from trials import refused, works

OPERATE = ("operators=[interpolate]", "operators.interpolate.toward=cat")
NUMBERS = ("nan", "-inf", "1e400", "true", "abc", "[1]")
HUGE = "1" + "0" * 400

SETTINGS = [
    # numbers
    *refused("numbers", "guidance.scale", *(f"guidance.scale={n}" for n in (*NUMBERS, "null", HUGE))),
    *refused("numbers", "steps", *(f"sampler.steps={n}" for n in (*NUMBERS, "0", "-1", "1.5", "1000000", "1e30", HUGE, "null"))),
    *refused("numbers", "seed", *(f"seeds={n}" for n in ("[]", "abc", "[-1]", "[1.5]", "[nan]", "[true]", f"[{HUGE}]", "[1e30]", "[1,1]", "{a:1}", "null", "''"))),
    *refused("numbers", "size", *(f"size={n}" for n in ("0", "-8", "7", "1.5", "[16]", "[16,16,16]", "[16,a]", "true", "abc", "1000000", HUGE, "nan", "1e30"))),
    *refused("numbers", "at_once", *(f"at_once={n}" for n in ("0", "-1", "1.5", "abc", "true", "[1]", "nan"))),
    *refused("numbers", "weight", *((*OPERATE, f"operators.interpolate.weight={n}") for n in ("nan", "inf", "abc", "true", "{a:1}", "null", HUGE, "''"))),
    *refused("numbers", "skip", *(f"encoder.skip={n}" for n in ("nan", "1.5", "abc", "99", "-99", "{a:1}", "{}", HUGE, "[1,2]"))),
    *refused("numbers", "stretch", *(f"encoder.stretch={n}" for n in ("0", "-1", "nan", "abc", "1e30", HUGE, "[1]"))),
    *refused("numbers", "strength", *(("start=picture", "start.picture=sweep/sheet.png", f"start.strength={n}") for n in ("2", "-1", "nan", "abc", "0", "true"))),
    *refused("numbers", "layer 0", "encoder.skip={0:nan}"),
    *refused("numbers", "guidance.scale", "guidance.scale=0", "guidance.scale=-1"),
    *refused("numbers", "seeds", "seeds=3"),
    *works("numbers", "guidance.scale=1e3", "seeds=[0]", "seeds=[4294967295]", "sampler.steps=1", "size=16", "size=[16,24]", "at_once=1", f"at_once={HUGE}"),
    # texts
    *works("texts", "prompt=''", "prompt=' '", "prompt='{a: 1}'", "prompt=\"it's\"", "prompt='💀'", "prompt='日本語'", "prompt='é </w>'", "guidance.negative=''", "guidance.negative='💀'"),
    *refused("texts", "a prompt is a text", "prompt=1", "prompt=1.5"),
    *refused("texts", "quoted twice", "prompt=💀", "prompt=日本語", "prompt=é", "guidance.negative=💀"),
    *refused("texts", "would end it", "prompt='<|endoftext|>'"),
    *refused("texts", "cannot be read", "prompt='${not'"),
    *works("texts", ("explain", "prompt=" + "a " * 500), ("explain", f"prompt='{'💀' * 300}'")),
    *refused("texts", "prompt", "prompt=[a,b]", "prompt=null", "prompt=true"),
    *refused("texts", "negative", "guidance.negative=[a]", "guidance.negative={a:1}", "guidance.negative=true"),
    *refused("texts", "prompt", "prompt=\udc80", "prompt=a\udfffb"),
    # YAML's and Hydra's forms
    *refused("syntax", "bracket", "seeds=[1,2", "seeds=1]", "operators={a:1", "prompt=(a"),
    *refused("syntax", "comma", "seeds=1,2", "prompt=a,b", "seeds=1,"),
    *refused("syntax", "embedlab", "prompt='a", "prompt=\"a", "seeds==1", "=1", "a.b.=1", ".a=1", "prompt:a", "prompt=${nothing}", "prompt=${oc.env:NOT_SET_ANYWHERE}", "prompt=${prompt}", "seeds=${seeds}"),
    *refused("syntax", "no setting", "nothing=1", "sampler.nothing=1", "guidance.scales=1", "promt=a"),
    *refused("syntax", "cannot be left out", "~prompt", "~seeds", "~tracker"),
    *refused("syntax", "Could not delete", "~size"),
    *refused("syntax", "there", "+nothing=1", "++nothing.inner=2"),
    *refused("syntax", "embedlab", "sampler=nothing", "model=nothing", "operators=[nothing]", "experiment=nothing", "tracker=nothing", "start=nothing", "hydra/launcher=nothing"),
    *refused("syntax", "embedlab", "operators=[null]", "operators=[1]", "operators=[[replace]]", "sampler=[ddim]", "model=null", "tracker=1", "sampler=/etc/passwd"),
    *refused("syntax", "command", "nothing", "sheets", "help"),
    *refused("syntax", "embedlab", "-s", "--nope", "-x", "--cfg", "--multirunn", ("--cfg", "nope")),
    *refused("syntax", "embedlab", ("-m", "seeds=range(0,1,0)"), ("-m", "seeds="), ("-m", "sampler.steps=range(1,5,0)"), ("-m", "guidance.scale=range(1,2,0.0)")),
    *refused("syntax", "embedlab", "hydra.job_logging.root.level=NOPE", "hydra.mode=NOPE", "hydra.nothing=1", "hydra.launcher.nothing=1", "hydra.run.dir=null"),
    *works("syntax", ("--version",), ("--help",), ("--cfg", "job"), ("-c", "job")),
    # operators
    *refused("operators", "is no operator", "+operators.x=1", "+operators.x=[1]", "+operators.x=a", "+operators.x={a:1}") ,
    *refused("operators", "embedlab", "+operators.x._target_=nothing.at.all", "+operators.x._target_=os.getcwd", "+operators.x._target_=builtins.dict", "+operators.x._target_=", "+operators.x._target_=1", "+operators.x._target_=os", "+operators.x._target_=embedlab.operators", "+operators.x._target_=..a", "+operators.x._target_=embedlab.tracker.Silent"),
    *refused("operators", "rows is not set", ("prompt=a cat", "operators=[replace]")),
    *refused("operators", "embedlab", *(("operators=[scale]", f"operators.scale.rows={rows}") for rows in ("nothing", "99999", "-5000", "{}", "{word:}", "{role:nope}", "{nope:1}", "{word:puppy,nth:9}", "{word:puppy,nth:0}", "[]", "true", "1.5", "{window:9}", "''", "null", "{word:[a]}", "[[]]"))),
    *refused("operators", "embedlab", *(("operators=[scale]", f"operators.scale.{setting}") for setting in ("by=nan", "by=abc", "by=null", "by=[]", "by={a:1}", "stage=nope", "stage=null", "stage=1", "stage=[token]", "nothing=1"))),
    *refused("operators", "embedlab", *((*OPERATE, f"operators.interpolate.toward={toward}") for toward in ("''", "null", "[]", "true"))),
    *refused("operators", "embedlab", *((*OPERATE, f"operators.interpolate.{setting}") for setting in ("path=nope", "path=null", "lengths=nope", "weight=[1,2,3]", "toward=[cat,dog]", "stage=nope", "path=[lerp]"))),
    *works("operators", *((*OPERATE, f"operators.interpolate.{setting}", "explain=true", "hydra.run.dir=.") for setting in ("weight=0", "weight=-1", "weight=1e3", "weight=0.25", "path=slerp", "rows={role:eos}", "rows=5"))),
    *refused("schedules", "embedlab", *(f"guidance.scale={{_target_:embedlab.schedule.{text}}}" for text in ("Switch", "Switch,values:[],at:0.5", "Switch,values:[1,2],at:nan", "Switch,values:[1,2],at:2", "Switch,values:1,at:0.5", "Ramp,values:[a,b],at:[0,1]", "Ramp,values:[0,1],at:[1,0]", "Ramp,values:[0,1],at:[0,1],shape:nope", "Ramp,values:[0,1],at:[0,1],clock:nope", "Alternate,values:[1,2],every:0", "Alternate,values:[1,2],every:1.5", "During,operator:1,begin:0,end:1", "Nothing,values:[1]", "Switch,values:[1,nan],at:0.5"))),
    *works("schedules", *(f"guidance.scale={{_target_:embedlab.schedule.{text}}}" for text in ("Switch,values:[1,2],at:0.5", "Ramp,values:[1,4],at:[0,1]", "Alternate,values:[1,2],every:1"))),
    # metrics, trackers, stores, objectives
    *refused("metrics", "metrics", "metrics.words=1", "metrics.words=[1]", "metrics.words={a:1}", "metrics.words=[[a]]", "metrics.words=true", "metrics.nothing=1"),
    *refused("trackers", "tracker", "tracker._target_=builtins.dict", "tracker._target_=nothing.Nothing", "tracker=[]", "tracker._target_=embedlab.operators.Replace", "tracker=null", "tracker._target_=collections.OrderedDict"),
    *refused("trackers", "tracker", *(("tracker=several", f"tracker.trackers={value}") for value in ("wandb", "[]", "[nothing]", "[5]", "null", "{}"))),
    *refused("trackers", "tracker", *(("tracker=mlflow", f"tracker.{setting}") for setting in ("project=''", "project=5", "project=[a]", "uri=5", "uri=[a]"))),
    *refused("trackers", "tracker", *(("tracker=wandb", f"tracker.{setting}") for setting in ("mode=nope", "mode=null", "project=''", "project=a/b", "project=[a]", "tags=1", "tags=[1]", "tags=[\"\"]", "entity=[a]", "project=null"))),
    *refused("paths", "store", "store=''", "store=' '", "store=1", "store=[a]", "store=true", "store={a:1}"),
    *refused("paths", "cannot be written", "store=/dev/null", "store=/proc/nothing/x"),
    *refused("paths", "embedlab", "hydra.run.dir=/dev/null", "hydra.run.dir=/proc/nothing", "hydra.run.dir=sweep/sweep.json", ("-m", "seeds=[0],[1]", "hydra.sweep.dir=/dev/null"), "hydra.run.dir=" + "x" * 300),
    *refused("paths", "embedlab", "model.name=/nowhere", "model.name=''", "model.name=null", "model.name=1", "model.name=[a]", "model.name=/dev/null", "model.name=/dev/zero", "model.name=~nosuchuser/x", "model.name=a\udc80b", "model.name=..", "model.name=sweep", "model.name=sweep/sweep.json", "model.name=" + "x" * 5000, "model.scorer=/nowhere", "model.scorer=/dev/zero", "model.scorer=~nosuchuser", "model.device=nope", "model.device=1", "model.dtype=nope", "model.dtype=[a]", "model.device=cuda:99"),
    *refused("paths", "store", "store=~nosuchuser/x", "store=a\udc80b"),
    *refused("paths", "embedlab", *(("start=picture", f"start.picture={path}", "start.strength=0.5") for path in ("/nowhere.png", "''", "null", "1", "[a]", "/dev/null", "/dev/zero", "~nosuchuser/a.png", ".", "sweep/sweep.json", "a\udc80b", "true"))),
    *refused("paths", "embedlab", ("start=picture", "start.picture=sweep/sheet.png"), ("start=picture", "start.picture=sweep/sheet.png", "start.strength=0.5", "start.step=1")),
    *works("paths", ("start=picture", "start.picture=sweep/sheet.png", "start.strength=0.5"), "store=shared", "hydra.run.dir=a b", "hydra.run.dir='é'"),
    *refused("objectives", "objective", *(("-m", "seeds=[0],[1]", f"objective={text}") for text in ("nope", "1", "[a]", "{a:1}", "{_target_:embedlab.sweep.results.ScoreGap,first:a,second:b}", "{_target_:os.getcwd}"))),
    *refused("exports", "export", "export=1", "export=maybe", "export=[true]", "export=null"),
    *refused("exports", "explain", "explain=1", "explain=maybe", "explain=null", ("-m", "explain", "seeds=[0],[1]")),
    *refused("exports", "group", "group=[a]", "group={a:1}", "group=true"),
    *works("exports", "export=true", "group=a", "metrics.words=[cat]"),
]  # fmt: skip

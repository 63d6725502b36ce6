"""A laboratory for CLIP text embeddings in text-to-image diffusion."""

import inspect
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; at run time, `__getattr__` imports a name when it is asked for
    # isort: off
    from embedlab.attention import (
        Attention as Attention,
        Confine as Confine,
        CopyCross as CopyCross,
        CopySelf as CopySelf,
        Maps as Maps,
        Reweight as Reweight,
        probabilities_of as probabilities_of,
        word_mass as word_mass,
    )
    from embedlab.cell import Cell as Cell
    from embedlab.clip import Tower as Tower
    from embedlab.detector.detect import detect as detect
    from embedlab.detector.detections import Detection as Detection, Detections as Detections
    from embedlab.embeddings import Embeddings as Embeddings, Lookup as Lookup, embed as embed, lookup_of as lookup_of
    from embedlab.encoder import (
        Conditioning as Conditioning,
        Encoder as Encoder,
        Texts as Texts,
        embed_all as embed_all,
        encode as encode,
        equal_lengths as equal_lengths,
        texts_of as texts_of,
    )
    from embedlab.engines import (
        Auto as Auto,
        CUDAGraph as CUDAGraph,
        Compile as Compile,
        Eager as Eager,
        Engine as Engine,
        ONNXRuntime as ONNXRuntime,
        OpenVINO as OpenVINO,
        TensorRT as TensorRT,
        with_engine as with_engine,
    )
    from embedlab.errors import EmbedlabError as EmbedlabError
    from embedlab.explanation import explain as explain
    from embedlab.export import (
        edited_rows as edited_rows,
        load_embeds as load_embeds,
        prompt_embeds as prompt_embeds,
        save_embeds as save_embeds,
    )
    from embedlab.guidance import (
        Colour as Colour,
        Distance as Distance,
        Guidance as Guidance,
        Likeness as Likeness,
        Loss as Loss,
        Mass as Mass,
        guided as guided,
    )
    from embedlab.images import decode as decode, to_pil as to_pil, to_tensor as to_tensor
    from embedlab.learning.learn import Learned as Learned, learn as learn
    from embedlab.metrics.score import Metrics as Metrics, score as score
    from embedlab.models import (
        Concept as Concept,
        Model as Model,
        Source as Source,
        load as load,
        load_concepts as load_concepts,
        save_concept as save_concept,
        text_encoders_of as text_encoders_of,
    )
    from embedlab.notebook.running import grid as grid, run as run
    from embedlab.notebook.showing import Grid as Grid, show as show
    from embedlab.notebook.sweeps import Sweep as Sweep
    from embedlab.operators import (
        Add as Add,
        Average as Average,
        Blend as Blend,
        Concatenate as Concatenate,
        Drop as Drop,
        Freeze as Freeze,
        Interpolate as Interpolate,
        Noise as Noise,
        Normalise as Normalise,
        Operator as Operator,
        Permute as Permute,
        Place as Place,
        ProjectOut as ProjectOut,
        Replace as Replace,
        Reverse as Reverse,
        Rotate as Rotate,
        Scale as Scale,
        Shift as Shift,
        Shuffle as Shuffle,
        Stretch as Stretch,
        Subtract as Subtract,
        Swap as Swap,
        Truncate as Truncate,
        edit as edit,
        edit_encoded as edit_encoded,
    )
    from embedlab.prompt import Tokens as Tokens, tokenize as tokenize
    from embedlab.rendering import render as render
    from embedlab.sampler import (
        Inversion as Inversion,
        Sampler as Sampler,
        Start as Start,
        Variation as Variation,
        encode_picture as encode_picture,
        generators as generators,
        moments as moments,
        noise as noise,
        picture_latents as picture_latents,
        sample as sample,
    )
    from embedlab.schedule import (
        Alternate as Alternate,
        During as During,
        Moment as Moment,
        Ramp as Ramp,
        Switch as Switch,
        resolve as resolve,
    )
    from embedlab.selector import Rows as Rows
    from embedlab.starting import start_latents as start_latents
    from embedlab.stepping import denoise as denoise
    from embedlab.structure.anatomy import Anatomy as Anatomy, anatomy as anatomy
    from embedlab.structure.tables import Comparison as Comparison
    from embedlab.sweep.job import Job as Job
    from embedlab.sweep.profile import Profile as Profile, profile as profile
    from embedlab.sweep.run import run_jobs as run_jobs
    from embedlab.sweep.store import Store as Store
    # isort: on

_HOME = {
    "Add": "operators",
    "Alternate": "schedule",
    "Anatomy": "structure.anatomy",
    "Attention": "attention",
    "Auto": "engines",
    "Average": "operators",
    "Blend": "operators",
    "CUDAGraph": "engines",
    "Cell": "cell",
    "Colour": "guidance",
    "Comparison": "structure.tables",
    "Compile": "engines",
    "Concatenate": "operators",
    "Concept": "models",
    "Conditioning": "encoder",
    "Confine": "attention",
    "CopyCross": "attention",
    "CopySelf": "attention",
    "Detection": "detector.detections",
    "Detections": "detector.detections",
    "Distance": "guidance",
    "Drop": "operators",
    "During": "schedule",
    "Eager": "engines",
    "Embeddings": "embeddings",
    "EmbedlabError": "errors",
    "Encoder": "encoder",
    "Engine": "engines",
    "Freeze": "operators",
    "Grid": "notebook.showing",
    "Guidance": "guidance",
    "Interpolate": "operators",
    "Inversion": "sampler",
    "Job": "sweep.job",
    "Learned": "learning.learn",
    "Likeness": "guidance",
    "Lookup": "embeddings",
    "Loss": "guidance",
    "Maps": "attention",
    "Mass": "guidance",
    "Metrics": "metrics.score",
    "Model": "models",
    "Moment": "schedule",
    "Noise": "operators",
    "Normalise": "operators",
    "ONNXRuntime": "engines",
    "OpenVINO": "engines",
    "Operator": "operators",
    "Permute": "operators",
    "Place": "operators",
    "Profile": "sweep.profile",
    "ProjectOut": "operators",
    "Ramp": "schedule",
    "Replace": "operators",
    "Reverse": "operators",
    "Reweight": "attention",
    "Rotate": "operators",
    "Rows": "selector",
    "Sampler": "sampler",
    "Scale": "operators",
    "Shift": "operators",
    "Shuffle": "operators",
    "Source": "models",
    "Start": "sampler",
    "Store": "sweep.store",
    "Stretch": "operators",
    "Subtract": "operators",
    "Swap": "operators",
    "Sweep": "notebook.sweeps",
    "Switch": "schedule",
    "TensorRT": "engines",
    "Texts": "encoder",
    "Tokens": "prompt",
    "Tower": "clip",
    "Truncate": "operators",
    "Variation": "sampler",
    "anatomy": "structure.anatomy",
    "decode": "images",
    "denoise": "stepping",
    "detect": "detector.detect",
    "edit": "operators",
    "edit_encoded": "operators",
    "edited_rows": "export",
    "embed": "embeddings",
    "embed_all": "encoder",
    "encode": "encoder",
    "encode_picture": "sampler",
    "equal_lengths": "encoder",
    "explain": "explanation",
    "generators": "sampler",
    "guided": "guidance",
    "grid": "notebook.running",
    "learn": "learning.learn",
    "load": "models",
    "load_concepts": "models",
    "load_embeds": "export",
    "lookup_of": "embeddings",
    "moments": "sampler",
    "noise": "sampler",
    "picture_latents": "sampler",
    "probabilities_of": "attention",
    "profile": "sweep.profile",
    "prompt_embeds": "export",
    "render": "rendering",
    "resolve": "schedule",
    "run": "notebook.running",
    "run_jobs": "sweep.run",
    "sample": "sampler",
    "save_concept": "models",
    "save_embeds": "export",
    "score": "metrics.score",
    "show": "notebook.showing",
    "start_latents": "starting",
    "text_encoders_of": "models",
    "texts_of": "encoder",
    "to_pil": "images",
    "to_tensor": "images",
    "tokenize": "prompt",
    "with_engine": "engines",
    "word_mass": "attention",
}
__version__ = "0.2.0"
OLD = {  # spellings of the version before → today's
    "at": "resolve",
    "carry_out": "run_jobs",
    "find": "Source",
    "towers_of": "text_encoders_of",
}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # so that a type checker, too, refuses names that are not there

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first asked for: the command line answers before torch is loaded."""
        if name in OLD:
            warnings.warn(f"embedlab.{name} is now embedlab.{OLD[name]}.", DeprecationWarning, stacklevel=2)
            name = OLD[name]
        if name not in _HOME:
            raise AttributeError(f"embedlab has no '{name}'; its public names are {', '.join(__all__)}.")
        if "ipykernel" in sys.modules and "tqdm.auto" not in sys.modules:
            with warnings.catch_warnings():  # tqdm warns as it is imported into a notebook without ipywidgets
                warnings.filterwarnings("ignore", "IProgress not found")
                import_module("tqdm.auto")
        found = getattr(import_module(f"embedlab.{_HOME[name]}"), name)
        if inspect.isfunction(found):  # what it was handed is held against what it says, where it fails
            found = import_module("embedlab.arguments").explained(found)
            found.__module__, globals()[name] = "embedlab", found
        return found

"""name | hub id | folder | single file → Model."""

from embedlab.models.concept_files import Concept, load_concepts, save_concept
from embedlab.models.device import pick_device, pick_dtype
from embedlab.models.loading import models_read
from embedlab.models.model import Model, Scorer
from embedlab.models.pipeline import Pipeline, TextEncoders, model_of, text_encoder_of, text_encoders_of
from embedlab.models.source import LAYOUTS, SHIPPED, Source, find, load, tokenizer

__all__ = [
    "LAYOUTS",
    "SHIPPED",
    "Concept",
    "Model",
    "Pipeline",
    "Scorer",
    "Source",
    "TextEncoders",
    "find",
    "load",
    "load_concepts",
    "model_of",
    "models_read",
    "pick_device",
    "pick_dtype",
    "save_concept",
    "text_encoder_of",
    "text_encoders_of",
    "tokenizer",
]

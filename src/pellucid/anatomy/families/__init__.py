"""From a configuration to a tree of shapes. The one place that says what a family is made of, in numbers."""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.families.encoders import encoder, translator
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.ours import convnet, decoder, dense, detector
from pellucid.anatomy.tree import Node
from pellucid.errors import PellucidError
from pellucid.language import _

__all__ = ["READERS", "convnet", "decoder", "dense", "describe", "detector", "encoder", "translator"]

READERS = {  # by `model_type`: the module and the function that makes a tree of a configuration's `Fields`
    "albert": "masked:albert",
    "alexnet": "vision:alexnet",
    "arcee": "llama:arcee",
    "bamba": "hybrids:bamba",
    "bart": "sequences:bart",
    "bert": "masked:bert",
    "biogpt": "gpt:biogpt",
    "bloom": "gpt:bloom",
    "camembert": "masked:roberta",
    "clip": "pictures_and_text:clip",
    "codegen": "gpt:gptj",
    "cohere": "llama:cohere",
    "cohere2": "llama:cohere2",
    "convnet": "vision:convnet",
    "convnext": "vision:convnext",
    "convnextv2": "vision:convnext",
    "data2vec-text": "masked:roberta",
    "deberta": "masked:deberta",
    "deberta-v2": "masked:deberta_v2",
    "deepseek_v2": "mixtures:deepseek_v2",
    "deepseek_v3": "mixtures:deepseek_v3",
    "deit": "vision_transformers:vit",
    "dense": "toys:dense",
    "densenet": "vision:densenet",
    "dinov2": "vision_transformers:dinov2",
    "dinov2_with_registers": "vision_transformers:dinov2",
    "dinov3_vit": "vision_transformers:dinov3",
    "distilbert": "masked:distilbert",
    "dots1": "mixtures:dots1",
    "efficientnet": "mobile:efficientnet",
    "efficientnet-lite0": "own:efficientnet_lite",
    "electra": "masked:electra",
    "ernie4_5": "llama:ernie4_5",
    "ernie4_5_moe": "mixtures:ernie4_5_moe",
    "eurobert": "masked:eurobert",
    "exaone4": "llama:exaone4",
    "falcon": "gpt:falcon",
    "falcon_mamba": "mamba:mamba",
    "flex_olmo": "mixtures:flex_olmo",
    "gemma": "llama:gemma",
    "gemma2": "llama:gemma2",
    "gemma3": "pictures_and_text:gemma3",
    "gemma3_text": "llama:gemma3_text",
    "glm": "llama:glm",
    "glm4": "llama:glm4",
    "glm4_moe": "mixtures:glm4_moe",
    "googlenet": "inception:googlenet",
    "gpt2": "gpt:gpt2",
    "gpt_bigcode": "gpt:gpt_bigcode",
    "gpt_neo": "gpt:gpt_neo",
    "gpt_neox": "gpt:gpt_neox",
    "gpt_oss": "mixtures:gpt_oss",
    "gptj": "gpt:gptj",
    "granite": "llama:llama",
    "granitemoe": "mixtures:granitemoe",
    "granitemoehybrid": "hybrids:granitemoehybrid",
    "granitemoeshared": "mixtures:granitemoe",
    "hunyuan_v1_dense": "llama:hunyuan",
    "hunyuan_v1_moe": "mixtures:hunyuan_moe",
    "inception_v3": "inception:inception_v3",
    "jamba": "hybrids:jamba",
    "lenet-5": "vision:lenet5",
    "lfm2": "hybrids:lfm2",
    "llama": "llama:llama",
    "llama4": "pictures_and_text:llama4",
    "llama4_text": "mixtures:llama4_text",
    "m2m_100": "sequences:m2m_100",
    "mamba": "mamba:mamba",
    "mamba2": "mamba:mamba2",
    "marian": "sequences:marian",
    "mbart": "sequences:mbart",
    "mingpt": "gpt:mingpt",
    "minicpm": "llama:llama",
    "minimax_m2": "mixtures:minimax_m2",
    "ministral": "llama:mistral",
    "ministral3": "llama:mistral",
    "mistral": "llama:mistral",
    "mixtral": "mixtures:mixtral",
    "mobilenet_v1": "mobile:mobilenet_v1",
    "mobilenet_v2": "mobile:mobilenet_v2",
    "mobilenet_v3": "mobile:mobilenet_v3",
    "modernbert": "masked:modernbert",
    "mpnet": "masked:mpnet",
    "mpt": "gpt:mpt",
    "mt5": "sequences:t5",
    "nanochat": "llama:nanochat",
    "nanogpt": "gpt:nanogpt",
    "nemotron": "llama:nemotron",
    "nomic_bert": "masked:nomic_bert",
    "olmo": "llama:olmo",
    "olmo2": "llama:olmo2",
    "olmo3": "llama:olmo3",
    "olmoe": "mixtures:olmoe",
    "openai-gpt": "gpt:openai_gpt",
    "opt": "gpt:opt",
    "palm": "gpt:palm",
    "pegasus": "sequences:pegasus",
    "pellucid": "language:pellucid",
    "pellucid-bert": "own:encoder",
    "pellucid-convnet": "own:convnet",
    "pellucid-dense": "own:dense",
    "pellucid-detector": "own:detector",
    "pellucid-marian": "own:translator",
    "persimmon": "llama:persimmon",
    "phi": "llama:phi",
    "phi3": "llama:phi3",
    "phimoe": "mixtures:phimoe",
    "qwen2": "llama:qwen2",
    "qwen2_moe": "mixtures:qwen2_moe",
    "qwen3": "llama:qwen3",
    "qwen3_5_moe_text": "hybrids:qwen3_next",
    "qwen3_5_text": "hybrids:qwen3_next",
    "qwen3_moe": "mixtures:qwen3_moe",
    "qwen3_next": "hybrids:qwen3_next",
    "regnet": "vision:regnet",
    "resnet": "vision:resnet",
    "resnext": "vision:resnext",
    "roberta": "masked:roberta",
    "seed_oss": "llama:seed_oss",
    "siglip": "pictures_and_text:siglip",
    "siglip_vision_model": "pictures_and_text:siglip_vision",
    "smollm3": "llama:llama",
    "squeezenet": "inception:squeezenet",
    "stablelm": "llama:stablelm",
    "starcoder2": "llama:starcoder2",
    "swin": "vision_transformers:swin",
    "t5": "sequences:t5",
    "transformer": "sequences:transformer",
    "umt5": "sequences:umt5",
    "vaultgemma": "llama:vaultgemma",
    "vgg": "vision:vgg",
    "vit": "vision_transformers:vit",
    "whisper": "sequences:whisper",
    "xglm": "gpt:xglm",
    "xlm-roberta": "masked:roberta",
    "xlm-roberta-xl": "masked:xlm_roberta_xl",
}


def describe(config: dict[str, Any], where: str = "config.json") -> Node:
    """The tree of the network that a `config.json` asks for. What it leaves out is as in Hugging Face's own classes.

    Raises:
        PellucidError: when the type is not known, or a field is missing, of the wrong type or contradicts another.
    """
    kind = Fields(config, where).name("model_type")
    if kind not in READERS:
        nearest = get_close_matches(kind, READERS, n=3) or sorted(READERS)
        raise PellucidError(
            _("Networks of the type {name} are not known here.").format(name=kind),
            where,
            _("Known are {names}; any torch module can be counted from Python.").format(names=", ".join(nearest)),
        )
    if "pellucid" in config and f"pellucid-{kind}" in READERS:
        kind = f"pellucid-{kind}"  # their fields, our module
    module, function = READERS[kind].split(":")
    reader = getattr(import_module(f"pellucid.anatomy.families.{module}"), function)
    return reader(Fields(DEFAULTS.get(kind, {}) | config, where))

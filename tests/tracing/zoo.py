"""Networks of many kinds, small and random, that the tracing tests ask about."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.data.tokenizer import Tokenizer
from pellucid.language_model import LanguageModel
from pellucid.networks.cache import KeyValueCache
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.networks.encoder import Classifier, EncoderConfig
from pellucid.networks.translator import Translator, TranslatorConfig


@dataclass
class Case:
    """A network and what it is called with."""

    net: nn.Module
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        return self.net(*self.args, **self.named)


def byte_model(family: str, layers: int, context: int, folder: Path | None = None) -> LanguageModel:
    """A random language model over bytes."""
    tokenizer = Tokenizer.byte_level()
    shape = {"vocab_size": tokenizer.vocab_size, "d_model": 32, "n_layers": layers, "n_heads": 4, "context": context}
    network = Decoder(decoder_config(family, **shape))
    network.initialise(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return LanguageModel(network.eval().requires_grad_(False), tokenizer, folder)


class Perceptron(nn.Module):
    """Says yes where a weighted sum exceeds a threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 1.0, 0.0]))
        self.threshold = nn.Parameter(torch.tensor(8.0))

    def forward(self, x: Tensor) -> Tensor:
        return ((x * self.weights).sum() > self.threshold).float()


class Line(nn.Module):
    """y = a x + b."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * x + self.b


class ConvNet(nn.Module):
    """In-place ReLU, a shortcut added in place, max-pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.relu(self.first(x_BCHW))
        kept = x
        x = self.norm(self.second(x))
        x += kept
        x = F.max_pool2d(self.relu(x), 2)
        return self.head(x.mean((2, 3)))


class Convolutions(nn.Module):
    """Every kind of convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1)
        self.grouped = nn.Conv1d(6, 6, 3, groups=3, padding="same")
        self.dilated = nn.Conv1d(6, 4, 3, dilation=2)
        self.norm = nn.GroupNorm(2, 4)
        self.square = nn.Conv2d(1, 2, (3, 2), stride=(1, 2), padding=(0, 1))
        self.back = nn.ConvTranspose2d(2, 2, 3, groups=2, output_padding=1, stride=2)

    def forward(self, x_BCT: Tensor) -> Tensor:
        x = F.silu(self.norm(self.dilated(self.grouped(self.up(self.one(x_BCT))))))
        x = self.back(self.square(x.unsqueeze(1)))
        return F.avg_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 1) + F.interpolate(x, scale_factor=0.5, mode="bilinear")


class Strange(nn.Module):
    """Slices, as_strided, index_copy_, masked writes, a module used again, tied weights, tuples, loops."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.again = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight
        self.memory: Tensor
        self.register_buffer("memory", torch.zeros(4, 8))

    def forward(self, ids_T: Tensor) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        x = self.table(ids_T)
        for n in range(3):
            x = x + torch.tanh(self.again(x)) / (n + 1)
        x[1:3] *= 2.0
        x[:, ::2] += x[:, 1::2].clone()
        x.masked_fill_(x > 1.5, 1.5)
        x[x < -1.5] = -1.5
        windows = torch.as_strided(x, (3, 2, 8), (8, 8, 1)).sum(1)
        x = x.index_copy(0, torch.tensor([0, 4]), windows[:2])
        x.index_add_(0, torch.tensor([1, 1, 2]), windows, alpha=0.5)
        y = torch.empty_like(x)
        y.copy_(x)
        y[torch.tensor([3, 0])] = windows[1:]
        y[0], y[2] = y[4] - 1, y[1].flip(0)
        self.memory.index_copy_(0, torch.tensor([1, 3]), y[:2])
        y = y + self.memory.sum(0)
        first, *others = y.chunk(2, -1)
        z = torch.cat([first, *others], -1).scatter_add(0, torch.zeros(2, 8, dtype=torch.long), windows[:2])
        gathered = z.gather(1, z.argsort(1)[:, :3])
        rolled = torch.stack([z, torch.roll(z, 1, 0), z.T.contiguous().T], 1).amax(1)
        kept = torch.where(rolled > 0, rolled, 0.1 * rolled)
        best, _ = kept.topk(2, -1)
        product = torch.einsum("td,sd->ts", kept, z) / 8 + torch.cumsum(kept, 0).sum()
        return self.head(kept), {"best": best, "gathered": gathered}, [product.softmax(-1) @ z, product.logsumexp(-1)]


class Recurrent(nn.Module):
    """An LSTM and a GRU one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(12, 4, batch_first=True)
        self.cell = nn.LSTMCell(4, 3)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x, _ = self.gru(self.lstm(x_BTD)[0])
        return self.cell(x[:, -1])[1]


class Generation(nn.Module):
    """A decoder that writes, greedily, with its cache."""

    def __init__(self, decoder: Decoder, tokens: int) -> None:
        super().__init__()
        self.decoder, self.tokens = decoder, tokens

    def forward(self, ids_BT: Tensor) -> Tensor:
        cache = KeyValueCache(self.decoder.config, ids_BT.shape[0])
        logits = self.decoder(ids_BT, cache, last_only=True)
        for _ in range(self.tokens - 1):
            logits = self.decoder(logits[:, -1].argmax(-1, keepdim=True), cache, last_only=True)
        return logits


def _shaken(net: nn.Module) -> nn.Module:
    """Parameters of a usual size, biases and buffers of norms included, so that nothing is zero by its beginning."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        spread = 0.5 * torch.rand(parameter.shape, generator=generator) + 0.5
        normal = torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.dim() > 1 else 0.2)
        with torch.no_grad():
            parameter.copy_(spread if "norm" in name.lower() and name.endswith("weight") else normal)
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return net.eval()


def _ids(batch: int, length: int, vocabulary: int = 50) -> Tensor:
    return torch.randint(3, vocabulary, (batch, length))


def decoder(family: str, batch: int = 1, length: int = 7, **shape: Any) -> Case:
    """One of our own decoders."""
    n_kv_heads = 4 if family.startswith(("gpt", "sin")) else 2
    sizes = {"vocab_size": 50, "d_model": 32, "n_layers": 2, "n_heads": 4, "context": 32, "n_kv_heads": n_kv_heads}
    return Case(_shaken(Decoder(decoder_config(family, **sizes, **shape))), (_ids(batch, length),))


def classifier(pooling: str) -> Case:
    """One of our own encoders with its head, over two texts of which one is padded."""
    config = EncoderConfig(50, 32, 2, 4, 48, 16, classes=3, pooling=pooling)
    return Case(_shaken(Classifier(config)), (_ids(2, 7), torch.arange(7) < torch.tensor([[4], [7]])))


def translator() -> Case:
    """Our own translator, over two sentences of which one is padded."""
    config = TranslatorConfig(50, 32, 2, 2, 4, 48, 16, pad_id=0, start_id=0, end_id=1)
    return Case(_shaken(Translator(config)), (_ids(2, 7), _ids(2, 5), torch.arange(7) < torch.tensor([[4], [7]])))


def generation(family: str, tokens: int = 20) -> Case:
    case = decoder(family)
    assert isinstance(case.net, Decoder)
    return Case(Generation(case.net, tokens).eval(), case.args)


def hugging(name: str, settings: dict[str, Any], *args: Any, kernel: str = "", **named: Any) -> Case:
    """A model of `transformers` from a random configuration."""
    transformers = importlib.import_module("transformers")
    config = getattr(transformers, name.split("For")[0].removesuffix("LMHeadModel") + "Config")(**settings)
    if kernel:
        config._attn_implementation = kernel
    return Case(_shaken(getattr(transformers, name)(config)), args, named)


_SMALL = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
}  # fmt: skip
_GROUPED = {**_SMALL, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "n_embd": 32, "n_layer": 2, "n_head": 4}


def _t5() -> Case:
    shape = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return hugging("T5ForConditionalGeneration", shape, input_ids=_ids(2, 6), decoder_input_ids=_ids(2, 4))


def _whisper() -> Case:
    shape = {
        "vocab_size": 50, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8,
        "max_source_positions": 10, "max_target_positions": 12, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 1,
    }  # fmt: skip
    sound = torch.randn(1, 8, 20)
    return hugging("WhisperForConditionalGeneration", shape, input_features=sound, decoder_input_ids=_ids(1, 4))


def _vit() -> Case:
    shape = {**_SMALL, "image_size": 12, "patch_size": 4, "num_labels": 5}
    shape.pop("vocab_size")
    return hugging("ViTForImageClassification", shape, torch.randn(2, 3, 12, 12))


def _resnet(train: bool = False) -> Case:
    shape = {"embedding_size": 6, "hidden_sizes": [8, 12], "depths": [2, 2], "layer_type": "basic", "num_labels": 4}
    case = hugging("ResNetForImageClassification", shape, torch.randn(2, 3, 32, 32))
    case.net.train(train)
    return case


def _mamba() -> Case:
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "expand": 2}
    return hugging("MambaForCausalLM", shape, _ids(1, 6))


def _batch_norm_training() -> Case:
    net = _shaken(nn.Sequential(nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), nn.ReLU(), nn.Flatten(), nn.Linear(30, 3)))
    return Case(net.train(), (torch.randn(4, 3, 8),))


def _transformer() -> Case:
    net = nn.Transformer(16, 4, 1, 1, 24, dropout=0.1, batch_first=False)
    return Case(_shaken(net), (torch.randn(5, 2, 16), torch.randn(3, 2, 16)))


def _encoder() -> Case:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True, activation="gelu")
    return Case(_shaken(nn.TransformerEncoder(layer, 2)), (torch.randn(2, 5, 16),))


def _double(case: Case) -> Case:
    def double(x: Any) -> Any:
        return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x

    return Case(case.net.double(), tuple(double(x) for x in case.args), {k: double(x) for k, x in case.named.items()})


class Autocast(nn.Module):
    """A network under bf16 autocast."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args: Any, **named: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(*args, **named)


def _autocast(case: Case) -> Case:
    return Case(Autocast(case.net), case.args, case.named)


def _sequence() -> Case:
    dropout = nn.Dropout(0.5)
    parts = [nn.Linear(5, 7), nn.GELU("tanh"), nn.LayerNorm(7), nn.Linear(7, 6), nn.Softplus(), nn.RMSNorm(6),
             dropout, nn.Linear(6, 6), nn.ELU(), nn.Hardswish(), nn.LogSoftmax(-1)]  # fmt: skip
    net = _shaken(nn.Sequential(*parts))
    dropout.train()
    return Case(net, (torch.randn(3, 5),))


ZOO: dict[str, Callable[[], Case]] = {
    "perceptron": lambda: Case(Perceptron(), (torch.tensor([8.0, 4.0, 4.0]),)),
    "line": lambda: Case(Line(), (torch.tensor(3.0),)),
    "xor": lambda: Case(_shaken(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid())),
                        (torch.tensor([[0.0, 1.0], [1.0, 1.0]]),)),
    "sequence": _sequence,
    "convnet": lambda: Case(_shaken(ConvNet()), (torch.randn(2, 3, 8, 8),)),
    "convolutions": lambda: Case(_shaken(Convolutions()), (torch.randn(2, 3, 12),)),
    "batch norm, training": _batch_norm_training,
    "strange": lambda: Case(_shaken(Strange()), (torch.tensor([1, 5, 2, 9, 5]),)),
    "recurrent": lambda: Case(_shaken(Recurrent()), (torch.randn(2, 4, 5),)),
    "nn.Transformer": _transformer,
    "nn.TransformerEncoder": _encoder,
    "gpt1, ours": lambda: decoder("gpt1", 2),
    "gpt2, ours": lambda: decoder("gpt2"),
    "sinusoidal, ours": lambda: decoder("sinusoidal"),
    "llama, ours": lambda: decoder("llama", 2),
    "mistral, ours": lambda: decoder("mistral", sliding_windows=(4, None)),
    "qwen2, ours": lambda: decoder("qwen2"),
    "qwen3, ours": lambda: decoder("qwen3"),
    "classifier, ours": lambda: classifier("first"),
    "classifier of the mean, ours": lambda: classifier("mean"),
    "translator, ours": translator,
    "translator, autocast": lambda: _autocast(translator()),
    "gpt2, ours, writing": lambda: generation("gpt2"),
    "qwen3, ours, writing": lambda: generation("qwen3"),
    "gpt2": lambda: hugging("GPT2LMHeadModel", _GPT2, _ids(1, 7)),
    "gpt2, eager": lambda: hugging("GPT2LMHeadModel", _GPT2, _ids(2, 7), kernel="eager"),
    "llama": lambda: hugging("LlamaForCausalLM", _GROUPED, _ids(1, 7)),
    "mistral": lambda: hugging("MistralForCausalLM", {**_GROUPED, "sliding_window": 4}, _ids(1, 7), kernel="eager"),
    "qwen3": lambda: hugging("Qwen3ForCausalLM", {**_GROUPED, "head_dim": 8}, _ids(2, 7)),
    "gpt-neox": lambda: hugging("GPTNeoXForCausalLM", _SMALL, _ids(1, 7)),
    "bert": lambda: hugging("BertForMaskedLM", _SMALL, _ids(1, 7)),
    "t5": _t5,
    "vit": _vit,
    "resnet": _resnet,
    "resnet, training": lambda: _resnet(True),
    "whisper": _whisper,
    "mamba": _mamba,
    "llama, autocast": lambda: _autocast(decoder("llama")),
    "convnet, autocast": lambda: _autocast(ZOO["convnet"]()),
    "qwen3, float64": lambda: _double(decoder("qwen3")),
    "bert, float64": lambda: _double(ZOO["bert"]()),
    "resnet, float64": lambda: _double(_resnet(True)),
    "strange, float64": lambda: _double(ZOO["strange"]()),
}  # fmt: skip


def make(name: str, seed: int = 0) -> Case:
    """A case of the zoo; the same seed gives the same one."""
    torch.manual_seed(seed)
    return ZOO[name]()

"""Live modules read into trees of shapes: against the modules themselves, torch's own counter and closed forms."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_sequence
from torch.utils.flop_counter import FlopCounterMode

from pellucid import PellucidError, anatomy
from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.findings import linear_stacks, unread_masks, unused
from pellucid.anatomy.reading import live
from pellucid.anatomy.tree import Attention, Convolution, Linear, walk
from pellucid.networks.activations import ACTIVATIONS
from pellucid.networks.convnet import ConvNet, convnet_config
from pellucid.networks.decoder import FAMILIES, Decoder, decoder_config
from pellucid.networks.dense import Dense, DenseConfig
from pellucid.networks.detector import Detector, DetectorConfig
from pellucid.networks.encoder import Classifier, Encoder, EncoderConfig
from pellucid.networks.translator import Translator, TranslatorConfig

r = torch.randn
IDS = torch.randint(1, 90, (1, 12))
TEXT = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**TEXT, "num_key_value_heads": 2, "max_position_embeddings": 64}
VIT = {name: size for name, size in TEXT.items() if name != "vocab_size"} | {"image_size": 32, "patch_size": 8}

OPT = {name: TEXT[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
OPT |= {"ffn_dim": 48, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.third(x + self.second(self.first(x)))


class Functional(nn.Module):
    """Everything written by hand: parameters in a list, a product, a table, attention without a module."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(r(20, 8))
        self.weights = nn.ParameterList([r(8, 24), r(8, 8)])
        self.bias = nn.Parameter(r(24))
        self.kernel = nn.Parameter(r(5, 8, 3))
        self.scale = nn.Parameter(torch.ones(5))
        self.idle = nn.Linear(5, 3)
        self.register_buffer("kept", torch.ones(7))
        self.register_buffer("made", torch.ones(9), persistent=False)

    def forward(self, ids):
        x = F.embedding(ids, self.table)
        q, k, v = (x @ self.weights[0] + self.bias).chunk(3, dim=-1)
        weights = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
        x = torch.einsum("bti,ij->btj", weights @ v, self.weights[1])
        self.last = F.conv1d(x.transpose(1, 2), self.kernel)
        return F.layer_norm(self.last.transpose(1, 2), (5,), self.scale)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(4))

    def forward(self, x):
        weights, chosen = self.router(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for n, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == n)
            out[rows] += weights[rows, places, None] * expert(x[rows])
        return out


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 4), nn.Linear(4, 11)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.embedding(ids))


class Joined(nn.Module):
    """A weight put together of two, as MobileBERT's head has it."""

    def __init__(self):
        super().__init__()
        self.table, self.more = nn.Embedding(9, 4), nn.Linear(9, 2, bias=False)
        self.bias = nn.Parameter(torch.zeros(9))

    def forward(self, ids):
        x = self.table(ids)
        return torch.cat([x, x[..., :2]], -1) @ torch.cat([self.table.weight.t(), self.more.weight]) + self.bias


def pieces(*layers):
    return nn.Sequential(*layers)


def gpt2(**more):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**more))


def hugging(name: str, **config):
    """A small model of transformers, and a text for it."""
    model = getattr(transformers, name)
    return model(model.config_class(**config))


MODULES = {  # a module, and what it reads
    "linear": lambda: (nn.Linear(3, 4), r(5, 3)),
    "mlp": lambda: (pieces(nn.Linear(9, 7), nn.Dropout(), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 2)), r(2, 3, 9)),
    "conv": lambda: (pieces(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.MaxPool2d(2)), r(2, 4, 9, 9)),
    "conv1d": lambda: (nn.Conv1d(4, 6, 5, stride=2), r(2, 4, 20)),
    "conv3d": lambda: (nn.Conv3d(4, 6, 3), r(2, 4, 8, 9, 10)),
    "transposed": lambda: (nn.ConvTranspose2d(4, 6, 3, stride=2), r(2, 4, 8, 9)),
    "norms": lambda: (pieces(nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4), nn.RMSNorm(6)), r(2, 4, 6, 6)),
    "batch norms": lambda: (pieces(nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(4)), r(2, 4)),
    "bag": lambda: (pieces(nn.EmbeddingBag(9, 4), nn.Linear(4, 2)), torch.randint(9, (3, 5))),
    "weight norm": lambda: (parametrizations.weight_norm(nn.Linear(4, 5)), r(3, 4)),
    "functional": lambda: (Functional(), torch.randint(20, (2, 6))),
    "experts": lambda: (Experts(), r(6, 8)),
    "joined": lambda: (Joined(), torch.randint(9, (2, 6))),
    "tied": lambda: (Tied(), torch.randint(11, (2, 6))),
    "residual": lambda: (Residual(), r(2, 6)),
    "attention": lambda: (nn.MultiheadAttention(16, 4), r(5, 2, 16), r(7, 2, 16), r(7, 2, 16)),
    "widths": lambda: (nn.MultiheadAttention(8, 4, kdim=6, vdim=5, add_bias_kv=True), *(r(5, 2, n) for n in (8, 6, 5))),
    "encoder": lambda: (nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), 2), r(2, 7, 16)),
    "transformer": lambda: (nn.Transformer(16, 2, 1, 2, 24, batch_first=True), r(2, 9, 16), r(2, 5, 16)),
    "gpt2": lambda: (gpt2(vocab_size=99, n_embd=32, n_layer=3, n_head=4, n_positions=64), IDS),
    "gpt2, eager": lambda: (gpt2(vocab_size=99, n_embd=32, n_layer=1, n_head=4, attn_implementation="eager"), IDS),
    "llama": lambda: (hugging("LlamaForCausalLM", **LLAMA), IDS),
    "qwen3": lambda: (hugging("Qwen3ForCausalLM", **LLAMA, head_dim=8, tie_word_embeddings=True), IDS),
    "gemma2": lambda: (hugging("Gemma2ForCausalLM", **LLAMA, head_dim=8, sliding_window=4), IDS),
    "bert": lambda: (hugging("BertForSequenceClassification", **TEXT), IDS),
    "albert": lambda: (hugging("AlbertForMaskedLM", **TEXT, embedding_size=16), IDS),
    "opt": lambda: (hugging("OPTForCausalLM", **OPT), IDS),
    "bloom": lambda: (hugging("BloomForCausalLM", vocab_size=99, hidden_size=32, n_layer=2, n_head=4), IDS),
    "gptj": lambda: (hugging("GPTJForCausalLM", vocab_size=99, n_embd=32, n_layer=2, n_head=4, rotary_dim=4), IDS),
    "mamba": lambda: (hugging("MambaModel", vocab_size=99, hidden_size=32, num_hidden_layers=1, state_size=4), IDS),
    "t5": lambda: (hugging("T5Model", **T5), IDS, None, IDS[:, :5]),
    "vit": lambda: (hugging("ViTForImageClassification", **VIT, num_labels=5), r(2, 3, 32, 32)),
    "swin": lambda: (hugging("SwinModel", **SWIN), r(2, 3, 32, 32)),
    "resnet": lambda: (hugging("ResNetModel", embedding_size=8, hidden_sizes=[8, 16], depths=[2, 3]), r(2, 3, 32, 32)),
    "convnext": lambda: (hugging("ConvNextModel", hidden_sizes=[8, 16], depths=[2, 2], num_stages=2), r(2, 3, 32, 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_counts_are_the_modules_own_and_torchs(name):
    torch.manual_seed(0)
    module, *inputs = MODULES[name]()
    before, state = attributes(module), copy.deepcopy(module.state_dict())
    tree = live.read(module, *inputs)
    assert attributes(module) == before
    assert all(torch.equal(tensor, state[key]) for key, tensor in module.state_dict().items())
    counted = counts.parameters(tree)
    assert counted.total == sum(p.numel() for p in module.parameters()) == sum(counted.by_kind.values())
    saved = set(module.state_dict()) - {name for name, _p in module.named_parameters(remove_duplicate=False)}
    assert counted.buffers == sum(module.state_dict()[key].numel() for key in saved)
    assert compute.forward(tree).flops == torchs_count(module, *inputs)


def attributes(module):
    """What a module holds, by identity."""
    held = [(n, part, m.__dict__) for n, m in module.named_modules() for part in ("_parameters", "_buffers")]
    return [(n, {k: id(t) for k, t in own[part].items()}, {k: id(v) for k, v in own.items()}) for n, part, own in held]


def torchs_count(module, *inputs):
    """FLOPs by torch's counter, which sees attention only where it runs as single products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
            module.eval()(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


# where torch's counter is blind: closed forms


@pytest.mark.parametrize(("module", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_count_each_step(module, gates):
    tree = live.read(module(5, 7, 2, bidirectional=True), r(4, 2, 5))  # 4 steps, 2 examples
    assert counts.parameters(tree).total == 2 * gates * 7 * (5 + 7 + 2) + 2 * gates * 7 * (14 + 7 + 2)
    assert compute.forward(tree).total == 4 * 2 * 2 * gates * 7 * (5 + 7 + 14 + 7)
    assert counts.neurons(tree).by_kind["recurrent"] == 4 * gates * 7
    packed = live.read(module(5, 7), pack_sequence([r(4, 5), r(2, 5)]))
    assert compute.forward(packed).total == 6 * gates * 7 * (5 + 7)


def test_projections_of_an_lstm_and_cells():
    module = nn.LSTM(5, 7, proj_size=3)
    tree = live.read(module, r(4, 2, 5))
    assert counts.parameters(tree).total == sum(p.numel() for p in module.parameters())
    assert compute.forward(tree).total == 8 * (28 * (5 + 3) + 7 * 3)
    assert compute.forward(live.read(nn.GRUCell(5, 7), r(2, 5))).total == 2 * 21 * 12


def test_grouped_experts_run_for_the_tokens_that_chose_them():
    module = hugging("MixtralForCausalLM", **LLAMA, num_local_experts=4, num_experts_per_tok=2)
    tree = live.read(module, IDS)
    counted, neurons = counts.parameters(tree), counts.neurons(tree)
    expert = 3 * 32 * 48
    assert counted.total == sum(p.numel() for p in module.parameters())
    assert counted.total - counted.active == 2 * (4 - 2) * expert
    assert neurons.total - neurons.active == 2 * (4 - 2) * (2 * 48 + 32)
    routed = sum(n for path, n in compute.forward(tree).by_path.items() if ".experts." in path)
    assert routed == 12 * 2 * 2 * expert  # tokens, layers, experts for each


def test_a_weight_that_is_made_of_others_is_still_a_layers():
    module = parametrizations.spectral_norm(nn.Conv2d(4, 5, 3))
    tree = live.read(module, r(3, 4, 6, 6))
    assert counts.parameters(tree).by_path == {"convolution": 5 * 4 * 9 + 5}
    assert counts.parameters(tree).buffers == 5 + 4 * 9
    assert compute.forward(tree).total == 3 * 16 * 180 + 180 + 5  # u (W v) / v comes on top


def test_bilinear_layers_weigh_products():
    tree = live.read(nn.Bilinear(5, 6, 7), r(4, 5), r(4, 6))
    assert counts.parameters(tree).total == 5 * 6 * 7 + 7
    assert compute.forward(tree).total == 4 * 5 * 6 * 7


# four models that other counters get wrong (benchmarks/counters.py)


def meta(make):
    with torch.device("meta"):
        return make()


TRUTH = {
    "resnet-50": (
        lambda: hugging("ResNetForImageClassification", num_labels=1000),
        (1, 3, 224, 224),
        4.089e9,
        25_557_032,
    ),
    "vit-b/16": (lambda: hugging("ViTForImageClassification", num_labels=1000), (1, 3, 224, 224), 17.564e9, 86_567_656),
    "gpt-2": (gpt2, (1, 1024), 145.82e9, 124_439_808),
}


@pytest.mark.parametrize("name", TRUTH)
def test_the_truth_rows(name):
    make, shape, products, parameters = TRUTH[name]
    tree = live.read(meta(make), torch.zeros(shape, dtype=torch.long if len(shape) == 2 else torch.float32))
    assert counts.parameters(tree).total == parameters
    assert compute.forward(tree).total == pytest.approx(products, rel=1e-3)


@pytest.mark.parametrize("need_weights", [True, False])
def test_the_truth_row_of_attention(need_weights):
    x = r(1, 580, 512)
    tree = live.read(nn.MultiheadAttention(512, 8, batch_first=True), x, x, x, need_weights=need_weights)
    assert counts.parameters(tree).total == 1_050_624
    assert compute.forward(tree).total == 4 * 512 * 512 * 580 + 2 * 580 * 580 * 512
    (attention,) = [v.leaf for v in walk(tree) if isinstance(v.leaf, Attention)]
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (8, 8, 64)


# masks that are given as numbers

LATER = nn.Transformer.generate_square_subsequent_mask(7)  # -inf where a key comes after its query


def causal(tree):
    return [v.leaf.causal for v in walk(tree) if isinstance(v.leaf, Attention)]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", [LATER, LATER < 0, LATER.clamp(min=-1e9), LATER.expand(8, 7, 7)])
def test_causal_masks_given_as_numbers_are_read(mask, need_weights):
    module, x = nn.MultiheadAttention(16, 4, batch_first=True), r(2, 7, 16)
    tree = live.read(module, x, x, x, attn_mask=mask, need_weights=need_weights)
    assert causal(tree) == [True]
    assert compute.forward(tree).seen == 2 * 16 * 2 * (7 * 8 // 2)  # 2 products, 16 wide, 2 examples
    assert compute.forward(tree).data == 2 * 16 * 2 * 7 * 7


@pytest.mark.parametrize(
    "mask", [LATER.mT, torch.zeros(7, 7), LATER.new_full((7, 7), 0.5), LATER.triu(2).nan_to_num(0)]
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_other_masks_are_not_causal(mask, need_weights):
    module, x = nn.MultiheadAttention(16, 4, batch_first=True), r(2, 7, 16)
    assert causal(live.read(module, x, x, x, attn_mask=mask, need_weights=need_weights)) == [False]


class ByHand(nn.Module):
    """Attention as books write it: its mask is a buffer, made on the way, or chosen by the example."""

    def __init__(self, way):
        super().__init__()
        self.way, self.layer = way, nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(9, 9).tril().bool())

    def forward(self, x):
        x, n = self.layer(x), x.shape[1]
        scores = x @ x.mT
        match self.way:
            case "buffer":
                scores = scores.masked_fill(~self.kept[:n, :n], float("-inf"))
            case "made":
                scores += torch.full((n, n), float("-inf")).triu(1)
            case "places":
                places = torch.arange(n)
                scores = torch.where(places[:, None] >= places, scores, torch.finfo(x.dtype).min)
            case "fused":
                return F.scaled_dot_product_attention(x, x, x, attn_mask=self.kept[:n, :n])
            case "numbers":
                scores = scores.masked_fill(~self.kept[:n, :n], float("-inf"))
                assert scores.sum().item() < 0  # so that it really runs
        return scores.softmax(-1) @ x


@pytest.mark.parametrize("way", ["buffer", "made", "places", "fused", "numbers"])
def test_masks_that_a_network_makes_are_read(way):
    assert causal(live.read(ByHand(way), r(2, 7, 4))) == [True]


def test_masks_without_numbers_are_pointed_out():
    with torch.device("meta"):
        module = ByHand("buffer")
    tree = live.read(module, r(2, 7, 4))
    assert unread_masks(tree) == ["product"]
    assert compute.forward(tree).seen == compute.forward(tree).data
    assert "product: the numbers of its mask are not known" in str(anatomy(module, r(2, 7, 4)))
    assert not unread_masks(live.read(ByHand("buffer"), r(2, 7, 4)))


@pytest.mark.parametrize("name", ["gpt2", "gpt2, eager", "bloom", "opt", "t5"])
def test_decoders_of_transformers_are_causal_with_a_mask_for_padding_too(name):
    module, *inputs = MODULES[name]()
    given = {"attention_mask": torch.ones_like(IDS)}
    if name == "t5":
        tree = live.read(module, IDS, decoder_input_ids=IDS[:, :5], **given)
        assert causal(tree) == [False, False, True, False, True, False]
    else:
        assert causal(live.read(module, *inputs, **given)) == [True]


def test_a_network_too_large_for_any_machine():
    config = {"vocab_size": 50257, "n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048}
    tree = live.read(meta(lambda: gpt2(**config)), torch.zeros(1, 2048, dtype=torch.long))
    counted = counts.parameters(tree)
    assert counted.total == 174_604_259_328
    assert len(counted.by_path) == 9  # 96 equal blocks are one line each
    assert counts.neurons(tree).total == 96 * 9 * 12288 + 50257
    assert compute.forward(tree).seen < compute.forward(tree).data


# our own networks: the tree by formula and the live one


def agree(tree, network, *inputs, **lengths):
    """`kinds` and paths are names; what is counted must be equal."""
    read = live.read(network, *inputs)
    assert counts.parameters(read).total == counts.parameters(tree).total
    assert counts.parameters(read).buffers == counts.parameters(tree).buffers
    assert counts.neurons(read).total == counts.neurons(tree).total
    assert counts.neurons(read).maps == counts.neurons(tree).maps
    assert compute.forward(read).total == compute.forward(tree, **lengths).total
    return read


@given(
    widths=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    activation=st.sampled_from([name for name in ACTIVATIONS if name != "step"]),
    norm=st.sampled_from([None, "layer", "batch", "rms"]),
    dropout=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=25)
def test_dense_networks(widths, activation, norm, dropout):
    first, *hidden, last = widths
    config = DenseConfig(first, last, tuple(hidden), activation, norm=norm, dropout=dropout)
    tree = families.dense(config)
    read = agree(tree, Dense(config, None), r(1, first))
    assert counts.parameters(read).by_kind == counts.parameters(tree).by_kind
    assert [stack.widths for stack in linear_stacks(read)] == [stack.widths for stack in linear_stacks(tree)]


@pytest.mark.parametrize("name", ["lenet5", "residual"])
def test_convolutional_networks(name):
    config = convnet_config(name, 1, 32, 32, 10)
    tree = families.convnet(config)
    read = agree(tree, ConvNet(config, None), r(1, 1, 32, 32))
    assert counts.parameters(read).by_kind == counts.parameters(tree).by_kind
    assert counts.parameters(read).by_path == counts.parameters(tree).by_path


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    heads=st.integers(1, 3),
    layers=st.integers(1, 3),
    head_dim=st.sampled_from([2, 8]),
    d_ff=st.integers(1, 40),
    tied=st.booleans(),
)
@settings(max_examples=25)
def test_decoders(family, heads, layers, head_dim, d_ff, tied):
    config = decoder_config(
        family, vocab_size=50, d_model=heads * head_dim, n_layers=layers, n_heads=heads, n_kv_heads=heads,
        head_dim=head_dim, d_ff=d_ff, context=16, tied=tied,
    )  # fmt: skip
    tree = families.decoder(config)
    read = agree(tree, Decoder(config), torch.zeros(1, 9, dtype=torch.long), token=9)
    assert counts.parameters(read).by_kind == counts.parameters(tree).by_kind
    assert {path.replace(".0.", ".*.") for path in counts.parameters(read).by_path} == set(
        counts.parameters(tree).by_path
    )
    assert compute.forward(read).seen == compute.forward(tree, token=9).seen


@given(heads=st.integers(1, 3), layers=st.integers(1, 2), d_ff=st.integers(1, 40), classes=st.integers(0, 3))
@settings(max_examples=15)
def test_encoders_and_translators(heads, layers, d_ff, classes):
    config = EncoderConfig(40, 4 * heads, layers, heads, d_ff, 16, classes=classes)
    network = Classifier(config, seed=None) if classes else Encoder(config, seed=None)
    agree(families.encoder(config), network, torch.zeros(1, 9, dtype=torch.long), token=9)
    config = TranslatorConfig(40, 4 * heads, layers, 2, heads, d_ff, 16, pad_id=0, start_id=0, end_id=0)
    ids = torch.ones(1, 9, dtype=torch.long)
    agree(families.translator(config), Translator(config, seed=None), ids, ids[:, :5], source=9, token=5)


def test_detectors():
    config = DetectorConfig(2, (4, 6, 8), grid=0, d_head=5)
    agree(families.detector(config, 64, 96), Detector(config, seed=None), r(1, 3, 64, 96))


# whatever a module does meanwhile, it is left as it was


class Counting(nn.Module):
    """Counts its calls, keeps what it made, and decides by numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, given):
        self.calls += 1
        self.layer.kept = self.layer(given["x"])
        return self.layer.kept if self.calls.item() else None


def test_a_module_that_changes_itself_is_left_as_it_was():
    module = Counting().train()
    seen = []
    module.layer.register_forward_hook(lambda *given: seen.append(given))
    tree = live.read(module, {"x": r(2, 4)})
    assert compute.forward(tree).total == 2 * 16
    assert (module.calls.item(), hasattr(module.layer, "kept"), module.training) == (0, False, True)
    assert len(module.layer._forward_hooks) == 1
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_queries_that_are_learned_are_data():
    class Latents(nn.Module):
        def __init__(self):
            super().__init__()
            self.latents, self.layer = nn.Parameter(r(3, 4)), nn.Linear(4, 4)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.attention(self.layer(self.latents.expand(len(x), -1, -1)), x, x)

    work = compute.forward(live.read(Latents(), r(2, 5, 4)))
    assert work.by_path["layer"] == 2 * 3 * 16
    assert work.data == 2 * 3 * 5 * 8


def test_under_inference_mode_and_compiled():
    with torch.inference_mode():
        assert compute.forward(live.read(nn.Linear(4, 4), r(2, 4))).total == 32
    assert compute.forward(live.read(torch.compile(nn.Linear(4, 4)), r(2, 4))).total == 32


# what is shared, fixed, unused


def test_what_is_shared_counts_once_and_runs_each_time():
    tree = live.read(hugging("AlbertModel", **(TEXT | {"num_hidden_layers": 12})), IDS)
    (up,) = [visit for visit in walk(tree) if visit.path.endswith(".ffn")]
    assert (up.copies, up.times) == (1, 12)
    tied = live.read(Tied(), torch.randint(11, (2, 6)))
    assert counts.parameters(tied).by_path == {"embedding": 44, "head": 11}
    assert counts.multiplied(tied) == 44 + 11
    assert [v.leaf.tied_to for v in walk(tied) if isinstance(v.leaf, Linear)] == ["embedding"]


def test_what_training_leaves_alone():
    module = pieces(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5))
    module[0].requires_grad_(False)
    module[1].requires_grad_(False)
    module[3].weight.requires_grad_(False)
    counted = counts.parameters(live.read(module, r(1, 3, 6, 6)))
    assert (counted.trainable, counted.fixed) == (5, 4 * 28 + 8 + 320)


def test_what_the_example_does_not_use_is_counted_and_said():
    module = Functional()
    tree = live.read(module, torch.randint(20, (2, 6)))
    assert unused(tree) == ["idle"]
    counted = counts.parameters(tree)
    assert counted.by_path["idle.*"] == 18
    assert counted.total - counted.active == 18
    assert counted.buffers == 7
    assert not hasattr(module, "last")


def test_without_an_example_the_layers_are_known_by_their_modules():
    for name in ("gpt2", "albert", "conv", "attention", "encoder", "experts", "batch norms", "weight norm"):
        module, *_inputs = MODULES[name]()
        tree = live.read(module)
        assert counts.parameters(tree).total == sum(p.numel() for p in module.parameters())
        saved = set(module.state_dict()) - {name for name, _p in module.named_parameters(remove_duplicate=False)}
        assert counts.parameters(tree).buffers == sum(module.state_dict()[key].numel() for key in saved)
    module, ids = MODULES["gpt2"]()
    assert counts.neurons(live.read(module)).total == counts.neurons(live.read(module, ids)).total
    network = pieces(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    assert counts.neurons(live.read(network)).total == 138


def test_a_window_over_a_body_and_one_that_widens():
    (body,) = [v.leaf for v in walk(live.read(nn.Conv3d(4, 6, (1, 2, 3)), r(1, 4, 8, 9, 10)))]
    assert isinstance(body, Convolution)
    assert (body.window, body.neurons) == ((1, 2, 3), 6 * 8 * 8 * 8)
    (wider,) = [v.leaf for v in walk(live.read(nn.ConvTranspose1d(4, 6, 3, stride=2), r(1, 4, 8)))]
    assert (wider.output, wider.neurons) == ((6, 1, 17), 102)


# stacks of linear layers (S3)


class Apply(nn.Module):
    """Three equal layers, used as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.layers, self.how = nn.ModuleList(nn.Linear(6, 6) for _ in range(3)), how

    def forward(self, x):
        return self.how(x, *self.layers)


@pytest.mark.parametrize(
    ("how", "stacks"),
    [
        (lambda x, a, b, c: c(b(a(x))), [("layers.0", "layers.1", "layers.2")]),
        (lambda x, a, b, c: c(b(a(x)).relu()), [("layers.0", "layers.1")]),
        (lambda x, a, b, c: c(b(a(x).view(2, 3, 6)).reshape(6, 6)), [("layers.0", "layers.1", "layers.2")]),
        (lambda x, a, b, c: a(x) + b(x) + c(x), []),
        (lambda x, a, b, c: c(x + a(x)) + b(x), []),
        (lambda x, a, b, c: (c(h := a(x)), b(h)), []),
        (lambda x, a, b, c: (h := a(x), b(h)), []),
        (lambda x, a, b, c: c(F.layer_norm(a(x), (6,))), []),
        (lambda x, a, b, c: c(a(x).t()), []),
        (lambda x, a, b, c: c(a(x).relu_()), []),
        (lambda x, a, b, c: F.scaled_dot_product_attention(a(x)[None], b(x)[None], c(x)[None]), []),
    ],
)
def test_only_what_is_equal_to_one_linear_layer_is_pointed_out(how, stacks):
    assert [stack.paths for stack in linear_stacks(live.read(Apply(how), r(6, 6)))] == stacks


@pytest.mark.parametrize("bias", [True, False])
def test_the_one_layer_that_a_stack_is_equal_to(bias):
    torch.manual_seed(0)
    module = pieces(nn.Linear(784, 128, bias), nn.Dropout(0.0), nn.Linear(128, 64, bias), nn.Linear(64, 10, bias))
    (stack,) = linear_stacks(live.read(module, r(1, 784)))
    assert stack.widths == (784, 128, 64, 10)
    assert stack.equal_parameters == 784 * 10 + 10 * bias
    assert stack.parameters == sum(p.numel() for p in module.parameters())
    assert not stack.is_low_rank
    weight, offset = one_layer([module.get_submodule(path) for path in stack.paths])
    x = r(32, 784)
    one = F.linear(x.double(), weight, offset)
    assert torch.allclose(module(x).double(), one, rtol=1e-5, atol=1e-6)
    assert "784 × 10: " in str(stack)


def one_layer(layers):
    """W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)."""
    weight = torch.eye(layers[0].in_features, dtype=torch.float64)
    offset = torch.zeros(layers[0].in_features, dtype=torch.float64)
    for layer in layers:
        own = layer.weight.detach().double()
        weight, offset = own @ weight, own @ offset
        if layer.bias is not None:
            offset = offset + layer.bias.detach().double()
    return weight, offset


def test_a_narrow_layer_between_bounds_the_rank():
    (stack,) = linear_stacks(live.read(pieces(nn.Linear(16, 2, bias=False), nn.Linear(2, 16, bias=False)), r(1, 16)))
    assert (stack.is_low_rank, stack.rank) == (True, 2)
    assert "of rank ≤ 2" in str(stack)
    between = pieces(nn.Linear(6, 6), nn.Dropout(0.1), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    assert not linear_stacks(live.read(between, r(1, 6)))


def test_stacks_in_trees_made_by_formula():
    stacks = linear_stacks(families.dense(DenseConfig(784, 10, (128,), "linear")))
    assert [stack.widths for stack in stacks] == [(784, 128, 10)]
    assert not linear_stacks(families.dense(DenseConfig(784, 10, (128,), "relu")))
    for family in FAMILIES:
        sizes = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "head_dim": 4, "d_ff": 8, "context": 8}
        config = decoder_config(family, vocab_size=9, d_model=8, **sizes)
        assert not linear_stacks(families.decoder(config))


# mistakes


@pytest.mark.parametrize(
    ("module", "inputs", "says"),
    [
        (nn.Linear(3, 4), (r(5, 2),), ["Linear cannot run", "given: float32[5, 2]", "forward(input)"]),
        (nn.Transformer(16, 2, 1, 1, 16, batch_first=True), (r(1, 3, 16),), ["'tgt'", "forward(src, tgt, src_mask="]),
        (pieces(nn.LazyLinear(4)), (r(5, 2),), ["0 has no shape yet", "Call the module once"]),
        (torch.jit.script(nn.Linear(3, 4)), (r(5, 3),), ["Linear is TorchScript"]),
        (meta(Experts), (r(6, 8),), ["depends on numbers", "meta device"]),
    ],
)  # fmt: skip
def test_what_cannot_be_read(module, inputs, says):
    before = attributes(module)
    with pytest.raises(PellucidError) as error:
        live.read(module, *inputs)
    assert all(words in str(error.value) for words in says), str(error.value)
    assert attributes(module) == before


def test_packed_numbers_are_refused():
    module = nn.Linear(4, 4, bias=False)
    module.weight = nn.Parameter(torch.zeros(4, 2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(PellucidError, match="packed"):
        live.read(pieces(module), r(1, 4))

"""The decoder against float64 formulas, against itself with a cache, and against PyTorch's own norms and dropout.

That its logits are transformers' is tested with the files, in tests/checkpoints/test_decoder.py.
"""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.networks.cache import KeyValueCache
from pellucid.networks.decoder import FAMILIES, Decoder, DecoderConfig, RMSNorm, decoder_config, rotate, sinusoids
from pellucid.networks.dropout import Dropout

SMALL = {"vocab_size": 31, "d_model": 16, "n_layers": 2, "n_heads": 4, "context": 12}


def noisy(config: DecoderConfig, seed: int = 0) -> Decoder:
    """A decoder whose every parameter matters (some start as zeros)."""
    network = Decoder(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return network


def draw_ids(config: DecoderConfig, batch: int = 2) -> torch.Tensor:
    return torch.randint(config.vocab_size, (batch, config.context), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_have_one_row_a_token_and_never_look_ahead(family: str) -> None:
    config = decoder_config(family, **SMALL)
    network, ids_BT = noisy(config), draw_ids(config)
    logits_BTV = network(ids_BT)
    assert logits_BTV.shape == (2, 12, 31)
    changed_BT = ids_BT.clone()
    changed_BT[:, 7:] = (changed_BT[:, 7:] + 1) % 31
    torch.testing.assert_close(network(changed_BT)[:, :7], logits_BTV[:, :7])
    assert not torch.allclose(network(changed_BT)[:, 7:], logits_BTV[:, 7:])
    torch.testing.assert_close(network(ids_BT, last_only=True), logits_BTV[:, -1:])


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_reading_in_pieces_with_a_cache_is_reading_at_once(family: str, data: st.DataObject) -> None:
    settings_ = dict(SMALL)
    if FAMILIES[family].get("positions", "rotary") == "rotary":
        settings_["n_kv_heads"] = data.draw(st.sampled_from([1, 2, 4]))
        window = st.one_of(st.none(), st.integers(1, 12))
        settings_["sliding_windows"] = data.draw(st.none() | st.tuples(window, window))
    network = noisy(decoder_config(family, **settings_))
    ids_BT = draw_ids(network.config)
    cache = KeyValueCache(network.config, batch=2)
    pieces = []
    while cache.length < 12:
        start = cache.length
        size = data.draw(st.integers(1, 12 - start))
        pieces.append(network(ids_BT[:, start : start + size], cache))
        assert cache.length == start + size
        if data.draw(st.booleans()):  # take some back and read them again
            back = data.draw(st.integers(0, size - 1))
            if back:
                cache.truncate(cache.length - back)
                pieces[-1] = pieces[-1][:, :-back]
    torch.testing.assert_close(torch.cat(pieces, dim=1), network(ids_BT), rtol=1e-4, atol=1e-5)


def test_a_sliding_window_forgets_what_is_older() -> None:
    network = noisy(decoder_config("mistral", **{**SMALL, "n_layers": 1}, sliding_windows=(3,)))
    ids_BT = draw_ids(network.config)
    changed_BT = ids_BT.clone()
    changed_BT[:, 0] = (changed_BT[:, 0] + 1) % 31
    same_BT = (network(ids_BT) - network(changed_BT)).abs().amax(-1) < 1e-6
    assert same_BT.tolist() == [[False] * 3 + [True] * 9] * 2


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_longer_than_the_context_is_refused(family: str) -> None:
    config = decoder_config(family, **SMALL)
    network, cache = noisy(config), KeyValueCache(config)
    with pytest.raises(ValueError, match="13 tokens"):
        network(torch.zeros(1, 13, dtype=torch.long))
    network(torch.zeros(1, 12, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="13 tokens"):
        network(torch.zeros(1, 1, dtype=torch.long), cache)
    small = KeyValueCache(config, capacity=4)
    with pytest.raises(ValueError, match="holds 4"):
        network(torch.zeros(1, 5, dtype=torch.long), small)
    with pytest.raises(ValueError, match="cannot cut"):
        small.truncate(1)


def test_sinusoids_are_the_paper_s() -> None:
    """Vaswani et al. 2017, §3.5, in float64, entry by entry."""
    expected = np.empty((50, 10))
    for position in range(50):
        for i in range(5):
            angle = position / 10_000 ** (2 * i / 10)
            expected[position, 2 * i], expected[position, 2 * i + 1] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(sinusoids(50, 10).numpy(), expected, rtol=0, atol=1e-7)


def test_sinusoidal_positions_are_added_to_the_scaled_embedding() -> None:
    network = noisy(decoder_config("sinusoidal", **SMALL))
    seen = []
    network.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ids_BT = draw_ids(network.config)
    network(ids_BT)
    expected = network.embedding.weight[ids_BT].double() * 4 + sinusoids(12, 16).double()
    torch.testing.assert_close(seen[0].double(), expected, rtol=1e-6, atol=1e-6)


def test_rotation_turns_pairs_by_position_and_base() -> None:
    network = noisy(decoder_config("llama", **SMALL, rotary_base=500.0))
    cos_T1K, sin_T1K = network._rotation(0, 12, torch.zeros(1))
    x_BTHK = torch.randn(2, 12, 4, 4, generator=torch.Generator().manual_seed(0))
    x = x_BTHK.double().numpy()
    angles_TK = np.arange(12)[:, None] * 500.0 ** (-np.arange(0, 4, 2) / 4)
    turned = (x[..., :2] + 1j * x[..., 2:]) * np.exp(1j * angles_TK)[None, :, None]
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    np.testing.assert_allclose(rotate(x_BTHK, cos_T1K, sin_T1K).numpy(), expected, atol=1e-5)


def rms_formula(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


@pytest.mark.parametrize("shape", [(5, 7, 32), (2, 3, 4, 16), (1, 1, 96)])
@pytest.mark.parametrize("contiguous", [True, False])
def test_rms_norm_and_its_gradients_are_the_formula_s(shape: tuple[int, ...], contiguous: bool) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(shape[-1], 1e-5)
    norm.weight.data.uniform_(-1, 2)
    x, dy = torch.randn(shape) * 3, torch.randn(shape)
    if not contiguous:
        x, dy = x.transpose(0, 1), dy.transpose(0, 1)
    x.requires_grad_()
    norm(x).backward(dy)
    x64 = x.detach().double().requires_grad_()
    weight64 = norm.weight.detach().double().requires_grad_()
    y64 = rms_formula(x64, weight64, 1e-5)
    y64.backward(dy.double())
    assert x64.grad is not None
    assert weight64.grad is not None
    torch.testing.assert_close(norm(x).double(), y64, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.weight.grad.double(), weight64.grad, rtol=1e-5, atol=1e-5)


def test_rms_norm_in_bfloat16_sums_its_weight_s_gradient_in_float32() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(8, 1e-6)
    x = torch.randn(5000, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
        y.backward(torch.ones_like(y))
    assert y.dtype == x.grad.dtype == torch.bfloat16
    weight64 = norm.weight.detach().double().requires_grad_()
    rms_formula(x.detach().double(), weight64, 1e-6).sum().backward()
    torch.testing.assert_close(norm.weight.grad.double(), weight64.grad, rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_dropout_zeroes_its_share_keeps_the_mean_and_passes_gradients_where_it_kept(p: float) -> None:
    torch.manual_seed(3)
    x = torch.ones(1000, 333, requires_grad=True)
    y = Dropout(p)(x)
    kept = round(256 * (1 - p)) / 256
    assert abs((y == 0).double().mean().item() - (1 - kept)) < 4 * (p * (1 - p) / x.numel()) ** 0.5
    torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / kept]))
    y.backward(torch.ones_like(y))
    torch.testing.assert_close(x.grad, y.detach())
    zero = (y == 0).double() - (1 - kept)  # neighbours share a draw: they must not share a fate
    for shift in (1, 7, 8, 333):
        assert abs((zero.flatten()[shift:] * zero.flatten()[:-shift]).mean()) < 5 * p * (1 - p) / x.numel() ** 0.5


def test_dropout_repeats_with_the_default_generator_and_rests_in_eval() -> None:
    dropout, x = Dropout(0.3), torch.ones(5, 7)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, second = dropout(x), dropout(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first)
    assert torch.equal(dropout(x), second)
    assert dropout.eval()(x) is x
    with pytest.raises(ValueError, match=r"dropout 1\.0"):
        Dropout(1.0)


def test_dropout_acts_on_the_embedding_and_both_additions() -> None:
    network = noisy(decoder_config("gpt2", **SMALL, dropout=0.5)).train()
    places = []
    for name, module in network.named_modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda m, i, y, name=name: places.append((name, (y == 0).any().item())))
    network(draw_ids(network.config))
    names = ["dropout", "blocks.0.dropout", "blocks.0.dropout", "blocks.1.dropout", "blocks.1.dropout"]
    assert places == [(name, True) for name in names]


@pytest.mark.parametrize("family", FAMILIES)
def test_initialisation_is_its_seed_s_and_leaves_the_global_generator_alone(family: str) -> None:
    config = decoder_config(family, **{**SMALL, "d_model": 64})
    torch.manual_seed(5)
    state = torch.get_rng_state()
    network, again, other = Decoder(config, 1), Decoder(config, 1), Decoder(config, 2)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, parameter), twin in zip(network.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter, twin)
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
    assert not torch.equal(network.embedding.weight, other.embedding.weight)
    assert network.embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)
    block = network.blocks[0]
    output, qkv = block.attention.output.weight, block.attention.qkv.weight
    if config.positions == "rotary":
        assert not output.any()
        assert not block.feed_forward.down.weight.any()
        assert qkv.std().item() == pytest.approx(0.7 / 8, rel=0.1)
    else:
        assert output.std().item() == pytest.approx(0.02 / 2, rel=0.1)  # two layers: sqrt(2 * 2)
        assert qkv.std().item() == pytest.approx(0.02, rel=0.1)


def test_compiles_whole() -> None:
    """One graph without breaks, dropout, norms and rotation included: what a GPU needs."""
    network = noisy(decoder_config("qwen3", **{**SMALL, "n_layers": 1}, dropout=0.1))
    compiled, ids_BT = torch.compile(network, backend="aot_eager", fullgraph=True), draw_ids(network.config)
    torch.testing.assert_close(compiled(ids_BT), network(ids_BT))
    network.train()
    compiled(ids_BT).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_parameter_names_and_shapes() -> None:
    config = decoder_config("qwen3", **{**SMALL, "n_layers": 1}, n_kv_heads=2, head_dim=6, d_ff=20, tied=False)
    assert {name: tuple(parameter.shape) for name, parameter in Decoder(config).named_parameters()} == {
        "embedding.weight": (31, 16),
        "blocks.0.attention_norm.weight": (16,),
        "blocks.0.attention.qkv.weight": (4 * 6 + 2 * 6 + 2 * 6, 16),
        "blocks.0.attention.query_norm.weight": (6,),
        "blocks.0.attention.key_norm.weight": (6,),
        "blocks.0.attention.output.weight": (16, 24),
        "blocks.0.feed_forward_norm.weight": (16,),
        "blocks.0.feed_forward.gate_up.weight": (40, 16),
        "blocks.0.feed_forward.down.weight": (16, 20),
        "norm.weight": (16,),
        "head.weight": (31, 16),
    }
    gpt1 = {name for name, _ in Decoder(decoder_config("gpt1", **SMALL)).named_parameters()}
    assert "positions.weight" in gpt1
    assert not {"norm.weight", "head.weight"} & gpt1


def test_a_tied_head_stays_the_embedding() -> None:
    network = Decoder(decoder_config("gpt2", **SMALL))
    assert network.head.weight is network.embedding.weight
    network(draw_ids(network.config)).sum().backward()
    assert network.embedding.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_kv_heads": 3}, "cannot share 3"),
        ({"head_dim": 3}, "head_dim 3"),
        ({"sliding_windows": (4,)}, "1 sliding windows"),
        ({"rotary_scaling": {"type": "dynamic"}}, "'dynamic'"),
        ({"activation": "mish"}, "'mish'"),
    ],
)
def test_contradictions_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Decoder(dataclasses.replace(decoder_config("llama", **SMALL), **change))


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_autocast_learns_like_float32(family: str) -> None:
    network = noisy(decoder_config(family, **SMALL)).train()
    ids_BT = draw_ids(network.config)

    def gradients() -> dict[str, torch.Tensor]:
        network.zero_grad()
        logits_BTV = network(ids_BT[:, :-1])
        F.cross_entropy(logits_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten()).backward()
        return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}

    exact = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        rough = gradients()
    assert exact.keys() == rough.keys() == dict(network.named_parameters()).keys()
    for name, gradient in exact.items():
        if gradient.norm() > 1e-3 * exact["embedding.weight"].norm():
            assert F.cosine_similarity(gradient.flatten(), rough[name].flatten(), dim=0) > 0.98, name

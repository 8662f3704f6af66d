"""Work against PyTorch's own counter on live networks, and against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pellucid.anatomy import compute, families
from pellucid.anatomy.families.decoder import DecoderShape, Experts, Latent, decoder_tree
from pellucid.anatomy.tree import Attention, Part, Sequence
from pellucid.networks.convnet import ConvNet
from pellucid.networks.convnet_config import convnet_config
from pellucid.networks.decoder import Decoder, decoder_config

GPT2 = decoder_config("gpt2", vocab_size=50257, d_model=768, n_layers=12, n_heads=12, context=1024)


def test_gpt2_forward():
    work = compute.forward(families.decoder(GPT2), token=1024)
    # 12 blocks of 12 d^2 multiply-adds a token and a head of V d; queries by keys and weights by values, T^2 d each
    assert work.weights == 1024 * (12 * 12 * 768**2 + 50257 * 768)
    assert work.data == 12 * 2 * 1024**2 * 768
    assert work.seen == work.data * 1025 // 2048
    assert work.total == sum(work.by_path.values()) == 145_824_153_600
    assert work.flops == 2 * work.total


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["gpt2", "llama", "qwen3"]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 3),
)
def test_a_decoders_step_is_what_pytorch_counts(family, layers, heads, length, batch):
    config = decoder_config(family, vocab_size=11, d_model=heads * 8, n_layers=layers, n_heads=heads, context=16)
    network = Decoder(config, seed=0)
    tokens = torch.zeros(batch, length, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = network(tokens)
    forward = compute.forward(families.decoder(config), token=length)
    assert counter.get_total_flops() == batch * forward.flops
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    step = compute.training_step(families.decoder(config), fused=False, token=length)
    assert counter.get_total_flops() == batch * 2 * step.backward
    assert step.forward == forward.total
    assert step.recomputed == 0


def test_a_fused_kernel_makes_the_scores_again():
    tree = families.decoder(GPT2)
    plain, fused = (compute.training_step(tree, fused, token=64) for fused in (False, True))
    assert fused.backward - plain.backward == compute.forward(tree, token=64).data // 2


def test_the_first_layer_needs_no_gradient_of_its_input():
    config = convnet_config("lenet5", 1, 28, 28, 10)
    network, tree = ConvNet(config, 0), families.convnet(config)
    pictures = torch.zeros(3, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        network(pictures).sum().backward()
    assert counter.get_total_flops() == 3 * compute.training_step(tree).flops


def test_recomputation_goes_forward_once_more():
    tree = families.decoder(GPT2)
    step = compute.training_step(tree, recompute=True, token=8)
    assert step.recomputed == step.forward
    assert step.total == compute.training_step(tree, token=8).total + step.forward


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.none() | st.integers(1, 9))
def test_tokens_generated_one_by_one_see_what_a_masked_forward_pass_sees(length, window):
    config = decoder_config("llama", vocab_size=7, d_model=8, n_layers=2, n_heads=2, context=32)
    config = type(config)(**(vars(config) | {"sliding_windows": (window, None)}))
    tree = families.decoder(config)
    forward = compute.forward(tree, token=length)
    written = [compute.generated_token(tree, past) for past in range(length)]
    assert sum(work.weights for work in written) == forward.weights
    assert sum(work.data for work in written) == forward.seen


def test_cross_attention_sees_the_source():
    tree = Sequence((Part("product", Attention(2, 2, 3, keys="source", causal=False), "attention", "token"),))
    assert compute.forward(tree, token=5, source=7).total == 5 * 7 * 2 * (3 + 3)
    assert compute.generated_token(tree, past=4, source=7).total == 7 * 2 * (3 + 3)


def test_a_token_goes_through_its_experts_only():
    shape = DecoderShape(32000, 4096, 32, 32, 8, 128, 14336, 32768, tied=False, experts=Experts(8, 2, 14336))
    tree = decoder_tree(shape)
    per_layer = 4096 * 4096 * 2 + 4096 * 1024 * 2 + 4096 * 8 + 2 * 3 * 4096 * 14336
    assert compute.forward(tree, token=1).weights == 32 * per_layer + 4096 * 32000
    assert compute.training_flops(tree, 1).weights == pytest.approx(6 * 12_748_853_248, rel=1e-3)


def test_latent_attention_multiplies_unequal_queries_and_values():
    shape = DecoderShape(9, 64, 1, 4, 4, 24, 32, 8, latent=Latent(16, None, 8, 16, 12))
    product = compute.forward(decoder_tree(shape), token=5)
    assert product.data == 5 * 5 * 4 * (24 + 12)

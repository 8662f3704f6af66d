"""Attention maps against transformers' own, the logit lens, and neurons."""

import pytest
import torch
import transformers
from torch import nn

import pellucid as pl
from pellucid.data.tokenizer import Tokenizer
from pellucid.language_model import LanguageModel
from pellucid.networks.cache import KeyValueCache
from pellucid.networks.decoder import Decoder, decoder_config
from tracing.zoo import make

TEXT = "the cat sat on the mat and the dog sat on the log; " * 5
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": 31}
THEIRS = {
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=31, bos_token_id=0, eos_token_id=0),
    ),
    "llama": (
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(**SMALL, num_key_value_heads=2, bos_token_id=0, eos_token_id=0),
    ),
    "bert": (transformers.BertModel, transformers.BertConfig(**SMALL)),
}


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", THEIRS)
def test_attention_maps_are_those_of_transformers(name, kernel):
    kind, config = THEIRS[name]
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    eager = kind(config).eval()
    for parameter in eager.parameters():
        nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(31, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    with torch.no_grad():
        theirs = eager(ids, attention_mask=mask, output_attentions=True).attentions
    eager.set_attn_implementation(kernel)
    maps = pl.trace(eager, ids, attention_mask=mask).attention_maps()
    assert len(maps) == len(theirs) == 2
    for ours, expected in zip(maps, theirs, strict=True):
        torch.testing.assert_close(ours.weights, expected, atol=1e-5, rtol=0)


def decoder(**more):
    config = decoder_config(
        "llama", vocab_size=31, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, context=300, **more
    )
    network = Decoder(config, seed=0).eval()
    for parameter in network.blocks.parameters():
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    return network


def test_attention_in_blocks_is_one_map():
    network = decoder().to(torch.bfloat16)
    ids = torch.randint(31, (2, 290), generator=torch.Generator().manual_seed(0))
    first, second = pl.trace(network, ids).attention_maps()
    assert first.weights.shape == second.weights.shape == (2, 4, 290, 290)
    torch.testing.assert_close(second.weights.sum(-1), torch.ones(2, 4, 290), atol=2e-2, rtol=0)
    assert torch.equal(first.weights.triu(1), torch.zeros_like(first.weights))
    fused = pl.trace(network.float(), ids).attention_maps()[0]
    torch.testing.assert_close(first.weights, fused.weights, atol=3e-2, rtol=0)


@pytest.fixture(scope="module")
def model():
    tokenizer = Tokenizer.train([TEXT], 275)
    config = decoder_config("llama", vocab_size=tokenizer.vocab_size, d_model=16, n_layers=2, n_heads=4, context=64)
    network = Decoder(config, seed=0).eval().requires_grad_(False)
    network.embedding.weight.mul_(20)
    return LanguageModel(network, tokenizer)


@pytest.mark.parametrize("window", [None, 4])
def test_attention_while_generating_is_that_of_reading_at_once(window):
    network = decoder(sliding_windows=(window, window) if window else None)
    ids = torch.randint(31, (1, 11), generator=torch.Generator().manual_seed(1))
    cache = KeyValueCache(network.config, capacity=20)
    with torch.inference_mode(), pl.record(network) as trace:
        network(ids[:, :5], cache)
        for n in range(5, 11):
            network(ids[:, n : n + 1], cache)
    whole = pl.trace(network, ids)
    for layer in ("blocks.0.attention", "blocks.1.attention"):
        once = whole.attention_over(layer)
        assert once.shape == (4, 11, 11)
        torch.testing.assert_close(trace.attention_over(layer), once, atol=1e-5, rtol=0)
        if window:
            assert once.tril(-window).abs().max() == 0
    assert len(trace.attention_maps("blocks.0")) == 7


def test_a_generated_text_s_attention_covers_its_prompt(model):
    with pl.record(model.network) as trace:
        tokens = list(model.generate("the cat", max_tokens=4, temperature=0, heal=False))
    over = trace.attention_over("blocks.1.attention")
    length = over.shape[1]
    assert length == len(model.tokenizer.encode("the cat")) + len(tokens) - 1
    torch.testing.assert_close(over.sum(-1), torch.ones(4, length))


def test_generation_can_be_edited_and_looked_into(model):
    seen = []
    with pl.edit(model, {"head[..., 261]": 1e4, "blocks.0.feed_forward/silu.0[0,-1]": seen.append}) as edits:
        ids = [token.id for token in model.generate("the cat", max_tokens=4, temperature=0, heal=False)]
    assert ids == [261] * 4
    assert edits.done["head[..., 261]"] == len(seen) == 4


def test_dropout_in_attention_is_said():
    attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True).train()
    x = torch.ones(1, 3, 8)
    maps = pl.trace(attention.eval(), x, x, x, need_weights=False).attention_maps()
    assert maps[0].weights.shape == (1, 2, 3, 3)
    with pytest.raises(pl.PellucidError, match="No attention"):
        pl.trace(nn.Linear(8, 8), x).attention_maps()


def test_the_last_row_of_the_logit_lens_is_what_the_model_says(model):
    trace = model.trace("the cat sat on")
    for position in (-1, 2):
        lens = trace.logit_lens(position=position, n=4)
        best = trace.candidates(4, position)
        assert [row.layer for row in lens.rows] == ["blocks.0", "blocks.1"]
        assert lens.rows[-1].ids == tuple(candidate.id for candidate in best)
        assert lens.rows[-1].probabilities == pytest.approx([candidate.probability for candidate in best], rel=1e-5)
        assert lens.rows[-1].rank == 1
        network = model.network
        early = network.head(network.norm(trace.value("blocks.0")[0, position])).double().softmax(0)
        assert lens.rows[0].final == pytest.approx(early[best[0].id].item(), rel=1e-5)
        assert lens.rows[0].rank == int((early > early[best[0].id]).sum()) + 1
    assert lens.final in str(lens)


def test_the_logit_lens_of_others_models():
    kind, config = THEIRS["gpt2"]
    torch.manual_seed(0)
    net = kind(config).eval()
    ids = torch.randint(31, (1, 6))
    trace = pl.trace(net, ids)
    lens = trace.logit_lens()
    assert [row.layer for row in lens.rows] == ["transformer.h.0", "transformer.h.1"]
    with torch.no_grad():
        assert lens.rows[-1].ids[0] == int(net(ids).logits[0, -1].argmax())
    assert lens == trace.logit_lens(norm="transformer.ln_f", head="lm_head")
    with pytest.raises(pl.PellucidError, match="logit lens needs"):
        pl.trace(nn.Linear(2, 2), torch.ones(1, 2)).logit_lens()


def test_the_logit_lens_of_a_decoder_beside_an_encoder():
    case = make("whisper")
    lens = pl.trace(case.net, *case.args, **case.named).logit_lens()
    assert [row.layer for row in lens.rows] == ["model.decoder.layers.0", "model.decoder.layers.1"]


@pytest.mark.parametrize(("name", "says"), [("bert", "more between"), ("t5", "batch"), ("gpt2, eager", "batch")])
def test_the_logit_lens_is_never_silently_wrong(name, says):
    case = make(name)
    with pytest.raises(pl.PellucidError, match=says):
        pl.trace(case.net, *case.args, **case.named).logit_lens()


def test_the_most_active_neurons_are_those_of_the_activation(model):
    trace = model.trace("the cat sat on the mat")
    active = trace.active_neurons(5)
    every = torch.stack([trace.value(f"blocks.{n}.feed_forward/silu.0")[0] for n in range(2)])  # (layers, T, neurons)
    assert [neuron.activation for neuron in active] == every.amax(1).flatten().topk(5).values.tolist()
    for neuron in active:
        assert trace.why(trace.neuron(neuron.layer, neuron.neuron, neuron.position)).value == neuron.activation
        assert neuron.token == trace.tokens[neuron.position]
    assert {neuron.layer for neuron in trace.active_neurons(3, layer=1)} == {1}


def test_the_texts_that_activate_a_neuron_most(model):
    texts = ["the cat sat", "on the mat", "and the dog", "the log; the log; the log", "sat on", "cat dog mat log"]
    found = pl.top_texts(model, iter(texts), layer=1, neuron=7, k=3)
    assert found == model.top_texts(texts, layer=1, neuron=7, k=3)
    expected = []
    for n, text in enumerate(texts):
        values = model.trace(text).value("blocks.1.feed_forward/silu.0")[0, :, 7]
        expected.append((values.max().item(), n, int(values.argmax())))
    expected = sorted(expected, reverse=True)[:3]
    assert [(text.number, text.position) for text in found] == [(n, position) for _, n, position in expected]
    assert [text.activation for text in found] == pytest.approx([value for value, _, _ in expected], rel=1e-5)
    assert f"»{found[0].tokens[found[0].position]}«" in str(found[0])
    with pytest.raises(pl.PellucidError, match="neurons"):
        pl.top_texts(model, texts, layer=1, neuron=10_000)
    with pytest.raises(pl.PellucidError, match="no text"):
        pl.top_texts(model, [], layer=1, neuron=7)

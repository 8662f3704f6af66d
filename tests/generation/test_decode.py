"""Writing, against transformers' greedy generation and against itself without a cache."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.generation.decode import Outlet, generate
from pellucid.generation.sampling import Sampling, sampled_distribution
from pellucid.networks.decoder import Decoder, decoder_config

TOKENIZER = Tokenizer.byte_level()
END = TOKENIZER.end_id


@pytest.fixture(scope="module")
def network() -> Decoder:
    # Wide weights, so that probabilities are far from even and a mistake shows.
    network = small("qwen3")
    for parameter in network.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.shape[0]))
    return network


def small(family: str, context: int = 48) -> Decoder:
    config = decoder_config(family, vocab_size=257, d_model=32, n_layers=2, n_heads=2, context=context)
    return Decoder(config, seed=0).eval().requires_grad_(False)


def write(network, prompt="春 sleep", sampling=None, **how):
    return list(generate(network, TOKENIZER, prompt, sampling, **{"end_ids": [END], "start_id": END, **how}))


def test_greedy_text_is_that_of_transformers(network):
    config = GPT2Config(
        vocab_size=257, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=256, eos_token_id=256
    )
    torch.manual_seed(1)
    theirs = GPT2LMHeadModel(config).eval()
    ours = small("gpt2", context=64)
    state = {name: tensor * 4 for name, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    copy_gpt2(state, ours)
    prompt = list(b"To be, or")
    expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False, pad_token_id=256)[0].tolist()
    written = write(ours, prompt, Sampling(greedy=True), max_tokens=40, heal=False)
    assert [token.id for token in written] == expected[len(prompt) :]
    assert all(token.rank == 1 and token.sampled_probability == 1 for token in written)


def copy_gpt2(state, ours):
    ours.embedding.weight.data.copy_(state["transformer.wte.weight"])
    ours.positions.weight.data.copy_(state["transformer.wpe.weight"])
    pairs = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.output": "attn.c_proj"}
    pairs |= {"feed_forward_norm": "ln_2", "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"}
    for n, block in enumerate(ours.blocks):
        for mine, yours in pairs.items():
            module = block.get_submodule(mine)
            weight = state[f"transformer.h.{n}.{yours}.weight"]
            module.weight.data.copy_(weight.T if weight.dim() == 2 else weight)
            module.bias.data.copy_(state[f"transformer.h.{n}.{yours}.bias"])
    ours.norm.weight.data.copy_(state["transformer.ln_f.weight"])
    ours.norm.bias.data.copy_(state["transformer.ln_f.bias"])


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gpt1"])
@pytest.mark.parametrize("heal", [True, False])
def test_the_cache_changes_nothing_even_past_the_window(family, heal):
    network = small(family)
    with_cache, without = (
        write(network, max_tokens=90, heal=heal, samples=2, cached=cached) for cached in (True, False)
    )
    assert [token.id for token in with_cache] == [token.id for token in without]
    assert any(token.forgotten for token in with_cache)


def test_probabilities_are_the_raw_softmax_before_sampling(network):
    sampling = Sampling(temperature=0.5, top_k=20, repetition_penalty=1.2, seed=3)
    ids = TOKENIZER.encode("春 sleep")
    for token in write(network, "春 sleep", sampling, max_tokens=20, heal=False, alternatives=3):
        logits = network(torch.tensor([ids]))[0, -1]
        raw = logits.double().softmax(0)
        assert token.probability == pytest.approx(raw[token.id].item(), rel=1e-4)
        drawn = sampled_distribution(logits, sampling, ids)
        assert token.sampled_probability == pytest.approx(drawn[token.id].item(), rel=1e-3)
        assert token.rank == 1 + (raw > raw[token.id]).sum()
        assert [other.id for other in token.alternatives] == raw.topk(3).indices.tolist()
        assert [other.probability for other in token.alternatives] == pytest.approx(
            raw.topk(3).values.tolist(), rel=1e-4
        )
        ids.append(token.id)


def test_a_sample_is_decided_by_its_seed(network):
    def ids(seed, samples):
        tokens = write(network, sampling=Sampling(seed=seed), samples=samples, max_tokens=30)
        return [[token.id for token in tokens if token.sample == n] for n in range(samples)]

    three = ids(5, 3)
    assert three == ids(5, 3)
    assert len({tuple(sample) for sample in three}) == 3
    assert three[2] == ids(7, 1)[0]


def test_writing_ends_at_every_end_token_without_text(network):
    text = write(network, max_tokens=60)
    other = text[10].id
    ended = write(network, max_tokens=60, end_ids=[END, other])
    assert ended[-1].finish == "end"
    assert ended[-1].text == "".join(t.text for t in ended)[len("".join(t.text for t in ended[:-1])) :]
    assert other not in [token.id for token in ended[:-1]]
    assert [token.finish for token in ended[:-1]] == [None] * (len(ended) - 1)


def test_max_tokens_counts_what_was_written(network):
    tokens = write(network, max_tokens=5, end_ids=[])
    assert [token.finish for token in tokens][-1] == "length"
    # The first only spells the prompt's last byte again.
    assert tokens[0].bytes == tokens[0].healed == b"p"
    assert tokens[0].text == ""
    assert len(tokens) == 6
    assert len(write(network, max_tokens=5, end_ids=[], heal=False)) == 5


def test_the_stop_string_is_never_emitted_even_in_part(network):
    whole = "".join(token.text for token in write(network, max_tokens=60, end_ids=[]))
    stop = whole[17:21]
    tokens = write(network, max_tokens=60, end_ids=[], stop=["never there", stop])
    assert "".join(token.text for token in tokens) == whole[: whole.index(stop)]
    assert tokens[-1].finish == "stop"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
def test_text_comes_out_whole_and_up_to_the_stop_string(text, stop, data):
    encoded = text.encode("utf-8", "replace")
    text = encoded.decode()
    outlet, emitted, place = Outlet(stop), "", 0
    while place < len(encoded) and not outlet.stopped:
        size = data.draw(st.integers(1, 5))
        emitted += outlet.add(encoded[place : place + size])
        assert text.startswith(emitted)
        place += size
    if not outlet.stopped:
        emitted += outlet.finish()
    places = [text.index(s) for s in stop if s in text]
    # Among stop strings that one piece completes the first decides; one that begins earlier may be completed later.
    assert emitted == text or any(emitted == text[: text.index(s)] for s in stop if s in text)
    assert bool(places) == outlet.stopped


def test_rare_characters_and_emoji_stream_whole():
    outlet = Outlet()
    pieces = [outlet.add(bytes([byte])) for byte in "饕餮魑魅👩‍🔬".encode()]
    assert "".join(pieces) == "饕餮魑魅👩‍🔬"
    assert "�" not in "".join(pieces)
    assert outlet.add("魅".encode()[:2]) == ""
    assert outlet.finish() == "�"


def test_what_a_long_prompt_loses_is_said(network):
    prompt = "".join(chr(ord("a") + n % 26) for n in range(100))
    first = write(network, prompt, max_tokens=8, heal=False)[0]
    kept = 48 - 8
    assert first.forgotten.tokens == 100 - kept
    assert first.forgotten.text == prompt[: 100 - kept]
    assert first.forgotten.kept == kept
    short = write(network, prompt[100 - kept :], max_tokens=8, heal=False)
    assert [t.id for t in short] == [t.id for t in write(network, prompt, max_tokens=8, heal=False)]
    assert short[0].forgotten is None


def test_writing_past_the_window_goes_on_from_its_last_three_quarters(network):
    tokens = write(network, "abc", max_tokens=60, end_ids=[], heal=False)
    moved = [token for token in tokens if token.forgotten]
    assert [token.index for token in moved] == [46, 59]  # 3 + 46 tokens no longer fit, 36 stay, 13 more do not fit
    assert moved[0].forgotten.text.startswith("abc")
    assert moved[0].forgotten.tokens == 49 - 36


def test_an_empty_prompt_is_refused_unless_asked_for(network):
    with pytest.raises(PellucidError, match="empty"):
        generate(network, TOKENIZER, "")
    with pytest.raises(PellucidError, match="no token to begin with"):
        generate(network, TOKENIZER, "", unprompted=True)
    tokens = write(network, "", unprompted=True, max_tokens=3)
    assert tokens[0].healed == b""
    assert tokens[0].raw_probability == tokens[0].probability


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"samples": 0}, {"alternatives": -1}, {"stop": [""]}])
def test_limits_that_make_no_sense_are_refused_at_once(network, wrong):
    with pytest.raises(PellucidError):
        generate(network, TOKENIZER, "春", **wrong)

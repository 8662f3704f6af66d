"""Healing: against every spelling tried one by one, and on a text whose shares are known."""

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.data.tokenizer import Tokenizer
from pellucid.generation.decode import generate
from pellucid.generation.healing import find_covers, probability_of
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import Sampling
from pellucid.networks.decoder import Decoder, decoder_config

WORDS = "ab abab abba ba bab 春眠 春眠不 不覺 眠不覺曉 覺曉 "
TOKENIZER = Tokenizer.train([WORDS * 9, "ab ba" * 9], 300)
END = TOKENIZER.end_id
NEVER = frozenset({END})


@pytest.fixture(scope="module")
def network() -> Decoder:
    config = decoder_config("gpt2", vocab_size=TOKENIZER.vocab_size, d_model=16, n_layers=1, n_heads=2, context=64)
    network = Decoder(config, seed=0).eval().requires_grad_(False)
    network.embedding.weight.normal_(0, 0.4, generator=torch.Generator().manual_seed(1))
    return network


def mass(network: Decoder, data: bytes) -> float:
    """P(data), the slow way: token by token through all that spells it, from the end token on."""

    def walk(before: tuple[int, ...], rest: bytes) -> float:
        probabilities = network(torch.tensor([[END, *before]]))[0, -1].double().softmax(0)
        total = 0.0
        for id in range(TOKENIZER.vocab_size):
            spelled = TOKENIZER.token_bytes(id)
            if spelled and spelled.startswith(rest):
                total += probabilities[id].item()
            elif spelled and rest.startswith(spelled) and canonical((*before, id)):
                total += probabilities[id].item() * walk((*before, id), rest[len(spelled) :])
        return total

    return walk((), data)


def canonical(ids: tuple[int, ...]) -> bool:
    """Whether the tokenizer itself spells their bytes so (pieces of characters: as far as it goes)."""
    data = b"".join(TOKENIZER.token_bytes(id) for id in ids)
    text = data.decode(errors="ignore")
    return tuple(TOKENIZER.encode(text)) == ids[: len(TOKENIZER.encode(text))] and text.encode() == data


@pytest.mark.parametrize("prompt", ["a", "ab", "aba", "ab b", " ba", "abba abab"])
@pytest.mark.parametrize("continuation", ["b", "a", "ba", " ab", "ab ba"])
def test_the_probability_is_the_sum_over_all_spellings(network, prompt, continuation):
    both, alone = (mass(network, text.encode()) for text in (prompt + continuation, prompt))
    found = probability_of(Reader(network), TOKENIZER, prompt, continuation, never=NEVER, prefix=[END])
    assert found == pytest.approx(both / alone, rel=1e-4)


def test_a_prompt_that_one_token_could_contain_is_read_as_the_beginning_of_a_document(network):
    both, alone = (mass(network, text.encode()) for text in ("ab", "a"))
    assert probability_of(Reader(network), TOKENIZER, "a", "b", END, NEVER) == pytest.approx(both / alone, rel=1e-4)


def test_the_probabilities_of_all_next_characters_and_the_end_add_up_to_one():
    # One token a byte: nothing but these can follow.
    tokenizer = Tokenizer.byte_level()
    config = decoder_config("llama", vocab_size=257, d_model=16, n_layers=1, n_heads=1, context=16)
    reader = Reader(Decoder(config, seed=3).eval())
    followed = [probability_of(reader, tokenizer, "ab", chr(byte), 256, frozenset({256})) for byte in range(128)]
    logits = reader.logits(list(b"ab"))[0].double().softmax(0)
    assert followed == pytest.approx(logits[:128].tolist(), rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.text("ab 春眠不覺曉", min_size=1, max_size=12), st.integers(0, 50))
def test_healed_writing_begins_with_the_prompt(network, prompt, seed):
    sampling = Sampling(temperature=1.5, seed=seed)
    tokens = list(generate(network, TOKENIZER, prompt, sampling, max_tokens=6, end_ids=[END], start_id=END))
    first = tokens[0]
    assert prompt.encode().endswith(first.healed)
    assert first.bytes.startswith(first.healed)
    assert 0 < first.raw_probability <= 1
    assert first.probability <= 1
    data = b"".join(token.bytes for token in tokens if token.finish != "end").removeprefix(first.healed)
    assert "".join(token.text for token in tokens) == data.decode(errors="replace")


def test_covers_reach_back_to_where_a_longer_token_could_begin():
    covers = find_covers(TOKENIZER, TOKENIZER.encode("ab 春"), never=NEVER)
    spelled = {TOKENIZER.token_bytes(id) for cover in covers for id in cover.last}
    assert "春眠不".encode() in spelled or " 春眠".encode() in spelled
    for cover in covers:
        before = b"".join(map(TOKENIZER.token_bytes, cover.before))
        assert before + cover.rest == "ab 春".encode()
    assert not find_covers(TOKENIZER, [END], fixed=1)


def test_only_as_much_of_a_long_prompt_is_looked_at_as_fits(network):
    long = "ab ba " * 60
    assert 0 < probability_of(Reader(network), TOKENIZER, long, "ab", END, NEVER) < 1


def test_after_half_a_learned_token_comes_the_other_half_as_often_as_in_the_text():
    documents, share = republics()
    tokenizer = Tokenizer.train(documents, 600)
    assert len(tokenizer.encode("中华人民共和国")) < len(tokenizer.encode("中华人民")) + len(tokenizer.encode("共和国"))
    network = trained(tokenizer, documents)
    end = tokenizer.end_id
    for prompt in ("学生中华人民", "，我们中华人民", "铁路中华人民"):
        found = probability_of(Reader(network), tokenizer, prompt, "共和国", end, frozenset({end}))
        assert found == pytest.approx(share, abs=0.02)
        (first, *_) = generate(network, tokenizer, prompt, Sampling(greedy=True), end_ids=[end], start_id=end)
        assert "共和国".startswith(first.text[:3])
        assert first.text
    ids = tokenizer.encode("学生中华人民")
    unhealed = network(torch.tensor([ids]))[0, -1].softmax(0)
    assert unhealed[tokenizer.encode("共和国")[0]] < 0.5  # what healing heals


def republics() -> tuple[list[str], float]:
    """A text in which 中华人民 is nearly always followed by 共和国, and the share of that."""
    draw = random.Random(0)
    pairs = "我们今天学习历史北京上海城市发展经济文化教育科学国家世界和平工作河流春天老师学生铁路"
    words = [pairs[n : n + 2] for n in range(0, len(pairs), 2)]
    documents: list[str] = []
    while sum(map(len, documents)) < 70_000:  # 200 KB
        sentences = []
        for _ in range(3):
            chosen = draw.choices(words, k=draw.randint(3, 8))
            ending = "共和国" if draw.random() < 0.985 else draw.choice(["的", "万众一心", "站起来了"])
            chosen.insert(draw.randint(0, len(chosen)), "中华人民" + ending)
            sentences.append("".join(chosen))
        documents.append("，".join(sentences) + "。")
    text = "".join(documents)
    return documents, text.count("中华人民共和国") / text.count("中华人民")


def trained(tokenizer: Tokenizer, documents: list[str], steps: int = 300) -> Decoder:
    ids = torch.tensor(tokenizer.encode_documents(documents).tolist())
    config = decoder_config("qwen3", vocab_size=tokenizer.vocab_size, d_model=64, n_layers=1, n_heads=2, context=32)
    network = Decoder(config, seed=0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(0, len(ids) - 33, (16, 1), generator=generator)
        batch = ids[starts + torch.arange(33)]
        loss = F.cross_entropy(network(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    return network.eval().requires_grad_(False)

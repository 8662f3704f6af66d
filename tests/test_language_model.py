"""A model's verbs, on folders of ours and of transformers'."""

import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from pellucid.checkpoints.decoder import save_decoder
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.generation.sampling import Sampling
from pellucid.language_model import LanguageModel
from pellucid.networks.decoder import Decoder, decoder_config

TEXT = "The cat sat on the mat. The dog sat on the log. 春眠不覺曉，處處聞啼鳥。" * 5
LLAMA_LIKE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE |= {"num_key_value_heads": 2, "max_position_embeddings": 64}
FOREIGN = {
    "gpt2": (GPT2LMHeadModel, GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "llama": (LlamaForCausalLM, LlamaConfig, LLAMA_LIKE),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, LLAMA_LIKE),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of ours, with weights wide enough to have opinions."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = Tokenizer.train([TEXT], 300)
    config = decoder_config("qwen3", vocab_size=tokenizer.vocab_size, d_model=32, n_layers=2, n_heads=2, context=48)
    network = Decoder(config, seed=1)
    network.embedding.weight.data.mul_(20)
    save_decoder(network, folder, {"task": "text"}, tokens=(tokenizer.end_id, tokenizer.end_id))
    tokenizer.save(folder, "qwen3")
    return folder


@pytest.fixture(scope="module")
def model(run):
    return LanguageModel.open(run)


@pytest.mark.parametrize("family", FOREIGN)
def test_a_folder_of_transformers_writes_the_same_greedy_text(family, tmp_path):
    kind, config, shape = FOREIGN[family]
    tokenizer = Tokenizer.train([TEXT], 300, family)
    end = tokenizer.end_id
    torch.manual_seed(0)
    theirs = kind(config(vocab_size=tokenizer.vocab_size, bos_token_id=end, eos_token_id=end, **shape)).eval()
    for parameter in theirs.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(5)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path, family)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    prompt = auto("The cat", return_tensors="pt").input_ids
    expected = theirs.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=end)[0, prompt.shape[1] :]
    ours = LanguageModel.open(tmp_path)
    written = list(ours.generate("The cat", sampling=Sampling(greedy=True), max_tokens=20, heal=False))
    assert [token.id for token in written] == expected.tolist()
    text = "".join(token.text for token in written)
    assert text == auto.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_evaluation_is_the_loss_of_transformers(model, run):
    theirs = AutoModelForCausalLM.from_pretrained(run).eval()
    ids = model.tokenizer.encode("The cat sat. 春眠")
    stream = torch.tensor([[model.tokenizer.end_id, *ids]])
    loss = theirs(stream, labels=stream).loss.item()
    found = model.evaluate("The cat sat. 春眠", tokens=True)
    assert found.tokens == len(ids)
    assert found.bytes == len("The cat sat. 春眠".encode())
    assert found.loss == pytest.approx(loss, rel=1e-4)
    assert found.bits_per_byte == pytest.approx(loss * len(ids) / math.log(2) / found.bytes, rel=1e-4)
    assert [token.id for token in found.scored] == ids
    assert -sum(math.log(token.probability) for token in found.scored) == pytest.approx(found.nats, rel=1e-4)


def test_the_ends_of_documents_are_to_be_foreseen(model):
    one, listed = model.evaluate("The cat"), model.evaluate(["The cat"])
    assert listed.tokens == one.tokens + 1
    assert listed.bytes == one.bytes
    assert listed.nats > one.nats
    assert model.evaluate(["a", "b"]).tokens == 4
    with pytest.raises(PellucidError, match="no text"):
        model.evaluate("")


def test_probabilities_do_not_depend_on_where_the_text_is_cut(model):
    whole = model.probability("The cat", " sat on")
    assert whole == pytest.approx(
        model.probability("The cat", " s") * model.probability("The cat s", "at on"), rel=0.05
    )
    assert model.probability("The", "") == 1.0
    assert 0 < model.probability("", "The") < 1


def test_sampling_settings_may_be_given_one_by_one(model):
    together = model.generate("The", sampling=Sampling(temperature=0.5, seed=3), max_tokens=9)
    single = model.generate("The", temperature=0.5, seed=3, max_tokens=9)
    assert [token.id for token in together] == [token.id for token in single]
    with pytest.raises(PellucidError, match="--temperature"):
        model.generate("The", temperature=-1)
    with pytest.raises(PellucidError, match="empty"):
        model.generate("")


def test_writing_stops_at_the_documents_end(run):
    model = LanguageModel.open(run)
    # An embedding that answers every question with the end token.
    model.network.norm.weight.zero_()
    written = list(model.generate("The", greedy=True, heal=False, max_tokens=3))
    assert [token.finish for token in written] == [None, None, "length"]
    model.tokenizer.end_ids = frozenset({written[0].id})
    assert [token.finish for token in model.generate("The", greedy=True, heal=False)] == ["end"]


def test_int8_and_bf16_write_and_say_what_they_cost(run):
    for options in ({"quantise": True}, {"precision": "bf16"}, {"quantise": True, "precision": "bf16"}):
        model = LanguageModel.open(run, **options)
        assert len(list(model.generate("The cat", max_tokens=8, greedy=True, heal=False))) <= 8
    exact = LanguageModel.open(run)
    cost = LanguageModel.open(run, quantise=True).int8_cost(TEXT)
    assert cost.bits_per_byte == pytest.approx(exact.evaluate(TEXT).bits_per_byte)
    assert 0 < abs(cost.int8_bits_per_byte - cost.bits_per_byte) < 0.1
    assert 0 < cost.log_probability_change < 0.2
    coarse = LanguageModel.open(run, precision="bf16").evaluate(TEXT).bits_per_byte
    assert coarse == pytest.approx(exact.evaluate(TEXT).bits_per_byte, rel=0.02)


def test_a_base_model_continues_the_conversation(model):
    messages = [{"role": "user", "content": "The cat"}, {"role": "assistant", "content": " sat on"}]
    assert not model.chats
    answer = model.chat(messages, seed=1, max_tokens=9)
    assert [t.id for t in answer] == [t.id for t in model.generate("The cat sat on", seed=1, max_tokens=9)]


def test_a_chat_model_gets_its_own_template(run, tmp_path):
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    model = LanguageModel.open(tmp_path)
    assert model.chats
    answer = list(model.chat([{"role": "user", "content": "The cat"}], greedy=True, max_tokens=5))
    ids = [*model.tokenizer.encode("The cat"), model.tokenizer.end_id]
    assert answer[0].id == model.network(torch.tensor([ids]))[0, -1].argmax()
    assert answer[0].healed == b""


@pytest.mark.parametrize("broken", [{"precision": "fp8"}, {"device": "cuda", "quantise": True}])
def test_what_cannot_be_opened_is_refused(run, broken):
    with pytest.raises(PellucidError):
        LanguageModel.open(run, **broken)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(PellucidError, match="no model"):
        LanguageModel.open(tmp_path / "nothing")

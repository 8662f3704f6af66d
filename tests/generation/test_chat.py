"""Chat templates against those of transformers' tokenizers."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.generation.chat import render

CHATML = """{% for message in messages %}
{%- if message.role == 'nobody' %}{{ raise_exception('nobody cannot speak') }}{% endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + eos_token + '\\n' }}
    {%- if loop.last %}{% break %}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}{{ {"名": 1} | tojson }}"""
MESSAGES = [{"role": "system", "content": "好。"}, {"role": "user", "content": " Who are you? "}]


def test_the_conversation_is_written_as_transformers_writes_it(tmp_path):
    Tokenizer.byte_level().save(tmp_path, "llama")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(MESSAGES, chat_template=CHATML, tokenize=False, add_generation_prompt=True)
    assert render(CHATML, MESSAGES, Tokenizer.open(tmp_path).special_names) == expected


def test_special_tokens_may_be_described(tmp_path):
    described = {"eos_token": {"content": "</s>", "special": True}, "bos_token": None}
    Tokenizer.byte_level().save(tmp_path, "llama")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described))
    assert render("{{ eos_token }}{{ bos_token }}", [], Tokenizer.open(tmp_path).special_names) == "</s>"


@pytest.mark.parametrize(
    "template",
    [
        CHATML,  # refuses the role
        "{% for %}",
        "{{ messages[5].content.text }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",  # the sandbox
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_fails_is_a_message_not_a_traceback(template):
    with pytest.raises(PellucidError, match="template"):
        render(template, [{"role": "nobody", "content": "x"}])

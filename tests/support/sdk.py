"""The vendors' own SDKs against a base URL: each call asserts what its caller would rely on.

Each takes (url, authority, vendor): where to send, whom to trust, and the simulator behind it.
"""

from __future__ import annotations

import anthropic
import openai
from google import genai
from google.genai import types

ASK = [{"role": "user", "content": "Hi"}]
MODEL = "sim-1"


def openai_client(url: str, authority, **options) -> openai.OpenAI:
    options.setdefault("max_retries", 0)
    options.setdefault("api_key", "sk-client")
    http = openai.DefaultHttpxClient(verify=authority.client_context())
    return openai.OpenAI(base_url=url + "/v1", http_client=http, **options)


def anthropic_client(url: str, authority, **options) -> anthropic.Anthropic:
    options.setdefault("max_retries", 0)
    options.setdefault("api_key", "sk-client")
    http = anthropic.DefaultHttpxClient(verify=authority.client_context())
    return anthropic.Anthropic(base_url=url, http_client=http, **options)


def gemini_client(url: str, authority, api_key: str = "sk-client") -> genai.Client:
    options = types.HttpOptions(base_url=url, client_args={"verify": authority.client_context()})
    return genai.Client(api_key=api_key, http_options=options)


def chat(url, authority, vendor):
    answer = openai_client(url, authority).chat.completions.create(model=MODEL, messages=ASK)
    assert answer.choices[0].message.content == "".join(vendor.text)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (vendor.input_tokens, vendor.output_tokens)


def chat_stream(url, authority, vendor):
    stream = openai_client(url, authority).chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [c.choices[0].delta.content for c in chunks if c.choices][:-1] == vendor.text
    assert chunks[-1].usage.completion_tokens == vendor.output_tokens


def responses(url, authority, vendor):
    answer = openai_client(url, authority).responses.create(model=MODEL, input="Hi")
    assert answer.output_text == "".join(vendor.text)
    assert answer.usage.input_tokens == vendor.input_tokens


def responses_stream(url, authority, vendor):
    events = list(openai_client(url, authority).responses.create(model=MODEL, input="Hi", stream=True))
    assert [e.delta for e in events if e.type == "response.output_text.delta"] == vendor.text
    assert events[-1].response.usage.output_tokens == vendor.output_tokens


def embeddings(url, authority, vendor):
    answer = openai_client(url, authority).embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")
    assert len(answer.data) == 2 and answer.usage.prompt_tokens == vendor.input_tokens


def openai_models(url, authority, vendor):
    assert [m.id for m in openai_client(url, authority).models.list()] == [MODEL]


def messages(url, authority, vendor):
    answer = anthropic_client(url, authority).messages.create(model=MODEL, max_tokens=64, messages=ASK)
    assert answer.content[0].text == "".join(vendor.text)
    assert answer.usage.output_tokens == vendor.output_tokens


def messages_stream(url, authority, vendor):
    client = anthropic_client(url, authority)
    with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
        assert list(stream.text_stream) == vendor.text
        final = stream.get_final_message()
    assert (final.usage.input_tokens, final.usage.output_tokens) == (vendor.input_tokens, vendor.output_tokens)


def anthropic_models(url, authority, vendor):
    assert [m.id for m in anthropic_client(url, authority).models.list()] == [MODEL]


def generate(url, authority, vendor):
    client = gemini_client(url, authority)  # its HTTP client closes with the last reference
    answer = client.models.generate_content(model=MODEL, contents="Hi")
    assert answer.text == "".join(vendor.text)
    assert answer.usage_metadata.prompt_token_count == vendor.input_tokens


def generate_stream(url, authority, vendor):
    client = gemini_client(url, authority)
    parts = list(client.models.generate_content_stream(model=MODEL, contents="Hi"))
    assert [part.text for part in parts] == vendor.text
    assert parts[-1].usage_metadata.candidates_token_count == vendor.output_tokens


CALLS = (
    chat,
    chat_stream,
    responses,
    responses_stream,
    embeddings,
    openai_models,
    messages,
    messages_stream,
    anthropic_models,
    generate,
    generate_stream,
)

# Copyright (C) nginx AI gateway authors

"""An answer of the cache is the one that a provider gave, for both packages."""

import anthropic
import openai

from tap import BASE, eq, ok, run, test

MESSAGES = [{"role": "user", "content": "Hi"}]

# the package has no argument for it any more
COLD = {"temperature": 0}

TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}

OPENAI_TOOLS = [{"type": "function", "function":
                 {"name": "weather", "parameters": TOOL}}]
ANTHROPIC_TOOLS = [{"name": "weather", "input_schema": TOOL}]

oai = openai.OpenAI(base_url=BASE + "/v1", api_key="k", max_retries=0,
                    timeout=30)
ant = anthropic.Anthropic(base_url=BASE, api_key="k", max_retries=0,
                          timeout=30)


def plain(thing):
    """What was got, without what is renewed."""
    thing = thing.model_dump()
    for name in "id", "created", "_request_id":
        thing.pop(name, None)
    if isinstance(thing.get("message"), dict):
        thing["message"].pop("id", None)
    return thing


def twice(name, call, *states):
    """call() returns a raw response and how it is read."""
    got = []
    for state in states:
        raw, read = call()
        eq(raw.headers.get("x-ai-cache"), state, name + ": " + state)
        got.append(read(raw))
    for other in got[1:]:
        eq(other, got[0], name + ": the same")
    ok(got[0], name + ": there is something")


def body(raw):
    return plain(raw.parse())


def events(raw):
    return [plain(e) for e in raw.parse()]


def chat(read, **options):
    return lambda: (oai.chat.completions.with_raw_response.create(
        messages=MESSAGES, temperature=0, max_tokens=50, **options), read)


def message(read, **options):
    return lambda: (ant.messages.with_raw_response.create(
        messages=MESSAGES, max_tokens=50, extra_body=COLD, **options), read)


@test
def openai_chat():
    for what, more in ("text", {}), ("tools", {"tools": OPENAI_TOOLS}):
        twice(what, chat(body, model="oai-" + what, **more),
              "MISS", "HIT", "HIT")
        twice(what + ", stream",
              chat(events, model="oai-s-" + what, stream=True, **more),
              "MISS", "HIT", "HIT")
        twice(what + ", stream with usage",
              chat(events, model="oai-u-" + what, stream=True,
                   stream_options={"include_usage": True}, **more),
              "MISS", "HIT", "HIT")


@test
def anthropic_messages():
    for what, more in ("text", {}), ("tools", {"tools": ANTHROPIC_TOOLS}):
        twice(what, message(body, model="ant-" + what, **more),
              "MISS", "HIT", "HIT")
        twice(what + ", stream",
              message(events, model="ant-s-" + what, stream=True, **more),
              "MISS", "HIT", "HIT")


@test
def of_each_other():
    # made for a stream, asked for without; and in the other dialect, with the
    # version that is meant where a client tells none
    global ant
    ant = ant.with_options(
        default_headers={"anthropic-version": "2023-06-01"})

    def text(raw):
        return raw.parse().choices[0].message.content

    def said(raw):
        return raw.parse().content[0].text

    twice("unstreamed", chat(text, model="oai-s-text"), "HIT", "HIT")
    twice("Anthropic's", message(said, model="oai-text"), "HIT", "HIT")

    with ant.messages.stream(model="oai-text", messages=MESSAGES,
                             max_tokens=50, extra_body=COLD) as stream:
        final = stream.get_final_message()
    eq(final.content[0].text, "Hello there, friend.", "the stream helper")
    eq(final.stop_reason, "end_turn", "... its end")

    final = oai.chat.completions.create(model="ant-text", messages=MESSAGES,
                                        temperature=0, max_tokens=50)
    eq(final.choices[0].message.content, "Hello there, friend.",
       "OpenAI's from Anthropic's")


@test
def embeddings():
    def call():
        return (oai.embeddings.with_raw_response.create(
            model="oai-e", input=["one"]),
            lambda raw: raw.parse().data[0].embedding)

    twice("embeddings", call, "MISS", "HIT")


run()

# Copyright (C) nginx AI gateway authors

"""What the packages openai and anthropic do with limits of the gateway."""

import time

import anthropic
import openai

from tap import BASE, KEY, eq, ok, raises, run, test

MESSAGES = [{"role": "user", "content": "Hello"}]


def chat(key, **more):
    client = openai.OpenAI(base_url=BASE + "/v1", api_key=key, timeout=30,
                           **more)
    return client.chat.completions.create(model="m", messages=MESSAGES)


def message(key, **more):
    client = anthropic.Anthropic(base_url=BASE, api_key=key, timeout=30,
                                 **more)
    return client.messages.create(model="m", messages=MESSAGES,
                                  max_tokens=100)


@test
def waits_and_tries_again():
    for name, call in ("openai", chat), ("anthropic", message):
        call("wait-" + name)
        start = time.time()
        call("wait-" + name)
        took = time.time() - start
        ok(0.8 < took < 4, name + ": waits as long as it was told", took)


@test
def gives_up_when_told():
    for name, call, kind in (("openai", chat, openai.RateLimitError),
                             ("anthropic", message,
                              anthropic.RateLimitError)):
        call("day-" + name)
        start = time.time()
        e = raises(kind, lambda: call("day-" + name), name, status_code=429)
        ok(time.time() - start < 0.5, name + ": at once")
        eq(e.response.headers["x-should-retry"], "false",
           name + ": x-should-retry")


@test
def headers():
    client = openai.OpenAI(base_url=BASE + "/v1", api_key="headers")
    r = client.chat.completions.with_raw_response.create(model="m",
                                                         messages=MESSAGES)
    eq(r.headers["x-ratelimit-limit-requests"], "1", "openai: limit")

    client = anthropic.Anthropic(base_url=BASE, api_key="headers-2")
    r = client.messages.with_raw_response.create(model="m", messages=MESSAGES,
                                                 max_tokens=100)
    eq(r.headers["anthropic-ratelimit-requests-remaining"], "0",
       "anthropic: remaining")


@test
def a_stream_that_is_cut():
    client = openai.OpenAI(base_url=BASE + "/cut/v1", api_key="cut")
    chunks = list(client.chat.completions.create(
        model="long", messages=MESSAGES, stream=True,
        stream_options={"include_usage": True}))
    eq([c.choices[0].finish_reason for c in chunks
        if c.choices and c.choices[0].finish_reason], ["length"],
       "openai: finish_reason")
    ok(300 < chunks[-1].usage.total_tokens <= 400, "openai: usage",
       chunks[-1].usage)

    client = anthropic.Anthropic(base_url=BASE + "/cut", api_key="cut-2")
    with client.messages.stream(model="long", messages=MESSAGES,
                                max_tokens=5000) as stream:
        m = stream.get_final_message()
    eq(m.stop_reason, "max_tokens", "anthropic: stop_reason")
    ok(m.usage.output_tokens <= 400, "anthropic: usage", m.usage)


run()

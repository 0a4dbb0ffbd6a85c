# Copyright (C) nginx AI gateway authors

"""Both official SDKs against a real server behind the gateway; prints TAP.

What the model writes makes no sense, so it is the shape that is looked at,
and that a text, a schema or a forced call is carried through unharmed: the
server's grammar sees to it that these are well-formed.
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "sdk"))

import anthropic
import openai

from tap import BASE, eq, ok, raises, run, test

MODEL = "random"
oai = openai.OpenAI(base_url=BASE + "/v1", api_key="none", max_retries=0,
                    timeout=60)
ant = anthropic.Anthropic(base_url=BASE, api_key="none", max_retries=0,
                          timeout=60)

SCHEMA = {"type": "object", "properties": {
    "answer": {"type": "string", "enum": ["yes", "no"]},
    "sure": {"type": "boolean"}},
    "required": ["answer", "sure"], "additionalProperties": False}


def user(text):
    return {"role": "user", "content": text}


def fits(value):
    return (set(value) == {"answer", "sure"}
            and value["answer"] in ("yes", "no")
            and isinstance(value["sure"], bool))


@test
def openai_text():
    args = dict(model=MODEL, messages=[user("Hello")], temperature=0,
                max_tokens=40)
    whole = oai.chat.completions.create(**args)
    c = whole.choices[0]
    ok(c.finish_reason in ("length", "stop"), "finish reason", c)
    ok(c.message.content, "text", c)
    u = whole.usage
    ok(u.prompt_tokens > 5 and 0 < u.completion_tokens <= 40
       and u.total_tokens == u.prompt_tokens + u.completion_tokens, "usage",
       u)

    chunks = list(oai.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **args))
    text = "".join(x.choices[0].delta.content or "" for x in chunks
                   if x.choices)
    eq(text, c.message.content, "the same text in a stream")
    eq(chunks[-1].usage.completion_tokens, u.completion_tokens,
       "the same usage")
    ok(len(chunks) > 5, "in pieces", len(chunks))


@test
def anthropic_text():
    args = dict(model=MODEL, messages=[user("Hello")], max_tokens=40,
                system="Be brief.",
                extra_headers={"anthropic-version": "2023-06-01"},
                extra_body={"temperature": 0})
    whole = ant.messages.create(**args)
    ok(whole.stop_reason in ("max_tokens", "end_turn"), "stop reason", whole)
    ok(whole.content[0].text, "text", whole)
    ok(whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
       > 5 and 0 < whole.usage.output_tokens <= 40, "usage", whole.usage)

    with ant.messages.stream(**args) as s:
        final = s.get_final_message()
    eq(final.content[0].text, whole.content[0].text,
       "the same text in a stream")
    eq(final.usage.output_tokens, whole.usage.output_tokens,
       "the same usage")


@test
def turns():
    messages = [user("One"), {"role": "assistant", "content": "1"},
                user("Two")]
    a = oai.chat.completions.create(model=MODEL, messages=messages,
                                    max_tokens=5)
    b = ant.messages.create(model=MODEL, messages=messages, max_tokens=5)
    ok(a.choices[0].message.content is not None and b.content, "turns",
       (a, b))


@test
def schema():
    a = oai.chat.completions.create(
        model=MODEL, messages=[user("JSON")], max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {
            "name": "answer", "strict": True, "schema": SCHEMA}})
    ok(fits(json.loads(a.choices[0].message.content)), "openai", a)

    b = ant.messages.create(
        model=MODEL, messages=[user("JSON")], max_tokens=200,
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    ok(fits(json.loads(b.content[0].text)), "anthropic", b)


@test
def tools():
    # forced, as this model would not call one by itself, and one only, as it
    # would not stop
    tool = {"name": "vote", "description": "Votes"}
    args = dict(model=MODEL, messages=[user("Vote")], max_tokens=300)

    for stream in False, True:
        openai_args = dict(args, tool_choice="required",
                           parallel_tool_calls=False, tools=[
            {"type": "function", "function": {**tool, "parameters": SCHEMA}}])
        if stream:
            with oai.chat.completions.stream(**openai_args) as s:
                choice = s.get_final_completion().choices[0]
        else:
            choice = oai.chat.completions.create(**openai_args).choices[0]
        call = choice.message.tool_calls[0]
        ok(call.function.name == "vote"
           and fits(json.loads(call.function.arguments)), "openai", choice)
        eq(choice.finish_reason, "tool_calls", "finish reason")

        anthropic_args = dict(
            args, tools=[{**tool, "input_schema": SCHEMA}],
            tool_choice={"type": "tool", "name": "vote",
                         "disable_parallel_tool_use": True})
        if stream:
            with ant.messages.stream(**anthropic_args) as s:
                message = s.get_final_message()
        else:
            message = ant.messages.create(**anthropic_args)
        use = [b for b in message.content if b.type == "tool_use"]
        ok(len(use) == 1 and use[0].name == "vote" and fits(use[0].input),
           "anthropic", message)
        ok(message.stop_reason == "tool_use", "stop reason", message)

        again = ant.messages.create(model=MODEL, max_tokens=5, tools=[
            {**tool, "input_schema": SCHEMA}],
            messages=[user("Vote"),
                      {"role": "assistant", "content": message.content},
                      user([{"type": "tool_result", "tool_use_id": b.id,
                             "content": "voted"} for b in use])])
        ok(again.usage.output_tokens > 0, "goes on after the result", again)


@test
def stop():
    a = oai.chat.completions.create(
        model=MODEL, messages=[user("x")], max_tokens=100, temperature=0)
    text = a.choices[0].message.content
    at = text[len(text) // 2]
    b = ant.messages.create(
        model=MODEL, messages=[user("x")], max_tokens=100,
        stop_sequences=[at],
        extra_headers={"anthropic-version": "2023-06-01"},
        extra_body={"temperature": 0})
    eq("".join(x.text for x in b.content), text[:text.index(at)], "stop")


@test
def errors():
    long = "word " * 20000
    e = raises(openai.BadRequestError, lambda: oai.chat.completions.create(
        model=MODEL, messages=[user(long)], max_tokens=5), "too long")
    eq(e.code, "context_length_exceeded", "code")
    e = raises(anthropic.BadRequestError, lambda: ant.messages.create(
        model=MODEL, messages=[user(long)], max_tokens=5), "too long")
    ok("prompt is too long" in str(e), "as clients look for it", e)


run()

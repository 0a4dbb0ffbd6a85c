# Copyright (C) nginx AI gateway authors

"""The openai package against either upstream."""

import hashlib
import json
import time

import openai
from pydantic import BaseModel

from tap import (BASE, GOOD_KEY, KEY, PNG, PNG_URL, UPSTREAM, eq, model, ok,
                 raises, run, test)

client = openai.OpenAI(base_url=BASE + "/v1", api_key=KEY, max_retries=0,
                       timeout=30)
MODEL = model("gpt-4.1")

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}

PING = {
    "type": "function",
    "function": {"name": "ping",
                 "parameters": {"type": "object", "properties": {}}},
}


def user(text):
    return {"role": "user", "content": text}


def check_chunks(chunks, name, usage=True):
    """What a producer of chunks has to keep to."""
    first = chunks[0]
    eq({(c.id, c.created, c.model, c.object) for c in chunks},
       {(first.id, first.created, first.model, "chat.completion.chunk")},
       name + ": the same id, time and model in all chunks")
    eq([c.choices[0].delta.role for c in chunks if c.choices
        and c.choices[0].delta.role], ["assistant"], name + ": one role")
    eq(first.choices[0].delta.role, "assistant", name + ": role at first")
    finished = [i for i, c in enumerate(chunks)
                if c.choices and c.choices[0].finish_reason]
    eq(len(finished), 1, name + ": one finish reason")
    last = [i for i, c in enumerate(chunks) if c.choices][-1]
    eq(finished[0], last, name + ": in the last chunk with a choice")
    with_usage = [i for i, c in enumerate(chunks) if c.usage]
    if usage:
        eq(with_usage, [len(chunks) - 1], name + ": usage in the last chunk")
        eq(chunks[-1].choices, [], name + ": which has no choice")
    else:
        eq(with_usage, [], name + ": no usage that was not asked for")


def chat(name, messages, model=MODEL, **args):
    """The same, streamed and not; returns both completions."""
    whole = client.chat.completions.create(model=model, messages=messages,
                                           **args)
    eq(whole.object, "chat.completion", name + ": object")
    ok(abs(whole.created - time.time()) < 10 or whole.created < 1800000000,
       name + ": created in seconds", whole.created)

    chunks = list(client.chat.completions.create(
        model=model, messages=messages, stream=True,
        stream_options={"include_usage": True}, **args))
    check_chunks(chunks, name)

    with client.chat.completions.stream(
            model=model, messages=messages,
            stream_options={"include_usage": True}, **args) as stream:
        events = [e for e in stream]
        try:
            final = stream.get_final_completion()
        except (openai.LengthFinishReasonError,
                openai.ContentFilterFinishReasonError) as e:
            # what the helper says instead of giving the completion
            eq(whole.choices[0].finish_reason,
               "length" if isinstance(e, openai.LengthFinishReasonError)
               else "content_filter", name + ": exception")
            final = e.completion

    done = [e for e in events if e.type == "content.done"]
    a, b = whole.choices[0], final.choices[0]
    if a.message.content:
        eq([e.content for e in done], [a.message.content],
           name + ": content.done")
    eq(b.message.content or "", a.message.content or "",
       name + ": same content")
    eq(b.message.refusal, a.message.refusal, name + ": same refusal")
    eq(b.finish_reason, a.finish_reason, name + ": same finish reason")
    eq([(c.function.name, json.loads(c.function.arguments))
        for c in b.message.tool_calls or []],
       [(c.function.name, json.loads(c.function.arguments))
        for c in a.message.tool_calls or []], name + ": same calls")
    eq(final.usage.to_dict(), whole.usage.to_dict(), name + ": same usage")
    eq(chunks[-1].usage.to_dict(), whole.usage.to_dict(),
       name + ": usage of the chunks")
    return whole, final


def describe(messages, **args):
    args.setdefault("max_completion_tokens", 4000)
    whole, final = chat("describe", messages, **args)
    return json.loads(whole.choices[0].message.content)


@test
def text():
    for text in "Hello, world.", "\u00e9\u4f60\U0001f600 \"q\" \\ \n\t end":
        whole, final = chat("text", [user("Say " + text)])
        eq(whole.choices[0].message.content, text, "text")
        eq(whole.choices[0].message.role, "assistant", "role")
        eq(whole.choices[0].finish_reason, "stop", "stop")
        eq(whole.choices[0].index, 0, "index")
        eq(whole.choices[0].message.tool_calls, None, "no tool calls")


@test
def usage():
    whole, final = chat("usage", [user("Count to 9")])
    u = whole.usage
    eq((u.prompt_tokens, u.completion_tokens, u.total_tokens), (57, 9, 66),
       "tokens")
    eq(u.prompt_tokens_details.cached_tokens, 12, "cached tokens")

    chunks = list(client.chat.completions.create(
        model=MODEL, messages=[user("Say yes")], stream=True))
    check_chunks(chunks, "no usage", usage=False)


@test
def turns():
    d = describe([
        {"role": "system", "content": "Be brief."},
        user("One"), {"role": "assistant", "content": "1"},
        user("Two"), {"role": "assistant", "content": "2"},
        user([{"type": "text", "text": "Three"},
              {"type": "text", "text": "Describe"}]),
    ])
    eq(d["system"], "Be brief.", "system prompt")
    eq(d["turns"], ["user: One", "assistant: 1", "user: Two", "assistant: 2",
                    "user: Three Describe"], "turns")

    d = describe([
        {"role": "developer", "content": [{"type": "text", "text": "A"}]},
        {"role": "system", "content": "B"},
        user("Describe"),
    ], temperature=0.5, max_completion_tokens=300, stop="<end>",
        user="someone")
    eq(d["system"], "A\nB", "developer and system")
    eq(d["temperature"], 0.5, "temperature")
    eq(d["max"], 300, "max_completion_tokens")
    eq(d["stop"], ["<end>"], "stop")
    eq(d["user"], "someone", "user")


@test
def one_tool():
    for stream in False, True:
        messages = [user("Weather in Paris")]

        if stream:
            with client.chat.completions.stream(
                    model=MODEL, messages=messages, tools=[TOOL]) as s:
                events = [e for e in s]
                answer = s.get_final_completion()
            done = [e for e in events
                    if e.type == "tool_calls.function.arguments.done"]
            eq([(e.name, e.index, json.loads(e.arguments)) for e in done],
               [("get_weather", 0, {"city": "Paris"})], "arguments.done")
        else:
            answer = client.chat.completions.create(
                model=MODEL, messages=messages, tools=[TOOL])

        choice = answer.choices[0]
        eq(choice.finish_reason, "tool_calls", "finish reason")
        eq(len(choice.message.tool_calls), 1, "one call")
        call = choice.message.tool_calls[0]
        eq(call.type, "function", "type")
        eq(call.function.name, "get_weather", "name")
        eq(json.loads(call.function.arguments), {"city": "Paris"},
           "arguments")

        # the SDK's own object goes back
        message = choice.message.to_dict(exclude_none=True)
        message.pop("parsed", None)
        for c in message["tool_calls"]:
            c.pop("index", None)
            c["function"].pop("parsed_arguments", None)

        messages += [message, {"role": "tool", "tool_call_id": call.id,
                               "content": "18 C"}]
        whole, _ = chat("result", messages, tools=[TOOL])
        eq(whole.choices[0].message.content,
           'get_weather({"city":"Paris"})=18 C', "result")

        d = describe(messages + [{"role": "assistant", "content": "Warm."},
                                 user("Describe")], tools=[TOOL])
        eq(d["turns"], [
            "user: Weather in Paris",
            "assistant: Let me look. <call %s get_weather "
            '{"city":"Paris"}>' % call.id,
            "user: <result %s 18 C>" % call.id,
            "assistant: Warm.", "user: Describe"], "id and order")


@test
def several_tools():
    for stream in False, True:
        messages = [user("Weather in Paris and Rome")]

        if stream:
            with client.chat.completions.stream(
                    model=MODEL, messages=messages, tools=[TOOL]) as s:
                answer = s.get_final_completion()
        else:
            answer = client.chat.completions.create(
                model=MODEL, messages=messages, tools=[TOOL])

        calls = answer.choices[0].message.tool_calls
        eq([json.loads(c.function.arguments) for c in calls],
           [{"city": "Paris"}, {"city": "Rome"}], "two calls")
        ok(calls[0].id != calls[1].id, "of two ids")

        # content may be left out beside calls, results in any order
        messages += [
            {"role": "assistant", "tool_calls": [
                {"id": c.id, "type": "function", "function": {
                    "name": c.function.name,
                    "arguments": c.function.arguments}} for c in calls]},
            {"role": "tool", "tool_call_id": calls[1].id,
             "content": [{"type": "text", "text": "25 C"}]},
            {"role": "tool", "tool_call_id": calls[0].id,
             "content": "18 C"},
        ]
        whole, _ = chat("results", messages, tools=[TOOL])
        eq(whole.choices[0].message.content,
           'get_weather({"city":"Rome"})=25 C; '
           'get_weather({"city":"Paris"})=18 C', "both results")

        # and what the user says after them
        whole, _ = chat("results and text", messages + [user("Hurry")],
                        tools=[TOOL])
        eq(whole.choices[0].message.content,
           'get_weather({"city":"Rome"})=25 C; '
           'get_weather({"city":"Paris"})=18 C; and: Hurry',
           "results and text")


@test
def tool_choice():
    ask = [user("Weather in Oslo")]

    whole, _ = chat("none", ask, tools=[TOOL], tool_choice="none")
    eq(whole.choices[0].message.content, "I cannot look.", "none")
    eq(whole.choices[0].finish_reason, "stop", "no call")

    whole, _ = chat("required", [user("Hello")], tools=[PING, TOOL],
                    tool_choice="required")
    call = whole.choices[0].message.tool_calls[0]
    eq((call.function.name, call.function.arguments), ("ping", "{}"),
       "required, without arguments")

    whole, _ = chat("named", [user("Hello")], tools=[TOOL, PING],
                    tool_choice={"type": "function",
                                 "function": {"name": "ping"}})
    eq(whole.choices[0].message.tool_calls[0].function.name, "ping", "named")

    whole, _ = chat("parallel", [user("Weather in Rome and Oslo")],
                    tools=[TOOL], parallel_tool_calls=False)
    eq(len(whole.choices[0].message.tool_calls), 1,
       "no parallel calls when they are off")

    d = describe([user("Describe")], tools=[TOOL, PING], tool_choice="auto")
    eq((d.get("choice", "auto"), d["tools"]), ("auto",
       ["get_weather", "ping"]), "auto")


@test
def images():
    for url, want in (("data:image/png;base64," + PNG, "image/png "
                       + hashlib.sha1(PNG.encode()).hexdigest()),
                      (PNG_URL, PNG_URL)):
        d = describe([user([
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "Describe"},
        ])])
        eq(d["turns"], ["user: What is it? <image %s> Describe" % want],
           "image")


@test
def structured():
    class Address(BaseModel):
        street: str
        number: int

    class Person(BaseModel):
        name: str
        tags: list[str]
        address: Address
        active: bool

    answer = client.chat.completions.parse(
        model=MODEL, messages=[user("Give JSON")], response_format=Person)
    want = Person(name="a name", tags=["a tags"], active=True,
                  address=Address(street="a street", number=7))
    eq(answer.choices[0].message.parsed, want, "parsed")

    with client.chat.completions.stream(
            model=MODEL, messages=[user("Give JSON")],
            response_format=Person) as s:
        eq(s.get_final_completion().choices[0].message.parsed, want,
           "parsed from a stream")

    # bounds, which not everybody supports
    whole, _ = chat("schema", [user("Give JSON")], response_format={
        "type": "json_schema", "json_schema": {"name": "age", "schema": {
            "type": "object", "properties": {
                "age": {"type": "integer", "minimum": 0}},
            "required": ["age"]}}})
    eq(json.loads(whole.choices[0].message.content), {"age": 7}, "bounds")


@test
def stop():
    whole, _ = chat("stop", [user("Count to 9")], stop=[" 4", "7"])
    eq(whole.choices[0].message.content, "1 2 3", "stopped")
    eq(whole.choices[0].finish_reason, "stop", "stop")


@test
def length():
    whole, _ = chat("length", [user("Count to 9")], max_completion_tokens=3)
    eq(whole.choices[0].message.content, "1 2 3", "cut")
    eq(whole.choices[0].finish_reason, "length", "length")
    eq(whole.usage.completion_tokens, 3, "tokens")

    whole, _ = chat("max_tokens", [user("Count to 9")], max_tokens=4)
    eq(whole.choices[0].message.content, "1 2 3 4", "the old name")


@test
def reasoning():
    m = model("reasoner")
    whole, final = chat("reasoning", [user("Think about cats")], model=m,
                        reasoning_effort="medium")
    for c in whole, final:
        message = c.choices[0].message
        eq(message.content, "It is cats.", "text")
        eq(message.model_extra.get("reasoning_content"),
           "About cats I think this.", "reasoning")
        eq(c.usage.completion_tokens_details.reasoning_tokens, 5,
           "reasoning tokens")
        eq(c.usage.completion_tokens, 8, "are among all")

    # with a tool: what was thought goes back with the call
    ask = [user("Think and Weather in Rome")]
    answer = client.chat.completions.create(
        model=m, messages=ask, tools=[TOOL], reasoning_effort="medium")
    message = answer.choices[0].message
    eq(message.model_extra.get("reasoning_content"), "Let me see.",
       "before a call")
    if UPSTREAM == "anthropic":
        ok(message.model_extra.get("reasoning_signature"), "its signature")

    for back in (message.to_dict(exclude_none=True),
                 {"role": "assistant", "tool_calls":
                  message.to_dict()["tool_calls"]}):
        call = message.tool_calls[0]
        whole, _ = chat("thinking with tools", ask + [
            back, {"role": "tool", "tool_call_id": call.id,
                   "content": "25 C"}],
            model=m, tools=[TOOL], reasoning_effort="medium")
        eq(whole.choices[0].message.content,
           'get_weather({"city":"Rome"})=25 C', "result")

    # and is seen there
    d = describe(ask + [
        message.to_dict(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "25 C"},
        {"role": "assistant", "content": "Warm."}, user("Describe")],
        model=m, tools=[TOOL], reasoning_effort="medium")
    ok("<thinking Let me see.>" in d["turns"][1], "came back",
       d["turns"][1])

    # models that hide it
    whole, _ = chat("hidden", [user("Think about dogs")],
                    model=model("gpt-5.5"), reasoning_effort="high")
    eq(whole.choices[0].message.content, "It is dogs.", "hidden")
    eq(whole.usage.completion_tokens_details.reasoning_tokens, 5, "counted")


@test
def refusal():
    whole, _ = chat("refusal", [user("Refuse")])
    choice = whole.choices[0]
    if UPSTREAM == "openai":
        eq((choice.message.refusal, choice.finish_reason),
           ("I cannot help with that.", "stop"), "refusal")
    else:
        eq(choice.finish_reason, "content_filter", "refusal")


@test
def errors():
    def ask(text="Say x", **args):
        args = {"model": MODEL, "messages": [user(text)], **args}
        return client.chat.completions.create(**args)

    for stream in False, True:
        e = raises(openai.BadRequestError,
                   lambda: ask("Fail 400", stream=stream), "400",
                   status_code=400, type="invalid_request_error")
        ok("told to fail with 400" in str(e), "its message", e)
        raises(openai.RateLimitError,
               lambda: ask("Fail 429", stream=stream), "429",
               status_code=429)
        e = raises(openai.InternalServerError,
                   lambda: ask("Fail 500", stream=stream), "500")
        ok(e.status_code in (500, 502), "status of 500", e)
        e = raises(openai.InternalServerError,
                   lambda: ask("Fail %d" % (503 if UPSTREAM == "openai"
                                            else 529), stream=stream),
                   "overloaded", status_code=503)
        e = raises(openai.NotFoundError,
                   lambda: ask(model="nobody", stream=stream), "no model",
                   status_code=404, code="model_not_found")
        raises(openai.NotFoundError,
               lambda: ask(model=model("gone"), stream=stream),
               "no model upstream", status_code=404,
               code="model_not_found")

    e = raises(openai.RateLimitError, lambda: ask("Fail 429"), "429")
    eq(e.response.headers.get("retry-after"), "7", "retry-after")

    # of the gateway itself
    raises(openai.BadRequestError, lambda: ask(messages=[]), "no messages")
    raises(openai.BadRequestError,
           lambda: ask(messages=[{"role": "king", "content": "x"}]),
           "unknown role")
    raises(openai.BadRequestError,
           lambda: ask(messages=[{"role": "tool", "content": "x",
                                  "tool_call_id": "call_1"}]),
           "result without a call")

    small = openai.OpenAI(base_url=BASE + "/small/v1", api_key=KEY,
                          max_retries=0)
    e = raises(openai.APIStatusError,
               lambda: small.chat.completions.create(
                   model=MODEL, messages=[user("x" * 200000)]),
               "too large", status_code=413)
    ok(isinstance(e.body, dict) and e.body.get("message"), "its body",
       getattr(e, "body", e))


@test
def keys():
    m = model("byok")

    def ask(key):
        c = openai.OpenAI(base_url=BASE + "/v1", api_key=key, max_retries=0)
        return c.chat.completions.create(model=m, messages=[user("Say x")])

    eq(ask(GOOD_KEY).choices[0].message.content, "x", "the client's key")
    e = raises(openai.AuthenticationError, lambda: ask("sk-wrong"), "401",
               status_code=401)
    eq(getattr(e, "code", None), "invalid_api_key", "code")


@test
def broken():
    for text in "Break", "Cut":
        got = []

        def ask():
            for chunk in client.chat.completions.create(
                    model=MODEL, messages=[user(text)], stream=True):
                got.append(chunk.choices[0].delta.content or "")

        raises(openai.APIError, ask, text)
        eq("".join(got), "Half of it", text + ": what came before")

        with client.chat.completions.stream(
                model=MODEL, messages=[user(text)]) as s:
            raises(openai.APIError, s.get_final_completion,
                   text + ", helper")


@test
def streaming():
    start = time.monotonic()
    first = None
    for chunk in client.chat.completions.create(
            model=MODEL, messages=[user("Slow")], stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.monotonic() - start
    total = time.monotonic() - start
    ok(first < total - 0.1, "pieces come when they come",
       "%s of %s" % (first, total))


@test
def models():
    names = [m.id for m in client.models.list()]
    ok(MODEL in names, "in the list", names)
    ok(all(m.object == "model" and isinstance(m.created, int)
           and m.owned_by for m in client.models.list()), "members")
    eq(client.models.retrieve(MODEL).id, MODEL, "one of them")
    raises(openai.NotFoundError, lambda: client.models.retrieve("nobody"),
           "none of them")


@test
def direct():
    # "ai_pass PROVIDER": the provider's names of models, and its list
    c = openai.OpenAI(base_url=BASE + "/direct-" + UPSTREAM + "/v1",
                      api_key=KEY, max_retries=0)
    m = "gpt-4.1" if UPSTREAM == "openai" else "claude-sonnet-4-5"
    answer = c.chat.completions.create(model=m, messages=[user("Say x")])
    eq(answer.choices[0].message.content, "x", "chat")
    if UPSTREAM == "openai":
        ok(m in [x.id for x in c.models.list()], "models",
           c.models.list().to_dict())
        eq(c.models.retrieve(m).id, m, "one of them")
    raises(openai.NotFoundError, lambda: c.chat.completions.create(
        model="nobody", messages=[user("Say x")]), "no model")


@test
def embeddings():
    m = model("embed")

    if UPSTREAM == "anthropic":
        raises(openai.BadRequestError,
               lambda: client.embeddings.create(model=MODEL, input="x"),
               "no embeddings there")
        return

    # the SDK asks for base64 by itself
    e = client.embeddings.create(model=m, input=["a", "b"])
    eq([d.embedding for d in e.data],
       [[.125, .25, .375, .5], [.25, .5, .75, 1.0]], "base64")
    eq([d.index for d in e.data], [0, 1], "index")
    eq((e.usage.prompt_tokens, e.usage.total_tokens), (6, 6), "usage")

    e = client.embeddings.create(model=m, input="a", dimensions=2,
                                 encoding_format="float")
    eq(e.data[0].embedding, [.125, .25], "float")


@test
def completions():
    m = model("legacy")

    if UPSTREAM == "anthropic":
        raises(openai.BadRequestError,
               lambda: client.completions.create(model=MODEL, prompt="x"),
               "no completions there")
        return

    c = client.completions.create(model=m, prompt="Count to 5")
    eq((c.object, c.choices[0].text, c.choices[0].finish_reason),
       ("text_completion", "1 2 3 4 5", "stop"), "whole")
    eq(c.usage.total_tokens, 45, "usage")

    chunks = list(client.completions.create(
        model=m, prompt="Count to 5", max_tokens=3, stream=True))
    eq("".join(c.choices[0].text for c in chunks), "1 2 3", "stream")
    eq(chunks[-1].choices[0].finish_reason, "length", "length")


@test
def asynchronous():
    import asyncio

    async def main():
        async with openai.AsyncOpenAI(base_url=BASE + "/v1", api_key=KEY,
                                      max_retries=0) as c:
            async def one(i):
                text = ""
                async for chunk in await c.chat.completions.create(
                        model=MODEL, stream=True,
                        messages=[user("Say number %d" % i)]):
                    if chunk.choices:
                        text += chunk.choices[0].delta.content or ""
                return text

            return await asyncio.gather(*(one(i) for i in range(20)))

    eq(asyncio.run(main()), ["number %d" % i for i in range(20)],
       "twenty at once")


run()

# Copyright (C) nginx AI gateway authors

"""The anthropic package against either upstream."""

import hashlib
import json
import time
import warnings

import anthropic
from pydantic import BaseModel

from tap import (BASE, GOOD_KEY, KEY, PNG, PNG_URL, UPSTREAM, eq, model, ok,
                 raises, run, test)

warnings.simplefilter("ignore")

client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0,
                             timeout=30)
MODEL = model("claude-sonnet-4-5")
REASONER = model("claude-sonnet-4-5-reasoner")
OPUS = model("claude-opus-4-7")

TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}

PING = {"name": "ping", "input_schema": {"type": "object", "properties": {}}}
THINK = {"type": "enabled", "budget_tokens": 2000}


def user(content):
    return {"role": "user", "content": content}


def check_events(events, name):
    """The order that clients rely on."""
    eq(events[0].type, "message_start", name + ": starts")
    eq([e.type for e in events[-2:]], ["message_delta", "message_stop"],
       name + ": ends")

    start = events[0].message
    eq((start.type, start.role, start.content, start.stop_reason),
       ("message", "assistant", [], None), name + ": message_start")
    ok(start.usage.input_tokens >= 0 and start.usage.output_tokens <= 1,
       name + ": usage in message_start", start.usage)

    opened = None
    count = 0
    for e in events[1:-2]:
        if e.type == "content_block_start":
            eq((opened, e.index), (None, count), name + ": one block at once")
            opened = e
            count += 1
        elif e.type == "content_block_stop":
            eq(e.index, opened and opened.index, name + ": block ends")
            opened = None
        elif e.type == "content_block_delta":
            want = {"text_delta": "text", "input_json_delta": "tool_use",
                    "thinking_delta": "thinking",
                    "signature_delta": "thinking"}[e.delta.type]
            if not opened or opened.index != e.index \
               or opened.content_block.type != want:
                ok(False, name + ": delta of the open block", e)
        else:
            ok(False, name + ": unexpected " + e.type)
    eq(opened, None, name + ": all blocks are closed")


def plain(message):
    """Content without ids, which differ from one answer to the next."""
    return [{k: v for k, v in b.to_dict().items()
             if k in ("type", "text", "name", "input", "thinking") and
             v is not None}
            for b in message.content]


def chat(name, messages, model=MODEL, max_tokens=4000, **args):
    """The same, streamed and not; returns both messages."""
    args = dict(model=model, messages=messages, max_tokens=max_tokens,
                **args)
    whole = client.messages.create(**args)
    eq((whole.type, whole.role), ("message", "assistant"), name + ": type")
    ok(whole.id.startswith("msg_") or whole.id.startswith("chatcmpl-"),
       name + ": id", whole.id)

    events = list(client.messages.create(stream=True, **args))
    check_events(events, name)

    with client.messages.stream(**args) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    eq(text, "".join(b.text for b in whole.content if b.type == "text"),
       name + ": text_stream")
    eq(plain(final), plain(whole), name + ": same content")
    eq((final.stop_reason, final.stop_sequence),
       (whole.stop_reason, whole.stop_sequence), name + ": same reason")

    def figures(u):
        return (u.input_tokens, u.output_tokens, u.cache_read_input_tokens,
                u.cache_creation_input_tokens)

    eq(figures(final.usage), figures(whole.usage), name + ": same usage")
    eq(figures(events[-2].usage), figures(whole.usage),
       name + ": usage in message_delta")
    return whole, final


def describe(messages, **args):
    whole, final = chat("describe", messages, **args)
    return json.loads(whole.content[-1].text)


@test
def text():
    for text in "Hello, world.", "\u00e9\u4f60\U0001f600 \"q\" \\ \n\t end":
        whole, final = chat("text", [user("Say " + text)])
        eq(plain(whole), [{"type": "text", "text": text}], "text")
        eq((whole.stop_reason, whole.stop_sequence), ("end_turn", None),
           "end_turn")


@test
def request_id():
    raw = client.messages.with_raw_response.create(
        model=MODEL, max_tokens=10, messages=[user("Say x")])
    eq(len(raw.headers.get_list("request-id")), 1, "one request-id")
    ok(raw.parse()._request_id, "which the SDK knows")


@test
def usage():
    whole, final = chat("usage", [user("Count to 9")])
    for m in whole, final:
        eq((m.usage.input_tokens, m.usage.cache_read_input_tokens,
            m.usage.cache_creation_input_tokens, m.usage.output_tokens),
           (40, 12, 5, 9), "tokens")


@test
def turns():
    d = describe([
        user("One"), {"role": "assistant", "content": "1"},
        user("Two"),
        {"role": "assistant", "content": [{"type": "text", "text": "2"}]},
        user([{"type": "text", "text": "Three"},
              {"type": "text", "text": "Describe"}]),
    ], system="Be brief.")
    eq(d["system"], "Be brief.", "system prompt")
    eq(d["turns"], ["user: One", "assistant: 1", "user: Two", "assistant: 2",
                    "user: Three Describe"], "turns")

    d = describe([
        user([{"type": "text", "text": "Describe",
               "cache_control": {"type": "ephemeral", "ttl": "1h"}}]),
    ], system=[{"type": "text", "text": "A",
                "cache_control": {"type": "ephemeral"}},
               {"type": "text", "text": "B"}],
        stop_sequences=["<end>"], metadata={"user_id": "someone"},
        max_tokens=300)
    eq(d["system"].replace("\n", ""), "AB", "system blocks")
    eq((d["max"], d["stop"], d["user"]), (300, ["<end>"], "someone"),
       "max_tokens, stop_sequences, user_id")

    # of the older version of the API
    if UPSTREAM == "openai":
        d = describe([user("Describe")], extra_body={"temperature": 0.5})
        eq(d["temperature"], 0.5, "temperature")
    d = describe([user("Describe")], extra_body={"temperature": 0.5},
                 extra_headers={"anthropic-version": "2023-06-01"})
    eq(d["temperature"], 0.5, "temperature")

    # two of the user in a row
    d = describe([user("One"), user("Describe")])
    eq(d["turns"], ["user: One Describe"], "merged")


@test
def one_tool():
    for stream in False, True:
        messages = [user("Weather in Paris")]
        args = dict(model=MODEL, max_tokens=1000, messages=messages,
                    tools=[TOOL])

        if stream:
            with client.messages.stream(**args) as s:
                events = [e for e in s]
                answer = s.get_final_message()
            got = [e.partial_json for e in events if e.type == "input_json"]
            eq(json.loads("".join(got)), {"city": "Paris"}, "input_json")
        else:
            answer = client.messages.create(**args)

        eq(answer.stop_reason, "tool_use", "stop reason")
        eq(plain(answer), [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "name": "get_weather",
             "input": {"city": "Paris"}}], "content")
        call = answer.content[1]

        for content in ("18 C", [{"type": "text", "text": "18 "},
                                 {"type": "text", "text": "C"}]):
            more = messages + [
                {"role": "assistant", "content": answer.content},
                user([{"type": "tool_result", "tool_use_id": call.id,
                       "content": content}])]
            whole, _ = chat("result", more, tools=[TOOL])
            eq(whole.content[0].text.replace("\n", ""),
               'get_weather({"city":"Paris"})=18 C', "result")

        d = describe(more + [{"role": "assistant", "content": "Warm."},
                             user("Describe")], tools=[TOOL])
        eq([t.replace("\n", "") for t in d["turns"]], [
            "user: Weather in Paris",
            "assistant: Let me look. <call %s get_weather "
            '{"city":"Paris"}>' % call.id,
            "user: <result %s 18 C>" % call.id,
            "assistant: Warm.", "user: Describe"], "id and order")


@test
def several_tools():
    ask = [user("Weather in Paris and Rome")]
    whole, final = chat("calls", ask, tools=[TOOL])

    for answer in whole, final:
        calls = [b for b in answer.content if b.type == "tool_use"]
        eq([c.input for c in calls], [{"city": "Paris"}, {"city": "Rome"}],
           "two calls")
        ok(calls[0].id != calls[1].id, "of two ids")

        messages = ask + [
            {"role": "assistant", "content": answer.content},
            user([
                {"type": "tool_result", "tool_use_id": calls[1].id,
                 "content": "25 C"},
                {"type": "tool_result", "tool_use_id": calls[0].id,
                 "is_error": True, "content": "no such city"},
                {"type": "text", "text": "Hurry"},
            ])]
        result, _ = chat("results", messages, tools=[TOOL])
        eq(result.content[0].text,
           'get_weather({"city":"Rome"})=25 C; '
           'get_weather({"city":"Paris"})=Error: no such city; and: Hurry',
           "results, one of them an error, and a text")

    # a picture and nothing as results
    messages = ask + [
        {"role": "assistant", "content": calls},
        user([
            {"type": "tool_result", "tool_use_id": calls[0].id, "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": {
                    "type": "base64", "media_type": "image/png",
                    "data": PNG}}]},
            {"type": "tool_result", "tool_use_id": calls[1].id},
        ]),
        {"role": "assistant", "content": "Nice."}, user("Describe")]
    d = describe(messages, tools=[TOOL])
    ok("<image image/png %s>" % hashlib.sha1(PNG.encode()).hexdigest()
       in d["turns"][2], "picture in a result", d["turns"])
    ok("<result %s " % calls[0].id in d["turns"][2]
       and "<result %s " % calls[1].id in d["turns"][2], "both results",
       d["turns"])


@test
def tool_choice():
    ask = [user("Weather in Oslo")]

    whole, _ = chat("none", ask, tools=[TOOL], tool_choice={"type": "none"})
    eq((whole.content[0].text, whole.stop_reason),
       ("I cannot look.", "end_turn"), "none")

    whole, _ = chat("any", [user("Hello")], tools=[PING, TOOL],
                    tool_choice={"type": "any"})
    eq(plain(whole), [{"type": "tool_use", "name": "ping", "input": {}}],
       "any, without arguments")

    whole, _ = chat("tool", [user("Hello")], tools=[TOOL, PING],
                    tool_choice={"type": "tool", "name": "ping"})
    eq(whole.content[0].name, "ping", "named")

    whole, _ = chat("parallel", [user("Weather in Rome and Oslo")],
                    tools=[TOOL],
                    tool_choice={"type": "auto",
                                 "disable_parallel_tool_use": True})
    eq(len([b for b in whole.content if b.type == "tool_use"]), 1,
       "no parallel calls when they are off")


@test
def images():
    for source, want in (
            ({"type": "base64", "media_type": "image/png", "data": PNG},
             "image/png " + hashlib.sha1(PNG.encode()).hexdigest()),
            ({"type": "url", "url": PNG_URL}, PNG_URL)):
        d = describe([user([
            {"type": "text", "text": "What is it?"},
            {"type": "image", "source": source},
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

    want = Person(name="a name", tags=["a tags"], active=True,
                  address=Address(street="a street", number=7))
    args = dict(model=MODEL, max_tokens=1000, messages=[user("Give JSON")])

    answer = client.messages.parse(output_format=Person, **args)
    eq(answer.parsed_output, want, "parsed")

    with client.messages.stream(output_format=Person, **args) as s:
        eq(s.get_final_message().parsed_output, want, "parsed from a stream")


@test
def stop():
    whole, final = chat("stop", [user("Count to 9")],
                        stop_sequences=[" 4", "7"])
    eq(whole.content[0].text, "1 2 3", "stopped")
    if UPSTREAM == "anthropic":
        eq((whole.stop_reason, whole.stop_sequence), ("stop_sequence", " 4"),
           "stop_sequence")
    else:
        # which says no more
        eq((whole.stop_reason, whole.stop_sequence), ("end_turn", None),
           "end_turn")


@test
def length():
    whole, _ = chat("length", [user("Count to 9")], max_tokens=3)
    eq((whole.content[0].text, whole.stop_reason), ("1 2 3", "max_tokens"),
       "max_tokens")
    eq(whole.usage.output_tokens, 3, "tokens")


@test
def thinking():
    for m, t in ((REASONER, THINK), (OPUS, {"type": "adaptive"})):
        whole, final = chat("thinking", [user("Think about cats")], model=m,
                            thinking=t)

        if m == OPUS and UPSTREAM == "openai":
            # hidden there
            eq(plain(whole), [{"type": "text", "text": "It is cats."}]
               if whole.usage.output_tokens == 8 else
               [{"type": "text", "text": "It is cats."}], "text")
            continue

        for x in whole, final:
            eq(plain(x), [
                {"type": "thinking", "thinking": "About cats I think this."},
                {"type": "text", "text": "It is cats."}], "thinking")
            ok(isinstance(x.content[0].signature, str), "signature",
               x.content[0])
            eq(x.usage.output_tokens, 8, "tokens")

        # with a tool: what was thought goes back, signature and all
        ask = [user("Think and Weather in Rome")]
        for stream in False, True:
            args = dict(model=m, messages=ask, tools=[TOOL], thinking=t,
                        max_tokens=4000)
            if stream:
                with client.messages.stream(**args) as s:
                    answer = s.get_final_message()
            else:
                answer = client.messages.create(**args)
            eq([b.type for b in answer.content],
               ["thinking", "text", "tool_use"], "order of blocks")
            result = user([{"type": "tool_result", "content": "25 C",
                            "tool_use_id": answer.content[2].id}])
            back = ask + [{"role": "assistant", "content": answer.content},
                          result]
            whole, _ = chat("result", back, model=m, tools=[TOOL],
                            thinking=t)
            eq(whole.content[-1].text, 'get_weather({"city":"Rome"})=25 C',
               "result")

            d = describe(back + [{"role": "assistant", "content": "Warm."},
                                 user("Describe")], model=m, tools=[TOOL],
                         thinking=t)
            ok("<thinking Let me see.>" in d["turns"][1], "came back",
               d["turns"])

    if UPSTREAM == "anthropic":
        answer = client.messages.create(
            model=REASONER, messages=ask, tools=[TOOL], thinking=THINK,
            max_tokens=4000)
        forged = [b.to_dict() for b in answer.content]
        forged[0]["signature"] = "AAAA"
        e = raises(anthropic.BadRequestError, lambda: client.messages.create(
            model=REASONER, tools=[TOOL], thinking=THINK, max_tokens=4000,
            messages=ask + [{"role": "assistant", "content": forged},
                            user([{"type": "tool_result", "content": "x",
                                   "tool_use_id": forged[2]["id"]}])]),
            "forged signature")
        ok("signature" in str(e), "is what it says", e)


@test
def effort():
    d = describe([user("Describe")], model=OPUS,
                 output_config={"effort": "high"})
    eq(d.get("effort"), "high", "effort")


@test
def refusal():
    whole, _ = chat("refusal", [user("Refuse")])
    eq(whole.stop_reason, "refusal", "stop reason")
    eq(whole.content[0].text, "I cannot help with that.", "text")


@test
def errors():
    def ask(text="Say x", stream=False, **args):
        args = {"model": MODEL, "max_tokens": 100, "messages": [user(text)],
                **args}
        return client.messages.create(stream=stream, **args)

    for stream in False, True:
        e = raises(anthropic.BadRequestError,
                   lambda: ask("Fail 400", stream), "400", status_code=400)
        eq((e.body["type"], e.body["error"]["type"]),
           ("error", "invalid_request_error"), "its body")
        ok("told to fail with 400" in e.body["error"]["message"],
           "its message", e)
        ok(e.body.get("request_id"), "request_id in the body", e.body)
        ok(e.request_id, "request_id of the answer", e.response.headers)

        e = raises(anthropic.RateLimitError,
                   lambda: ask("Fail 429", stream), "429", status_code=429)
        eq(e.body["error"]["type"], "rate_limit_error", "its type")
        eq(e.response.headers.get("retry-after"), "7", "retry-after")

        e = raises(anthropic.InternalServerError,
                   lambda: ask("Fail 500", stream), "500")
        eq(e.body["error"]["type"], "api_error", "its type")
        e = raises(anthropic.OverloadedError,
                   lambda: ask("Fail %d" % (503 if UPSTREAM == "openai"
                                            else 529), stream),
                   "overloaded", status_code=529)
        eq(e.body["error"]["type"], "overloaded_error", "its type")

        e = raises(anthropic.NotFoundError,
                   lambda: ask(stream=stream, model="nobody"), "no model",
                   status_code=404)
        eq(e.body["error"]["type"], "not_found_error", "its type")
        raises(anthropic.NotFoundError,
               lambda: ask(stream=stream, model=model("gone")),
               "no model upstream", status_code=404)

    # of the gateway itself
    raises(anthropic.BadRequestError, lambda: ask(messages=[]),
           "no messages")
    raises(anthropic.BadRequestError,
           lambda: ask(messages=[{"role": "king", "content": "x"}]),
           "unknown role")
    raises(anthropic.BadRequestError, lambda: ask(messages=[
        user([{"type": "tool_result", "tool_use_id": "toolu_1",
               "content": "x"}])]), "result without a call")

    small = anthropic.Anthropic(base_url=BASE + "/small", api_key=KEY,
                                max_retries=0)
    e = raises(anthropic.ContentTooLargeError,
               lambda: small.messages.create(
                   model=MODEL, max_tokens=10,
                   messages=[user("x" * 200000)]), "too large",
               status_code=413)
    eq(e.body["error"]["type"], "request_too_large", "its type")


@test
def keys():
    m = model("byok")

    def ask(**args):
        c = anthropic.Anthropic(base_url=BASE, max_retries=0, **args)
        return c.messages.create(model=m, max_tokens=10,
                                 messages=[user("Say x")])

    eq(ask(api_key=GOOD_KEY).content[0].text, "x", "the client's key")
    eq(ask(auth_token=GOOD_KEY).content[0].text, "x", "its token")
    eq(ask(api_key="unused", default_headers={
        "x-api-key": GOOD_KEY, "Authorization": anthropic.omit}
        if hasattr(anthropic, "omit") else
        {"x-api-key": GOOD_KEY}).content[0].text, "x", "x-api-key")
    e = raises(anthropic.AuthenticationError, lambda: ask(api_key="wrong"),
               "401", status_code=401)
    eq(e.body["error"]["type"], "authentication_error", "its type")


@test
def broken():
    for text in "Break", "Cut":
        got = []

        def ask():
            for e in client.messages.create(
                    model=MODEL, messages=[user(text)], max_tokens=100,
                    stream=True):
                if e.type == "content_block_delta":
                    got.append(e.delta.text)

        kind = None
        try:
            ask()
        except anthropic.APIStatusError as e:
            kind = e.body["error"]["type"]
        ok(kind in ("overloaded_error", "api_error"), text + ": raised",
           kind)
        eq("".join(got), "Half of it", text + ": what came before")

        with client.messages.stream(model=MODEL, messages=[user(text)],
                                    max_tokens=100) as s:
            try:
                s.get_final_message()
                ok(False, text + ": helper")
            except anthropic.APIStatusError as e:
                ok(True, text + ": helper")


@test
def streaming():
    start = time.monotonic()
    first = None
    with client.messages.stream(model=MODEL, messages=[user("Slow")],
                                max_tokens=100) as s:
        for text in s.text_stream:
            first = first or time.monotonic() - start
    total = time.monotonic() - start
    ok(first < total - 0.1, "pieces come when they come",
       "%s of %s" % (first, total))


@test
def models():
    names = [m.id for m in client.models.list()]
    ok(MODEL in names, "in the list", names)
    m = client.models.retrieve(MODEL)
    eq((m.id, m.type), (MODEL, "model"), "one of them")
    ok(m.display_name and m.created_at.year > 2000, "members", m)
    raises(anthropic.NotFoundError, lambda: client.models.retrieve("nobody"),
           "none of them")


@test
def direct():
    # "ai_pass PROVIDER": the provider's names of models, and its list
    c = anthropic.Anthropic(base_url=BASE + "/direct-" + UPSTREAM,
                            api_key=KEY, max_retries=0)
    m = "gpt-4.1" if UPSTREAM == "openai" else "claude-sonnet-4-5"
    answer = c.messages.create(model=m, max_tokens=10,
                               messages=[user("Say x")])
    eq(answer.content[0].text, "x", "messages")
    if UPSTREAM == "anthropic":
        ok(m in [x.id for x in c.models.list()], "models",
           c.models.list().to_dict())
        eq(c.models.retrieve(m).id, m, "one of them")
    raises(anthropic.NotFoundError, lambda: c.messages.create(
        model="nobody", max_tokens=10, messages=[user("Say x")]), "no model")


@test
def count_tokens():
    args = dict(model=MODEL, messages=[user("Say x")], system="Be brief.",
                tools=[TOOL])
    n = client.messages.count_tokens(**args).input_tokens
    if UPSTREAM == "anthropic":
        eq(n, 42, "the provider's count")
    else:
        ok(10 < n < 200, "an estimate", n)
        more = client.messages.count_tokens(
            model=MODEL, messages=[user("word " * 1000)]).input_tokens
        ok(800 < more < 1300, "of a longer text", more)
    raises(anthropic.NotFoundError, lambda: client.messages.count_tokens(
        model="nobody", messages=[user("x")]), "no model")


@test
def beta():
    # "?beta=true" and betas in a header
    answer = client.beta.messages.create(
        model=MODEL, max_tokens=100, messages=[user("Say x")],
        betas=["context-1m-2025-08-07"])
    eq(answer.content[0].text, "x", "create")
    with client.beta.messages.stream(
            model=MODEL, max_tokens=100, messages=[user("Say x")]) as s:
        eq(s.get_final_message().content[0].text, "x", "stream")


@test
def runner():
    # The SDK's own loop of calls and results.  It would rather leave what was
    # said to the provider, and sends all of it when it is told so.
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: Name of the city
        """
        return "18 C in " + city

    last = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=1000, tools=[get_weather],
        messages=[user("Weather in Paris and Rome")]).until_done()
    eq(last.content[0].text,
       'get_weather({"city":"Paris"})=18 C in Paris; '
       'get_weather({"city":"Rome"})=18 C in Rome', "last message")


@test
def asynchronous():
    import asyncio

    async def main():
        async with anthropic.AsyncAnthropic(base_url=BASE, api_key=KEY,
                                            max_retries=0) as c:
            async def one(i):
                async with c.messages.stream(
                        model=MODEL, max_tokens=100,
                        messages=[user("Say number %d" % i)]) as s:
                    return await s.get_final_text()

            return await asyncio.gather(*(one(i) for i in range(20)))

    eq(asyncio.run(main()), ["number %d" % i for i in range(20)],
       "twenty at once")


run()

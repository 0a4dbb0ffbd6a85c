# Copyright (C) nginx AI gateway authors

"""Keys that the gateway takes and refuses, as both packages tell it."""

import json
import os

import anthropic
import openai

from tap import BASE, eq, ok, raises, run, test

KEYS = json.loads(os.environ["KEYS"])

MESSAGES = [{"role": "user", "content": "Hi"}]


def chat(key, model="small", stream=False, **options):
    client = openai.OpenAI(base_url=BASE + "/v1", api_key=key, timeout=30,
                           **{"max_retries": 0, **options})
    return client.chat.completions.create(model=model, messages=MESSAGES,
                                          stream=stream)


def message(key, model="small", stream=False, **options):
    client = anthropic.Anthropic(base_url=BASE, timeout=30,
                                 **{"max_retries": 0, "api_key": key,
                                    **options})
    return client.messages.create(model=model, messages=MESSAGES,
                                  max_tokens=10, stream=stream)


@test
def right():
    eq(chat(KEYS["good"]).choices[0].message.content, "fine", "OpenAI")
    eq(message(KEYS["good"]).content[0].text, "fine", "Anthropic: x-api-key")
    eq(message(None, auth_token=KEYS["good"]).content[0].text, "fine",
       "Anthropic: auth_token")

    text = "".join(c.choices[0].delta.content or ""
                   for c in chat(KEYS["good"], stream=True) if c.choices)
    eq(text, "fine", "a stream")

    client = openai.AzureOpenAI(base_url=BASE + "/v1", api_key=KEYS["good"],
                                api_version="2024-10-21", max_retries=0)
    eq(client.chat.completions.create(model="small", messages=MESSAGES)
       .choices[0].message.content, "fine", "Azure: api-key")


@test
def wrong():
    for name in "unknown", "mistyped", "junk", "expired", "disabled":
        for stream in False, True:
            e = raises(openai.AuthenticationError,
                       lambda: chat(KEYS[name], stream=stream),
                       name + ", OpenAI", status_code=401,
                       code="invalid_api_key", type="invalid_request_error")
            ok(KEYS[name] not in str(e), name + ": the key is not told")
            ok(e.request_id, name + ": request_id")

            e = raises(anthropic.AuthenticationError,
                       lambda: message(KEYS[name], stream=stream),
                       name + ", Anthropic", status_code=401)
            eq(e.body["error"]["type"], "authentication_error",
               name + ": type")

    ok("expired" in str(raises(openai.AuthenticationError,
                               lambda: chat(KEYS["expired"]), "expired")),
       "expired says so")


@test
def not_allowed():
    eq(chat(KEYS["small"]).choices[0].message.content, "fine", "OpenAI")

    for name in "big", "large":
        e = raises(openai.PermissionDeniedError,
                   lambda: chat(KEYS["small"], name), "OpenAI, " + name,
                   status_code=403, code="permission_denied", param="model")
        ok('"%s"' % name in str(e), "... names the model")

        e = raises(anthropic.PermissionDeniedError,
                   lambda: message(KEYS["small"], name),
                   "Anthropic, " + name, status_code=403)
        eq(e.body["error"]["type"], "permission_error", "... type")

    client = openai.OpenAI(base_url=BASE + "/v1", api_key=KEYS["small"],
                           max_retries=0)
    raises(openai.PermissionDeniedError,
           lambda: client.embeddings.create(model="small", input="x"),
           "endpoint", status_code=403)
    eq(sorted(m.id for m in client.models.list()), ["small"], "models")


@test
def retries():
    # a refusal is final
    raises(openai.AuthenticationError,
           lambda: chat(KEYS["unknown"], max_retries=3), "OpenAI")
    raises(anthropic.PermissionDeniedError,
           lambda: message(KEYS["small"], "big", max_retries=3), "Anthropic")


run()

// Copyright (C) nginx AI gateway authors

// Keys that the gateway takes and refuses, as both packages tell it.

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { BASE, eq, ok, run, test, throws } from './tap.mjs';

const KEYS = JSON.parse(process.env.KEYS);
const messages = [{ role: 'user', content: 'Hi' }];

const openai = (apiKey) => new OpenAI({ baseURL: `${BASE}/v1`, apiKey,
                                        maxRetries: 0, timeout: 30000 });

const chat = (key, model = 'small', stream = false) =>
    openai(key).chat.completions.create({ model, messages, stream });

const message = (apiKey, model = 'small', options = {}) =>
    new Anthropic({ baseURL: BASE, apiKey, maxRetries: 0, timeout: 30000,
                    ...options })
        .messages.create({ model, messages, max_tokens: 10 });

test('right', async () => {
    eq((await chat(KEYS.good)).choices[0].message.content, 'fine', 'OpenAI');
    eq((await message(KEYS.good)).content[0].text, 'fine',
       'Anthropic: apiKey');
    eq((await message(null, 'small', { authToken: KEYS.good }))
       .content[0].text, 'fine', 'Anthropic: authToken');

    let text = '';
    for await (const chunk of await chat(KEYS.good, 'small', true)) {
        text += chunk.choices[0]?.delta?.content ?? '';
    }
    eq(text, 'fine', 'a stream');
});

test('wrong', async () => {
    for (const name of ['unknown', 'mistyped', 'junk', 'expired',
                        'disabled'])
    {
        for (const stream of [false, true]) {
            const e = await throws(OpenAI.AuthenticationError,
                () => chat(KEYS[name], 'small', stream), `${name}, OpenAI`,
                { status: 401, code: 'invalid_api_key',
                  type: 'invalid_request_error' });
            ok(!String(e).includes(KEYS[name]), `${name}: is not told`);
        }

        const e = await throws(Anthropic.AuthenticationError,
            () => message(KEYS[name]), `${name}, Anthropic`, { status: 401 });
        eq(e.error?.error?.type, 'authentication_error', `${name}: type`);
    }
});

test('not allowed', async () => {
    eq((await chat(KEYS.small)).choices[0].message.content, 'fine', 'OpenAI');

    for (const name of ['big', 'large']) {
        await throws(OpenAI.PermissionDeniedError,
            () => chat(KEYS.small, name), `OpenAI, ${name}`,
            { status: 403, code: 'permission_denied', param: 'model' });

        const e = await throws(Anthropic.PermissionDeniedError,
            () => message(KEYS.small, name), `Anthropic, ${name}`,
            { status: 403 });
        eq(e.error?.error?.type, 'permission_error', '... type');
    }

    await throws(OpenAI.PermissionDeniedError,
        () => openai(KEYS.small).embeddings.create({ model: 'small',
                                                     input: 'x' }),
        'endpoint', { status: 403 });

    const names = [];
    for await (const m of openai(KEYS.small).models.list()) {
        names.push(m.id);
    }
    eq(names, ['small'], 'models');
});

await run();

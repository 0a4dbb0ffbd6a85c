// Copyright (C) nginx AI gateway authors

// An answer of the cache is the one that a provider gave, for both packages.

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { BASE, eq, ok, run, test } from './tap.mjs';

const messages = [{ role: 'user', content: 'Hi' }];
const ask = { messages, temperature: 0, max_tokens: 50 };

const oai = new OpenAI({ baseURL: `${BASE}/v1`, apiKey: 'k', maxRetries: 0,
                         timeout: 30000 });
const ant = new Anthropic({ baseURL: BASE, apiKey: 'k', maxRetries: 0,
                            timeout: 30000 });

const plain = (thing) => {
    const { id, created, _request_id, ...rest } = thing;
    if (rest.message?.id) {
        rest.message = { ...rest.message, id: undefined };
    }
    return JSON.parse(JSON.stringify(rest));
};

const read = async (data) => {
    if (!data[Symbol.asyncIterator]) {
        return plain(data);
    }
    const all = [];
    for await (const event of data) {
        all.push(plain(event));
    }
    return all;
};

async function twice(name, call) {
    const got = [];
    for (const state of ['MISS', 'HIT', 'HIT']) {
        const { data, response } = await call().withResponse();
        eq(response.headers.get('x-ai-cache'), state, `${name}: ${state}`);
        got.push(await read(data));
    }
    eq(got[1], got[0], `${name}: the same`);
    eq(got[2], got[0], `${name}: again`);
    ok(got[0], `${name}: there is something`);
}

const schema = { type: 'object', properties: { city: { type: 'string' } } };

test('OpenAI', async () => {
    for (const what of ['text', 'tools']) {
        const more = what === 'text' ? {} : { tools: [
            { type: 'function', function: { name: 'weather',
                                            parameters: schema } }] };
        const chat = (model, options) => () => oai.chat.completions.create(
            { ...ask, model, ...more, ...options });

        await twice(what, chat(`oai-js-${what}`, {}));
        await twice(`${what}, stream`,
                    chat(`oai-js-s-${what}`, { stream: true }));
        await twice(`${what}, stream with usage`,
                    chat(`oai-js-u-${what}`,
                         { stream: true,
                           stream_options: { include_usage: true } }));
    }
});

test('Anthropic', async () => {
    for (const what of ['text', 'tools']) {
        const more = what === 'text' ? {} : { tools: [
            { name: 'weather', input_schema: schema }] };
        const message = (model, options) => () => ant.messages.create(
            { ...ask, model, ...more, ...options });

        await twice(what, message(`ant-js-${what}`, {}));
        await twice(`${what}, stream`,
                    message(`ant-js-s-${what}`, { stream: true }));
    }
});

test('helpers', async () => {
    for (const state of ['made', 'kept']) {
        const final = await ant.messages.stream(
            { ...ask, model: 'ant-js-helper-text' }).finalMessage();
        eq(final.content[0].text, 'Hello there, friend.',
           `Anthropic, ${state}`);
    }
});

await run();

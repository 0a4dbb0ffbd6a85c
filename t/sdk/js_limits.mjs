// Copyright (C) nginx AI gateway authors

// What the packages openai and anthropic do with limits of the gateway.

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { BASE, eq, ok, run, test } from './tap.mjs';

const messages = [{ role: 'user', content: 'Hello' }];

const chat = (apiKey) => new OpenAI({ baseURL: BASE + '/v1', apiKey })
    .chat.completions.create({ model: 'm', messages });

const message = (apiKey) => new Anthropic({ baseURL: BASE, apiKey })
    .messages.create({ model: 'm', messages, max_tokens: 100 });

test('waits_and_tries_again', async () => {
    for (const [name, call] of [['openai', chat], ['anthropic', message]]) {
        await call('js-wait-' + name);
        const start = Date.now();
        await call('js-wait-' + name);
        const took = Date.now() - start;
        ok(took > 800 && took < 4000, `${name}: waits as long as it was told`,
           took);
    }
});

test('gives_up_when_told', async () => {
    for (const [name, call] of [['openai', chat], ['anthropic', message]]) {
        await call('day-js-' + name);
        const start = Date.now();
        let error;

        try {
            await call('day-js-' + name);
        } catch (e) {
            error = e;
        }

        eq(error?.status, 429, `${name}: status`);
        ok(Date.now() - start < 500, `${name}: at once`);
    }
});

test('a_stream_that_is_cut', async () => {
    const client = new OpenAI({ baseURL: BASE + '/cut/v1', apiKey: 'js-cut' });
    let finish, usage;

    for await (const c of await client.chat.completions.create({
        model: 'long', messages, stream: true,
        stream_options: { include_usage: true } }))
    {
        finish = c.choices[0]?.finish_reason ?? finish;
        usage = c.usage ?? usage;
    }

    eq(finish, 'length', 'openai: finish_reason');
    ok(usage.total_tokens <= 400, 'openai: usage', usage);

    const m = await new Anthropic({ baseURL: BASE + '/cut',
                                    apiKey: 'js-cut-2' })
        .messages.stream({ model: 'long', messages, max_tokens: 5000 })
        .finalMessage();

    eq(m.stop_reason, 'max_tokens', 'anthropic: stop_reason');
});

await run();

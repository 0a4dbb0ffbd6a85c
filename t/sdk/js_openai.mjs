// Copyright (C) nginx AI gateway authors

// The openai package against either upstream.

import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

import { BASE, GOOD_KEY, KEY, PNG, PNG_URL, UPSTREAM, eq, model, ok, run,
         sha1, test, throws } from './tap.mjs';

const client = new OpenAI({ baseURL: BASE + '/v1', apiKey: KEY,
                            maxRetries: 0, timeout: 30000 });
const MODEL = model('gpt-4.1');

const TOOL = {
    type: 'function',
    function: {
        name: 'get_weather', description: 'The weather of a city',
        parameters: {
            type: 'object', properties: { city: { type: 'string' } },
            required: ['city'], additionalProperties: false
        }
    }
};

const user = (content) => ({ role: 'user', content });

// the same, streamed and not
async function chat(name, messages, args = {}) {
    const body = { model: MODEL, messages, ...args };
    const whole = await client.chat.completions.create(body);

    const stream = client.chat.completions.stream(
        { ...body, stream_options: { include_usage: true } });
    const pieces = [];
    stream.on('content', (delta) => pieces.push(delta));

    // its helper throws instead of returning an answer that was cut
    let final;
    try {
        final = await stream.finalChatCompletion();
    } catch (e) {
        if (!/LengthFinishReason|ContentFilterFinishReason/
            .test(e.constructor.name)) {
            throw e;
        }
        ok(/^(length|content_filter)$/.test(whole.choices[0].finish_reason),
           `${name}: ${e.constructor.name}`);
        return whole;
    }

    const calls = (m) => (m.tool_calls ?? []).map((c) => [
        c.type, c.function.name, JSON.parse(c.function.arguments)]);
    const [a, b] = [whole.choices[0], final.choices[0]];

    eq(pieces.join(''), a.message.content ?? '', `${name}: content events`);
    eq(b.message.content ?? '', a.message.content ?? '',
       `${name}: same content`);
    eq(b.message.refusal ?? null, a.message.refusal ?? null,
       `${name}: same refusal`);
    eq(b.finish_reason, a.finish_reason, `${name}: same finish reason`);
    eq(calls(b.message), calls(a.message), `${name}: same calls`);
    eq(await stream.totalUsage().then((u) => [
        u.prompt_tokens, u.completion_tokens, u.total_tokens]),
       [whole.usage.prompt_tokens, whole.usage.completion_tokens,
        whole.usage.total_tokens], `${name}: same usage`);

    return whole;
}

async function describe(messages, args) {
    const whole = await chat('describe', messages,
                             { max_completion_tokens: 4000, ...args });
    return JSON.parse(whole.choices[0].message.content);
}

test('text', async () => {
    for (const text of ['Hello, world.',
                        '\u00e9\u4f60\u{1f600} "q" \\ \n\t end']) {
        const c = await chat('text', [user('Say ' + text)]);
        eq(c.choices[0].message.content, text, 'text');
        eq(c.choices[0].finish_reason, 'stop', 'stop');
    }
});

test('usage', async () => {
    const { usage } = await chat('usage', [user('Count to 9')]);
    eq([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens,
        usage.prompt_tokens_details.cached_tokens], [57, 9, 66, 12],
       'tokens');

    const stream = await client.chat.completions.create(
        { model: MODEL, messages: [user('Say yes')], stream: true });
    let found = 0;
    for await (const chunk of stream) {
        found += chunk.usage ? 1 : 0;
    }
    eq(found, 0, 'none that was not asked for');
});

test('turns', async () => {
    const d = await describe([
        { role: 'system', content: 'Be brief.' }, user('One'),
        { role: 'assistant', content: '1' }, user('Describe')
    ], { temperature: 0.5, stop: ['<end>'], user: 'someone' });
    eq(d.system, 'Be brief.', 'system prompt');
    eq(d.turns, ['user: One', 'assistant: 1', 'user: Describe'], 'turns');
    eq([d.temperature, d.stop, d.user, d.max],
       [0.5, ['<end>'], 'someone', 4000], 'options');
});

test('tools', async () => {
    const ask = [user('Weather in Paris and Rome')];
    const stream = client.chat.completions.stream(
        { model: MODEL, messages: ask, tools: [TOOL] });
    const done = [];
    stream.on('tool_calls.function.arguments.done', (e) => done.push(e));

    for (const answer of [
        await stream.finalChatCompletion(),
        await client.chat.completions.create(
            { model: MODEL, messages: ask, tools: [TOOL] })
    ]) {
        const { message, finish_reason } = answer.choices[0];
        eq(finish_reason, 'tool_calls', 'finish reason');
        eq(message.tool_calls.map((c) => JSON.parse(c.function.arguments)),
           [{ city: 'Paris' }, { city: 'Rome' }], 'two calls');

        const messages = [...ask, {
            role: 'assistant', content: message.content,
            tool_calls: message.tool_calls.map(
                ({ id, type, function: f }) => ({ id, type, function: {
                    name: f.name, arguments: f.arguments } }))
        }, ...message.tool_calls.map((c, i) => ({
            role: 'tool', tool_call_id: c.id, content: `${i} C`
        }))];

        const result = await chat('results', messages, { tools: [TOOL] });
        eq(result.choices[0].message.content,
           'get_weather({"city":"Paris"})=0 C; '
           + 'get_weather({"city":"Rome"})=1 C', 'results');
    }

    eq(done.map((e) => [e.index, e.name, JSON.parse(e.arguments)]),
       [[0, 'get_weather', { city: 'Paris' }],
        [1, 'get_weather', { city: 'Rome' }]], 'arguments.done');
});

test('runner', async () => {
    // the SDK's own loop of calls and results
    for (const stream of [false, true]) {
        const runner = client.chat.completions.runTools({
            model: MODEL, stream, messages: [user('Weather in Oslo')],
            tools: [{ type: 'function', function: {
                ...TOOL.function, parse: JSON.parse,
                function: ({ city }) => `18 C in ${city}`
            } }]
        });
        eq(await runner.finalContent(),
           'get_weather({"city":"Oslo"})=18 C in Oslo',
           `last message, stream ${stream}`);
    }
});

test('tool_choice', async () => {
    const ask = [user('Weather in Oslo')];
    let c = await chat('none', ask, { tools: [TOOL], tool_choice: 'none' });
    eq(c.choices[0].message.content, 'I cannot look.', 'none');

    c = await chat('named', [user('Hello')], { tools: [TOOL], tool_choice: {
        type: 'function', function: { name: 'get_weather' } } });
    eq(c.choices[0].message.tool_calls[0].function,
       { name: 'get_weather', arguments: '{}' }, 'named');

    c = await chat('required', ask, { tools: [TOOL],
                                      tool_choice: 'required' });
    eq(c.choices[0].message.tool_calls.length, 1, 'required');
});

test('images', async () => {
    for (const [url, want] of [
        ['data:image/png;base64,' + PNG, 'image/png ' + sha1(PNG)],
        [PNG_URL, PNG_URL]
    ]) {
        const d = await describe([user([
            { type: 'image_url', image_url: { url } },
            { type: 'text', text: 'Describe' }
        ])]);
        eq(d.turns, [`user: <image ${want}> Describe`], 'image');
    }
});

test('structured', async () => {
    const Person = z.object({
        name: z.string(), age: z.number().int(), tags: z.array(z.string()),
        kind: z.enum(['good', 'bad'])
    });
    const want = { name: 'a name', age: 7, tags: ['a tags'], kind: 'good' };
    const body = { model: MODEL, messages: [user('Give JSON')],
                   response_format: zodResponseFormat(Person, 'person') };

    eq((await client.chat.completions.parse(body)).choices[0].message.parsed,
       want, 'parsed');
    const final = await client.chat.completions.stream(body)
                              .finalChatCompletion();
    eq(final.choices[0].message.parsed, want, 'parsed from a stream');
});

test('limits', async () => {
    let c = await chat('stop', [user('Count to 9')], { stop: ' 4' });
    eq([c.choices[0].message.content, c.choices[0].finish_reason],
       ['1 2 3', 'stop'], 'stop');
    c = await chat('length', [user('Count to 9')],
                   { max_completion_tokens: 3 });
    eq([c.choices[0].message.content, c.choices[0].finish_reason],
       ['1 2 3', 'length'], 'length');
});

test('reasoning', async () => {
    const c = await chat('reasoning', [user('Think about cats')], {
        model: model('reasoner'), reasoning_effort: 'low' });
    eq(c.choices[0].message.reasoning_content, 'About cats I think this.',
       'reasoning');
    eq(c.usage.completion_tokens_details.reasoning_tokens, 5, 'its tokens');

    const stream = await client.chat.completions.create({
        model: model('reasoner'), reasoning_effort: 'low', stream: true,
        messages: [user('Think about cats')] });
    let text = '';
    for await (const chunk of stream) {
        text += chunk.choices[0]?.delta.reasoning_content ?? '';
    }
    eq(text, 'About cats I think this.', 'reasoning of a stream');
});

test('errors', async () => {
    const ask = (text, args = {}) => client.chat.completions.create(
        { model: MODEL, messages: [user(text)], ...args });

    for (const stream of [false, true]) {
        await throws(OpenAI.BadRequestError, () => ask('Fail 400', { stream }),
                     '400', { status: 400, type: 'invalid_request_error' });
        const e = await throws(OpenAI.RateLimitError,
                               () => ask('Fail 429', { stream }), '429',
                               { status: 429 });
        eq(e.headers?.get('retry-after'), '7', 'retry-after');
        ok(e.requestID, 'request id');
        await throws(OpenAI.InternalServerError,
                     () => ask('Fail 500', { stream }), '500');
        await throws(OpenAI.InternalServerError, () => ask(
            UPSTREAM === 'openai' ? 'Fail 503' : 'Fail 529', { stream }),
            'overloaded', { status: 503 });
        await throws(OpenAI.NotFoundError,
                     () => ask('Say x', { stream, model: 'nobody' }),
                     'no model', { status: 404, code: 'model_not_found' });
    }

    const small = new OpenAI({ baseURL: BASE + '/small/v1', apiKey: KEY,
                               maxRetries: 0 });
    await throws(OpenAI.APIError, () => small.chat.completions.create({
        model: MODEL, messages: [user('x'.repeat(200000))] }), 'too large',
        { status: 413 });

    const byok = (apiKey) => new OpenAI(
        { baseURL: BASE + '/v1', apiKey, maxRetries: 0 })
        .chat.completions.create({ model: model('byok'),
                                   messages: [user('Say x')] });
    eq((await byok(GOOD_KEY)).choices[0].message.content, 'x',
       'the client\'s key');
    await throws(OpenAI.AuthenticationError, () => byok('wrong'), '401',
                 { status: 401, code: 'invalid_api_key' });
});

test('broken', async () => {
    for (const text of ['Break', 'Cut']) {
        let got = '';
        await throws(OpenAI.APIError, async () => {
            const stream = await client.chat.completions.create({
                model: MODEL, messages: [user(text)], stream: true });
            for await (const chunk of stream) {
                got += chunk.choices[0]?.delta.content ?? '';
            }
        }, text);
        eq(got, 'Half of it', `${text}: what came before`);
    }
});

test('retries', async () => {
    // the SDK asks again, as it would the provider
    const again = new OpenAI({ baseURL: BASE + '/v1', apiKey: KEY,
                               maxRetries: 1 });
    const start = Date.now();
    await throws(OpenAI.InternalServerError,
                 () => again.chat.completions.create({
                     model: MODEL, messages: [user('Fail 500')] }), '500');
    ok(Date.now() - start > 300, 'waited');
});

test('abort', async () => {
    const stream = await client.chat.completions.create({
        model: MODEL, messages: [user('Slow')], stream: true });
    let n = 0;
    for await (const chunk of stream) {
        if (++n === 2) {
            break;
        }
    }
    eq(n, 2, 'left');
    const c = await chat('after it', [user('Say x')]);
    eq(c.choices[0].message.content, 'x', 'goes on');
});

test('models', async () => {
    const names = [];
    for await (const m of client.models.list()) {
        names.push(m.id);
    }
    ok(names.includes(MODEL), 'in the list', names);
    eq((await client.models.retrieve(MODEL)).id, MODEL, 'one of them');
    await throws(OpenAI.NotFoundError,
                 () => client.models.retrieve('nobody'), 'none of them');
});

test('others', async () => {
    if (UPSTREAM === 'anthropic') {
        await throws(OpenAI.BadRequestError, () => client.embeddings.create(
            { model: MODEL, input: 'x' }), 'no embeddings there');
        return;
    }

    const e = await client.embeddings.create(
        { model: model('embed'), input: ['a', 'b'] });
    eq(e.data.map((d) => Array.from(d.embedding)),
       [[.125, .25, .375, .5], [.25, .5, .75, 1]], 'embeddings, base64');
    const f = await client.embeddings.create(
        { model: model('embed'), input: 'a', encoding_format: 'float' });
    eq(f.data[0].embedding, [.125, .25, .375, .5], 'embeddings, float');

    const c = await client.completions.create(
        { model: model('legacy'), prompt: 'Count to 3' });
    eq(c.choices[0].text, '1 2 3', 'completions');
    let text = '';
    for await (const chunk of await client.completions.create(
        { model: model('legacy'), prompt: 'Count to 3', stream: true })) {
        text += chunk.choices[0]?.text ?? '';
    }
    eq(text, '1 2 3', 'completions, stream');
});

await run();

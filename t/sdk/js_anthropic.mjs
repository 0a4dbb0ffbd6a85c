// Copyright (C) nginx AI gateway authors

// The @anthropic-ai/sdk package against either upstream.

import Anthropic from '@anthropic-ai/sdk';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { z } from 'zod';

import { BASE, GOOD_KEY, KEY, PNG, PNG_URL, UPSTREAM, eq, model, ok, run,
         sha1, test, throws } from './tap.mjs';

const client = new Anthropic({ baseURL: BASE, apiKey: KEY, maxRetries: 0,
                               timeout: 30000 });
const MODEL = model('claude-sonnet-4-5');
const REASONER = model('claude-sonnet-4-5-reasoner');

const TOOL = {
    name: 'get_weather', description: 'The weather of a city',
    input_schema: { type: 'object', required: ['city'],
                    properties: { city: { type: 'string' } } }
};

const user = (content) => ({ role: 'user', content });

const plain = (content) => content.map(
    ({ type, text, name, input, thinking }) =>
        type === 'text' ? { text } : type === 'thinking' ? { thinking }
        : { name, input });

const figures = (u) => [u.input_tokens, u.output_tokens,
                        u.cache_read_input_tokens,
                        u.cache_creation_input_tokens];

// the same, streamed and not
async function chat(name, messages, args = {}) {
    const body = { model: MODEL, max_tokens: 4000, messages, ...args };
    const whole = await client.messages.create(body);

    const stream = client.messages.stream(body);
    const blocks = [];
    let text = '';
    stream.on('text', (delta) => { text += delta; })
          .on('contentBlock', (block) => blocks.push(block));
    const final = await stream.finalMessage();

    eq(text, whole.content.filter((b) => b.type === 'text')
                          .map((b) => b.text).join(''), `${name}: text`);
    eq(plain(final.content), plain(whole.content), `${name}: same content`);
    eq(plain(blocks), plain(whole.content), `${name}: contentBlock`);
    eq([final.stop_reason, final.stop_sequence],
       [whole.stop_reason, whole.stop_sequence], `${name}: same reason`);
    eq(figures(final.usage), figures(whole.usage), `${name}: same usage`);

    return whole;
}

async function describe(messages, args) {
    const whole = await chat('describe', messages, args);
    return JSON.parse(whole.content.at(-1).text);
}

test('text', async () => {
    for (const text of ['Hello, world.',
                        '\u00e9\u4f60\u{1f600} "q" \\ \n\t end']) {
        const m = await chat('text', [user('Say ' + text)]);
        eq(plain(m.content), [{ text }], 'text');
        eq([m.stop_reason, m.stop_sequence], ['end_turn', null], 'end_turn');
        ok(m._request_id, 'request id');
    }
});

test('events', async () => {
    const types = [];
    for await (const e of await client.messages.create({
        model: MODEL, max_tokens: 100, messages: [user('Say a b')],
        stream: true })) {
        types.push(e.type);
    }
    eq(types.filter((t, i) => t !== types[i - 1]),
       ['message_start', 'content_block_start', 'content_block_delta',
        'content_block_stop', 'message_delta', 'message_stop'], 'order');
});

test('usage', async () => {
    eq(figures((await chat('usage', [user('Count to 9')])).usage),
       [40, 9, 12, 5], 'tokens');
});

test('turns', async () => {
    const d = await describe([
        user('One'), { role: 'assistant', content: '1' }, user('Describe')
    ], { system: 'Be brief.', stop_sequences: ['<end>'],
         metadata: { user_id: 'someone' } });
    eq(d.system, 'Be brief.', 'system prompt');
    eq(d.turns, ['user: One', 'assistant: 1', 'user: Describe'], 'turns');
    eq([d.stop, d.user, d.max], [['<end>'], 'someone', 4000], 'options');
});

test('tools', async () => {
    const ask = [user('Weather in Paris and Rome')];
    const stream = client.messages.stream(
        { model: MODEL, max_tokens: 1000, messages: ask, tools: [TOOL] });
    let json = '';
    stream.on('inputJson', (part) => { json += part; });

    for (const answer of [
        await stream.finalMessage(),
        await client.messages.create(
            { model: MODEL, max_tokens: 1000, messages: ask, tools: [TOOL] })
    ]) {
        eq(answer.stop_reason, 'tool_use', 'stop reason');
        const calls = answer.content.filter((b) => b.type === 'tool_use');
        eq(calls.map((c) => c.input), [{ city: 'Paris' }, { city: 'Rome' }],
           'two calls');

        const result = await chat('results', [
            ...ask, { role: 'assistant', content: answer.content },
            user(calls.map((c, i) => ({ type: 'tool_result',
                                        tool_use_id: c.id,
                                        content: `${i} C` })))
        ], { tools: [TOOL] });
        eq(result.content[0].text,
           'get_weather({"city":"Paris"})=0 C; '
           + 'get_weather({"city":"Rome"})=1 C', 'results');
    }

    eq(json.replace(/\s/g, ''), '{"city":"Paris"}{"city":"Rome"}',
       'inputJson');
});

test('runner', async () => {
    // the SDK's own loop of calls and results
    const last = await client.beta.messages.toolRunner({
        model: MODEL, max_tokens: 1000,
        messages: [user('Weather in Oslo')],
        tools: [betaZodTool({
            name: 'get_weather', description: 'The weather of a city',
            inputSchema: z.object({ city: z.string() }),
            run: ({ city }) => `18 C in ${city}`
        })]
    });
    eq(last.content[0].text, 'get_weather({"city":"Oslo"})=18 C in Oslo',
       'last message');
});

test('tool_choice', async () => {
    const ask = [user('Weather in Oslo')];
    let m = await chat('none', ask, { tools: [TOOL],
                                      tool_choice: { type: 'none' } });
    eq(m.content[0].text, 'I cannot look.', 'none');

    m = await chat('tool', [user('Hello')], { tools: [TOOL], tool_choice: {
        type: 'tool', name: 'get_weather' } });
    eq(plain(m.content), [{ name: 'get_weather', input: {} }], 'tool');

    m = await chat('any', ask, { tools: [TOOL],
                                 tool_choice: { type: 'any' } });
    eq(m.content.at(-1).input, { city: 'Oslo' }, 'any');
});

test('images', async () => {
    for (const [source, want] of [
        [{ type: 'base64', media_type: 'image/png', data: PNG },
         'image/png ' + sha1(PNG)],
        [{ type: 'url', url: PNG_URL }, PNG_URL]
    ]) {
        const d = await describe([user([
            { type: 'image', source }, { type: 'text', text: 'Describe' }
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
    const body = { model: MODEL, max_tokens: 100,
                   messages: [user('Give JSON')],
                   output_config: { format: zodOutputFormat(Person) } };

    eq((await client.messages.parse(body)).parsed_output, want, 'parsed');
    eq((await client.messages.stream(body).finalMessage()).parsed_output,
       want, 'parsed from a stream');
});

test('limits', async () => {
    let m = await chat('stop', [user('Count to 9')],
                       { stop_sequences: [' 4'] });
    eq([m.content[0].text, m.stop_reason, m.stop_sequence],
       UPSTREAM === 'anthropic' ? ['1 2 3', 'stop_sequence', ' 4']
                                : ['1 2 3', 'end_turn', null], 'stop');
    m = await chat('length', [user('Count to 9')], { max_tokens: 3 });
    eq([m.content[0].text, m.stop_reason], ['1 2 3', 'max_tokens'],
       'max_tokens');
});

test('thinking', async () => {
    const args = { model: REASONER, tools: [TOOL],
                   thinking: { type: 'enabled', budget_tokens: 2000 } };
    let m = await chat('thinking', [user('Think about cats')], args);
    eq(plain(m.content), [{ thinking: 'About cats I think this.' },
                          { text: 'It is cats.' }], 'thinking');

    const ask = [user('Think and Weather in Rome')];
    const stream = client.messages.stream(
        { max_tokens: 4000, messages: ask, ...args });
    let signed;
    stream.on('signature', (s) => { signed = s; });
    const answer = await stream.finalMessage();
    eq(answer.content.map((b) => b.type), ['thinking', 'text', 'tool_use'],
       'order of blocks');
    if (UPSTREAM === 'anthropic') {
        ok(signed && signed === answer.content[0].signature, 'signature');
    }

    const back = [...ask, { role: 'assistant', content: answer.content },
                  user([{ type: 'tool_result', content: '25 C',
                          tool_use_id: answer.content[2].id }])];
    m = await chat('result', back, args);
    eq(m.content.at(-1).text, 'get_weather({"city":"Rome"})=25 C', 'result');
});

test('errors', async () => {
    const ask = (text, args = {}) => client.messages.create(
        { model: MODEL, max_tokens: 100, messages: [user(text)], ...args });

    for (const stream of [false, true]) {
        let e = await throws(Anthropic.BadRequestError,
                             () => ask('Fail 400', { stream }), '400',
                             { status: 400 });
        eq(e.error?.error?.type, 'invalid_request_error', 'its type');
        e = await throws(Anthropic.RateLimitError,
                         () => ask('Fail 429', { stream }), '429',
                         { status: 429 });
        eq(e.headers?.get('retry-after'), '7', 'retry-after');
        ok(e.requestID, 'request id');
        await throws(Anthropic.InternalServerError,
                     () => ask('Fail 500', { stream }), '500');
        await throws(Anthropic.OverloadedError, () => ask(
            UPSTREAM === 'openai' ? 'Fail 503' : 'Fail 529', { stream }),
            'overloaded', { status: 529 });
        e = await throws(Anthropic.NotFoundError,
                         () => ask('Say x', { stream, model: 'nobody' }),
                         'no model', { status: 404 });
        eq(e.error?.error?.type, 'not_found_error', 'its type');
    }

    const small = new Anthropic({ baseURL: BASE + '/small', apiKey: KEY,
                                  maxRetries: 0 });
    await throws(Anthropic.ContentTooLargeError,
                 () => small.messages.create({
                     model: MODEL, max_tokens: 10,
                     messages: [user('x'.repeat(200000))] }), 'too large',
                 { status: 413 });

    const byok = (apiKey) => new Anthropic(
        { baseURL: BASE, apiKey, maxRetries: 0 })
        .messages.create({ model: model('byok'), max_tokens: 10,
                           messages: [user('Say x')] });
    eq((await byok(GOOD_KEY)).content[0].text, 'x', 'the client\'s key');
    await throws(Anthropic.AuthenticationError, () => byok('wrong'), '401',
                 { status: 401 });
});

test('broken', async () => {
    for (const text of ['Break', 'Cut']) {
        let got = '';
        let e;
        try {
            for await (const event of await client.messages.create({
                model: MODEL, max_tokens: 100, messages: [user(text)],
                stream: true })) {
                got += event.delta?.text ?? '';
            }
        } catch (error) {
            e = error;
        }
        ok(e instanceof Anthropic.APIError
           && /^(overloaded|api)_error$/.test(e.error?.error?.type),
           `${text}: thrown`, e);
        eq(got, 'Half of it', `${text}: what came before`);
    }
});

test('models', async () => {
    const names = [];
    for await (const m of client.models.list()) {
        names.push(m.id);
    }
    ok(names.includes(MODEL), 'in the list', names);
    const m = await client.models.retrieve(MODEL);
    eq([m.id, m.type], [MODEL, 'model'], 'one of them');
    await throws(Anthropic.NotFoundError,
                 () => client.models.retrieve('nobody'), 'none of them');
});

test('count_tokens', async () => {
    const { input_tokens: n } = await client.messages.countTokens(
        { model: MODEL, messages: [user('Say x')], tools: [TOOL] });
    ok(UPSTREAM === 'anthropic' ? n === 42 : n > 10 && n < 200, 'tokens', n);
});

await run();

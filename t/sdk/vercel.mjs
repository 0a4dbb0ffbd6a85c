// Copyright (C) nginx AI gateway authors

// The Vercel AI SDK with either of its providers against either upstream.

import { APICallError, Output, embedMany, generateText, isStepCount,
         streamText, tool } from 'ai';
import { z } from 'zod';

import { PNG, PNG_URL, UPSTREAM, eq, ok, run, sha1, test,
         throws } from './tap.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;

// models(name): a model; key(name, key): one with another key; small(name):
// one where only small requests are allowed; reason: options for reasoning
export async function suite({ dialect, main, reasoner, hidden, models, key,
                              small, reason, embedding }) {
    const options = { model: models(main), maxRetries: 0 };

    const get_weather = tool({
        description: 'The weather of a city',
        inputSchema: z.object({ city: z.string() }),
        execute: async ({ city }) => `18 C in ${city}`
    });
    const idle = tool({ description: 'The weather of a city',
                        inputSchema: z.object({ city: z.string() }) });

    // everything a stream has, in its order
    async function stream(args) {
        const result = streamText({ ...options, onError: () => {}, ...args });
        const parts = [];
        for await (const part of result.fullStream) {
            parts.push(part);
        }
        return parts;
    }

    const join = (parts, type) => parts.filter((p) => p.type === type)
        .map((p) => p.text ?? p.delta ?? '').join('');

    // kinds of parts, repeated ones once, without what one provider adds
    const kinds = (parts) => parts.map((p) => p.type)
        .filter((t) => t !== 'custom')
        .filter((t, i, all) => t !== all[i - 1]);

    const figures = (u) => [u.inputTokens, u.inputTokenDetails.noCacheTokens,
                            u.inputTokenDetails.cacheReadTokens,
                            u.outputTokens, u.totalTokens];

    async function describe(args) {
        const { text } = await generateText(
            { ...options, maxOutputTokens: 4000, ...args });
        return JSON.parse(text);
    }

    test('text', async () => {
        for (const text of ['Hello, world.',
                            '\u00e9\u4f60\u{1f600} "q" \\ \n\t end']) {
            const prompt = 'Say ' + text;
            const whole = await generateText({ ...options, prompt });
            eq([whole.text, whole.finishReason], [text, 'stop'], 'text');

            const parts = await stream({ prompt });
            eq(join(parts, 'text-delta'), text, 'text of a stream');
            eq(kinds(parts), ['start', 'start-step', 'text-start',
                              'text-delta', 'text-end', 'finish-step',
                              'finish'], 'order of a stream');
            eq(parts.at(-1).finishReason, 'stop', 'finish reason');
        }
    });

    test('usage', async () => {
        // of what was written to the cache only one dialect's SDK knows
        const want = [57, dialect === 'openai' ? 45 : 40, 12, 9, 66];
        const whole = await generateText({ ...options,
                                           prompt: 'Count to 9' });
        const got = figures(whole.usage);
        ok(got[1] === 45 || got[1] === 40, 'not from the cache', got);
        got[1] = want[1];
        eq(got, want, 'tokens');

        const parts = await stream({ prompt: 'Count to 9' });
        eq(figures(parts.at(-1).totalUsage), figures(whole.usage),
           'tokens of a stream');
    });

    test('turns', async () => {
        const d = await describe({
            instructions: 'Be brief.', stopSequences: ['<end>'],
            messages: [
                { role: 'user', content: 'One' },
                { role: 'assistant', content: '1' },
                { role: 'user', content: [
                    { type: 'text', text: 'Two' },
                    { type: 'text', text: 'Describe' }] }
            ]
        });
        eq(d.system, 'Be brief.', 'system prompt');
        eq(d.turns, ['user: One', 'assistant: 1', 'user: Two Describe'],
           'turns');
        eq([d.stop, d.max], [['<end>'], 4000], 'options');

        const t = await describe({ prompt: 'Describe', temperature: 0.5 });
        eq(t.temperature, 0.5, 'temperature');
    });

    test('tools', async () => {
        const args = { prompt: 'Weather in Paris and Rome',
                       tools: { get_weather }, stopWhen: isStepCount(3) };
        const want = 'get_weather({"city":"Paris"})=18 C in Paris; '
                     + 'get_weather({"city":"Rome"})=18 C in Rome';

        const whole = await generateText({ ...options, ...args });
        eq(whole.text, want, 'results');
        eq(whole.steps.map((s) => s.finishReason), ['tool-calls', 'stop'],
           'finish reasons');
        eq(whole.steps[0].toolCalls.map((c) => c.input),
           [{ city: 'Paris' }, { city: 'Rome' }], 'calls');

        const parts = await stream(args);
        const calls = parts.filter((p) => p.type === 'tool-call');
        eq(calls.map((c) => [c.toolName, c.input]),
           [['get_weather', { city: 'Paris' }],
            ['get_weather', { city: 'Rome' }]], 'calls of a stream');
        ok(calls[0].toolCallId !== calls[1].toolCallId, 'two ids');
        eq(join(parts, 'tool-input-delta').replace(/\s/g, ''),
           '{"city":"Paris"}{"city":"Rome"}', 'input in pieces');
        eq(parts.filter((p) => p.type === 'finish-step')
                .map((p) => p.finishReason), ['tool-calls', 'stop'],
           'finish reasons of a stream');
        eq(join(parts, 'text-delta'), 'Let me look.' + want, 'its text');
    });

    test('toolChoice', async () => {
        const args = { ...options, prompt: 'Weather in Oslo',
                       tools: { get_weather: idle } };
        let r = await generateText({ ...args, toolChoice: 'none' });
        eq([r.toolCalls.length, r.text], [0, 'I cannot look.'], 'none');
        r = await generateText({ ...args, toolChoice: {
            type: 'tool', toolName: 'get_weather' } });
        eq(r.toolCalls[0].input, { city: 'Oslo' }, 'named');
        r = await generateText({ ...args, toolChoice: 'required' });
        eq(r.toolCalls[0].input, { city: 'Oslo' }, 'required');
    });

    test('images', async () => {
        for (const [data, want] of [
            [PNG, 'image/png ' + sha1(PNG)], [new URL(PNG_URL), PNG_URL]
        ]) {
            const d = await describe({ messages: [{ role: 'user', content: [
                { type: 'file', mediaType: 'image/png', data },
                { type: 'text', text: 'Describe' }] }] });
            eq(d.turns, [`user: <image ${want}> Describe`], 'image');
        }
    });

    test('structured', async () => {
        const schema = z.object({ name: z.string(), tags: z.array(z.string()),
                                  age: z.number().int().min(0) });
        const want = { name: 'a name', tags: ['a tags'], age: 7 };
        const args = { ...options, prompt: 'Give JSON',
                       output: Output.object({ schema }) };

        eq((await generateText(args)).output, want, 'object');
        eq(await streamText(args).output, want, 'object of a stream');
    });

    test('limits', async () => {
        let r = await generateText({ ...options, prompt: 'Count to 9',
                                     stopSequences: [' 4'] });
        eq([r.text, r.finishReason], ['1 2 3', 'stop'], 'stop');
        r = await generateText({ ...options, prompt: 'Count to 9',
                                 maxOutputTokens: 3 });
        eq([r.text, r.finishReason], ['1 2 3', 'length'], 'length');
        const parts = await stream({ prompt: 'Count to 9',
                                     maxOutputTokens: 3 });
        eq(parts.at(-1).finishReason, 'length', 'length of a stream');
    });

    test('refusal', async () => {
        const r = await generateText({ ...options, prompt: 'Refuse' });
        ok(r.finishReason === 'content-filter'
           || (dialect === 'openai' && UPSTREAM === 'openai'), 'finish reason',
           r.finishReason);
    });

    test('reasoning', async () => {
        const args = { ...options, model: models(reasoner), ...reason,
                       tools: { get_weather } };

        if (dialect === 'anthropic') {
            const r = await generateText({ ...args,
                                           prompt: 'Think about cats' });
            eq([r.reasoningText, r.text],
               ['About cats I think this.', 'It is cats.'], 'reasoning');

            const parts = await stream({ ...args,
                                         prompt: 'Think about cats' });
            eq(join(parts, 'reasoning-delta'), 'About cats I think this.',
               'reasoning of a stream');
            eq(kinds(parts).filter((k) => /reasoning|text/.test(k)),
               ['reasoning-start', 'reasoning-delta', 'reasoning-end',
                'text-start', 'text-delta', 'text-end'], 'order');
        } else {
            const r = await generateText({ ...args,
                                           prompt: 'Think about cats' });
            eq([r.text, r.usage.outputTokenDetails.reasoningTokens],
               ['It is cats.', 5], 'counted');
        }

        // what was thought goes back with the calls, signed
        for (const call of [generateText, streamText]) {
            const r = await call({ ...args, stopWhen: isStepCount(3),
                                   prompt: 'Think and Weather in Rome' });
            eq(await r.text, 'get_weather({"city":"Rome"})=18 C in Rome',
               'with tools');
        }
    });

    test('newer', async () => {
        // what the SDK sends to a model of which it knows more
        const r = await generateText({ ...options, model: models(hidden),
                                       prompt: 'Say x', temperature: 0.5,
                                       maxOutputTokens: 100,
                                       instructions: 'Be brief.' });
        eq(r.text, 'x', 'text');
    });

    test('errors', async () => {
        const retryable = { 400: false, 404: false, 413: false, 401: false,
                            429: true, 500: true, 502: true, 503: true,
                            529: true };

        async function refused(name, statuses, args) {
            const e = await throws(APICallError,
                                   () => generateText({ ...options,
                                                        ...args }), name);
            ok(statuses.includes(e.statusCode), `${name}: status`,
               e.statusCode);
            eq(e.isRetryable, retryable[e.statusCode],
               `${name}: retryable`);

            // a stream has it as a part
            const parts = await stream(args);
            const error = parts.find((p) => p.type === 'error')?.error;
            ok(error instanceof APICallError, `${name}: error part`, parts);
            return e;
        }

        const e = await refused('400', [400], { prompt: 'Fail 400' });
        ok(/told to fail with 400/.test(e.message), 'its message',
           e.message);
        await refused('429', [429], { prompt: 'Fail 429' });
        await refused('500', [500, 502], { prompt: 'Fail 500' });
        await refused('overloaded', [dialect === 'openai' ? 503 : 529], {
            prompt: UPSTREAM === 'openai' ? 'Fail 503' : 'Fail 529' });
        await refused('no model', [404], { prompt: 'x',
                                           model: models('nobody') });
        await refused('too large', [413], { prompt: 'x'.repeat(200000),
                                            model: small(main) });
        await refused('401', [401], { prompt: 'Say x',
                                      model: key('byok', 'wrong') });
    });

    test('broken', async () => {
        for (const prompt of ['Break', 'Cut']) {
            const parts = await stream({ prompt });
            ok(parts.some((p) => p.type === 'error'), `${prompt}: error part`,
               parts);
            eq(join(parts, 'text-delta'), 'Half of it',
               `${prompt}: what came before`);
        }
    });

    test('embeddings', async () => {
        if (!embedding) {
            return ok(1, 'not of this dialect or upstream');
        }
        const { embeddings } = await embedMany({ model: embedding,
                                                 values: ['a', 'b'] });
        eq(embeddings, [[.125, .25, .375, .5], [.25, .5, .75, 1]],
           'embeddings');
    });

    await run();
}

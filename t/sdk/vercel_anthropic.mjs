// Copyright (C) nginx AI gateway authors

// The Vercel AI SDK with its Anthropic provider.

import { createAnthropic } from '@ai-sdk/anthropic';

import { BASE, KEY, model } from './tap.mjs';
import { suite } from './vercel.mjs';

const anthropic = (apiKey = KEY, path = '/v1') => createAnthropic(
    { baseURL: BASE + path, apiKey });

await suite({
    dialect: 'anthropic', main: 'claude-sonnet-4-5',
    reasoner: 'claude-sonnet-4-5-reasoner', hidden: 'claude-opus-4-7',
    models: (name) => anthropic()(model(name)),
    key: (name, key) => anthropic(key)(model(name)),
    small: (name) => anthropic(KEY, '/small/v1')(model(name)),
    reason: { providerOptions: { anthropic: {
        thinking: { type: 'enabled', budgetTokens: 2000 } } } }
});

// Copyright (C) nginx AI gateway authors

// The Vercel AI SDK, chat models of its OpenAI provider.

import { createOpenAI } from '@ai-sdk/openai';

import { BASE, KEY, UPSTREAM, model } from './tap.mjs';
import { suite } from './vercel.mjs';

const openai = (apiKey = KEY, path = '/v1') => createOpenAI(
    { baseURL: BASE + path, apiKey });

await suite({
    dialect: 'openai', main: 'gpt-4.1', reasoner: 'gpt-5.5',
    hidden: 'gpt-5.5',
    models: (name) => openai().chat(model(name)),
    key: (name, key) => openai(key).chat(model(name)),
    small: (name) => openai(KEY, '/small/v1').chat(model(name)),
    reason: { providerOptions: { openai: { reasoningEffort: 'high' } } },
    embedding: UPSTREAM === 'openai' && openai().embedding(model('embed'))
});

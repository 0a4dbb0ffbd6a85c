// Copyright (C) nginx AI gateway authors

// TAP of the scripts in this directory, which t/sdk.t reads.

import { createHash } from 'node:crypto';
import { isDeepStrictEqual, inspect } from 'node:util';

export const { BASE, UPSTREAM, KEY, GOOD_KEY } = process.env;

// a PNG of one pixel
export const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4'
    + 'nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC';
export const PNG_URL = 'https://example.com/cat.png';

export const sha1 = (text) => createHash('sha1').update(text).digest('hex');

// a model of the gateway that is served by the upstream under test
export const model = (name) => `${name}-${UPSTREAM}`;

const tests = [];
let count = 0;

export function ok(value, name, detail) {
    console.log(`${value ? 'ok' : 'not ok'} ${++count} - ${name}`);

    if (!value && detail !== undefined) {
        const text = typeof detail === 'string' ? detail : inspect(detail,
                                                               { depth: 8 });
        for (const line of text.split('\n').slice(0, 25)) {
            console.log('# ' + line);
        }
    }

    return value;
}

export function eq(got, want, name) {
    return ok(isDeepStrictEqual(got, want), name,
              `got:  ${inspect(got, { depth: 8 })}\n`
              + `want: ${inspect(want, { depth: 8 })}`);
}

// what call() throws is of this class, exactly
export async function throws(kind, call, name, attrs = {}) {
    try {
        await call();
    } catch (e) {
        ok(e.constructor === kind, `${name}: ${kind.name}`,
           `${e.constructor.name}: ${e.stack}`);
        for (const [attr, want] of Object.entries(attrs)) {
            eq(e[attr], want, `${name}: ${attr}`);
        }
        return e;
    }

    ok(false, `${name}: ${kind.name}`, 'nothing was thrown');
    return {};
}

export function test(name, f) {
    tests.push([name, f]);
}

export async function run() {
    for (const [name, f] of tests) {
        if (process.argv.length > 2 && !process.argv.includes(name)) {
            continue;
        }
        console.log('# ' + name);
        try {
            await f();
        } catch (e) {
            ok(false, name, e.stack);
        }
    }

    console.log(`1..${count}`);
}

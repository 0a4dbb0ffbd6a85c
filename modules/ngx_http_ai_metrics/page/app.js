'use strict';

(function () {

const PERIOD = 2000;            // ms between questions
const KEEP = 5 * 60 * 1000;     // ms of history
const RATE = 10 * 1000;         // ms that rates are of
const SVG = 'http://www.w3.org/2000/svg';

const history = [];             // answers, the oldest first
let last = null;

// what to begin with: "#all,slow"
const wanted = window.location.hash.slice(1).split(',');

let whole = wanted.includes('all');     // figures since the start
let list = [ 'refused', 'slow' ].find((id) => wanted.includes(id)) || 'failed';
let paused = false;
let timer = 0;
let asking = false;

const $ = (id) => document.getElementById(id);


// Text: what a provider or a client has named is never more than text.
// Characters that would not be seen, or turn the others, are written out.

const ODD = new RegExp('[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c'
    + '\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]',
    'g');

function plain(s) {
    return String(s).replace(ODD, (c) =>
        '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
}

function setText(el, s) {
    if (el.textContent !== s) {
        el.textContent = s;
    }
}

function make(tag, cls, text) {
    const el = document.createElement(tag);

    if (cls) {
        el.className = cls;
    }

    if (text !== undefined) {
        el.textContent = text;
    }

    return el;
}


// Numbers

const NONE = '\u2013';

function count(n) {
    if (n === null || !isFinite(n)) {
        return NONE;
    }

    const units = [ '', 'k', 'M', 'G', 'T' ];
    let i = 0;

    while (Math.abs(n) >= 999.5 && i < units.length - 1) {
        n /= 1000;
        i++;
    }

    const digits = (i === 0 && Number.isInteger(n)) || Math.abs(n) >= 100
                   ? 0 : Math.abs(n) >= 10 ? 1 : 2;

    return n.toFixed(digits) + units[i];
}

function rate(n) {
    return n === null || n === 0 || n >= 100 ? count(n)
           : n < 0.05 ? '<0.1' : n.toFixed(1);
}

function seconds(s) {
    if (s === null || !isFinite(s)) {
        return NONE;
    }

    return s < 1 ? Math.round(s * 1000) + ' ms'
           : s < 10 ? s.toFixed(2) + ' s' : s.toFixed(1) + ' s';
}

function percent(part, all) {
    if (!all) {
        return NONE;
    }

    const p = 100 * part / all;

    return (p === 0 ? '0' : p < 0.1 ? '<0.1' : p < 10 ? p.toFixed(1)
            : p.toFixed(0)) + ' %';
}

function money(n) {
    if (n === null || !isFinite(n)) {
        return NONE;
    }

    return '$' + (n === 0 ? '0' : n < 0.01 ? n.toPrecision(2)
                  : n < 1000 ? n.toFixed(2) : count(n));
}

function bytes(n) {
    const units = [ 'B', 'KB', 'MB', 'GB' ];
    let i = 0;

    while (n >= 1024 && i < units.length - 1) {
        n /= 1024;
        i++;
    }

    return (i && n < 10 ? n.toFixed(1) : Math.round(n)) + ' ' + units[i];
}

function span(s) {
    const d = Math.floor(s / 86400);
    const h = Math.floor(s % 86400 / 3600);
    const m = Math.floor(s % 3600 / 60);

    return d ? d + ' d ' + h + ' h' : h ? h + ' h ' + m + ' min'
           : m ? m + ' min' : Math.round(s) + ' s';
}


// Figures of the answers

function find(answer, kind, name) {
    return answer ? answer.index[kind].get(name) || null : null;
}

// what a counter has grown by; all of it when it began anew

function grown(now, then, field) {
    const was = then ? then[field] : 0;

    return now[field] >= was ? now[field] - was : now[field];
}

function grownBuckets(now, then, field) {
    const a = now[field];
    const b = then ? then[field] : null;

    if (!b || b.length !== a.length || b.some((n, i) => n > a[i])) {
        return a;
    }

    return a.map((n, i) => n - b[i]);
}

function quantile(q, counts) {
    const bounds = last.buckets.ttft;
    const all = counts.reduce((a, b) => a + b, 0);
    let rank = q * all;

    if (!all) {
        return null;
    }

    for (let i = 0; i < bounds.length; i++) {
        if (rank <= counts[i]) {
            const from = i ? bounds[i - 1] : 0;
            return from + (bounds[i] - from) * rank / counts[i];
        }

        rank -= counts[i];
    }

    return bounds[bounds.length - 1];
}

// the answer that figures are compared with

function before(ms) {
    const from = last.time - ms;
    let base = null;

    for (const a of history) {
        if (a.time < last.time && (!base || a.time <= from)) {
            base = a;
        }
    }

    return base;
}

function samples(name) {
    const f = last.figures[name];

    return f ? f.samples : [];
}

// the sums that the tables need, next to what was told

function derive(e) {
    const o = e.outcomes;

    e.requests = Object.keys(o).reduce((n, k) => n + o[k], 0);
    e.failed = o.error;
    e.refused = o.invalid + o.denied + o.limited;
    e.input = e.tokens.input;
    e.output = e.tokens.output;
}

function index(answer) {
    const sum = { ttft: null };
    const fields = [ 'requests', 'failed', 'refused', 'running', 'input',
                     'output', 'cost', 'hits', 'lookups' ];

    answer.index = {};

    for (const kind of [ 'models', 'providers', 'tenants' ]) {
        answer.index[kind] = new Map((answer[kind] || []).map((e) =>
            [ e.name, e ]));
    }

    answer.models.forEach((m) => {
        derive(m);
        m.hits = m.cache.hit + m.cache.stale + m.cache.coalesced;
        m.lookups = m.hits + m.cache.miss + m.cache.expired;
    });

    (answer.tenants || []).forEach(derive);

    for (const k of fields) {
        sum[k] = answer.models.reduce((n, m) => n + m[k], 0);
    }

    for (const m of answer.models) {
        sum.ttft = sum.ttft ? sum.ttft.map((n, i) => n + m.ttft[i]) : m.ttft;
    }

    sum.ttft = sum.ttft || [];
    answer.all = sum;
}


// Charts

function spark(parent, label) {
    const svg = document.createElementNS(SVG, 'svg');

    svg.setAttribute('viewBox', '0 0 100 30');
    svg.setAttribute('preserveAspectRatio', 'none');

    if (label) {
        svg.setAttribute('role', 'img');
        svg.setAttribute('aria-label', label);

    } else {
        svg.setAttribute('aria-hidden', 'true');
    }

    for (const cls of [ 'area', 'line' ]) {
        const path = document.createElementNS(SVG, 'path');

        path.setAttribute('class', cls);
        svg.appendChild(path);
    }

    parent.appendChild(svg);

    return svg;
}

// values: one for each step of the history; null is a gap

function draw(svg, values) {
    const most = Math.max(...values.filter((v) => v !== null), 0);
    const top = most || 1;
    const n = KEEP / PERIOD;
    let line = '';
    let area = '';
    let from = null;

    const x = (i) => (100 * (n - values.length + i + 1) / n).toFixed(2);

    values.forEach((v, i) => {
        if (v === null) {
            return;
        }

        const y = (28.5 - 26 * v / top).toFixed(2);
        const joined = i > 0 && values[i - 1] !== null;

        if (!joined) {
            from = i;
        }

        line += (joined ? 'L' : 'M') + x(i) + ' ' + y;
        area += (joined ? 'L' : 'M' + x(i) + ' 30L') + x(i) + ' ' + y;

        if (i === values.length - 1 || values[i + 1] === null) {
            area += 'L' + x(i) + ' 30L' + x(from) + ' 30Z';
        }
    });

    svg.firstChild.setAttribute('d', area);
    svg.lastChild.setAttribute('d', line);
}

// per second, between two answers, for each step

function steps(value) {
    const all = history.slice(-KEEP / PERIOD);

    return all.map((a, i) => {
        const b = all[i - 1];

        if (!b || a.time <= b.time || a.time - b.time > 4 * PERIOD) {
            return null;
        }

        return value(a, b, (a.time - b.time) / 1000);
    });
}


// Tiles

const TILES = [
    { id: 'requests', label: 'Requests/s', sub: (a) =>
        count(a.requests) + ' in all, ' + count(a.running) + ' running',
      value: (d, s) => rate(d.requests / s) },
    { id: 'failures', label: 'Failed', share: true, sub: (a) =>
        count(a.failed) + ' failed, ' + count(a.refused) + ' refused',
      value: (d) => percent(d.failed, d.requests),
      bad: (d) => d.requests && d.failed / d.requests > 0.05 },
    { id: 'ttft', label: 'First token, p95', share: true, sub: (a, d) =>
        'half within ' + seconds(quantile(0.5, d.ttft)),
      value: (d) => seconds(quantile(0.95, d.ttft)) },
    { id: 'tokens', label: 'Output tokens/s', sub: (a) =>
        count(a.input) + ' in, ' + count(a.output) + ' out',
      value: (d, s) => rate(d.output / s) },
    { id: 'cost', label: 'Cost per hour', sub: (a) => money(a.cost)
        + ' in all',
      value: (d, s) => money(3600 * d.cost / s) },
    { id: 'cache', label: 'Cache hits', share: true, sub: (a) =>
        count(a.hits) + ' of ' + count(a.lookups),
      value: (d) => percent(d.hits, d.lookups) }
];

function delta(a, b) {
    const d = {};

    for (const k of Object.keys(a.all)) {
        if (k !== 'ttft') {
            d[k] = grown(a.all, b && b.all, k);
        }
    }

    d.ttft = grownBuckets(a.all, b && b.all, 'ttft');

    return d;
}

const CHART = {
    requests: (d, s) => d.requests / s,
    failures: (d) => d.requests ? d.failed / d.requests : 0,
    ttft: (d) => quantile(0.95, d.ttft) || 0,
    tokens: (d, s) => d.output / s,
    cost: (d, s) => d.cost / s,
    cache: (d) => d.lookups ? d.hits / d.lookups : 0
};

function tiles() {
    const parent = $('tiles');
    const base = before(RATE);
    const share = whole ? null : before(KEEP);

    for (const t of TILES) {
        let el = $('tile-' + t.id);

        if (!el) {
            el = make('dl', 'tile');
            el.id = 'tile-' + t.id;
            el.appendChild(make('dt', '', t.label));
            el.appendChild(make('dd', 'value'));
            el.appendChild(make('dd', 'sub'));
            spark(el.appendChild(make('dd')),
                  t.label + ' of the last 5 minutes');
            parent.appendChild(el);
        }

        const from = t.share ? share : base;
        const d = delta(last, from);
        const s = from ? (last.time - from.time) / 1000 : 0;
        const known = t.share ? whole || from : from;

        el.children[1].className = 'value'
            + (known && t.bad && t.bad(d) ? ' bad' : '');
        setText(el.children[1], known ? t.value(d, s) : NONE);
        setText(el.children[2], t.sub(last.all, d));
        draw(el.querySelector('svg'), steps((a, b, s) =>
            CHART[t.id](delta(a, b), s)));
    }
}


// Tables.  A column: title, cell(row) giving text or what fill() takes, text
// (aligned to the left), chart, opt (not on a phone)

function cssOf(c) {
    return [ 'text', 'chart', 'opt' ].filter((k) => c[k]).join(' ');
}

function fill(td, value) {
    if (typeof value === 'object' && value !== null) {
        value.into(td);
        return;
    }

    if (td.className.indexOf('none') >= 0) {
        td.classList.remove('none');
    }

    if (value === NONE) {
        td.classList.add('none');
    }

    setText(td, value);
}

// a name that others have chosen

function name(s, cls) {
    return { into: (td) => {
        let el = td.firstChild;

        if (!el || el.nodeType !== 1) {
            td.textContent = '';
            el = td.appendChild(make('bdi', 'name' + (cls ? ' ' + cls : '')));
        }

        const text = s === '' ? NONE : plain(s);

        if (el.textContent !== text) {
            el.textContent = text;
            el.title = text;
        }
    } };
}

function mark(text, cls) {
    return { into: (td) => {
        let el = td.firstChild;

        if (!el || el.nodeType !== 1) {
            td.textContent = '';
            el = td.appendChild(make('span'));
        }

        const want = 'mark ' + cls;

        if (el.className !== want) {
            el.className = want;
        }

        setText(el, text);
    } };
}

function loud(text, is, cls) {
    return { into: (td) => {
        td.classList.remove('bad', 'warn', 'none');

        if (is) {
            td.classList.add(cls || 'bad');
        }

        if (text === NONE) {
            td.classList.add('none');
        }

        setText(td, text);
    } };
}

function chart(values) {
    return { into: (td) => {
        draw(td.querySelector('svg') || spark(td), values);
    } };
}

// full: red when there is little left.  null: nothing is known

function bar(part, all, text, full) {
    return { into: (td) => {
        let svg = td.querySelector('svg');

        if (part === null) {
            loud(NONE).into(td);
            return;
        }

        if (!svg) {
            td.textContent = '';
            svg = td.appendChild(document.createElementNS(SVG, 'svg'));
            svg.setAttribute('viewBox', '0 0 90 7');
            svg.setAttribute('aria-hidden', 'true');
            svg.appendChild(document.createElementNS(SVG, 'path'));
            td.appendChild(make('span'));
        }

        const share = all ? Math.min(part / all, 1) : 0;

        svg.setAttribute('class', share >= 0.9 && full ? 'bar full' : 'bar');
        svg.firstChild.setAttribute('d', 'M0 3.5H' + (90 * share).toFixed(1));
        setText(td.lastChild, text);
    } };
}

function table(id, caption, columns, rows, empty) {
    const parent = $(id);
    let sheet = parent.firstChild;
    const kind = rows.length ? 'sheet' : 'note';

    if (!sheet || sheet.className !== kind) {
        parent.textContent = '';
        sheet = parent.appendChild(make('div', kind));
    }

    if (!rows.length) {
        setText(sheet, empty);
        return;
    }

    let body = sheet.querySelector('tbody');

    if (!body) {
        // with the keyboard too, what is too wide can be scrolled
        sheet.tabIndex = 0;
        sheet.setAttribute('role', 'region');
        sheet.setAttribute('aria-label', caption);

        const t = sheet.appendChild(make('table'));
        t.appendChild(make('caption', '', caption));

        const tr = t.appendChild(make('thead')).appendChild(make('tr'));

        for (const c of columns) {
            const th = tr.appendChild(make('th', cssOf(c), c.title));
            th.scope = 'col';
        }

        body = t.appendChild(make('tbody'));
    }

    while (body.rows.length > rows.length) {
        body.deleteRow(-1);
    }

    rows.forEach((row, i) => {
        let tr = body.rows[i];

        if (!tr) {
            tr = body.appendChild(make('tr'));

            columns.forEach((c, n) => {
                const td = tr.appendChild(make(n ? 'td' : 'th', cssOf(c)));

                if (!n) {
                    td.scope = 'row';
                }
            });
        }

        columns.forEach((c, n) => fill(tr.children[n], c.cell(row)));
    });
}

function models() {
    const base = before(RATE);
    const share = whole ? null : before(KEEP);
    const known = whole || share;

    const rows = last.models.map((m) => {
        const then = find(base, 'models', m.name);
        const was = find(share, 'models', m.name);
        const s = base ? (last.time - base.time) / 1000 : null;

        return {
            m: m,
            rate: s ? grown(m, then, 'requests') / s : null,
            output: s ? grown(m, then, 'output') / s : null,
            requests: known ? grown(m, was, 'requests') : 0,
            failed: known ? grown(m, was, 'failed') : 0,
            ttft: known ? grownBuckets(m, was, 'ttft') : []
        };
    });

    rows.sort((a, b) => b.m.requests - a.m.requests);

    table('models', 'Models', [
        { title: 'Model', cell: (r) => name(r.m.name) },
        { title: 'Last 5 min', opt: true, chart: true, cell: (r) =>
            chart(steps((a, b, s) => {
                const now = find(a, 'models', r.m.name);
                return now && grown(now, find(b, 'models', r.m.name),
                                    'requests') / s;
            })) },
        { title: 'Requests/s', cell: (r) => rate(r.rate) },
        { title: 'Requests', cell: (r) => count(r.m.requests) },
        { title: 'Failed', cell: (r) => loud(percent(r.failed, r.requests),
            r.requests && r.failed / r.requests > 0.05) },
        { title: 'First token p50', cell: (r) =>
            seconds(quantile(0.5, r.ttft)) },
        { title: 'p95', cell: (r) => seconds(quantile(0.95, r.ttft)) },
        { title: 'Tokens/s', cell: (r) => rate(r.output) },
        { title: 'Input', opt: true, cell: (r) => count(r.m.input) },
        { title: 'Output', opt: true, cell: (r) => count(r.m.output) },
        { title: 'Running', cell: (r) => count(r.m.running) },
        { title: 'Cost', cell: (r) => money(r.m.cost) }
    ], rows, 'No request yet.');
}

function providers() {
    const base = before(RATE);
    const share = whole ? null : before(KEEP);
    const known = whole || share;

    const rows = last.providers.map((p) => {
        const then = find(base, 'providers', p.name);
        const was = find(share, 'providers', p.name);
        const s = base ? (last.time - base.time) / 1000 : null;

        return {
            p: p,
            rate: s ? grown(p, then, 'attempts') / s : null,
            attempts: known ? grown(p, was, 'attempts') : 0,
            failed: known ? grown(p, was, 'failed') : 0
        };
    });

    for (const r of rows) {
        const own = (s) => s.labels.provider === r.p.name;
        const running = samples('nginx_ai_provider_running_attempts')
                        .find(own);
        const most = samples('nginx_ai_provider_max_attempts').find(own);

        r.running = running && most ? running.value + ' of ' + most.value
                                    : NONE;
        r.full = running && most && running.value >= most.value;
        r.resting = samples('nginx_ai_provider_key_cooldown_seconds')
                    .filter((s) => own(s) && s.value > 0).length;
    }

    rows.sort((a, b) => b.p.attempts - a.p.attempts);

    table('providers', 'Providers', [
        { title: 'Provider', cell: (r) => name(r.p.name) },
        { title: 'Last 5 min', opt: true, chart: true, cell: (r) =>
            chart(steps((a, b, s) => {
                const now = find(a, 'providers', r.p.name);
                return now && grown(now, find(b, 'providers', r.p.name),
                                    'attempts') / s;
            })) },
        { title: 'Attempts/s', cell: (r) => rate(r.rate) },
        { title: 'Attempts', cell: (r) => count(r.p.attempts) },
        { title: 'Failed', cell: (r) => loud(percent(r.failed, r.attempts),
            r.attempts && r.failed / r.attempts > 0.05) },
        { title: 'Running', opt: true, cell: (r) => loud(r.running, r.full,
                                                         'warn') },
        { title: 'Keys resting', opt: true, cell: (r) =>
            loud(r.resting ? String(r.resting) : NONE, r.resting, 'warn') }
    ], rows, 'No attempt yet.');
}

function tenants() {
    const rows = (last.tenants || []).slice();
    const most = rows.reduce((n, t) => Math.max(n, t.input + t.output), 0);

    rows.sort((a, b) => b.input + b.output - a.input - a.output);

    table('tenants', 'Tenants with the most tokens', [
        { title: 'Tenant', cell: (t) => name(t.name) },
        { title: 'Tokens', cell: (t) =>
            bar(t.input + t.output, most, count(t.input + t.output)) },
        { title: 'Cost', cell: (t) => money(t.cost) },
        { title: 'Requests', cell: (t) => count(t.requests) }
    ], rows, last.tenants ? 'No request yet.' : 'Tenants are not counted.');
}

function requests() {
    const rows = last.recent[list];

    for (const id of [ 'failed', 'refused', 'slow' ]) {
        $(id).setAttribute('aria-pressed', String(id === list));
    }

    table('requests', 'Last requests', [
        { title: 'Time', cell: (r) =>
            new Date(r.time).toLocaleTimeString([], { hour12: false }) },
        { title: 'Model', text: true, cell: (r) => name(r.model) },
        { title: 'Provider', text: true, opt: true, cell: (r) =>
            name(r.provider) },
        { title: 'Status', cell: (r) => String(r.status || NONE) },
        { title: 'Error', text: true, cell: (r) => r.error || NONE },
        { title: 'Attempts', opt: true, cell: (r) => String(r.attempts) },
        { title: 'First token', cell: (r) => seconds(r.ttft) },
        { title: 'Duration', cell: (r) => seconds(r.duration) },
        { title: 'Request id', text: true, opt: true, cell: (r) =>
            name(r.request_id, 'id') }
    ], rows, list === 'slow' ? 'None was slow.'
             : list === 'failed' ? 'None failed.' : 'None was refused.');
}

function data() {
    const cls = { ok: 'good', stale: 'bad', none: 'warn' };

    table('data', 'Live data', [
        { title: 'File', cell: (d) => name(d.name) },
        { title: 'State', text: true, cell: (d) =>
            mark(d.state, cls[d.state] || 'warn') },
        { title: 'Records', cell: (d) => count(d.records) },
        { title: 'Loaded', cell: (d) => d.state === 'none' ? NONE
                                        : span(d.age) + ' ago' },
        { title: 'Memory', opt: true, cell: (d) =>
            bytes(d.used) + ' of ' + bytes(d.size) },
        { title: 'Error', text: true, cell: (d) => name(d.error) }
    ], last.data, 'No live data is configured.');
}

// what the modules know of each thing that some labels name: an object with
// the labels, and a member for each family

function gathered(families, labels) {
    const rows = new Map();

    for (const field of Object.keys(families)) {
        for (const s of samples(families[field])) {
            const key = JSON.stringify(labels.map((l) => s.labels[l]));

            if (!rows.has(key)) {
                rows.set(key, { labels: s.labels });
            }

            rows.get(key)[field] = s.value;
        }
    }

    return [ ...rows.values() ];
}

function targets() {
    const states = [ [ 'closed', 'good' ], [ 'half-open', 'warn' ],
                     [ 'open', 'bad' ] ];

    const rows = gathered({
        state: 'nginx_ai_breaker_state', opens: 'nginx_ai_breaker_opens',
        cooldown: 'nginx_ai_target_cooldown_seconds'
    }, [ 'model', 'target' ]);

    // what is not well first
    rows.sort((a, b) => b.state - a.state || b.cooldown - a.cooldown
                        || b.opens - a.opens);

    table('targets', 'Breakers of targets', [
        { title: 'Target', cell: (r) => name(r.labels.target) },
        { title: 'Model', text: true, cell: (r) => name(r.labels.model) },
        { title: 'Breaker', text: true, cell: (r) => mark(...states[r.state]) },
        { title: 'Opened', cell: (r) => count(r.opens) },
        { title: 'Cooldown', opt: true, cell: (r) =>
            r.cooldown ? seconds(r.cooldown) : NONE }
    ], rows, 'No model has a target.');
}

function limits() {
    const rows = gathered({
        keys: 'nginx_ai_limit_keys', held: 'nginx_ai_limit_reservations',
        expired: 'nginx_ai_limit_expired_reservations'
    }, [ 'zone' ]);

    const meters = gathered({
        limit: 'nginx_ai_limit_amount', used: 'nginx_ai_limit_used'
    }, [ 'zone', 'meter' ]);

    for (const r of rows) {
        r.allowed = r.refused = 0;

        for (const s of samples('nginx_ai_limit_decisions')) {
            if (s.labels.zone === r.labels.zone) {
                r[s.labels.decision === 'allowed' ? 'allowed' : 'refused']
                    += s.value;
            }
        }

        // the one with the least left
        r.meter = meters.filter((m) => m.labels.zone === r.labels.zone
                                       && m.limit > 0)
                  .sort((a, b) => b.used / b.limit - a.used / a.limit)[0];
    }

    table('limits', 'Zones of limits and quotas', [
        { title: 'Zone', cell: (r) => name(r.labels.zone) },
        { title: 'Used', cell: (r) => r.meter
            ? bar(r.meter.used, r.meter.limit, count(r.meter.used) + ' of '
                  + count(r.meter.limit) + ' ' + r.meter.labels.meter, true)
            : bar(null) },
        { title: 'Refused', cell: (r) => loud(count(r.refused), r.refused > 0,
                                              'warn') },
        { title: 'Allowed', cell: (r) => count(r.allowed) },
        { title: 'Held', opt: true, cell: (r) => count(r.held) },
        { title: 'Keys', opt: true, cell: (r) => count(r.keys) }
    ], rows, 'No limits.');
}

function redis() {
    const rows = gathered({
        up: 'nginx_ai_redis_up', open: 'nginx_ai_redis_breaker_open',
        latency: 'nginx_ai_redis_latency_seconds',
        commands: 'nginx_ai_redis_commands',
        errors: 'nginx_ai_redis_errors',
        timeouts: 'nginx_ai_redis_timeouts'
    }, [ 'redis' ]);

    table('redis', 'Redis', [
        { title: 'Redis', cell: (r) => name(r.labels.redis) },
        { title: 'State', text: true, cell: (r) => r.open
            ? mark('not asked', 'bad') : r.up ? mark('up', 'good')
            : mark('down', 'bad') },
        { title: 'Latency', cell: (r) => seconds(r.latency) },
        { title: 'Commands', cell: (r) => count(r.commands) },
        { title: 'Errors', cell: (r) => count(r.errors + r.timeouts) }
    ], rows, 'Not configured.');
}

function figures() {
    if (!$('more').open) {
        return;
    }

    const rows = [];

    for (const family of Object.keys(last.figures).sort()) {
        for (const s of last.figures[family].samples) {
            rows.push({
                family: family, help: last.figures[family].help,
                value: s.value,
                labels: Object.keys(s.labels).map((l) =>
                    l + '=' + s.labels[l]).join(' ')
            });
        }
    }

    table('figures', 'All figures of the modules', [
        { title: 'Figure', cell: (r) => name(r.family) },
        { title: 'Labels', text: true, cell: (r) => name(r.labels) },
        { title: 'Value', cell: (r) => String(r.value) },
        { title: 'Meaning', text: true, opt: true, cell: (r) =>
            name(r.help) }
    ], rows, 'None.');
}

function about() {
    const g = last.gateway;
    const draining = samples('nginx_ai_workers').find((s) =>
        s.labels.state === 'draining');

    setText($('about'), window.location.host);
    setText($('about-time'), 'Version ' + g.version + ' on nginx ' + g.nginx
        + ', ' + g.workers + (g.workers === 1 ? ' worker' : ' workers')
        + (draining && draining.value
           ? ' (' + draining.value + ' of before still run)' : '')
        + ', up ' + span(g.uptime) + ', configured ' + span(g.configured)
        + ' ago' + (g.reloads ? ', ' + count(g.reloads)
                    + (g.reloads === 1 ? ' reload' : ' reloads') : ''));
}

function show() {
    if (!last) {
        return;
    }

    $('recent').setAttribute('aria-pressed', String(!whole));
    $('all').setAttribute('aria-pressed', String(whole));

    about();
    tiles();
    models();
    providers();
    targets();
    limits();
    tenants();
    requests();
    data();
    redis();
    figures();
}


// Asking

function state(cls, text) {
    const el = $('state');

    if (el.className !== 'state ' + cls) {
        el.className = 'state ' + cls;
    }

    setText(el, text);
    document.body.classList.toggle('stale', cls === 'lost');
}

function next() {
    clearTimeout(timer);

    if (!paused && !document.hidden) {
        timer = setTimeout(ask, PERIOD);
    }
}

async function ask() {
    if (asking) {
        return;
    }

    asking = true;

    try {
        const r = await fetch('?format=json', { cache: 'no-store' });

        if (!r.ok) {
            throw new Error('status ' + r.status);
        }

        const answer = await r.json();

        if (answer.version !== 1) {
            throw new Error('another version, load the page again');
        }

        index(answer);

        if (last) {
            // of the past only the counters are needed
            last.figures = last.recent = null;
        }

        last = answer;
        history.push(answer);

        while (history[0].time < answer.time - KEEP - PERIOD) {
            history.shift();
        }

        show();

        if (!paused) {
            state('live', 'Live');
        }

    } catch (e) {
        state('lost', 'No figures since '
            + (last ? new Date(last.time).toLocaleTimeString([],
                                                    { hour12: false })
                    : 'the start') + ': ' + plain(e.message));
    }

    asking = false;
    next();
}

for (const id of [ 'recent', 'all' ]) {
    $(id).addEventListener('click', () => {
        whole = id === 'all';
        show();
    });
}

for (const id of [ 'failed', 'refused', 'slow' ]) {
    $(id).addEventListener('click', () => {
        list = id;
        $('requests').textContent = '';
        show();
    });
}

$('pause').addEventListener('click', () => {
    paused = !paused;
    $('pause').setAttribute('aria-pressed', String(paused));

    if (paused) {
        clearTimeout(timer);
        state('', 'Paused');

    } else {
        ask();
    }
});

$('more').addEventListener('toggle', show);

document.addEventListener('visibilitychange', () => {
    if (!document.hidden && !paused) {
        ask();
    }
});

ask();

})();

#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_status: the page and its policy, the JSON behind it with the figures of a
# scripted load, and the page in a browser.  Chromium is looked for in PATH;
# what needs it is skipped without.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA qw(sha256_base64);
use Encode qw(decode_utf8 encode_utf8);
use File::Temp ();
use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Keys;
use AI::Port;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of metrics'
    if AI::Gateway::modules() && !grep { /metrics/ } AI::Gateway::modules();

my $top = $AI::Gateway::top;
my $source = "$top/modules/ngx_http_ai_metrics";


# the page in the module is that of its sources

ok(`"$^X" $source/page/make.pl` eq slurp("$source/ngx_http_ai_status_page.c"),
   'the page in the module is current, else: '
   . 'perl page/make.pl > ngx_http_ai_status_page.c');

my $script = slurp("$source/page/app.js");

unlike($script, qr/innerHTML|outerHTML|insertAdjacent|document\.write|eval\(/,
       'data is nothing but text');
unlike(slurp("$source/page/index.html"), qr/\son\w+=|\sstyle=|\ssrc=/,
       'nothing in attributes');


# mistakes

sub bad {
    my ($name, $location, $expected) = @_;

    my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    server { listen 127.0.0.1:%%PORT_0%%;
        location /s { $location }
    }
}
END
    my ($rc, $out) = $gw->conf_test;
    isnt($rc, 0, "$name: refused");
    like($out, $expected, "$name: why");
    like($out, qr/in .*nginx\.conf:\d+/, "$name: where");
}

bad('twice', 'ai_status; ai_status;', qr/"ai_status" directive is duplicate/);
bad('unknown', 'ai_status fast=1s;',
    qr/unknown parameter "fast=1s" of "ai_status", it has "slow="/);
bad('no time', 'ai_status slow=x;', qr/"slow=x" of "ai_status" must be a time/);
bad('zero', 'ai_status slow=0;', qr/"slow=0" of "ai_status" must be a time/);
bad('too many', 'ai_status slow=1s slow=2s;', qr/invalid number of arguments/);

{
    my $gw = AI::Gateway->new(conf => <<'END');
events {}
http {
    ai_zone ai 32k;
    server { listen 127.0.0.1:%%PORT_0%%; location = /s { ai_status; } }
}
END
    my ($rc, $out) = $gw->conf_test;
    isnt($rc, 0, 'a small zone: refused');
    like($out, qr/no memory for recent requests, increase.*"ai_zone" by \d+/,
         '... why');
}


# a load

my $p = provider();
my $url = $p->url;

my $gw = gateway(<<"END", workers => 2, server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $url; key none; }
    ai_provider dead { dialect openai; endpoint http://127.0.0.1:1; key none; }

    ai_model good  { target p/usage:100.20.40; price in=1 out=2; }
    ai_model bad   { target p/status:500; retry off; }
    ai_model down  { target dead/x; retry off; }
    ai_model second { target dead/x; fallback q/usage:10.5; retry off; }
    ai_model late  { target p/wait:350+usage:1.1; }
    ai_model cut   { target p/cut:2+pace:10; retry off; }
END
        location /v1/ { ai_pass model; }
        location /direct/v1/ { ai_pass p; }
        location = /status { ai_status slow=300ms; }
        location /ai/ { ai_status slow=5s; }
        location /pre { ai_status; }
        location ~ ^/re { ai_status; }
END2

my $c = $gw->client;


# what is there, and what is not

for my $case ([ '/status', 200 ], [ '/ai/', 200 ], [ '/ai', 301 ],
              [ '/ai/x', 404 ], [ '/pre', 200 ], [ '/prefix', 404 ],
              [ '/re/x', 200 ], [ '/status?format=json', 200 ],
              [ '/ai/?format=json', 200 ], [ '/ai/x?format=json', 404 ],
              [ '/status?format=xml', 404 ], [ '/status?format=', 404 ],
              [ '/status?other=1', 200 ])
{
    is($c->get($case->[0])->{status}, $case->[1], "GET $case->[0]");
}

for my $method (qw(POST PUT DELETE)) {
    is($c->request($method, '/status?format=json', '{}')->{status}, 405,
       $method);
}

my $r = $c->get('/status');
my $page = $r->{body};
my $policy = $r->{headers}{'content-security-policy'};

is($r->{headers}{'content-type'}, 'text/html; charset=utf-8', 'type');
is($r->{headers}{'content-length'}, length $page, 'length');
is($r->{headers}{'cache-control'}, 'no-store', 'not to be kept');
is($r->{headers}{'x-content-type-options'}, 'nosniff', 'not to be guessed');
is($r->{headers}{'x-frame-options'}, 'DENY', 'not to be framed');
is($r->{headers}{'referrer-policy'}, 'no-referrer', 'no referrer');
cmp_ok(length $page, '<', 60_000, 'size of the page');

like($policy, qr/^default-src 'none';/, 'policy: nothing');
like($policy, qr/; connect-src 'self';/, '... but to ask for figures');
unlike($policy, qr/unsafe|\*|https?:/, '... nothing unsafe');

for my $part ([ script => 'script-src' ], [ style => 'style-src' ]) {
    my @texts = $page =~ m{<$part->[0]>(.*?)</$part->[0]>}sg;
    is(@texts, 1, "one $part->[0]");

    my $hash = sha256_base64($texts[0]);
    $hash .= '=' while length($hash) % 4;
    like($policy, qr/$part->[1] 'sha256-\Q$hash\E'/, '... has its hash');
}

my @links = $page =~ /(?:href|src|action)="([^"]*)"/g;
is_deeply([ grep { !/^(?:#main|data:,|\?format=json)$/ } @links ], [],
          'no asset of elsewhere');
is_deeply([ grep { $_ ne 'http://www.w3.org/2000/svg' }
            $page =~ m{((?:https?|wss?)://[^\s"']*)}g ], [], 'no address');

$r = $c->request('HEAD', '/status');
is($r->{status}, 200, 'HEAD');
is($r->{body}, '', '... no body');
is($r->{headers}{'content-length'}, length $page, '... length');

$r = $c->get('/status?format=json');
is($r->{headers}{'content-type'}, 'application/json', 'type of the JSON');
ok($r->{headers}{'content-security-policy'}, '... with a policy');


# a request that is logged, so that the next one comes behind it

my $asked = 0;

sub ask {
    my ($model, %opt) = @_;
    my $body = ref $model ? $$model : chat($model, %{ $opt{body} // {} });
    my $r = $c->post('/v1/chat/completions', $body,
                     headers => $opt{headers} // []);

    $asked++;
    $gw->wait_for(sub { (grep { /completions/ } $gw->access_log) >= $asked });

    return $r;
}

# names that might break something

my @hostile = (
    '"><script>alert(1)</script>',
    "\x{202e}evil\x{202c}",
    '\\"};//' . "\x{2028}",
    'x' x 256,
    ("\x{1f600}" x 64),
    "</script><img src=x onerror=alert(1)>",
    'constructor', '__proto__',
);

for my $model (@hostile) {
    my $r = ask($model);
    is($r->{status}, 404, 'hostile: ' . printable($model));
}

# 12 of good, 4 of them streams; the rest fails

for my $n (1 .. 12) {
    my $r = ask('good', body => { stream => $n % 3 == 0 });
    is($r->{status}, 200, "good $n");
}

ask('bad') for 1 .. 3;
ask('down') for 1 .. 2;
ask('second');
ask('late', body => { stream => 1 },
    headers => [ 'X-Request-Id' => 'late-one' ]);
ask('cut', body => { stream => 1 });
ask(\'{broken');

my $s;

$gw->wait_for(sub {
    $s = status('/status');
    return $asked == sum(map { values %{ $_->{outcomes} } } @{ $s->{models} })
           && !sum(map { $_->{running} } @{ $s->{models} });
});

check_schema($s);

is($s->{version}, 1, 'version');
cmp_ok(abs($s->{time} / 1000 - time()), '<', 10, 'time');
is($s->{gateway}{workers}, 2, 'workers');
is($s->{gateway}{reloads}, 0, 'no reload');
cmp_ok($s->{gateway}{uptime}, '<', 600, 'up');

my @failed = @{ $s->{recent}{failed} };
is(join(' ', map { "$_->{model}/$_->{status}/$_->{error}" } @failed),
   'cut/200/incomplete down/502/connect down/502/connect '
   . 'bad/500/server_error bad/500/server_error bad/500/server_error',
   'failed, the newest first');
is($failed[1]{provider}, 'dead', 'provider') or diag(explain($failed[1]));
is($failed[1]{attempts}, 1, 'attempts');
like($failed[0]{request_id}, qr/^req_[0-9a-f]{32}$/, 'request id');

my @refused = @{ $s->{recent}{refused} };
is(@refused, 1 + @hostile, 'refused');
is("$refused[0]{status} $refused[0]{error}", '400 invalid_request',
   '... as no JSON');

for my $i (0 .. $#hostile) {
    my $got = $refused[-1 - $i]{model};
    my $bytes = encode_utf8($hostile[$i]);
    my $cut = decode_utf8(substr($bytes, 0, 64), Encode::FB_QUIET);

    is($got, $cut, '... ' . printable($hostile[$i]));
}

my @slow = @{ $s->{recent}{slow} };

# with a checker of memory others may be as well
@slow = grep { $_->{model} eq 'late' } @slow if checked();

is(join(' ', map { $_->{model} } @slow), 'late', 'slow');
is($slow[0]{request_id}, 'late-one', '... id of the client');
cmp_ok($slow[0]{ttft}, '>=', 0.3, '... first token');
cmp_ok($slow[0]{duration}, '>=', $slow[0]{ttft}, '... duration');
is(@{ status('/ai/')->{recent}{slow} }, 0, '... not where slow is more');

unlike(encode_json($s), qr/Hello there|w1 w2/, 'no content');

# figures of all workers

my %model = map { $_->{name} => $_ } @{ $s->{models} };

for my $case ([ good => 'success 12' ], [ bad => 'error 3' ],
              [ down => 'error 2' ], [ second => 'success 1' ],
              [ late => 'success 1' ], [ cut => 'error 1' ],
              [ other => 'invalid ' . @hostile ], [ none => 'invalid 1' ])
{
    my ($name, $expected) = @$case;
    my $o = $model{$name}{outcomes} // {};

    is(join(' ', map { "$_ $o->{$_}" } grep { $o->{$_} } sort keys %$o),
       $expected, "$name: outcomes");
    is($model{$name}{running}, 0, '... none runs');
}

is(join(' ', map { $_->{name} } @{ $s->{models} }[0, 1]), 'good other',
   'those with most requests first');
is(scalar @{ $s->{models} }, 8, 'no model that is not configured');

my $good = $model{good};

is_deeply($good->{tokens}, { input => 1200, output => 240, cache_read => 480,
                             cache_write => 0, reasoning => 0 }, 'tokens');
is($good->{cost}, 0.00168, 'cost');
is($good->{unpriced}, 0, '... of all');
is($model{late}{unpriced}, 1, 'no price');
is($model{second}{fallbacks}, 1, 'a fallback');
is(sum(@{ $good->{ttft} }), 4, 'first tokens of streams');
is(sum(@{ $good->{duration} }), 12, 'durations');

my %provider = map { $_->{name} => $_ } @{ $s->{providers} };

is($provider{p}{attempts}, 17, 'attempts');
is_deeply($provider{p}{results},
          { success => 13, server_error => 3, incomplete => 1 },
          '... by result');
is($provider{p}{failed}, 4, '... failed');
is_deeply([ @{ $provider{dead} }{qw(attempts failed)} ], [ 3, 3 ], 'dead');
is_deeply([ @{ $provider{q} }{qw(attempts failed)} ], [ 1, 0 ], 'the other');
is($s->{tenants}, undef, 'tenants are not counted');

# in a browser, which asks three times

my $chromium = find_program('chromium', 'chromium-browser', 'google-chrome');

SKIP: {
    skip 'no chromium in PATH', 1 if !$chromium;

    my ($dom, $log, $net) = browse($chromium, $gw->port, '/status#all');

    like($dom, qr{<p id="state"[^>]*>Live</p>}, 'browser: live')
        or diag(substr($dom, 0, 2000) . $log);

    my @console = grep { /CONSOLE/ } split /\n/, $log;
    is_deeply(\@console, [], '... no error');
    like($net, qr{"url":"http://127[^"]*/status\?format=json"},
         '... the network is watched');
    is_deeply([ strangers($net, $gw->port) ], [], '... nobody else is asked');

    my %row = map { $_->[0] => $_ } rows($dom, 'models');

    is(join(' ', @{ $row{good} // [] }[3, 4]), '12 0 %', '... requests');
    is($row{good}[8], '1.20k', '... input');
    is($row{good}[9], '240', '... output');
    is($row{good}[11], '$0.0017', '... cost');
    is($row{bad}[4], '100 %', '... failed');
    is(scalar keys %row, 8, '... all models');

    %row = map { $_->[0] => $_ } rows($dom, 'providers');
    is($row{p}[3], '17', '... attempts');

    is(scalar rows($dom, 'requests'), 6, '... failed requests');
    like($dom, qr/Version 0\.\d+\.\d+ on nginx \d/, '... version');

    # those with strange names are in the list of the refused

    ($dom, $log, $net) = browse($chromium, $gw->port, '/status#all,refused');

    @console = grep { /CONSOLE/ } split /\n/, $log;
    is_deeply(\@console, [], 'hostile names: no error');

    my @rows = rows($dom, 'requests');
    is(scalar @rows, 1 + @hostile, '... all are shown');
    is($rows[-1][1], '"&gt;&lt;script&gt;alert(1)&lt;/script&gt;',
       '... as text');
    is($rows[-2][1], '\\u202eevil\\u202c', '... marks are written out');
    is(scalar(() = $dom =~ /<script/g), 1, '... no further script');
    unlike($dom, qr/<img/, '... no image');
}

# of the newest 64

ask("n$_") for 1 .. 70;
@refused = @{ status('/status')->{recent}{refused} };
is(@refused, 64, 'as many as are kept');
is("$refused[0]{model} $refused[-1]{model}", 'n70 n7', '... the newest');

# kept over a reload

$gw->reload;
$s = status('/status');
is($s->{gateway}{reloads}, 1, 'a reload');
is(@{ $s->{recent}{failed} }, 6, '... forgets nothing');

# more series than are added up at once, and more models than are shown

{
    my $n = 300;
    my $models = join "\n",
                 map { "ai_model m$_ { target p/usage:1.1; }" }
                 1 .. $n;

    my $gw = gateway(<<"END", server => <<'END2');
    ai_metrics_zone 32m;
    ai_provider p { dialect openai; endpoint $url; key none; }
    $models
END
        location /v1/ { ai_pass model; }
        location = /status { ai_status; }
END2

    my $c = $gw->client;
    my $failed = grep { $c->post('/v1/chat/completions', chat("m$_"))
                        ->{status} != 200 } 1 .. $n, 7;

    is($failed, 0, 'many models');

    my @clients = map { $c->open('/status?format=json', undef,
                                 method => 'GET') } 1 .. 4;
    $clients[0]->reset;
    $_->finish for @clients[1 .. 3];

    my $s = decode_json($clients[2]{body});

    is(scalar @{ $s->{models} }, 256, '... as many as are shown');
    is($s->{models}[0]{name}, 'm7', '... those with most requests');
    is($s->{models}[0]{outcomes}{success}, 2, '... their figures');
    is($s->{providers}[0]{attempts}, $n + 1, '... of all of them');

    my $start = time();
    my $r = $c->get('/status?format=json');
    note(sprintf 'JSON of %d models: %d bytes, %.1f ms', $n,
         length $r->{body}, 1000 * (time() - $start));
    is($r->{status}, 200, '... again');
}


# tenants, limits, breakers, live data, Redis

{
    my $keys = AI::Keys->new;
    my @tenants = ('acme', '"><img src=x onerror=alert(1)>',
                   "\x{202e}gpj.exe", 'x' x 128);
    my $dead = AI::Port::free_port();

    $keys->add("t$_", tenant => $tenants[$_]) for 0 .. $#tenants;

    my %opt = (files => { 'keys.json' => $keys->text,
                          secret => "sk-test-secret\n" });

    my $gw = gateway(<<"END", %opt, server => <<'END2');
    ai_data %%DIR%% interval=100ms;
    ai_metrics_labels tenant=10;
    ai_redis far { server 127.0.0.1:$dead; on_error allow; }

    ai_provider p { dialect openai; endpoint $url;
                    key file:%%DIR%%/secret; max_concurrent 5; }
    ai_model m { target p/usage:100.20; price in=1000 out=2000; }
    ai_model b { target p/status:500; retry off; price in=1 out=1;
                 breaker 50%/10s min=2 open=60s; }

    ai_quota_zone all zone=spend usd=100/month;
END
        location /v1/ { ai_pass model; ai_auth key; ai_quota spend; }
        location = /status { ai_status; }
END2

    my $c = $gw->client;
    my $path = '/v1/chat/completions';

    for my $n (0 .. $#tenants) {
        is($c->post($path, chat('m'), headers => $keys->bearer("t$n"))
           ->{status}, 200, "tenant $n") for 1 .. ($n ? 1 : 2);
    }

    $c->post($path, chat('b'), headers => $keys->bearer('t0')) for 1 .. 3;
    $gw->write_file('keys.json', '{broken');
    $gw->wait_for(sub {
        my $r = decode_json($c->get('/status?format=json')->{body});
        return $r->{data}[0]{state} eq 'stale';
    });

    my $json = $c->get('/status?format=json')->{body};
    my $s = decode_json($json);

    check_schema($s);
    unlike($json, qr/sk-test|aigw_/, 'no secret');

    my %tenant = map { $_->{name} => $_ } @{ $s->{tenants} };

    ok($tenant{$_}, 'tenant ' . printable($_)) for @tenants;
    is($s->{tenants}[0]{name}, 'acme', 'the one with most first');
    is($tenant{acme}{tokens}{input}, 200, '... tokens');
    is($tenant{acme}{cost}, 0.28, '... cost');
    is($tenant{acme}{outcomes}{error}, 3, '... failed');

    is($s->{data}[0]{name}, 'keys', 'live data');
    is($s->{data}[0]{records}, scalar @tenants, '... records in force');
    is($s->{data}[0]{failures}, 1, '... refused');
    isnt($s->{data}[0]{error}, '', '... why');

    my $breakers = $s->{figures}{nginx_ai_breaker_state};
    is($breakers->{type}, 'gauge', 'breakers');
    is_deeply([ map { "$_->{labels}{model} $_->{value}" }
                @{ $breakers->{samples} } ], [ 'm 0', 'b 2' ], '... open');

    SKIP: {
        skip 'no chromium in PATH', 1 if !$chromium;

        my ($dom, $log) = browse($chromium, $gw->port, '/status#all');

        is_deeply([ grep { /CONSOLE/ } split /\n/, $log ], [],
                  'browser: no error');

        my @rows = rows($dom, 'tenants');
        is($rows[0][0], 'acme', '... tenants');
        is($rows[0][1], '240', '... tokens');
        is($rows[0][2], '$0.28', '... cost');
        like(join("\n", map { $_->[0] } @rows),
             qr/^"&gt;&lt;img src=x onerror=alert\(1\)&gt;$/m, '... as text');
        like(join("\n", map { $_->[0] } @rows), qr/^\\u202egpj\.exe$/m,
             '... marks');
        unlike($dom, qr/<img/, '... no image');

        @rows = rows($dom, 'targets');
        is(join(' ', @{ $rows[0] }[1, 2, 3]), 'b open 1', '... breaker');

        @rows = rows($dom, 'limits');
        is($rows[0][0], 'spend', '... limits');
        like($rows[0][1], qr/^0\.70 of 100 usd$/, '... used');

        @rows = rows($dom, 'data');
        is(join(' ', @{ $rows[0] }[0, 1]), 'keys stale', '... live data');

        @rows = rows($dom, 'redis');
        like("@{ $rows[0] }[0, 1]", qr/^far (?:down|not asked)$/,
             '... Redis');

        @rows = rows($dom, 'providers');
        is($rows[0][5], '0 of 5', '... running attempts');
    }
}

done_testing();


sub slurp {
    my ($file) = @_;

    open my $f, '<', $file or die "$file: $!";
    local $/;

    return scalar <$f>;
}

sub status {
    my ($path) = @_;
    my $r = $gw->client->get("$path?format=json");

    return decode_json($r->{body});
}

sub find_program {
    for my $name (@_) {
        for (split /:/, $ENV{PATH}) {
            return "$_/$name" if -x "$_/$name";
        }
    }

    return;
}

# the page as it is after some seconds: its DOM, messages, and the log of
# the network

sub browse {
    my ($program, $port, $path) = @_;
    my $dir = File::Temp->newdir('ai-test-XXXXXX', TMPDIR => 1);

    my $options = join ' ', qw(
        --headless=new --no-sandbox --disable-gpu --no-first-run
        --disable-background-networking --disable-component-update
        --disable-sync --enable-logging=stderr --virtual-time-budget=6500
        --dump-dom
    ), "--user-data-dir=$dir/profile", "--log-net-log=$dir/net.json";

    my $dom = `timeout 60 $program $options 'http://127.0.0.1:$port$path' 2>$dir/log`;

    return (decode_utf8($dom), map { -f $_ ? slurp($_) : '' }
                               "$dir/log", "$dir/net.json");
}

# addresses that the page has asked, but its own

sub strangers {
    my ($net, $port) = @_;
    my $own = "http://127.0.0.1:$port";

    # an event of a request that the page has begun names who that was
    return grep { !m{^\Q$own\E/|^data:} }
           map { /"url":"([^"]*)"/ }
           grep { m{"initiator":"\Q$own\E"} } split /\n/, $net;
}

# rows of a table, each a list of the cells' text, as it is in the DOM

sub rows {
    my ($dom, $id) = @_;
    my ($body) = $dom =~ m{<div id="$id">.*?<tbody>(.*?)</tbody>}s;

    return map { [ map { s/<[^>]*>//gr } m{<t[hd]\b[^>]*>(.*?)</t[hd]>}sg ] }
           ($body // '') =~ m{<tr>(.*?)</tr>}sg;
}

sub sum {
    my $n = 0;
    $n += $_ for @_;

    return $n;
}

# each member that docs/status.md promises, with its type, and no other

sub check_schema {
    my ($s) = @_;

    my %outcomes = map { $_ => 'int' }
                   qw(success error invalid denied limited canceled);
    my %tokens = map { $_ => 'int' }
                 qw(input output cache_read cache_write reasoning);
    my %cache = map { $_ => 'int' }
                qw(miss bypass expired hit stale coalesced);
    my %request = (
        time => 'int', request_id => 'text', model => 'text',
        provider => 'text', status => 'int', error => 'text',
        attempts => 'int', duration => 'num', ttft => 'num?'
    );

    my @wrong = differs('', $s, {
        version => 'int', time => 'int',
        gateway => {
            version => 'text', nginx => 'text', workers => 'int',
            uptime => 'int', configured => 'int', reloads => 'int'
        },
        buckets => { ttft => [ 'num' ], duration => [ 'num' ] },
        models => [ {
            name => 'text', outcomes => \%outcomes, running => 'int',
            streams => 'int', fallbacks => 'int', tokens => \%tokens,
            cost => 'num', unpriced => 'int', cache => \%cache,
            ttft => [ 'int' ], duration => [ 'int' ]
        } ],
        providers => [ {
            name => 'text', attempts => 'int', failed => 'int',
            results => { '*' => 'int' }, ttft => [ 'int' ],
            duration => [ 'int' ]
        } ],
        tenants => defined $s->{tenants} ? [ {
            name => 'text', outcomes => \%outcomes, tokens => \%tokens,
            cost => 'num'
        } ] : 'num?',
        data => [ {
            name => 'text', state => 'text', generation => 'int',
            records => 'int', failures => 'int', age => 'int', used => 'int',
            size => 'int', error => 'text'
        } ],
        figures => { '*' => {
            help => 'text', type => 'text',
            samples => [ { labels => { '*' => 'text' }, value => 'num' } ]
        } },
        recent => { map { $_ => [ \%request ] } qw(failed refused slow) }
    });

    is_deeply(\@wrong, [], 'as it is documented');

    for my $m (@{ $s->{models} }, @{ $s->{providers} }) {
        for my $k (qw(ttft duration)) {
            push @wrong, $m->{name}
                if @{ $m->{$k} } != @{ $s->{buckets}{$k} } + 1;
        }
    }

    is_deeply(\@wrong, [], 'a bucket more than bounds');

    my $page = slurp("$top/docs/status.md");

    like($page, qr/`$_`/, "$_ is described")
        for sort keys %$s, keys %{ $s->{gateway} }, keys %{ $s->{models}[0] },
                 keys %{ $s->{providers}[0] }, keys %request;
}

sub differs {
    my ($at, $v, $type) = @_;

    if (ref $type eq 'HASH') {
        return "$at: no object" if ref $v ne 'HASH';

        my $any = $type->{'*'};

        return ((map { "$at.$_: missing" }
                 grep { $_ ne '*' && !exists $v->{$_} } sort keys %$type),
                map { my $t = $type->{$_} // $any;
                      $t ? differs("$at.$_", $v->{$_}, $t)
                         : "$at.$_: not documented" } sort keys %$v);
    }

    if (ref $type eq 'ARRAY') {
        return "$at: no list" if ref $v ne 'ARRAY';
        return map { differs("$at\[$_]", $v->[$_], $type->[0]) } 0 .. $#$v;
    }

    return if $type eq 'num?' && !defined $v;
    return "$at: null" if !defined $v;

    # a number that was one in JSON
    my $number = !ref $v && encode_json([ $v ]) !~ /"/;

    return "$at: $v is not $type"
        if ref $v || $type eq 'text' && $number
           || $type ne 'text' && !$number
           || $type eq 'int' && $v !~ /^-?\d+$/;
    return;
}

sub printable {
    my ($s) = @_;
    return substr($s =~ s/([^ -~])/sprintf('\\x{%x}', ord $1)/ger, 0, 40);
}

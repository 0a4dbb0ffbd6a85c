#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# One load, told in four ways: the usage log, the metrics, the ledger of a
# quota and the spans have the same sums, whatever became of the requests.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep);

use AI::Gateway;
use AI::Kit;
use AI::Otlp;
use AI::Prom;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

for my $name (qw(ratelimit cache metrics)) {
    plan skip_all => "no module of $name"
        if AI::Gateway::modules()
           && !grep { /$name/ } AI::Gateway::modules();
}

my $p = provider();
my $url = $p->url;

my $collector = AI::Provider->start(
    handler => sub { AI::Provider::json_script(200, {}) });
my $traces = $collector->url;

my $gw = gateway(<<"END", workers => 2, server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }

    ai_model good   { target p/usage:1000.50.400.20;
                      price in=1.25 out=10 cached=0.125; }
    ai_model other  { target p/usage:333.77+n:7; price in=3 out=15; }
    ai_model count  { target p/nousage+n:40; price in=1 out=2; }
    ai_model second { target p/status:500; fallback p/usage:5.6; retry off;
                      price in=1 out=1; }
    ai_model down   { target p/status:503; retry off; price in=1 out=1; }
    ai_model cut    { target p/cut:3+n:50; retry off; price in=1 out=1; }
    ai_model slow   { target p/n:400+pace:20; price in=1 out=1; }

    ai_quota_zone total zone=spend usd=1000/day tokens=100m/day;
    ai_cache_zone answers 2m;

    ai_log %%DIR%%/usage.log;
    ai_trace $traces/v1/traces flush=100ms;
END
    ai_quota spend;
    location /v1/ { ai_pass model; }
    location /cached/ {
        ai_cache answers ttl=1h scope=global;
        ai_cache_any on;
        ai_pass model;
    }
    location = /metrics { ai_metrics; }
    location = /limits { ai_limit_view; }
END2

$gw->allow(qr/attempt \d+, .* failed/);

# the load

my $n = 0;

for my $round (1 .. 3) {
    for my $model (qw(good other count second down cut)) {
        for my $stream (\0, \1) {
            $gw->client->post('/v1/chat/completions',
                              chat($model, stream => $stream));
            $n++;
        }
    }

    $gw->client->post('/cached/chat/completions', chat('good'));
    $gw->client->post('/v1/chat/completions', chat('nosuch'));
    $gw->client->post('/v1/messages', { model => 'other', max_tokens => 100,
        messages => [ { role => 'user', content => 'hi' } ] });
    $n += 3;

    # a client that leaves

    my $s = $gw->client->open('/v1/chat/completions',
                              chat('slow', stream => \1));
    $s->event for 1 .. 4;
    $s->abort;
    $n++;
}

# the log

my @lines;

$gw->wait_for(sub {
    @lines = map { decode_json($_) }
             split /\n/, $gw->read_file('usage.log');
    return @lines == $n;
}, 10);

is(scalar @lines, $n, 'a line for each request');

my %log = (input => 0, output => 0, cost => 0);

for my $line (@lines) {
    next if ($line->{cache} // '') =~ /^(?:hit|coalesced)$/;
    $log{input} += $line->{input_tokens} // 0;
    $log{output} += $line->{output_tokens} // 0;
    $log{cost} += $line->{cost} // 0;
}

cmp_ok($log{input}, '>', 6000, 'there is input');
cmp_ok($log{output}, '>', 600, '... and output');
cmp_ok($log{cost}, '>', 0.01, '... and cost');

# the metrics

my $m = AI::Prom->read($gw->client->get('/metrics')->{body});

is($m->sum('nginx_ai_tokens_total', type => 'input'), $log{input},
   'metrics: input');
is($m->sum('nginx_ai_tokens_total', type => 'output'), $log{output},
   '... output');
cmp_ok(abs($m->sum('nginx_ai_cost_dollars_total') - $log{cost}), '<', 1e-9,
       '... cost');
is($m->sum('nginx_ai_requests_total'), $n, '... requests');

# the ledger

my $view = $gw->client->get('/limits?zone=spend')->json;
my ($entry) = @{ $view->{zones}[0]{entries} };

is($entry->{holds}, 0, 'ledger: nothing is held');
is($entry->{tokens}{used}, $log{input} + $log{output}, '... tokens');
cmp_ok(abs($entry->{usd}{used} - $log{cost}), '<', 1e-9, '... cost');

# the spans

my @spans;

$gw->wait_for(sub {
    @spans = grep { $_->{kind} == 2 }
             map { AI::Otlp::spans($_->{body}) } $collector->log;
    return @spans == $n;
}, 10);

is(scalar @spans, $n, 'a span for each request');

my %span = (input => 0, output => 0, cost => 0);

for my $span (@spans) {
    my $attr = $span->{attr};
    next if ($attr->{'nginx_ai.cache'} // '') =~ /HIT|COALESCED/;
    $span{input} += $attr->{'gen_ai.usage.input_tokens'} // 0;
    $span{output} += $attr->{'gen_ai.usage.output_tokens'} // 0;
    $span{cost} += $attr->{'gen_ai.usage.cost'} // 0;
}

is($span{input}, $log{input}, 'spans: input');
is($span{output}, $log{output}, '... output');
cmp_ok(abs($span{cost} - $log{cost}), '<', 1e-9, '... cost');

# each line and its span tell of the same request

my %by_trace = map { $_->{traceId} => $_ } @spans;

is(scalar(grep { my $s = $by_trace{$_->{trace_id} // ''};
                 $s && $s->{attr}{'nginx_ai.request.id'} eq $_->{request_id} }
          @lines), $n, 'lines and spans have the same ids');

done_testing();

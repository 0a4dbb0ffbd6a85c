#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_metrics: what it counts equals what providers and clients have seen.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use AI::Kit;
use AI::Gateway;
use AI::Keys;
use AI::Prom;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my $server = <<'END';
    keepalive_requests 1000000;
    location /v1/ { ai_pass model direct=on; }
    location /p/  { ai_pass p; }
    location = /metrics { ai_metrics; }
    location = /otel { ai_metrics; ai_metrics_otel on; }
END

my $conf = <<"END";
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider canned { dialect static; text "one two three"; }
    ai_provider dead { dialect openai; endpoint http://127.0.0.1:1; key none; }

    ai_model good    { target p/usage:1000.500.400.50;
                       price in=1.25 out=10 cached=0.125; }
    ai_model claude  { target a/usage:7.8; }
    ai_model second  { target p/status:500; fallback p/usage:5.6; retry off;
                       price in=1 out=1; }
    ai_model again   { target p/status:503+times:2+code:x;
                       retry 2 backoff=1ms..2ms; }
    ai_model down    { target dead/x; retry off; }
    ai_model refused { target p/status:400; }
    ai_model limited { target p/status:429; retry off; }
    ai_model cut     { target p/cut:3+n:50+pace:5; }
    ai_model slow    { target p/n:400+pace:20; }
    ai_model static  { target canned/x; }
    ai_alias alias good;
END

my $gw = gateway($conf, workers => 3, server => $server);

sub scrape {
    my ($g, %opt) = @_;
    my $r = $g->client->get($opt{path} // '/metrics',
        headers => $opt{openmetrics}
                   ? [ Accept => 'application/openmetrics-text;version=1.0.0,'
                                 . 'text/plain;version=0.0.4;q=0.5' ]
                   : $opt{headers} // []);
    my $m = AI::Prom->read($r->{body}, openmetrics => $opt{openmetrics});

    $m->{answer} = $r;
    $m->{status} = $r->{status};

    if (@{ $m->{wrong} }) {
        fail("format of a scrape");
        diag($_) for @{ $m->{wrong} }[0 .. ($#{ $m->{wrong} } < 9
                                            ? $#{ $m->{wrong} } : 9)];
    }

    return $m;
}

# a request is counted when its answer was sent: waits for a sum

sub summed {
    my ($expected, @what) = @_;
    my $m;

    $gw->wait_for(sub {
        $m = scrape($gw);
        return $m->sum(@what) == $expected;
    }, 5);

    return $m;
}

sub checked_by_promtool {
    my ($m, $name) = @_;

    SKIP: {
        skip 'no promtool', 1 if !AI::Prom::promtool();
        is(AI::Prom::lint($m->{answer}{body}, $gw->dir), '', $name);
    }
}

# an empty one

my $m = scrape($gw);
is($m->{status}, 200, 'a scrape');
is($m->{answer}{headers}{'content-type'},
   'text/plain; version=0.0.4; charset=utf-8', '... its type');
is($m->sum('nginx_ai_requests_total'), 0, '... nothing was asked yet');
is($m->value('nginx_ai_build_info'), 1,
   '... what it is');
is(summed(3, 'nginx_ai_workers', state => 'active')
   ->value('nginx_ai_workers', state => 'draining'), 0, '... workers');

# a load: model => [ stream, n ]

my (%asked, %outcome, %tokens);
my %usage = (good => [ 1000, 500 ], claude => [ 7, 8 ], second => [ 5, 6 ]);
my %expected = (
    good => 'success', claude => 'success', second => 'success',
    again => 'success', down => 'error', refused => 'invalid',
    limited => 'error', static => 'success',
);

$p->reset;

for my $round (1 .. 6) {
    for my $model (qw(good claude second again down refused limited static))
    {
        for my $stream (0, 1) {
            my $r = $gw->client->post('/v1/chat/completions',
                chat($model eq 'good' && $round == 2 ? 'alias' : $model,
                     stream => $stream));

            $asked{$model}++;
            $outcome{$model}{ $expected{$model} }++;

            if (my $u = $usage{$model}) {
                $tokens{input} += $u->[0];
                $tokens{output} += $u->[1];
            }
        }
    }
}

for (1 .. 3) {
    $gw->client->post('/v1/chat/completions', chat('cut', stream => 1));
    $asked{cut}++;
    $outcome{cut}{error}++;
}

# a name of which the configuration knows nothing

for my $model ('p/usage:1.2', 'p/n:3') {
    $gw->client->post('/v1/chat/completions', chat($model));
    $gw->client->post('/p/chat/completions', chat('usage:3.4'));
}

# one that asks nobody

$gw->client->post('/v1/chat/completions', '{"model":');
$gw->client->get('/v1/models');

# clients that leave

for (1 .. 4) {
    my $s = $gw->client->open('/v1/chat/completions',
                              chat('slow', stream => 1));
    $s->event;
    $asked{slow}++;
    $outcome{slow}{canceled}++;

    if ($_ == 1) {
        my $now = scrape($gw);
        is($now->value('nginx_ai_active_streams', model => 'slow'), 1,
           'an active stream');
        is($now->value('nginx_ai_active_requests', model => 'slow'), 1,
           '... is an active request');
    }

    $s->abort;
}

my $total = 4 + 2;
$total += $_ for values %asked;

$m = summed($total, 'nginx_ai_requests_total');
is($m->sum('nginx_ai_active_requests'), 0, 'all have ended');

for my $model (sort keys %asked) {
    my %o = map { $_->{labels}{outcome} => $_->{value} }
            grep { $_->{value} }
            $m->find('nginx_ai_requests_total', model => $model);

    is_deeply(\%o, $outcome{$model}, "$model: outcomes");
}

# what came to the provider, by the names that it was asked for

my %came;
$came{$_}++ for requests($p);

my %attempts;

for my $s ($m->find('nginx_ai_attempts_total')) {
    my ($provider, $name) = $s->{labels}{target} =~ m{^(\w+)/(.*)$}
        or next;
    $attempts{$name} += $s->{value} if $provider =~ /^[pa]$/;
}

for my $name (sort keys %attempts) {
    is($attempts{$name}, $came{$name}, "attempts of $name")
}

is($m->sum('nginx_ai_attempts_total', target => 'other', provider => 'p'), 4,
   'attempts of targets that are not configured');
is($m->sum('nginx_ai_attempts_total', provider => 'p')
   + $m->sum('nginx_ai_attempts_total', provider => 'a'),
   scalar(requests($p)), 'all attempts');

is($m->value('nginx_ai_attempts_total', model => 'second',
             target => 'p/status:500', reason => 'server_error'), 12,
   'a reason');
is($m->sum('nginx_ai_attempts_total', model => 'again',
           reason => 'overloaded')
   + $m->sum('nginx_ai_attempts_total', model => 'again',
             reason => 'server_error'), 2, 'retries');
is($m->sum('nginx_ai_attempts_total', model => 'down', reason => 'connect'),
   12, 'a provider that is down');
is($m->sum('nginx_ai_attempts_total', model => 'slow', reason => 'canceled'),
   4, 'attempts that were canceled');
is($m->sum('nginx_ai_fallbacks_total'), 12, 'fallbacks');

for my $type (qw(input output)) {
    my $sum = 0;
    $sum += $m->sum('nginx_ai_tokens_total', type => $type, model => $_)
        for keys %usage;
    is($sum, $tokens{$type}, "$type tokens");
}

is($m->sum('nginx_ai_tokens_total', model => 'good', type => 'cache_read'),
   12 * 400, 'tokens of the cache');
is($m->sum('nginx_ai_tokens_total', model => 'good', type => 'reasoning'),
   12 * 50, 'reasoning tokens');
is($m->value('nginx_ai_cost_dollars_total', model => 'good'), '0.0696',
   'cost');
is($m->value('nginx_ai_cost_dollars_total', model => 'second'), '0.000132',
   '... of a fallback');
is($m->sum('nginx_ai_unpriced_requests_total', model => 'claude'), 12,
   'unpriced');
is($m->sum('nginx_ai_request_duration_seconds_count', model => 'good'), 12,
   'durations');
is($m->sum('nginx_ai_time_to_first_token_seconds_count', model => 'good'), 6,
   'times to the first token');
is($m->sum('nginx_ai_time_per_output_token_seconds_count', model => 'good'),
   6, 'times per token');
is($m->sum('nginx_ai_overhead_seconds_count', model => 'good'), 12,
   'overheads');
is($m->sum('nginx_ai_finish_reasons_total', model => 'good',
           reason => 'stop'), 12, 'finish reasons');
is($m->sum('nginx_ai_usage_states_total', model => 'static',
           state => 'counted'), 12, 'usage of a static provider');
is($m->sum('nginx_ai_usage_states_total', model => 'slow',
           state => 'counted'), 4, 'usage of cut streams');
is($m->value('nginx_ai_request_errors_total', model => 'none',
             error => 'invalid_request'), 1, 'a request without a model');
is($m->value('nginx_ai_requests_total', operation => 'models',
             outcome => 'success'), 1, 'a list of models');
is($m->sum('nginx_ai_requests_total', model => 'other',
           outcome => 'success'), 4, 'models that are not configured');
is($m->sum('nginx_ai_requests_total'), $total, 'no request twice');

checked_by_promtool($m, 'promtool likes it');

# every worker says the same

my @all = map { scrape($gw)->{answer}{body} } 1 .. 12;
s/^nginx_ai_(?:zone|metrics_zone|target_cooldown).*\n//mg for @all;
is(scalar(grep { $_ ne $all[0] } @all), 0, 'the same from all workers');

# OpenMetrics

$m = scrape($gw, openmetrics => 1);
is($m->{answer}{headers}{'content-type'},
   'application/openmetrics-text; version=1.0.0; charset=utf-8',
   'OpenMetrics');
is($m->{type}{nginx_ai_requests}, 'counter', '... a counter');
is($m->{type}{nginx_ai_build}, 'info', '... an info');
is($m->sum('nginx_ai_tokens_total', type => 'input', model => 'good'), 12000,
   '... the same figures');
is(scalar(grep { $_->{exemplar} }
          $m->find('nginx_ai_request_duration_seconds_bucket')), 0,
   'no exemplar without a trace');

my $trace = '0af7651916cd43dd8448eb211c80319c';

$gw->client->post('/v1/chat/completions', chat('good', stream => 1),
    headers => [ traceparent => "00-$trace-b7ad6b7169203331-01" ]);
$gw->client->post('/v1/chat/completions', chat('claude', stream => 1),
    headers => [ traceparent => "00-$trace-b7ad6b7169203331-00" ]);

$gw->wait_for(sub {
    $m = scrape($gw, openmetrics => 1);
    grep { $_->{exemplar} }
         $m->find('nginx_ai_request_duration_seconds_bucket');
});

for my $name (qw(request_duration time_to_first_token)) {
    my @found = grep { $_->{exemplar} }
                $m->find("nginx_ai_${name}_seconds_bucket");

    is(scalar(@found), 1, "an exemplar of $name");
    like($found[0]{exemplar}, qr/trace_id="$trace"\} \d/, '... its trace');
    is($found[0]{labels}{model}, 'good', '... of a sampled one only');
}

# OpenTelemetry's names

$m = scrape($gw, path => '/otel');
my %good = (gen_ai_request_model => 'good', gen_ai_provider_name => 'p',
            gen_ai_operation_name => 'chat');

is($m->value('gen_ai_client_token_usage_sum', %good,
             gen_ai_token_type => 'input'), 13000, 'gen_ai: input');
is($m->value('gen_ai_client_token_usage_bucket', %good, le => '256.0',
             gen_ai_token_type => 'output'), 0, '... output, small ones');
is($m->value('gen_ai_client_token_usage_bucket', %good, le => '1024.0',
             gen_ai_token_type => 'output'), 13, '... output');
is($m->value('gen_ai_client_operation_duration_seconds_count', %good), 13,
   '... durations');
is($m->value('gen_ai_server_time_to_first_token_seconds_count', %good), 7,
   '... first tokens');
checked_by_promtool($m, '... promtool likes it');
unlike(scrape($gw)->{answer}{body}, qr/gen_ai_/, '... only when asked for');

# methods

is($gw->client->post('/metrics', 'x')->{status}, 405, 'POST');
my $head = $gw->client->request('HEAD', '/metrics');
is("$head->{status} $head->{body}", '200 ', 'HEAD');

# names that nobody knows add nothing

my $before = scrape($gw)->count;
my $junk = $ENV{TEST_AI_VALGRIND} ? 500 : 100_000;
my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                              PeerPort => $gw->port(0)) or die;
my ($sent, $seen, $in) = (0, 0, '');
my $end = time() + 120;

while ($seen < $junk && time() < $end) {
    my $out = '';

    for (1 .. 200) {
        last if $sent == $junk;
        my $body = '{"model":"junk-' . $sent++ . '","messages":[]}';
        $out .= "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                . 'Content-Length: ' . length($body) . "\r\n\r\n$body";
    }

    print $c $out;
    $c->flush;

    while ($seen < $sent && sysread $c, $in, 65536, length $in) {
        $seen += () = $in =~ /HTTP\/1\.1 404/g;
        $in = substr $in, -12;
        $in =~ s/.*HTTP\/1\.1 404//s;
    }
}

close $c;

$m = summed($junk, 'nginx_ai_requests_total', model => 'other',
            outcome => 'invalid');
is($m->sum('nginx_ai_requests_total', model => 'other',
           outcome => 'invalid'), $junk, "$junk unknown names are counted");
cmp_ok($m->count - $before, '<', 20, '... as one');

# a worker that is killed takes nothing with it

my $sum = $m->sum('nginx_ai_requests_total');
my $s = $gw->client->open('/v1/chat/completions', chat('slow', stream => 1));
$s->event;
is(scrape($gw)->sum('nginx_ai_active_streams'), 1, 'a stream');

$gw->allow(qr/exited on signal 9/);
my %killed = map { $_ => 1 } $gw->workers;
kill 'KILL', keys %killed;

ok($gw->wait_for(sub { (my @w = grep { !$killed{$_} } $gw->workers) == 3
                       && $gw->client->get('/metrics')->{status} == 200 }),
   'workers were killed');
$m = summed(3, 'nginx_ai_workers', state => 'active');
is($m->sum('nginx_ai_requests_total'), $sum, '... nothing is lost');
is($m->sum('nginx_ai_active_streams'), 0, '... nothing is active');
is($m->value('nginx_ai_workers', state => 'active'), 3, '... new ones');

$gw->client->post('/v1/chat/completions', chat('good'));
is(summed($sum + 1, 'nginx_ai_requests_total')
   ->sum('nginx_ai_requests_total'), $sum + 1, '... and go on');

# a reload, with other models

$s = $gw->client->open('/v1/chat/completions', chat('slow', stream => 1));
$s->event;

(my $other = $gw->{conf}) =~ s/ai_model claude .*//;
$other =~ s/(ai_model good )/ai_model new { target p\/n:2; }\n$1/;

ok($gw->reload(conf => $other, wait_old => 0), 'reload');
ok($gw->wait_for(sub {
    my $now = scrape($gw);
    $now->value('nginx_ai_workers', state => 'active') == 3
    && $now->value('nginx_ai_workers', state => 'draining') == 1
}), '... a worker drains');
is(scrape($gw)->sum('nginx_ai_active_streams'), 1, '... with its stream');

$gw->client->post('/v1/chat/completions', chat('new'));
$m = summed($sum + 2, 'nginx_ai_requests_total');
is($m->sum('nginx_ai_requests_total'), $sum + 2, '... the same figures');
is($m->value('nginx_ai_requests_total', model => 'new',
             outcome => 'success'), 1, '... a new model');
is($m->sum('nginx_ai_requests_total', model => 'claude'), 13,
   '... an old one');

$s->abort;

done_testing();

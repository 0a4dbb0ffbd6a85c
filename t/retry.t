#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# What happens after a failure: the same target again and when, other keys,
# other targets, cooldowns, max_concurrent; and how connections are used.
# Hazards 1, 12, 13 and 15.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Port;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $q = provider();
my ($url, $other) = ($p->url, $q->url);
my $nobody = AI::Port::free_port();

# a provider whose keys do this and that: "Bearer 401-a" gets 401

my $k = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my ($status) = ($req->{headers}{authorization} // '') =~ /(\d+)/;
    return json_script(200, openai_body(text => 'fine')) if $status == 200;
    return json_script($status, { error => { message => 'no' } });
});
my $keys = $k->url;

my $gw = gateway(<<"END");
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $other; key sk-q; }
    ai_provider nobody { dialect openai; key sk-nobody;
                         endpoint http://127.0.0.1:$nobody; }
    ai_provider tls { dialect openai; key sk-tls; tls_verify off; timeout connect=300ms;
                      endpoint https://127.0.0.1:@{[ $p->port ]}; }
    ai_provider quick { dialect openai; endpoint $url; key sk-quick;
                        timeout first=500ms idle=1s total=2s; }
    ai_provider few { dialect openai; endpoint $url; key none;
                      max_concurrent 2; }
    ai_provider mixed { dialect openai; endpoint $keys;
                        key 401-a 429-b 200-c; }
    ai_provider refused { dialect openai; endpoint $keys; key 401-x 403-y; }
    ai_provider limited { dialect openai; endpoint $keys; key 429-x 429-y; }
    ai_provider spare { dialect openai; endpoint $other; key none; }

    ai_model once      { target p/status:503+times:1;
                         retry 1 backoff=200ms..200ms; }
    ai_model growing   { target p/status:500+times:3;
                         retry 3 backoff=100ms..200ms; }
    ai_model never     { target p/status:500+n:1; retry off; }
    ai_model after     { target p/status:429+after:1+times:1; }
    ai_model late      { target p/status:429+after:60; fallback q/ok; }
    ai_model late-only { target p/status:429+after:60+n:9; }
    ai_model patient   { target p/status:429+after:2+times:1; retry 1 wait=1s;
                         fallback q/ok; }
    ai_model sibling   { target p/ok; }
    ai_model onlist    { target p/status:503+n:2; retry off;
                         fallback q/one on=429,timeout; fallback q/two on=5xx; }
    ai_model context   { target p/status:400+code:context_length_exceeded
                                context=100;
                         fallback q/small context=100;
                         fallback q/large context=1000; }
    ai_model filter    { target p/status:400+code:content_filter;
                         fallback q/no; }
    ai_model refilter  { target p/status:400+code:content_filter;
                         fallback q/yes on=filter; }
    ai_model invalid   { target p/status:422; fallback q/no; }
    ai_model mixed     { target mixed/x; retry off; }
    ai_model refused   { target refused/x; retry off; fallback q/ok; }
    ai_model refused2  { target refused/y; retry off; }
    ai_model limited   { target limited/x; retry off; fallback q/ok; }
    ai_model few       { target few/wait:500; fallback q/ok; retry off; }
    ai_model few-only  { target few/wait:500+n:2; retry off; }
    ai_model nobody    { target nobody/a; fallback q/ok; retry off; }
    ai_model tls       { target tls/a; fallback q/ok; retry off; }
    ai_model closes    { target quick/close; fallback q/ok; retry off; }
    ai_model resets    { target quick/rst; fallback q/ok; retry off; }
    ai_model hangs     { target quick/hang; fallback q/ok; }
    ai_model silent    { target quick/first:5000; fallback q/ok; }
    ai_model html      { target quick/html; fallback q/ok; retry off; }
    ai_model auth      { target quick/status:401; fallback q/ok; retry off; }
    ai_model error     { target quick/status:500; fallback q/ok; retry off; }
    ai_model stalls    { target quick/stall:2+n:20; fallback q/ok; }
    ai_model total     { target quick/pace:100+n:200; }
    ai_model spare     { target spare/ok; }
    ai_model limit429  { target spare/status:429; retry 4 backoff=1ms..2ms; }
END

sub times_of {
    my ($p) = @_;
    my @t = map { $_->{time} } $p->log;
    return map { $t[$_] - $t[$_ - 1] } 1 .. $#t;
}

sub fresh { $p->reset; $q->reset; $k->reset }

# retry and backoff

my ($r, $log, $gap);

cmp_ok(at_best(0.3, sub {
           fresh();
           ($r, $log) = chatting($gw, 'once');
           is("$r->{status} $log->{attempts} $log->{fallback}", '200 2 0',
              'retried');
           ($gap) = times_of($p);
           cmp_ok($gap, '>=', 0.095, 'backoff: at least the half');
           return $gap;
       }), '<', 0.3, 'backoff: at most the whole');

# how much longer than they may be

cmp_ok(at_best(0.1, sub {
           fresh();
           ($r, $log) = chatting($gw, 'growing');
           is("$r->{status} $log->{attempts}", '200 4', 'three retries');

           my @gaps = times_of($p);
           cmp_ok($gaps[0], '>=', 0.045, 'first pause');
           cmp_ok($gaps[$_], '>=', 0.095, 'then') for 1, 2;

           my ($more) = sort { $b <=> $a } $gaps[0] - 0.1, $gaps[1] - 0.2,
                                           $gaps[2] - 0.2;
           return $more;
       }), '<', 0.1, 'pauses: at most the whole');

fresh();
($r, $log) = chatting($gw, 'never');
is("$r->{status} $log->{attempts} $log->{error}", '500 1 server_error',
   'retry off');
is($r->{headers}{'x-should-retry'}, undef, 'the client may retry');

# Retry-After

fresh();
($r, $log) = chatting($gw, 'after');
is("$r->{status} $log->{attempts}", '200 2', 'Retry-After: waited');
($gap) = times_of($p);
cmp_ok($gap, '>=', 0.95, '... as long as was asked');
cmp_ok($gap, '<', 5, '... no longer');

fresh();
($r, $log) = chatting($gw, 'patient');
is("$log->{target} $log->{attempts} $log->{fallback}", 'q/ok 2 1',
   'Retry-After longer than wait: somebody else');

# cooldown, of this target only (hazard 13)

fresh();
($r, $log) = chatting($gw, 'late');
is("$log->{target} $log->{attempts}", 'q/ok 2', 'long Retry-After: fallback');
($r, $log) = chatting($gw, 'late');
is("$log->{target} $log->{attempts}", 'q/ok 1',
   '... next time it is not asked');
($r, $log) = chatting($gw, 'sibling');
is($log->{target}, 'p/ok', '... but other models of this provider are');

($r, $log) = chatting($gw, 'late-only');
is("$r->{status} $log->{attempts}", '429 1', 'alone: 429');
cmp_ok(abs($r->{headers}{'retry-after'} - 60), '<=', 1, '... Retry-After');
($r, $log) = chatting($gw, 'late-only');
is("$r->{status} $log->{attempts} $log->{error}", '429 0 rate_limit',
   '... then without asking');
cmp_ok(abs($r->{headers}{'retry-after'} - 60), '<=', 3, '... Retry-After');
like($r->json->{error}{message}, qr/late-only.*rate limit/, '... message');

# who is asked after what

fresh();
($r, $log) = chatting($gw, 'onlist');
is($log->{target}, 'q/two', 'on=');
($r, $log) = chatting($gw, 'context');
is($log->{target}, 'q/large', 'context: one with a larger window');
is(join(' ', requests($q)), 'two large', '... only');
($r, $log) = chatting($gw, 'filter');
is("$r->{status} $log->{attempts} $log->{error}", '400 1 content_filter',
   'content filter: an answer');
($r, $log) = chatting($gw, 'refilter');
is($log->{target}, 'q/yes', '... unless on=filter');
($r, $log) = chatting($gw, 'invalid');
is("$r->{status} $log->{attempts}", '422 1', 'invalid request: not retried');

# keys

fresh();
my %targets;
for (1 .. 6) {
    ($r, $log) = chatting($gw, 'mixed');
    is("$r->{status} $log->{error}", '200 ', 'keys: some key works');
}
my @used = map { $_->{headers}{authorization} } $k->log;
cmp_ok(scalar(grep { $_ eq 'Bearer 401-a' } @used), '<=', 1,
       'a refused key is left out');
cmp_ok(scalar(grep { $_ eq 'Bearer 429-b' } @used), '<=', 1,
       'a limited key is left out for a second');
is(scalar(grep { $_ eq 'Bearer 200-c' } @used), 6, 'the good one is used');

$k->reset;
($r, $log) = chatting($gw, 'refused');
is($log->{target}, 'q/ok', 'all keys refused: fallback');
is(scalar(() = $k->log), 2, '... after each of them');
($r, $log) = chatting($gw, 'refused2');
is($log->{error} =~ /auth|permission/ && $r->{status} >= 400, 1,
   "all keys refused: $r->{status} $log->{error}");
($r, $log) = chatting($gw, 'limited');
is($log->{target}, 'q/ok', 'all keys limited: fallback');
like($gw->error_log, qr/\[notice\].*ai cooldown: key \d of provider "mixed"/,
     'cooldown is logged');

# max_concurrent: over all requests at once

fresh();
my @s = map { $gw->client->open('/v1/chat/completions', chat('few')) } 1 .. 8;
$_->finish for @s;
is(scalar(grep { $_->{status} == 200 } @s), 8, 'saturated: all answered');
is(scalar(() = $p->log), 2, '... two by the first target');
is(scalar(() = $q->log), 6, '... the rest by the fallback');

@s = map { $gw->client->open('/v1/chat/completions', chat('few-only')) }
     1 .. 5;
$_->finish for @s;
is(join(' ', sort map { $_->{status} } @s), '200 200 503 503 503',
   'saturated, no fallback');
my ($full) = grep { $_->{status} == 503 } @s;
like($full->json->{error}{message}, qr/max_concurrent/, '... message');
ok($full->{headers}{'retry-after'}, '... Retry-After');
is((chatting($gw, 'few'))[1]{target}, 'few/wait:500', '... free again');

# hazard 1: whatever has failed before, the fallback gets its own body and key

for my $model (qw(nobody tls closes resets hangs silent html auth error)) {
    for my $stream (0, 1) {
        # only a stream has a first event
        next if $model eq 'silent' && !$stream;

        fresh();
        ($r, $log) = chatting($gw, $model, body => { stream => $stream });
        is("$r->{status} $log->{target}", '200 q/ok',
           "$model ($stream): fallback");

        my ($req) = $q->log;
        my $body = decode_json($req->{body});

        is("$body->{model} $req->{headers}{authorization} "
           . $req->{headers}{host},
           'ok Bearer sk-q 127.0.0.1:' . $q->port, '... its own body and key');
        ok(!grep({ $_->{headers}{authorization} =~ /sk-q$/ } $p->log),
           '... which nobody else got');
    }
}

# hazard 11: once something was sent, nobody else answers

fresh();
($r, $log) = chatting($gw, 'stalls', body => { stream => 1 });
is($r->text, 'w1 w2', 'a stream that stalls');
like($r->{body}, qr/"message":"[^"]*idle[^"]*".*\n\n\z/s, '... ends with an error');
unlike($r->{body}, qr/\[DONE\]/, '... and nothing else');
ok($r->{done}, '... as HTTP wants it');
is(scalar(() = $q->log), 0, '... the fallback is not asked');
is($log->{error}, 'timeout', '... log');

($r, $log) = chatting($gw, 'total', body => { stream => 1 });
like($r->{body}, qr/timeout total/, 'time limit of the whole answer');
cmp_ok($r->{time}, '<', 8, '... in time');

# hazard 15: connections are used again, after errors too

my $before = $q->connections->{accepted};
chatting($gw, 'spare') for 1 .. 100;
is($q->connections->{accepted} - $before, 1,
   '100 requests on one connection');

$before = $q->connections->{accepted};
($r, $log) = chatting($gw, 'limit429');
is($log->{attempts}, 5, '5 times 429');
is($q->connections->{accepted} - $before, 0, '... on the same connection');
chatting($gw, 'spare', body => { stream => 1 }) for 1 .. 20;
is($q->connections->{accepted} - $before, 0, '... streams too');

# each with a connection of its own: no more than were needed at once
$before = $q->connections->{accepted};
for (1 .. 3) {
    my @s = map { $gw->client->open('/v1/chat/completions', chat('spare')) }
            1 .. 10;
    $_->finish for @s;
}
cmp_ok($q->connections->{accepted} - $before, '<=', 10, 'ten at once');

# hazard 12: a provider that closes idle connections; no POST is doubled, no
# client sees it

my $closing = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $script = json_script(200, openai_body(text => 'x'));

    # at the time when the next request comes
    return [ @$script[0, 1], [ 'sleep', $req->{json}{ms} ], [ 'close' ] ];
});

my $race = gateway('ai_provider p { dialect openai; key none; endpoint '
                   . $closing->url . '; } ai_model m { target p/x; retry off; }');

my ($bad, $n) = (0, 0);

for my $i (1 .. 150) {
    my $r = $race->client->post('/v1/chat/completions',
                                chat('m', ms => $i % 5, seed => ++$n));
    $bad++ if $r->{status} != 200;
    sleep 0.001 * ($i % 4);
}

is($bad, 0, 'stale connections: no error');

my %seen;
$seen{ decode_json($_->{body})->{seed} }++ for $closing->log;
is(scalar(grep { $_ != 1 } values %seen), 0, '... no request was made twice');
is(scalar(keys %seen), $n, '... all were made');

$_->finish for $gw, $race;

done_testing();

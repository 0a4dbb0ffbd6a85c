#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Each request ends in one state of usage, with its figures and its cost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

# huge figures, for hazard 25

my $huge = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $n = $req->{json}{model};

    return json_script(200, '{"object":"chat.completion","choices":[{"index":0,'
        . '"message":{"role":"assistant","content":"x"},"finish_reason":"stop"'
        . "}],\"usage\":{\"prompt_tokens\":$n,\"completion_tokens\":$n}}");
});
my $huge_url = $huge->url;

my $gw = gateway(<<"END");
    ai_provider p { dialect openai; endpoint $url; key none; region eu; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider c { dialect static; text "one two three"; }
    ai_provider dead { dialect openai; endpoint http://127.0.0.1:1; key none; }
    ai_provider huge { dialect openai; endpoint $huge_url; key none; }

    ai_model all      { target p/usage:1000.500.400.50;
                        price in=1.25 out=10 cached=0.125; }
    ai_model nocached { target p/usage:1000.500.400.50; price in=2 out=8; }
    ai_model claude   { target a/usage:1000.500.400; price in=1.25 out=10
                        cached=0.125 cache_write=2; }
    ai_model tiny     { target p/usage:3.0; price in=0.000001 out=1; }
    ai_model small    { target p/usage:1.0; price in=0.0004 out=1; }
    ai_model round    { target p/usage:1.0; price in=0.0005 out=1; }
    ai_model free     { target p/usage:10.20; price in=0 out=0; }
    ai_model noprice  { target p/usage:10.20; }
    ai_model counted  { target p/nousage+n:50; price in=1 out=1; }
    ai_model cut      { target p/cut:3+n:50+pace:10; }
    ai_model static   { target c/x; price in=1 out=1; }
    ai_model refused  { target p/status:400; }
    ai_model down     { target dead/x; retry off; }
    ai_model second   { target p/status:500; fallback p/usage:5.6;
                        retry off; price in=1 out=1; }
    ai_model slow     { target p/first:300+usage:1.1; }
    ai_model huge     { target huge; price in=1000 out=1000; }
    ai_model again    { target p/cut:3+n:20+pace:10; fallback p/n:20+usage:9.20;
                        recover restart; }
END

# state, input, output, cached, reasoning, cost

sub figures {
    my ($log) = @_;
    return join ' ', map { $_ eq '' ? '-' : $_ }
           map { $log->{$_} // '' }
           qw(usage_state input_tokens output_tokens cached_tokens
              reasoning_tokens cost);
}

sub used {
    my ($name, $model, $expected, %body) = @_;
    my ($r, $log) = chatting($gw, $model, body => \%body);

    is(figures($log), $expected, $name);

    return ($r, $log);
}

for my $stream (0, 1) {
    my @more = $stream ? (stream => 1) : ();
    my $s = $stream ? 'stream: ' : '';

    # 600 * 1.25 + 400 * 0.125 + 500 * 10
    used("${s}all figures", 'all', 'provider 1000 500 400 50 0.005800000',
         @more);
    used("${s}cached as input", 'nocached',
         'provider 1000 500 400 50 0.006000000', @more);
    # Anthropic counts what is cached beside the input
    used("${s}Anthropic", 'claude', 'provider 1400 500 400 - 0.006300000',
         @more);
    # below the smallest unit, and just there
    used("${s}tiny", 'tiny', 'provider 3 0 - - 0.000000000', @more);
    used("${s}0.4 rounds down", 'small', 'provider 1 0 - - 0.000000000',
         @more);
    used("${s}0.5 rounds up", 'round', 'provider 1 0 - - 0.000000001', @more);
    used("${s}free", 'free', 'provider 10 20 - - 0.000000000', @more);
    used("${s}no price", 'noprice', 'provider 10 20 - - -', @more);
    used("${s}a fallback", 'second', 'provider 5 6 - - 0.000011000', @more);

    used("${s}static", 'static', 'counted 8 3 - - 0.000000000', @more);

    my ($r, $log) = chatting($gw, 'counted', body => { @more });
    is($log->{usage_state}, 'counted', "${s}counted");
    cmp_ok(abs($log->{output_tokens} - 100), '<', 30,
           "${s}... about right: $log->{output_tokens}");
    cmp_ok($log->{input_tokens}, '>', 2, "${s}... input estimated");
    is($log->{cost}, sprintf('%.9f', ($log->{input_tokens}
                                      + $log->{output_tokens}) / 1e6),
       "${s}... cost of both");

    ($r, $log) = chatting($gw, 'refused', body => { @more });
    is(figures($log), 'none - - - - -', "${s}refused");
    is("$log->{error} $log->{status} $log->{attempts}",
       'invalid_request 400 1', "${s}... why");

    ($r, $log) = chatting($gw, 'down', body => { @more });
    is(figures($log), 'none - - - - -', "${s}down");
    is($log->{error}, 'connect', "${s}... why");

    ($r, $log) = chatting($gw, 'none-such', body => { @more });
    is(figures($log), 'none - - - - -', "${s}unknown model");
    is("$log->{error} $log->{status} $log->{attempts} $log->{model}",
       'not_found 404 0 ', "${s}... why");
}

my ($r, $log) = chatting($gw, 'cut', body => { stream => 1 });
is($log->{usage_state}, 'counted', 'cut stream');
cmp_ok($log->{output_tokens}, '<', 12, '... what came is counted');
is($log->{error}, 'incomplete', '... error');

# two attempts made the answer: what came from the first, and the second

($r, $log) = chatting($gw, 'again', body => { stream => 1 });
is($r->text, join(' ', map { "w$_" } 1 .. 20), 'recovered');
is($log->{attempts}, 2, '... by two');
cmp_ok($log->{output_tokens}, '>', 20, '... output of both');
cmp_ok($log->{output_tokens}, '<', 40, '... not more than that');

# other variables

($r, $log) = chatting($gw, 'slow', body => { stream => 1 });
cmp_ok($log->{ttft}, '>=', 0.29, 'time to the first token');
cmp_ok($log->{ttft}, '<', 10, '... in seconds');
is($log->{finish_reason}, 'stop', 'finish reason');
is($log->{target}, 'p/first:300+usage:1.1', 'target');
is($log->{model}, 'slow', 'model');
is($log->{provider}, 'p', 'provider');
is($log->{region}, 'eu', 'region');
is($log->{operation}, 'chat', 'operation');
is($log->{stream}, 1, 'stream');
is($log->{fallback}, 0, 'no fallback');
is($log->{request_id}, $r->{headers}{'x-request-id'}, 'request id');

(undef, $log) = chatting($gw, 'second');
is($log->{fallback}, 1, 'fallback');
is($log->{attempts}, 2, 'attempts');

# hazard 25: figures that overflow what is computed from them

for my $n ('9223372036854775807', '9007199254740993', '1e30', '-5', '1.5',
           '"7"', 'null', '99999999999999999999999')
{
    $r = $gw->client->post('/v1/chat/completions', chat('huge/x'));

    # the model's name is put into the answer as a number
    my $path = '/v1/chat/completions?n' . ($n =~ tr/0-9a-z/_/cr);
    my $name = $n =~ s/"/\\"/gr;
    $r = $gw->client->post($path, "{\"model\":\"huge/$name\",\"messages\":"
                                  . '[{"role":"user","content":"x"}]}');
    $log = settled($gw, $path) // {};
    is($r->{status}, 200, "usage of $n: relayed");
    ok(!grep({ ($log->{$_} // '-') =~ /-/ }
             qw(input_tokens output_tokens cost)), "usage of $n: no nonsense")
        or diag(figures($log));
}

$gw->finish;

done_testing();

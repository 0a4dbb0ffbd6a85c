#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazards 4, 9 and 10: a client that leaves, in each way and at each phase.
# The provider's connection is closed at once, or drained; the request is
# settled once; nothing is left behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my $http = <<"END";
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider d { dialect openai; endpoint $url; key none; abort drain; }
    ai_provider s { dialect openai; endpoint $url; key none;
                    abort drain max=1k; }
    ai_provider t { dialect openai; endpoint $url; key none;
                    abort drain time=200ms; }
    ai_provider one { dialect openai; endpoint $url; key none;
                      max_concurrent 1; }

    ai_model silent  { target p/hang; price in=1 out=1; }
    ai_model head    { target p/first:3000; }
    ai_model slow    { target p/pace:50+n:60; price in=1 out=1; }
    ai_model cross   { target a/pace:50+n:60; }
    ai_model whole   { target p/wait:3000; }
    ai_model backoff { target p/status:503; retry 1 backoff=3s..3s; }
    ai_model hedged  { target p/hang; fallback p/hang+n:2; hedge 50ms; }
    ai_model racing  { target p/hang; fallback p/pace:50+n:60; hedge 50ms; }
    ai_model one     { target one/pace:50+n:60; }
    ai_model drain   { target d/pace:20+n:20+usage:33.44; price in=1 out=1; }
    ai_model drainj  { target d/wait:400+usage:33.44; }
    ai_model size    { target s/pace:20+n:60; }
    ai_model time    { target t/pace:20+n:60; }
END

my %gw = (1 => gateway($http), 2 => gateway($http, listen => 'http2'));
my $n = 0;

# name, model, streamed, seconds until the client leaves, provider's requests

my @phases = (
    [ 'before the header', 'silent', 1, 0.15, 1 ],
    [ 'before the header, not streamed', 'whole', 0, 0.15, 1 ],
    [ 'before the first token', 'head', 1, 0.15, 1 ],
    [ 'mid-stream', 'slow', 1, 0.3, 1 ],
    [ 'mid-stream, translated', 'cross', 1, 0.3, 1 ],
    [ 'during the backoff', 'backoff', 1, 0.15, 1 ],
    [ 'while hedged', 'hedged', 1, 0.25, 2 ],
    [ 'after the hedge has won', 'racing', 1, 0.4, 2 ],
    [ 'in a slot', 'one', 1, 0.2, 1 ],
);

sub leave {
    my ($model, $stream, $wait, $how) = @_;
    my $path = '/v1/chat/completions?' . ++$n;
    my $body = chat($model, stream => $stream);

    if ($how eq 'RST_STREAM') {
        my $pid = fork // die;

        if ($pid == 0) {
            # curl resets the stream when its time is over, then closes
            $gw{2}->client(timeout => $wait + 0.05)->h2($path, $body);
            POSIX::_exit(0);
        }

        waitpid $pid, 0;
        return ($gw{2}, $path, time());
    }

    my $s = $gw{1}->client->open($path, $body);
    $s->fill(0.02) while !$s->{eof} && time() - $s->{start} < $wait;
    $how eq 'FIN' ? $s->abort : $s->reset;

    return ($gw{1}, $path, time());
}

for my $how (qw(FIN RST RST_STREAM)) {
    for (@phases) {
        my ($name, $model, $stream, $wait, $requests) = @$_;

        $p->reset;
        my ($gw, $path, $left) = leave($model, $stream, $wait, $how);
        my $log = settled($gw, $path, 3);

        ok($log, "$how $name: settled once") or next;
        # as everywhere in nginx: what was sent, if anything was
        my $counted = $model =~ /slow|cross|racing|one/;
        is($log->{status}, $counted ? 200 : 499, "$how $name: status");
        cmp_ok(time() - $left, '<', 0.7, "$how $name: soon");

        my @all;
        $p->wait_log(sub {
            @all = @_;
            return @all == grep { $_->{hangup} || $_->{end} } @all;
        }, 2);

        is(scalar @all, $requests, "$how $name: requests");
        is(scalar(grep { $_->{hangup} || $model eq 'backoff' } @all),
           $requests, "$how $name: the provider is left too");
        is($log->{attempts}, $requests, "$how $name: attempts");

        is($log->{usage_state},
           $counted ? 'counted' : $model eq 'backoff' ? 'none' : 'estimated',
           "$how $name: usage");
        cmp_ok($log->{output_tokens} || 0, $counted ? '>' : '==', 0,
               "$how $name: output");

        if ($model eq 'slow') {
            is(sprintf('%.9f', ($log->{input_tokens} + $log->{output_tokens})
                       / 1e6), $log->{cost}, "$how $name: cost");
        }
    }
}

# drained: the provider is read to the end, for its figures

for my $how (qw(FIN RST RST_STREAM)) {
    $p->reset;
    my ($gw, $path, $left) = leave('drain', 1, 0.15, $how);
    my $log = settled($gw, $path, 3) // {};

    is($log->{usage_state}, 'provider', "$how, drain: usage");
    is("$log->{input_tokens} $log->{output_tokens}", '33 44',
       "$how, drain: figures");
    is($log->{cost}, '0.000077000', "$how, drain: cost");
    is(scalar(grep { $_->{end} && !$_->{hangup} } $p->log), 1,
       "$how, drain: to the end");
}

# there is nothing to drain of an answer that has not begun

my ($gw, $path) = leave('drainj', 0, 0.1, 'FIN');
my $log = settled($gw, $path, 3) // {};
is("$log->{usage_state} $log->{status}", 'estimated 499',
   'drain, before the answer');

for my $limit (qw(size time)) {
    $p->reset;
    my ($gw, $path, $left) = leave($limit, 1, 0.15, 'FIN');
    my $log = settled($gw, $path, 3) // {};

    is($log->{usage_state}, 'counted', "drain, $limit: usage");
    ok($p->wait_log(sub { grep { $_->{hangup} } @_ }, 1),
       "drain, $limit: then the connection is closed");
    cmp_ok(time() - $left, '<', 1.2, "drain, $limit: in time");
}

# a slot of max_concurrent is free again

is($gw{1}->client->post('/v1/chat/completions', chat('one'))->{status}, 200,
   'slot is free');

# many at once

my @s = map { $gw{1}->client->open('/v1/chat/completions',
                                   chat('slow', stream => 1)) } 1 .. 100;
sleep 0.3;
$_ % 2 ? $s[$_]->abort : $s[$_]->reset for 0 .. $#s;

for my $v (1, 2) {
    ok(idle_again($gw{$v}), 'no connection is left');
    ok($gw{$v}->finish, 'clean');
}

ok($p->wait_log(sub { $p->connections->{open} == 0 }, 2),
   'none to the provider either');

done_testing();

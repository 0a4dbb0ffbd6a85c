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
use AI::H2;

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
    ai_model head    { target p/first:20000; }
    ai_model slow    { target p/pace:100+n:150; price in=1 out=1; }
    ai_model cross   { target a/pace:100+n:150; }
    ai_model whole   { target p/wait:20000; }
    ai_model backoff { target p/status:503; retry 1 backoff=20s..20s; }
    ai_model hedged  { target p/hang; fallback p/hang+n:2; hedge 50ms; }
    ai_model racing  { target p/hang; fallback p/pace:100+n:150; hedge 50ms; }
    ai_model one     { target one/pace:100+n:150; }
    ai_model many    { target p/pace:200+n:50; }
    ai_model place   { target one/n:3; }
    ai_model drain   { target d/pace:50+n:30+usage:33.44; price in=1 out=1; }
    ai_model drainj  { target d/wait:2000+usage:33.44; }
    ai_model size    { target s/pace:50+n:200; }
    ai_model time    { target t/pace:50+n:200; }
END

my %gw = (1 => gateway($http), 2 => gateway($http, listen => 'http2'));
my $n = 0;

# name, model, streamed, provider's requests and the client's events when the
# client leaves

my @phases = (
    [ 'before the header', 'silent', 1, 1, 0 ],
    [ 'before the header, not streamed', 'whole', 0, 1, 0 ],
    [ 'before the first token', 'head', 1, 1, 0 ],
    [ 'mid-stream', 'slow', 1, 1, 5 ],
    [ 'mid-stream, translated', 'cross', 1, 1, 5 ],
    [ 'during the backoff', 'backoff', 1, 1, 0 ],
    [ 'while hedged', 'hedged', 1, 2, 0 ],
    [ 'after the hedge has won', 'racing', 1, 2, 5 ],
    [ 'in a slot', 'one', 1, 1, 3 ],
);

sub leave {
    my ($model, $stream, $requests, $events, $how) = @_;
    my $path = '/v1/chat/completions?' . ++$n;
    my $body = chat($model, stream => $stream);
    my $end = time() + 15;
    my ($gw, $s, $h2);

    if ($how eq 'RST_STREAM') {
        $gw = $gw{2};
        $h2 = AI::H2->new(port => $gw->port(0));
        $s = $h2->request($path, $body);

    } else {
        $gw = $gw{1};
        $s = $gw->client->open($path, $body);
    }

    my $look = sub { $h2 ? $h2->wait(sub { 0 }, 0.02) : $s->fill(0.02) };
    my $ready = sub {
        my @log = $p->log;
        my $got = () = $s->{body} =~ /^data: /mg;

        return @log >= $requests && $got >= $events
               && ($model ne 'backoff' || $log[0]{end});
    };

    $look->() while !$s->{eof} && time() < $end && !$ready->();
    $look->() for 1 .. 5;

    if ($h2) {
        $h2->rst($s);
        $h2->close;

    } else {
        $how eq 'FIN' ? $s->abort : $s->reset;
    }

    return ($gw, $path, time());
}

for my $how (qw(FIN RST RST_STREAM)) {
    for (@phases) {
        my ($name, $model, $stream, $requests, $events) = @$_;

        $p->reset;
        my ($gw, $path, $left) = leave($model, $stream, $requests, $events,
                                         $how);
        my $log = settled($gw, $path);

        ok($log, "$how $name: settled once") or next;
        # as everywhere in nginx: what was sent, if anything was
        my $counted = $model =~ /slow|cross|racing|one/;
        is($log->{status}, $counted ? 200 : 499, "$how $name: status");
        cmp_ok(time() - $left, '<', 5, "$how $name: soon");

        my @all;
        $p->wait_log(sub {
            @all = @_;
            return @all == grep { $_->{hangup} || $_->{end} } @all;
        });

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
    my ($gw, $path, $left) = leave('drain', 1, 1, 3, $how);
    my $log = settled($gw, $path) // {};

    is($log->{usage_state}, 'provider', "$how, drain: usage");
    is("$log->{input_tokens} $log->{output_tokens}", '33 44',
       "$how, drain: figures");
    is($log->{cost}, '0.000077000', "$how, drain: cost");
    is(scalar(grep { $_->{end} && !$_->{hangup} } $p->log), 1,
       "$how, drain: to the end");
}

# there is nothing to drain of an answer that has not begun

$p->reset;
my ($gw, $path) = leave('drainj', 0, 1, 0, 'FIN');
my $log = settled($gw, $path) // {};
is("$log->{usage_state} $log->{status}", 'estimated 499',
   'drain, before the answer');

for my $limit (qw(size time)) {
    $p->reset;
    my ($gw, $path, $left) = leave($limit, 1, 1, 3, 'FIN');
    my $log = settled($gw, $path) // {};

    is($log->{usage_state}, 'counted', "drain, $limit: usage");
    ok($p->wait_log(sub { grep { $_->{hangup} } @_ }),
       "drain, $limit: then the connection is closed");
    cmp_ok(time() - $left, '<', 8, "drain, $limit: in time");
}

# a slot of max_concurrent is free again

is($gw{1}->client->post('/v1/chat/completions', chat('place'))->{status}, 200,
   'slot is free');

# many at once

$p->reset;
my @s = map { $gw{1}->client->open('/v1/chat/completions',
                                   chat('many', stream => 1)) } 1 .. 100;
$p->wait_log(sub { @_ >= 100 });
$_ % 2 ? $s[$_]->abort : $s[$_]->reset for 0 .. $#s;

for my $v (1, 2) {
    ok(idle_again($gw{$v}), 'no connection is left');
    ok($gw{$v}->finish, 'clean');
}

ok($p->wait_log(sub { $p->connections->{open} == 0 }),
   'none to the provider either');

done_testing();

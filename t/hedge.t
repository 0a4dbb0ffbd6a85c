#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazard 5: two attempts at once, of which one wins, or none.

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

my ($p, $q, $z) = (provider(), provider(), provider());
my ($p_url, $q_url, $z_url) = map { $_->url } $p, $q, $z;

my $gw = gateway(<<"END");
    ai_provider p { dialect openai; endpoint $p_url; key none; }
    ai_provider q { dialect openai; endpoint $q_url; key none; }
    ai_provider z { dialect openai; endpoint $z_url; key none; }
    ai_provider a { dialect anthropic; endpoint $q_url; key none; }
    ai_provider one { dialect openai; endpoint $p_url; key none;
                      max_concurrent 1; }
    ai_provider s { dialect static; text "static"; }

    ai_model slow    { target p/first:8000; fallback q/n:3; hedge 100ms; }
    ai_model header  { target p/wait:8000; fallback q/n:3; hedge 100ms; }
    ai_model cross   { target p/hang; fallback a/n:3; hedge 100ms; }
    ai_model fast    { target p/n:4; fallback q/n:3; hedge 3s; }
    ai_model late    { target p/first:1000+n:4; fallback q/hang; hedge 100ms; }
    ai_model before  { target p/status:500; fallback q/n:3; hedge 8s;
                       retry off; }
    ai_model first   { target p/wait:600+status:500; fallback q/wait:1200+n:3;
                       fallback z/n:2; hedge 100ms; retry off; }
    ai_model second  { target p/wait:1200+n:4; fallback q/status:500;
                       fallback z/n:2; hedge 100ms; retry off; }
    ai_model third   { target p/wait:600+status:500;
                       fallback q/wait:400+status:503; fallback z/n:2;
                       hedge 100ms; retry off; }
    ai_model none    { target p/wait:600+status:500;
                       fallback q/wait:400+status:503; hedge 100ms;
                       retry off; }
    ai_model again   { target p/wait:400+status:503+times:1+n:5;
                       fallback q/wait:300+status:503; hedge 100ms;
                       retry 1 backoff=10ms..20ms; }
    ai_model cut     { target p/wait:400+n:9+pace:20+cut:4; fallback q/hang;
                       hedge 100ms; retry off; }
    ai_model both    { target p/hang; fallback q/hang; hedge 100ms; }
    ai_model alone   { target p/wait:400+n:4; hedge 100ms; }
    ai_model static  { target p/wait:400+n:4; fallback s/x; hedge 100ms; }
    ai_model slot    { target one/first:8000; fallback q/n:3; hedge 100ms; }
    ai_model breaker { target p/wait:400; fallback q/n:3; hedge 20ms;
                       breaker 50%/60s min=2 open=60s; }
END

my %name = (p => $p, q => $q, z => $z);

# model, streamed, text, target, attempts, what became of the requests:
# "p" has ended, "-p" was left

sub race {
    my ($model, $stream, $text, $target, $attempts, @ends) = @_;
    my $what = $model . ($stream ? ', streamed' : '');

    $_->reset for $p, $q, $z;

    my ($r, $log) = chatting($gw, $model, body => { stream => $stream });

    is($stream ? $r->text
               : eval { $r->json->{choices}[0]{message}{content} },
       $text, "$what: answer");
    ok($r->{done}, "$what: to its end");
    is("$log->{target} $log->{attempts}", "$target $attempts",
       "$what: target, attempts");
    is($log->{fallback}, $target =~ /^p/ ? 0 : 1, "$what: fallback");
    cmp_ok($log->{time}, '<', 6, "$what: not too slow");

    if ($stream) {
        is(scalar(() = $r->{body} =~ /\[DONE\]/g), 1, "$what: one answer");
    }

    fate($what, @ends);

    return $log;
}

sub fate {
    my ($what, @ends) = @_;

    for (@ends) {
        my ($left, $name) = /^(-?)(\w)$/;
        my @log;

        $name{$name}->wait_log(sub {
            @log = @_;
            return @log && !grep { !$_->{hangup} && !$_->{end} } @log;
        }, 5);

        is(scalar @log, 1, "$what: one request to $name");
        is($log[0]{hangup} ? 1 : 0, $left ? 1 : 0,
           "$what: $name " . ($left ? 'was left' : 'has ended'));
    }

    for my $name (grep { "@ends" !~ $_ } sort keys %name) {
        is(scalar $name{$name}->log, 0, "$what: none to $name");
    }
}

my ($w2, $w3, $w4, $w5) = map { join ' ', map { "w$_" } 1 .. $_ } 2 .. 5;

# the second wins

for my $stream (0, 1) {
    race('slow', 1, $w3, 'q/n:3', 2, '-p', 'q') if $stream;
    race('header', $stream, $w3, 'q/n:3', 2, '-p', 'q');
    race('cross', $stream, $w3, 'a/n:3', 2, '-p', 'q');
}

# the first wins, or there is no second

race('fast', $_, $w4, 'p/n:4', 1, 'p') for 0, 1;
race('late', 1, $w4, 'p/first:1000+n:4', 2, 'p', '-q');
race('alone', $_, $w4, 'p/wait:400+n:4', 1, 'p') for 0, 1;

# a static answer is the last resort, not a rival

race('static', $_, $w4, 'p/wait:400+n:4', 1, 'p') for 0, 1;

# a failure does not wait for the hedge

race('before', $_, $w3, 'q/n:3', 2, 'p', 'q') for 0, 1;

# one fails: the other goes on; both: what is left, one after another

for my $stream (0, 1) {
    race('first', $stream, $w3, 'q/wait:1200+n:3', 2, 'p', 'q');
    race('second', $stream, $w4, 'p/wait:1200+n:4', 2, 'p', 'q');
    race('third', $stream, $w2, 'z/n:2', 3, 'p', 'q', 'z');
}

$_->reset for $p, $q, $z;
my ($r, $log) = chatting($gw, 'none', body => { stream => 1 });
is($r->{status}, 500, 'none: the last error');
like($r->json->{error}{message}, qr/failed: 500/, 'none: message');
is($log->{attempts}, 2, 'none: attempts');
fate('none', 'p', 'q');

# and the retries of each

$_->reset for $p, $q, $z;
($r, $log) = chatting($gw, 'again', body => { stream => 1 });
is($r->{status}, 200, 'again: status');
is($r->text, $w5, 'again: answer');
is($log->{target}, 'p/wait:400+status:503+times:1+n:5', 'again: target');

# the loser is not a reserve once the winner has spoken

$_->reset for $p, $q, $z;
($r, $log) = chatting($gw, 'cut', body => { stream => 1 });
is($r->text, $w4, 'cut: what came');
is($log->{error}, 'incomplete', 'cut: error');
is(scalar(grep { ref && $_->{error} } $r->chunks), 1, 'cut: error event');
fate('cut', 'p', '-q');

# a client that leaves both

for my $how ('abort', 'reset') {
    $_->reset for $p, $q, $z;

    my $path = "/v1/chat/completions?$how";
    my $s = $gw->client->open($path, chat('both', stream => 1));

    ok($q->wait_log(sub { scalar @_ }, 5), "$how: the second is asked");
    sleep 0.1;
    $s->$how;

    $log = settled($gw, $path) // {};
    is($log->{status}, 499, "$how: status");
    is($log->{attempts}, 2, "$how: attempts");
    fate($how, '-p', '-q');
}

# the slot of a loser is free again

for (1 .. 3) {
    ($r, $log) = chatting($gw, 'slot', body => { stream => 1 });
    is($log->{attempts}, 2, 'slot: asked each time');
}

# to lose a race is no failure of the target

for (1 .. 6) {
    $_->reset for $p, $q;
    ($r, $log) = chatting($gw, 'breaker');
    is($log->{target}, 'q/n:3', 'breaker: the second wins');
    is(scalar $p->log, 1, 'breaker: the first is still asked');
}

# many at once

my @s = map { $gw->client->open('/v1/chat/completions',
                                chat('slow', stream => 1)) } 1 .. 50;
$_->finish for @s;
is(scalar(grep { $_->text eq $w3 && $_->{done} } @s), 50, 'many');

ok(idle_again($gw), 'no connection of a client is left');
ok($p->wait_log(sub { $p->connections->{open} == 0 }, 5),
   'none of a loser either');
ok($gw->finish, 'clean');

done_testing();

#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazard 5: two attempts at once, in all orders of their ends; the loser is
# canceled.

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

# both have their own usage, which must not be mixed

my $p = provider();
my $q = provider();
my ($url, $other) = ($p->url, $q->url);

my %models = (
    # first, second, who answers, attempts
    fast     => [ 'usage:1.1', 'n:9', 'p', 1 ],
    slow     => [ 'first:1500', 'usage:2.2', 'q', 2 ],
    hangs    => [ 'hang', 'usage:2.2', 'q', 2 ],
    late     => [ 'first:300+usage:1.1', 'first:1500', 'p', 2 ],
    both     => [ 'first:101+usage:1.1', 'usage:2.2', '.', '[12]' ],
    fails2   => [ 'first:400+usage:1.1', 'status:500', 'p', 2 ],
    fails1   => [ 'wait:200+status:500', 'first:400+usage:2.2', 'q', 2 ],
    refused2 => [ 'first:400+usage:1.1', 'status:400', 'p', 2 ],
    closes2  => [ 'first:400+usage:1.1', 'wait:50+rst', 'p', 2 ],
);

my $conf = join '', map {
    my ($first, $second) = @{ $models{$_} };
    "ai_model $_ { target p/$first; fallback q/$second; retry off; "
    . "hedge 100ms; }\n"
} keys %models;

my $gw = gateway(<<"END");
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $other; key none; }
    ai_provider c { dialect static; text canned; }

    $conf
    ai_model fail   { target p/wait:200+status:503; hedge 100ms; retry off;
                      fallback q/wait:250+status:500; }
    ai_model third  { target p/wait:200+status:503; hedge 100ms; retry off;
                      fallback q/wait:200+status:500; fallback p/n:3; }
    ai_model static { target p/first:300; fallback c/x; hedge 50ms; }
    ai_model alone  { target p/first:300; hedge 50ms; }
    ai_model off    { target p/first:300; fallback q/ok; hedge off; }
    ai_model leave  { target p/hang; fallback q/hang; hedge 100ms; }
    ai_model dies   { target p/hang; fallback q/cut:3+pace:30; hedge 50ms; }
END

# streamed and not: "first" is a pause before the header then

for my $stream (1, 0) {
    for my $name (sort keys %models) {
        my ($first, $second, $winner, $attempts) = @{ $models{$name} };

        # the header alone would end the wait of an answer that is not streamed
        next if !$stream && $first =~ /^first/;

        $_->reset for $p, $q;
        my ($r, $log) = chatting($gw, $name, body => { stream => $stream });

        is($r->{status}, 200, "$name: answered");
        like($log->{provider}, qr/^$winner$/, "$name: by $log->{provider}");
        like($log->{attempts}, qr/^$attempts$/, "$name: attempts");
        is($log->{fallback}, $log->{provider} eq 'q' ? 1 : 0,
           "$name: fallback");
        is($stream ? $r->text : $r->json->{choices}[0]{message}{content},
           'w1 w2 w3 w4 w5', "$name: one answer");
        is("$log->{usage_state} $log->{input_tokens} $log->{output_tokens}",
           $log->{provider} eq 'q' ? 'provider 2 2' : 'provider 1 1',
           "$name: usage of the one that answered");
        cmp_ok($r->{time}, '<', 5, "$name: in time");

        # the loser is left
        my $loser = $log->{provider} eq 'q' ? $p : $q;

        if ($name =~ /slow|hangs|late/) {
            my ($end) = $loser->wait_log(sub {
                my ($l) = grep { $_->{hangup} } @_;
                return $l && $l->{hangup};
            });
            ok($end && $end - $r->{first_time} < 2,
               "$name: the other is canceled at once");
        }
    }
}

my ($r, $log) = chatting($gw, 'fail', body => { stream => 1 });
is("$r->{status} $log->{attempts}", '500 2', 'both fail: the last error');

($r, $log) = chatting($gw, 'third', body => { stream => 1 });
is("$r->{status} $log->{attempts} " . $r->text, '200 3 w1 w2 w3',
   'both fail: a third answers');

for my $name (qw(static alone off)) {
    ($r, $log) = chatting($gw, $name, body => { stream => 1 });
    is("$log->{provider} $log->{attempts}", 'p 1', "$name: not hedged");
}

($r, $log) = chatting($gw, 'dies', body => { stream => 1 });
is($r->text, 'w1 w2 w3', 'the winner dies: what came');
like($r->{body}, qr/incomplete_answer/, '... and an error');

# the client leaves, before, at about, and after the hedge

for my $i (0 .. 24) {
    my $path = "/v1/chat/completions?leave$i";
    $_->reset for $p, $q;

    my $s = $gw->client->open($path, chat('leave', stream => 1));
    sleep 0.005 + 0.01 * $i;
    $i % 2 ? $s->abort : $s->reset;

    my $log = settled($gw, $path) // {};
    my $bad = !$log->{status} || $log->{status} != 499
              || $log->{usage_state} ne 'estimated';

    for my $provider ($p, $q) {
        $bad ||= !$provider->wait_log(sub {
            return !grep { !$_->{hangup} } @_;
        }, 1);
    }

    ok(!$bad, "client leaves after " . (5 + 10 * $i) . " ms");
}

# many at once

my @s = map { $gw->client->open('/v1/chat/completions',
                                chat((qw(both late slow fails1))[$_ % 4],
                                     stream => 1)) } 1 .. 80;
$_->finish for @s;
is(scalar(grep { $_->{body} =~ /\[DONE\]\n\n\z/
                 && $_->text eq 'w1 w2 w3 w4 w5' } @s), 80, 'many at once');

ok(idle_again($gw), 'no connection is left');

$gw->finish;

done_testing();

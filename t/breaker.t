#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The breaker of a target, shared by four workers: opens, lets one probe
# through, closes; survives a reload; and what a killed worker leaves behind
# (hazard 20).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

# fails while "down" is set, slowly when "slow" is

my $p = AI::Provider->start(handler => sub {
    my $v = $_[0]{vars};
    my @wait = $v->{slow} ? [ 'sleep', $v->{slow} ] : ();
    my $script = $v->{down}
                 ? json_script($v->{down}, { error => { message => 'down' } })
                 : json_script(200, openai_body(text => 'up'));
    return [ @wait, @$script ];
});
my $q = provider();
my ($url, $other) = ($p->url, $q->url);

my $conf = <<"END";
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $other; key none; }
    ai_provider few { dialect openai; endpoint $other; key none;
                      max_concurrent 10; }

    ai_model m    { target p/m; fallback q/ok; retry off;
                    breaker 50%/10s min=6 open=1500ms; }
    ai_model twin { target p/m; fallback q/ok; retry off;
                    breaker 50%/10s min=6 open=1500ms; }
    ai_model only { target p/o; retry off; breaker 50%/10s min=4 open=30s; }
    ai_model half { target p/h; fallback q/ok; retry off;
                    breaker 50%/10s min=10 open=30s; }
    ai_model few  { target few/hang; retry off; }
END

# each connection may be taken by another worker

my $gw = gateway($conf, workers => 4, events => 'worker_connections 512;',
                 listen => 'reuseport');

sub burst {
    my ($model, $n) = @_;
    my @s = map { $gw->client->open('/v1/chat/completions', chat($model)) }
            1 .. $n;
    $_->finish for @s;
    return @s;
}

sub asked { my @log = $p->log; return scalar @log }

$p->set(down => 503);
$p->reset;
my @r = map { burst('m', 1) } 1 .. 12;
is(scalar(grep { $_->{status} != 200 } @r), 0, 'clients are served');
is(asked(), 6, 'opens after min attempts, for all workers');
like($gw->error_log,
     qr{"p/m" of model "m" opened for 1500ms: 6 of 6 failed}, '... log');

@r = burst('twin', 1);
is(asked(), 7, 'the same target of another model is asked');

# half-open: one probe of all workers, which fails

sleep 1.6;
$p->set(slow => 1500);
$p->reset;
@r = burst('m', 20);
is(scalar(grep { $_->{status} != 200 } @r), 0, 'half-open: clients are served');
is(asked(), 1, '... one probe');

@r = burst('m', 4);
is(asked(), 1, '... which has failed: open again');

# and one that succeeds

$p->set(down => 0);
sleep 1.6;
$p->reset;
@r = burst('m', 20);
is(asked(), 1, 'half-open again: one probe');
$p->set(slow => 0);
@r = burst('m', 20);
is(asked(), 21, 'closed: all go there');
like($gw->error_log, qr/ai breaker: target "p\/m" of model "m" closed/,
     '... log');

# nobody else to ask

$p->set(down => 500);
burst('only', 4);
$p->reset;
my ($r) = burst('only', 1);
is($r->{status}, 503, 'open without a fallback');
like($r->json->{error}{message}, qr/"only" is not available/, '... message');
ok($r->{headers}{'retry-after'} >= 20 && $r->{headers}{'retry-after'} <= 30,
   '... Retry-After');
is(asked(), 0, '... nobody is asked');

# the client's errors and limits do not count

for my $status (400, 429) {
    $p->set(down => $status);
    burst('half', 12);
}
$p->reset;
burst('half', 1);
is(asked(), 1, '400 and 429 do not open');

# a reload keeps it (hazard 21); a new size begins anew

$p->reset;
$gw->reload;
burst('only', 1);
is(asked(), 0, 'still open after a reload');

my $full = $gw->{conf};
(my $larger = $full) =~ s/(log_format)/ai_zone ai 4m; $1/;
$gw->reload(conf => $larger);
$p->set(down => 0);
($r) = burst('only', 1);
is($r->{status}, 200, 'another size: closed');

# new names all the time: the zone is full, the old configuration goes on

(my $small = $full) =~ s/(log_format)/ai_zone tiny 32k; $1/;
$small =~ s/(ai_model m )/join('', map { "ai_provider z$_ { dialect openai; "
    . "endpoint $url; key none; }\n" } 1 .. 60) . $1/e;
$gw->allow(qr/no memory|ai_zone/);
$gw->write_conf($small);
kill 'HUP', $gw->master;
ok($gw->wait_log(qr/increase the size of "ai_zone"/), 'full zone: is said');
is((burst('m', 1))[0]{status}, 200, '... the old configuration goes on');
$gw->write_conf($larger);

# hazard 20: killed workers, in a loop under load; their slots are freed

$gw->allow(qr/exited on signal 9/);
my $killed = 0;
my @held;
my $end = time() + 30;

while (time() < $end && $killed < 20) {
    push @held, map { $gw->client->open('/v1/chat/completions', chat('few')) }
                1 .. 4;
    sleep 0.02;
    my @w = $gw->workers;
    kill 'KILL', $w[rand @w] and $killed++ if @w == 4;
    my @s = map { $gw->client(timeout => 3)->open('/v1/chat/completions',
                                                  chat('m')) } 1 .. 4;
    $_->finish for @s;
    sleep 0.05;
}

cmp_ok($killed, '>', 5, "$killed workers killed");
$_->abort for @held;
$gw->wait_for(sub { $gw->workers == 4 });
sleep 0.3;

@r = burst('m', 20);
is(scalar(grep { $_->{status} == 200 } @r), 20, '... all is well');

# all ten slots can be had again

$q->reset;
my @s;
$gw->wait_for(sub {
    push @s, $gw->client->open('/v1/chat/completions', chat('few'));
    sleep 0.05;
    return $q->log >= 10;
}, 5);
is(scalar(() = $q->log), 10, '... slots of killed workers are free');
$_->abort for @s;

$gw->finish;

done_testing();

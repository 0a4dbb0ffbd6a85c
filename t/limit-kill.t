#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Workers that are killed with requests under way: what has ended is charged
# as the provider says, what was interrupted once with what it held, nothing
# stays held, and the memory is consistent.  AI_LONG=1: 200 kills, not 10.

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
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();
plan skip_all => 'a checker does not see processes that are killed'
    if $ENV{TEST_AI_VALGRIND};

my $p = provider();
my $url = $p->url;

# the answer is shorter than what is held, so nothing is topped up

my $gw = gateway(<<"END", workers => 4, server => <<'END2',
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model s { target p/n:5+pace:50+usage:10.20; price in=1 out=1; }
    ai_model w { target p/wait:200+usage:10.20; price in=1 out=1; }

    ai_limit_zone all zone=rate tokens=9g/day concurrent=1000;
    ai_quota_zone all zone=day requests=1g/day tokens=9g/day usd=1000/day
                  snapshot=%%DIR%%/day;
END
    location /v1/ { ai_limit rate; ai_quota day overrun=cut; ai_pass model; }
    location = /limits { ai_limit_view write; }
END2
    main => 'worker_shutdown_timeout 30s;');

my $n = 0;

sub zone {
    my ($name) = @_;
    my $r = $gw->client->get("/limits?zone=$name&check=1");
    return $r->json->{zones}[0];
}

sub start {
    my ($count) = @_;

    return map {
        my $model = ++$n % 3 ? 's' : 'w';
        $gw->client
           ->open("/v1/chat/completions?$n",
                  chat($model, stream => $model eq 's', max_tokens => 20));
    } 1 .. $count;
}

sub idle {
    my ($name) = @_;
    return $gw->wait_for(sub { zone($name)->{holds} == 0 }, 8);
}

# what each holds: input is estimated

my ($one) = start(1);
ok($gw->wait_for(sub { zone('day')->{holds} == 1 }), 'one is running');
my $held = zone('day')->{entries}[0]{tokens}{held};
cmp_ok($held, '>', 22, 'a request holds its input and 20 of output');
$one->finish;
ok(idle('day'), '... until its end');
is(zone('day')->{entries}[0]{tokens}{used}, 30, '... then its use is charged');

my $kills = $ENV{AI_LONG} ? 200 : 10;
my ($finished, $broken, $bad) = (1, 0, 0);

$gw->allow(qr/worker process \d+ exited on signal 9/);

for my $i (1 .. $kills) {
    my @s = start(24);

    sleep rand 0.25;

    my @w = $gw->workers;
    kill 'KILL', $w[rand @w];

    # new ones come while some of the old still run
    push @s, start(8);

    for my $s (@s) {
        $s->finish;
        my $done = $s->{status} == 200
                   && ($s->{body} =~ /\[DONE\]/ || $s->{body} =~ /"usage"/);
        $done ? $finished++ : $broken++;
        $bad++ if $s->{status} && $s->{status} != 200;
    }

    if ($i % 5 == 0) {
        my $z = zone('day');
        ok($z->{consistent}, "after $i kills: consistent");
    }

    $gw->wait_for(sub { $gw->workers == 4 });
}

is($bad, 0, 'no request was refused');
cmp_ok($broken, '>', 0, 'some were interrupted');
note("$finished finished, $broken interrupted");

for my $name ('rate', 'day') {
    ok(idle($name), "$name: nothing is held");
    my $z = zone($name);
    ok($z->{consistent}, "$name: consistent");
    is($z->{settled} + $z->{expired}, $z->{reserved},
       "$name: each reservation was settled or charged, once");
    cmp_ok($z->{settled}, '>=', $finished, "$name: all that have ended");
    cmp_ok($z->{expired}, '<=', $broken, "$name: only what was interrupted");
}

my $z = zone('day');
my $e = $z->{entries}[0];

is($e->{tokens}{used}, 30 * $z->{settled} + $held * $z->{expired},
   'tokens: exact');
is($e->{requests}{used}, $z->{reserved}, 'requests: exact');
is(sprintf('%.6f', $e->{usd}{used}),
   sprintf('%.6f', $e->{tokens}{used} / 1e6), 'money: exact');
is($e->{$_}{held}, 0, "$_: nothing is held") for qw(tokens requests usd);
is(zone('rate')->{entries}[0]{concurrent}{held}, 0, 'no slot is held');
ok($gw->wait_log(qr/charged \d+ reservations in zone "day"/),
   'the log tells it');

# reloads: what runs in old workers is theirs to settle

my $before = $e->{tokens}{used};
my @s = start(24);
ok($gw->reload(wait_old => 0), 'reload');
push @s, start(24);
$gw->reload(wait_old => 0);
push @s, start(24);
$_->finish for @s;
is(scalar(grep { $_->{status} == 200 } @s), 72, '... all are answered');
ok(idle('day'), '... nothing is held');
is(zone('day')->{entries}[0]{tokens}{used}, $before + 72 * 30, '... exact');
is(zone('day')->{expired}, $z->{expired}, '... none was charged otherwise');

# TERM: workers do not wait; what they had is charged and in the file

@s = start(10);
ok($gw->wait_for(sub { zone('day')->{holds} == 10 }), 'ten are running');
$gw->stop(signal => 'TERM');
$_->finish for @s;
$gw->start;
is(zone('day')->{entries}[0]{tokens}{used}, $before + 72 * 30 + 10 * $held,
   'TERM: what was interrupted is charged');

ok($gw->finish, 'clean');

done_testing();

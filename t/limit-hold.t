#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# A fast stream under overrun=cut whose next grant is on its way from Redis is
# held, its provider is not read, until the grant has come or is late.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Redis;

my $missing = AI::Gateway::missing() // AI::Redis::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;
my $redis = AI::Redis->new;
$redis->start;
my $slow = $redis->proxy;
my $port = $slow->{port};

my $gw = gateway(<<"END", workers => 2, server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; abort drain time=5s; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_model long   { target p/n:3000; }
    ai_model paced  { target p/n:3000+pace:2; }
    ai_model claude { target a/n:3000; }

    ai_redis main { server 127.0.0.1:$port; timeout 600ms; on_error deny; }

    ai_quota_zone \$http_x_key zone=large tokens=20k/month redis=main;
    ai_quota_zone \$http_x_key zone=small tokens=1k/month redis=main;
END
    location /large/  { ai_quota large overrun=cut; ai_pass model; }
    location /small/  { ai_quota small overrun=cut; ai_pass model; }
    location = /redis { return 200 $ai_redis_main; }
    location = /limits { ai_limit_view; }
END2

sub up {
    $gw->wait_for(sub {
        $gw->client->get('/redis')->{body} eq 'up'
    }, 10);
}

my $n = 0;

sub ask {
    my ($where, $model, $who, %opt) = @_;
    my $end = $opt{end} // 'chat/completions';
    my $path = "/$where/v1/$end?" . ++$n;
    my $start = time();
    my $s = $gw->client(timeout => 20)->open($path,
                chat($model, stream => 1, max_tokens => 8000),
                headers => [ 'X-Key' => $who ]);
    $s->finish;

    return ($s, settled($gw, $path), time() - $start);
}

my $text = join(' ', map { "w$_" } 1 .. 3000);

up();

# whatever the delay, all of it is delivered, as it is

for my $delay (0, 0.05, 0.2) {
    $slow->delay($delay);

    for my $case ([ 'long' ], [ 'claude' ], [ 'claude', end => 'messages' ],
                  [ 'long', end => 'messages' ])
    {
        my ($model, %opt) = @$case;
        my $name = "$model, " . ($opt{end} // 'chat') . ", delay $delay";
        my ($s, $log, $took) = ask('large', $model, $name, %opt);

        is($s->{status}, 200, $name);
        ok($s->text eq $text, '... all of the text')
            or diag(length($s->text), ' of ', length $text);
        is($log->{finish_reason}, 'stop', '... was not cut');
        cmp_ok($took, '<', 15, '... in time');
    }
}

# exhausted: it ends with the last token, and not before

for my $delay (0, 0.2) {
    $slow->delay($delay);

    my ($s, $log) = ask('small', 'long', "small $delay");
    is($log->{finish_reason}, 'length', "exhausted, delay $delay: cut");
    my $e;
    $gw->wait_for(sub {
        $e = $gw->client->get("/limits?zone=small&key=small%20$delay")
                ->json->{zones}[0]{entries}[0];
        return $e && $e->{holds} == 0;
    }, 5);
    cmp_ok($e->{tokens}{used}, '<=', 1000, '... no more than there is');
    cmp_ok($e->{tokens}{used}, '>', 930, '... and nearly all of it');
}

# a client that leaves while its stream is held

$slow->delay(0.3);
my $gone = $gw->client->open('/large/v1/chat/completions',
                             chat('long', stream => 1, max_tokens => 8000),
                             headers => [ 'X-Key' => 'gone' ]);
sleep 0.5;
$gone->abort;
$slow->delay(0);
ok($gw->wait_for(sub {
    my $e = $gw->client->get('/limits?zone=large&key=gone')
               ->json->{zones}[0]{entries}[0];
    return $e && $e->{holds} == 0;
}, 8), 'a client that leaves: nothing is held');

# late: what is there is delivered, then it ends

up();

my $path = '/large/v1/chat/completions?late';
my $s = $gw->client(timeout => 20)->open($path,
            chat('paced', stream => 1, max_tokens => 8000),
            headers => [ 'X-Key' => 'late' ]);
$s->event for 1 .. 50;
$slow->delay(5);

my $start = time();
$s->finish;
my $took = time() - $start;
my $log = settled($gw, $path);

is($log->{finish_reason}, 'length', 'Redis is late: it ends properly');
cmp_ok($took, '<', 4, '... without a wait for it');
ok(index($text, $s->text) == 0, '... the beginning of the text');
$slow->delay(0);

ok(idle_again($gw), 'no connection is left');
ok($gw->finish, 'clean');

done_testing();
